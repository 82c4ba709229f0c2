//! A TCP proxy that can hold a stream before a given text and cut connections with a reset.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Forwards every connection to one address.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Bytes from the server stop in front of the frame that has this text.
    hold_before: Option<String>,
    /// A stream reached that place, and this is what is held there.
    held: watch::Sender<Option<String>>,
    stop: CancellationToken,
    /// Stops the connections of now; replaced for those to come.
    connections: Mutex<CancellationToken>,
}

impl Proxy {
    /// A proxy that only forwards, until [`Proxy::cut`].
    pub async fn start(target: SocketAddr) -> Proxy {
        Proxy::holding(target, None).await
    }

    /// A proxy that holds each stream in front of the first frame with `text`.
    pub async fn hold_before(target: SocketAddr, text: &str) -> Proxy {
        Proxy::holding(target, Some(text.to_owned())).await
    }

    async fn holding(target: SocketAddr, hold_before: Option<String>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            target,
            hold_before,
            held: watch::Sender::default(),
            connections: Mutex::new(stop.child_token()),
            stop,
        });
        let accepting = shared.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = accepting.stop.cancelled() => return,
                    Ok((client, _)) = listener.accept() => {
                        tokio::spawn(accepting.clone().forward(client));
                    }
                }
            }
        });
        Proxy { address, shared }
    }

    /// Waits until a stream is held, and returns the frames that it is held in front of.
    pub async fn held(&self) -> String {
        let mut held = self.shared.held.subscribe();
        let text = tokio::time::timeout(super::DEADLINE, held.wait_for(Option::is_some))
            .await
            .expect("a stream is held in time")
            .expect("the sender is ours");
        text.clone().expect("waited for above")
    }

    /// Resets all connections; the next ones are forwarded again.
    pub fn cut_connections(&self) {
        let mut connections = self.shared.connections.lock().expect("nothing panics with it");
        connections.cancel();
        *connections = self.shared.stop.child_token();
    }

    /// Resets all connections and accepts no more.
    pub fn cut(self) {
        drop(self);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    async fn forward(self: Arc<Shared>, mut client: TcpStream) {
        let stop = self.connections.lock().expect("nothing panics with it").clone();
        let Ok(mut server) = TcpStream::connect(self.target).await else { return };
        for socket in [&client, &server] {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.is_ok() };
        let down = async {
            let mut pending = Vec::new();
            let mut holding = false;
            loop {
                if !matches!(from_server.read_buf(&mut pending).await, Ok(1..)) {
                    return;
                }
                if holding {
                    continue;
                }
                let end = match self.place_to_hold(&pending) {
                    Some(end) => {
                        holding = true;
                        end
                    }
                    None => self.place_to_wait(&pending),
                };
                if to_client.write_all(&pending[..end]).await.is_err() {
                    return;
                }
                pending.drain(..end);
                if holding {
                    self.held.send_replace(Some(String::from_utf8_lossy(&pending).into_owned()));
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = down => {}
            _ = up => {}
        }
    }

    /// The end of the last whole frame: half of one may be the beginning of the text.
    fn place_to_wait(&self, bytes: &[u8]) -> usize {
        if self.hold_before.is_none() {
            return bytes.len();
        }
        bytes
            .windows(4)
            .rposition(|four| four == b"\n\n\r\n" || four == b"\r\n\r\n")
            .map_or(0, |at| at + 4)
    }

    /// The end of the frame before the one with the text.
    fn place_to_hold(&self, bytes: &[u8]) -> Option<usize> {
        let text = self.hold_before.as_ref()?.as_bytes();
        let bytes = &bytes[..self.place_to_wait(bytes)];
        let at = bytes.windows(text.len()).position(|window| window == text)?;
        // Chunk framing: the frame before ends with "\n\n\r\n".
        let before = bytes[..at].windows(4).rposition(|four| four == b"\n\n\r\n");
        Some(before.map_or(0, |before| before + 4))
    }
}
