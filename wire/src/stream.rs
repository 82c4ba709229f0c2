//! One subscription: a GET whose body is read as events. Idle streams hold no read buffer, since
//! ten thousand of them are measured at once.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::{self, Framing};
use crate::sse::{Decoder, Frame};
use crate::{Outcome, timely};

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// An open event stream.
pub struct Stream {
    socket: TcpStream,
    framing: Framing,
    decoder: Decoder,
    complete: bool,
}

impl Stream {
    /// Sends the request and reads the answer's head; anything but an event stream is an error.
    pub async fn open(address: SocketAddr, request: &[u8]) -> Outcome<Self> {
        timely("opening a stream", Self::start(TcpStream::connect(address).await?, request)).await
    }

    /// The same from a source address of its own: one address has fewer than 30,000 ports.
    pub async fn open_from(source: IpAddr, address: SocketAddr, request: &[u8]) -> Outcome<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        timely("opening a stream", Self::start(socket.connect(address).await?, request)).await
    }

    async fn start(mut socket: TcpStream, request: &[u8]) -> Outcome<Self> {
        socket.write_all(request).await?;
        Self::resume(socket, Vec::with_capacity(1024)).await
    }

    /// A stream that was asked for, of which this much was read.
    pub async fn resume(mut socket: TcpStream, mut raw: Vec<u8>) -> Outcome<Self> {
        let (head, length) = http::read_head(&mut socket, &mut raw).await?;
        if head.status != 200 || !head.event_stream {
            let body = String::from_utf8_lossy(&raw[length..]);
            return Err(
                format!("a subscription was answered {}: {}", head.status, body.trim()).into()
            );
        }
        let mut stream =
            Self { socket, framing: head.framing, decoder: Decoder::default(), complete: false };
        stream.complete = stream.framing.decode(&raw[length..], stream.decoder.room())?;
        Ok(stream)
    }

    /// A frame that is already here.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        self.decoder.next_frame()
    }

    /// Waits for more bytes; false at the end of the stream. One system call per wake-up:
    /// `poll_read` knows that a short read has emptied the socket.
    pub async fn fill(&mut self) -> Outcome<bool> {
        if self.complete {
            return Ok(false);
        }
        let Self { socket, framing, decoder, complete } = self;
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *socket).poll_read(context, &mut buffer))?;
                if buffer.filled().is_empty() {
                    framing.check_end()?;
                    *complete = true;
                    return Ok(false).into();
                }
                *complete = framing.decode(buffer.filled(), decoder.room())?;
                Ok(true).into()
            })
        })
        .await
    }

    /// Cuts the connection as a dead network would: RST, and whatever is under way is lost.
    pub fn cut(self) -> Outcome<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
        Ok(())
    }
}
