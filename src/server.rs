//! The accept loop: limits on what a connection may cost before it says anything, detection of dead
//! and stalled peers, and the orderly end. axum's own loop has no header timeout, and would wait for
//! ever on an open stream.

mod socket;
mod stream;

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};
use tracing::{debug, error};

use self::socket::{LONGEST_HEAD, Socket};
use crate::backlog::Backlog;
use crate::config::Limits;
use crate::metrics::Held;
use crate::release::{Release, StreamBody};

/// A peer that acknowledges nothing for this long is dead, as the kernel sees it.
const DEAD_PEER: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What an HTTP/2 stream may have under way; more would only hide that a client does not read.
const SEND_BUFFER: usize = 8 << 10;
/// Connections beyond the streams: sends, health checks, and streams that are refused.
const SPARE_CONNECTIONS: usize = 128;

/// Connections that wait to be accepted. All clients of an instance that has gone come at once, and
/// whom the kernel turns away tries again after a second. It allows `net.core.somaxconn`, mostly 4096.
const BACKLOG: u32 = 65_535;

/// Listens on `address`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until told to stop, then waits for them to end.
pub struct Server {
    router: Router,
    http1: http1::Builder,
    http1_or_2: auto::Builder<TokioExecutor>,
    tasks: TaskTracker,
    header_timeout: Duration,
    stalled_after: Duration,
    long_heads: Arc<Semaphore>,
    max_connections: usize,
    gauge: Gauge,
}

impl Server {
    /// A server for `router` with up to `max_streams` streams.
    pub fn new(router: Router, max_streams: usize, limits: &Limits, gauge: Gauge) -> Server {
        let Limits { header_timeout, stalled_after, .. } = *limits;
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_header_size(LONGEST_HEAD)
            .max_buf_size(LONGEST_HEAD);
        let mut http1_or_2 = auto::Builder::new(TokioExecutor::new());
        http1_or_2
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(LONGEST_HEAD);
        http1_or_2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .max_header_list_size(LONGEST_HEAD as u32)
            .max_send_buf_size(SEND_BUFFER);
        Server {
            router,
            http1,
            http1_or_2,
            tasks: TaskTracker::new(),
            header_timeout,
            stalled_after,
            long_heads: socket::long_heads(),
            max_connections: max_streams.saturating_add(SPARE_CONNECTIONS),
            gauge,
        }
    }

    /// Serves until `closing`; then takes no more connections, asks the open ones to end (HTTP/2 is
    /// sent GOAWAY), and returns when the last has ended.
    pub async fn run(self, listener: TcpListener, closing: CancellationToken) {
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closing.cancelled() => break,
            };
            match accepted {
                // Over the limit there is not even room to say so.
                Ok(_) if server.tasks.len() >= server.max_connections => {}
                Ok((socket, _)) => {
                    let connection = server.clone().serve(socket, closing.clone());
                    server.tasks.spawn(connection);
                }
                Err(error) => {
                    // Out of descriptors, mostly: without a pause this would be a busy loop.
                    error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        server.tasks.close();
        server.tasks.wait().await;
    }

    async fn serve(self: Arc<Server>, socket: TcpStream, closing: CancellationToken) {
        let counted = Held::new(&self.gauge, 1);
        if let Err(error) = prepare(&socket) {
            debug!(%error, "a connection ended before it began");
            return;
        }
        // hyper's header timeout starts with the first byte.
        let mut first = [0; 2];
        let silent = tokio::select! {
            peeked = timeout(self.header_timeout, socket.peek(&mut first)) => !matches!(peeked, Ok(Ok(1..))),
            () = closing.cancelled() => true,
        };
        if silent {
            return;
        }
        let socket = Socket::new(socket, self.stalled_after, &self.long_heads);
        let ended = match first {
            // HTTP/2 begins with PRI. All else is spared the room for both, which an idle stream
            // would keep.
            [b'P', 0 | b'R'] => self.serve_http_2(socket, closing).await,
            _ => match self.serve_http_1(socket, closing).await {
                Ok(Some((socket, body))) => {
                    // A task of its own, which has no room for what came before.
                    self.tasks.spawn(async move {
                        let _counted = counted;
                        if let Err(error) = stream::serve(socket, body).await {
                            debug!(%error, "a stream broke");
                        }
                    });
                    return;
                }
                ended => ended.map(|_| ()).map_err(Into::into),
            },
        };
        if let Err(error) = ended {
            debug!(error, "a connection broke");
        }
    }

    /// Serves HTTP/1.1 to its end, or until a stream gets the socket to itself.
    async fn serve_http_1(
        &self,
        mut socket: Socket,
        closing: CancellationToken,
    ) -> hyper::Result<Option<(Socket, StreamBody)>> {
        let release = Release::default();
        socket.release_with(release.clone());
        let (backlog, of_requests) = (socket.backlog(), release.clone());
        let service = self.service(backlog, move |request| {
            // What speaks 1.0 does not know chunks.
            if request.version() == Version::HTTP_11 {
                request.extensions_mut().insert(of_requests.clone());
            }
        });
        let mut connection = self.http1.serve_connection(TokioIo::new(socket), service);
        let released = |connection: &mut http1::Connection<_, _>, cx: &mut Context<'_>| {
            if let Poll::Ready(ended) = Pin::new(connection).poll(cx) {
                return Poll::Ready(ended.map(|()| None));
            }
            release.take().map_or(Poll::Pending, |body| Poll::Ready(Ok(Some(body))))
        };
        let body = tokio::select! {
            body = poll_fn(|cx| released(&mut connection, cx)) => body?,
            () = closing.cancelled() => {
                Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|cx| released(&mut connection, cx)).await?
            }
        };
        Ok(body.map(|body| (connection.into_parts().io.into_inner(), body)))
    }

    /// Serves HTTP/2, or what only began like it. No header timeout runs while it is not known which,
    /// nor on a connection that nothing is asked on.
    async fn serve_http_2(
        &self,
        socket: Socket,
        closing: CancellationToken,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let asked = CancellationToken::new();
        let first_request = asked.clone();
        let service = self.service(socket.backlog(), move |_| first_request.cancel());
        let io = TokioIo::new(socket);
        let mut connection = Box::pin(self.http1_or_2.serve_connection(io, service));
        let unasked = async {
            if timeout(self.header_timeout, asked.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = drive(connection.as_mut(), closing) => ended,
            () = unasked => Err("nothing was asked in time".into()),
        }
    }

    fn service<F: Fn(&mut Request<Incoming>) + Clone>(
        &self,
        backlog: Backlog,
        sees: F,
    ) -> TowerToHyperService<impl Handler + use<F>> {
        TowerToHyperService::new(self.router.clone().map_request(
            move |mut request: Request<Incoming>| {
                sees(&mut request);
                // Over HTTP/2 many streams share the socket, and each has a window of its own.
                if request.version() != Version::HTTP_2 {
                    request.extensions_mut().insert(backlog.clone());
                }
                request
            },
        ))
    }
}

/// What hyper asks for an answer.
trait Handler:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone
{
}

impl<S> Handler for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone
{
}

/// Runs a connection to its end, and asks it to end when the server closes.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    closing: CancellationToken,
) -> Result<(), C::Error> {
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DEAD_PEER))?;
    Ok(())
}
