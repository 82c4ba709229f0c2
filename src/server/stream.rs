//! A stream that has its connection to itself: its frames as chunks (RFC 9112, 7.1), after a head that
//! hyper wrote.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::Socket;
use crate::release::StreamBody;

/// Writes what the body has until one of both ends. A client that does not read is ended by the
/// socket's write timeout.
pub(super) async fn serve(mut socket: Socket, mut body: StreamBody) -> io::Result<()> {
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            () = gone(&mut socket) => return Ok(()),
        };
        let Some(Ok(frame)) = frame else { break };
        if let Ok(bytes) = frame.into_data() {
            write_chunk(&mut socket, bytes).await?;
        }
    }
    socket.write_all(b"0\r\n\r\n").await?;
    socket.shutdown().await
}

async fn write_chunk(socket: &mut Socket, bytes: Bytes) -> io::Result<()> {
    // An empty chunk would be the end.
    if bytes.is_empty() {
        return Ok(());
    }
    let size = format!("{:x}\r\n", bytes.len());
    let mut chunk = Buf::chain(size.as_bytes(), bytes).chain(&b"\r\n"[..]);
    socket.write_all_buf(&mut chunk).await
}

/// Waits until the client ends its side. What it says before is no request that would be answered:
/// `connection: close` told it so.
async fn gone(socket: &mut Socket) {
    if let Ok(1..) = socket.read(&mut [0; 64]).await {
        std::future::pending().await
    }
}
