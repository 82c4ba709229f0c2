//! Cuts connections in the handover: it passes a stream on, frame by frame, until the next frame would
//! be `tidings.live`. Its client then has every replayed event and not yet live, and the server has
//! its connection reset.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::stream::Stream;

/// Delimited by its end, so that frames are passed on as they are.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// Listens until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cuts = Arc::new(AtomicUsize::new(0));
        let counter = cuts.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cuts = counter.clone();
                tokio::spawn(async move {
                    if let Ok(true) = pass(client, server).await {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(Self { address, cuts, task })
    }

    /// How many connections were cut right before live, after at least one replayed event.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) -> Outcome<bool> {
    let mut request = Vec::with_capacity(512);
    while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(false);
        }
    }
    let mut stream = Stream::open(server, &request).await?;
    client.write_all(HEAD).await?;
    let replayed = forward_until_live(&mut stream, &mut client).await?;
    stream.cut()?;
    // An orderly end towards the client: a reset could take replayed events from it unread.
    client.shutdown().await?;
    Ok(replayed > 0)
}

/// The number of notifications passed on; an error if the stream ended before live.
async fn forward_until_live(stream: &mut Stream, client: &mut TcpStream) -> Outcome<usize> {
    let mut replayed = 0;
    loop {
        while let Some(frame) = stream.next_frame() {
            if frame.event == b"tidings.live" {
                return Ok(replayed);
            }
            replayed += usize::from(!frame.event.starts_with(b"tidings."));
            client.write_all(frame.raw).await?;
        }
        if !stream.fill().await? {
            return Err("the stream ended before live".into());
        }
    }
}
