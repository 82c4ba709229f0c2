//! Decodes Server-Sent Events (WHATWG HTML, 9.2) without copying: a frame borrows the bytes it was
//! received in. It shares nothing with the server, so that a mistake in one is seen by the other.

use std::borrow::Cow;
use std::ops::Range;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes received and not yet handed out.
#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
    started: bool,
}

/// One block of fields that ended with an empty line. Blocks of comments alone are skipped.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Empty when the frame names no event.
    pub event: &'a [u8],
    /// `None` when the frame has no id line.
    pub id: Option<&'a [u8]>,
    /// `None` when the frame has no data line; browsers never see such a frame.
    pub data: Option<Cow<'a, [u8]>>,
    /// How long to wait before coming back, in milliseconds.
    pub retry: Option<&'a [u8]>,
    /// The frame as received, with its closing empty line.
    pub raw: &'a [u8],
}

impl Decoder {
    /// Where received bytes go. What was handed out before is forgotten here, once per read.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        &mut self.bytes
    }

    /// The next whole frame. An unfinished one is parsed again when more bytes are there, which
    /// is rare: a server writes whole frames.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        if !self.started && self.bytes.len() >= BYTE_ORDER_MARK.len() {
            self.started = true;
            if self.bytes.starts_with(BYTE_ORDER_MARK) {
                self.taken = BYTE_ORDER_MARK.len();
            }
        }
        loop {
            let start = self.taken;
            let (block, length) = Block::parse(&self.bytes[start..])?;
            self.taken += length;
            if !block.is_empty() {
                return Some(block.frame(&self.bytes[start..start + length]));
            }
        }
    }
}

/// The places of a frame's fields within its bytes.
#[derive(Default)]
struct Block {
    event: Option<Range<usize>>,
    id: Option<Range<usize>>,
    data: Option<Range<usize>>,
    more_data: Vec<Range<usize>>,
    retry: Option<Range<usize>>,
}

impl Block {
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut block = Self::default();
        let mut start = 0;
        loop {
            let end = start + memchr::memchr2(b'\n', b'\r', &bytes[start..])?;
            // A CR at the very end may be half of a CRLF: it waits for the next byte.
            let next = match (bytes[end], bytes.get(end + 1)) {
                (b'\r', None) => return None,
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            if start == end {
                return Some((block, next));
            }
            block.field(bytes, start..end);
            start = next;
        }
    }

    fn field(&mut self, bytes: &[u8], line: Range<usize>) {
        let text = &bytes[line.clone()];
        let colon = memchr::memchr(b':', text).unwrap_or(text.len());
        let space = usize::from(text.get(colon + 1) == Some(&b' '));
        let value = (line.start + colon + 1 + space).min(line.end)..line.end;
        match &text[..colon] {
            b"data" if self.data.is_some() => self.more_data.push(value),
            b"data" => self.data = Some(value),
            b"id" if !bytes[value.clone()].contains(&0) => self.id = Some(value),
            b"event" => self.event = Some(value),
            b"retry" => self.retry = Some(value),
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        [&self.event, &self.id, &self.data, &self.retry].iter().all(|field| field.is_none())
    }

    fn frame(self, raw: &[u8]) -> Frame<'_> {
        let data = self.data.map(|first| {
            let mut data = Cow::Borrowed(&raw[first]);
            for line in self.more_data {
                data.to_mut().push(b'\n');
                data.to_mut().extend_from_slice(&raw[line]);
            }
            data
        });
        Frame {
            event: self.event.map_or(b"", |place| &raw[place]),
            id: self.id.map(|place| &raw[place]),
            data,
            retry: self.retry.map(|place| &raw[place]),
            raw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Event, id and data of every frame, as text.
    fn frames_of(decoder: &mut Decoder) -> Vec<(String, Option<String>, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame() {
            let data = frame.data.as_deref().map(text);
            frames.push((text(frame.event), frame.id.map(text), data));
        }
        frames
    }

    fn decode(bytes: &[u8]) -> Vec<(String, Option<String>, Option<String>)> {
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(bytes);
        frames_of(&mut decoder)
    }

    fn frame(event: &str, id: &str, data: &str) -> (String, Option<String>, Option<String>) {
        (event.to_owned(), Some(id.to_owned()), Some(data.to_owned()))
    }

    #[test]
    fn a_frame_has_its_event_id_and_data() {
        let bytes = b"id: 7\nevent: a\ndata: {\"x\":1}\n\nid:8\ndata:y\n\n";
        assert_eq!(decode(bytes), [frame("a", "7", "{\"x\":1}"), frame("", "8", "y")]);
    }

    #[test]
    fn every_line_end_of_the_standard_is_known() {
        let expected = [frame("a", "7", "x"), frame("", "8", "y")];
        assert_eq!(
            decode(b"event: a\r\nid: 7\r\ndata: x\r\n\r\nid: 8\r\ndata: y\r\n\r\n"),
            expected
        );
        assert_eq!(decode(b"event: a\rid: 7\rdata: x\r\rid: 8\rdata: y\r\r\n"), expected);
    }

    #[test]
    fn bytes_that_arrive_one_by_one_make_the_same_frames() {
        let bytes = b"\xef\xbb\xbfretry: 5\nid: 7\r\ndata: x\r\ndata: y\r\n\r\n: note\n\nid: 8\ndata: z\n\n";
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for byte in bytes {
            decoder.room().push(*byte);
            frames.extend(frames_of(&mut decoder));
        }
        assert_eq!(frames, [frame("", "7", "x\ny"), frame("", "8", "z")]);
    }

    #[test]
    fn comments_are_skipped_and_only_one_space_is_removed() {
        assert_eq!(decode(b": hello\n\n:\nid: 7\ndata:  x: y\n\n"), [frame("", "7", " x: y")]);
    }

    #[test]
    fn a_frame_without_data_is_told_from_one_with_empty_data() {
        let mut expected = [frame("", "7", ""), frame("", "8", "")];
        expected[0].2 = None;
        assert_eq!(decode(b"id: 7\n\nid: 8\ndata\n\n"), expected);
    }

    #[test]
    fn an_unfinished_frame_waits() {
        assert_eq!(decode(b"id: 7\ndata: x\n"), []);
    }

    #[test]
    fn raw_is_what_was_received() {
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(b"id: 7\ndata: x\n\nretry: 5\n\n");
        assert_eq!(decoder.next_frame().unwrap().raw, b"id: 7\ndata: x\n\n");
        assert_eq!(decoder.next_frame().unwrap().retry, Some(&b"5"[..]));
    }
}
