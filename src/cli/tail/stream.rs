//! An answer's bytes as SSE frames, and the watch for a stream that died without a word.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::try_unfold;
use reqwest::Response;
use sse_stream::{Error, Sse, SseByteStream};
use tokio::time::timeout;

/// The frames of one stream. It fails once no byte came for `silence`, which may change while it
/// runs. Bytes are watched, not frames: a large frame on a slow line is not silence.
pub(super) fn frames(
    response: Response,
    silence: &Cell<Duration>,
) -> impl Stream<Item = Result<Sse, Error>> {
    SseByteStream::new(try_unfold(response, async |mut response| {
        let allowed = silence.get();
        match timeout(allowed, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk.map(|bytes| (bytes, response))),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other(format!("nothing came for {} s", allowed.as_secs()))),
        }
    }))
}

/// What `tail` relies on in the decoder: WHATWG HTML, 9.2.6.
#[cfg(test)]
mod tests {
    use futures_util::stream::{StreamExt, iter};

    use super::*;

    /// The same frames must come out however the bytes are cut.
    async fn decoded(text: &str) -> Vec<Sse> {
        let whole = decoded_in(text.as_bytes().chunks(text.len().max(1))).await;
        for size in 1..8 {
            assert_eq!(decoded_in(text.as_bytes().chunks(size)).await, whole, "{text:?} by {size}");
        }
        whole
    }

    async fn decoded_in(chunks: impl Iterator<Item = &[u8]>) -> Vec<Sse> {
        let bytes = iter(chunks.map(Ok::<_, io::Error>));
        SseByteStream::new(bytes).map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn every_line_end_counts_and_a_byte_order_mark_does_not() {
        let expected = [Sse::default().id("1").data("a"), Sse::default().event("e").data("b")];
        for end in ["\n", "\r\n", "\r"] {
            let text = "\u{feff}id: 1|data: a||:comment||event:e|data: b||".replace('|', end);
            // A last lone CR may yet be followed by LF; the blank line is complete all the same.
            assert_eq!(decoded(&text).await, expected, "{end:?}");
        }
    }

    #[tokio::test]
    async fn data_lines_are_joined_and_one_space_is_taken_off() {
        assert_eq!(decoded("data:  a\ndata\ndata:b\n\n").await, [Sse::default().data(" a\n\nb")]);
        assert_eq!(decoded("data:\n\n").await, [Sse::default().data("")]);
    }

    #[tokio::test]
    async fn a_frame_cut_off_at_the_end_is_dropped() {
        let whole = [Sse::default().id("1").data("a")];
        for cut in ["", "id: 2", "id: 2\ndata: b", "id: 2\ndata: b\n"] {
            assert_eq!(decoded(&format!("id: 1\ndata: a\n\n{cut}")).await, whole);
        }
    }

    #[tokio::test]
    async fn frames_without_data_carry_their_id_and_retry() {
        let expected = [Sse::default().id("7"), Sse::default().retry(1500)];
        assert_eq!(decoded("id: 7\n\nretry: 1500\n\nretry: 1.5\n\n").await, expected);
    }
}
