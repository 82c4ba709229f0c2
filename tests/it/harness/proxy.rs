//! A TCP proxy that can hold a stream before a given text and cut connections with a reset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
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
    /// A stream reached that place.
    held: Notify,
    stop: CancellationToken,
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
        let shared = Arc::new(Shared {
            target,
            hold_before,
            held: Notify::new(),
            stop: CancellationToken::new(),
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

    /// Waits until a stream is held.
    pub async fn held(&self) {
        tokio::time::timeout(super::DEADLINE, self.shared.held.notified())
            .await
            .expect("a stream is held in time");
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
                    None => pending.len(),
                };
                if to_client.write_all(&pending[..end]).await.is_err() {
                    return;
                }
                pending.drain(..end);
                if holding {
                    self.held.notify_one();
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = down => {}
            _ = up => {}
        }
    }

    /// The end of the frame before the one with the text. Frames reach us in whole chunks here.
    fn place_to_hold(&self, bytes: &[u8]) -> Option<usize> {
        let text = self.hold_before.as_ref()?.as_bytes();
        let at = bytes.windows(text.len()).position(|window| window == text)?;
        // Chunk framing: the frame before ends with "\n\n\r\n".
        let before = bytes[..at].windows(4).rposition(|four| four == b"\n\n\r\n");
        Some(before.map_or(0, |before| before + 4))
    }
}
