//! What a client of the contract remembers: its cursor and every id it got. It also checks what the
//! contract says of a single stream, so that each measurement is a test of it.

use ulid::Ulid;

use crate::Outcome;
use crate::payload;
use crate::sse::Frame;

/// One client over all its connections.
#[derive(Default)]
pub(crate) struct Follower {
    /// The last id of any frame that carried one.
    pub(crate) cursor: Option<Ulid>,
    /// Every notification, in the order received.
    pub(crate) ids: Vec<Ulid>,
    pub(crate) pings: usize,
    pub(crate) session: Session,
}

/// One connection of a client.
#[derive(Default)]
pub(crate) struct Session {
    began_after: Option<Ulid>,
    pub(crate) ready: bool,
    pub(crate) live: bool,
    pub(crate) replayed: usize,
    pub(crate) goodbye: Option<String>,
}

/// What a frame was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the number its sender put into it.
    Notification(u64),
    Control,
}

impl Follower {
    /// A new connection, opened with the cursor.
    pub(crate) fn reconnect(&mut self) {
        self.session = Session { began_after: self.cursor, ..Session::default() };
    }

    pub(crate) fn take(&mut self, frame: &Frame<'_>) -> Outcome<Kind> {
        let id = frame.id.map(id_of).transpose()?;
        let data = frame.data.as_deref();
        if id.is_some() && data.is_none() {
            return Err("a frame carries an id but no data".into());
        }
        self.cursor = id.or(self.cursor);
        let data = data.unwrap_or_default();
        match frame.event {
            b"tidings.ready" => self.ready(id)?,
            b"tidings.live" => self.live(data)?,
            b"tidings.ping" => self.pings += 1,
            b"tidings.gap" => return Err(format!("a gap: {}", text(data)).into()),
            b"tidings.goodbye" => self.session.goodbye = Some(text(data)),
            b"" => return self.notification(id, data),
            other => return Err(format!("an unexpected event: {}", text(other)).into()),
        }
        Ok(Kind::Control)
    }

    fn ready(&mut self, id: Option<Ulid>) -> Outcome<()> {
        let Session { began_after, ready, .. } = self.session;
        if ready || self.session.replayed > 0 || self.session.live {
            return Err("ready is not the first frame, or came twice".into());
        }
        if id.is_none() || began_after.is_some_and(|cursor| Some(cursor) != id) {
            return Err(format!("ready starts at {id:?}, not at the cursor {began_after:?}").into());
        }
        self.session.ready = true;
        Ok(())
    }

    fn live(&mut self, data: &[u8]) -> Outcome<()> {
        #[derive(serde::Deserialize)]
        struct Live {
            replayed: usize,
        }
        let Live { replayed } = serde_json::from_slice(data)?;
        if !self.session.ready || self.session.live || replayed != self.session.replayed {
            let got = self.session.replayed;
            return Err(format!("live says {replayed} replayed, got {got}; or came twice").into());
        }
        self.session.live = true;
        Ok(())
    }

    fn notification(&mut self, id: Option<Ulid>, data: &[u8]) -> Outcome<Kind> {
        let id = id.ok_or("a notification has no id")?;
        if !self.session.ready {
            return Err(format!("{id} came before ready").into());
        }
        let number = payload::number_of(data)
            .ok_or_else(|| format!("{id} has not the bytes that were sent: {}", text(data)))?;
        self.session.replayed += usize::from(!self.session.live);
        self.ids.push(id);
        Ok(Kind::Notification(number))
    }
}

fn id_of(bytes: &[u8]) -> Outcome<Ulid> {
    let text = str::from_utf8(bytes)?;
    Ulid::from_string(text).map_err(|_| format!("an id is not a ULID: {text}").into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Decoder;

    const START: &str = "01KB0000000000000000000000";
    const FIRST: &str = "01KB0000000000000000000001";

    fn follow(follower: &mut Follower, bytes: &str) -> Outcome<Kind> {
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(bytes.as_bytes());
        let mut last = Ok(Kind::Control);
        while let Some(frame) = decoder.next_frame() {
            last = Ok(follower.take(&frame)?);
        }
        last
    }

    fn ready(id: &str) -> String {
        format!("id: {id}\nevent: tidings.ready\nretry: 700\ndata: {{\"cursor\":\"{id}\"}}\n\n")
    }

    fn notification(id: &str) -> String {
        format!("id: {id}\ndata: {}\n\n", payload::data(7))
    }

    #[test]
    fn ids_cursor_and_replay_are_followed_over_a_reconnect() {
        let mut follower = Follower::default();
        follow(&mut follower, &ready(START)).unwrap();
        follow(&mut follower, "event: tidings.live\ndata: {\"replayed\":0}\n\n").unwrap();
        assert_eq!(follow(&mut follower, &notification(FIRST)).unwrap(), Kind::Notification(7));
        follower.reconnect();
        follow(&mut follower, &ready(FIRST)).unwrap();
        assert_eq!(follower.cursor.unwrap().to_string(), FIRST);
        assert_eq!((follower.ids.len(), follower.session.replayed), (1, 0));
    }

    #[test]
    fn a_stream_that_breaks_the_contract_is_an_error() {
        let live = "event: tidings.live\ndata: {\"replayed\":1}\n\n";
        let gap = "event: tidings.gap\ndata: {}\n\n".to_owned();
        let altered = notification(FIRST).replace('7', "7 ");
        for after_ready in [live.to_owned(), gap, altered, ready(START), format!("id: {FIRST}\n\n")]
        {
            let mut follower = Follower::default();
            follow(&mut follower, &ready(START)).unwrap();
            assert!(follow(&mut follower, &after_ready).is_err(), "{after_ready}");
        }
        assert!(follow(&mut Follower::default(), &notification(FIRST)).is_err());
    }

    #[test]
    fn ready_must_start_at_the_cursor() {
        let mut follower = Follower { cursor: Some(FIRST.parse().unwrap()), ..Follower::default() };
        follower.reconnect();
        assert!(follow(&mut follower, &ready(START)).is_err());
    }
}
