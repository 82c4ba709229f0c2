//! `tidings tail`: follows one user over any number of connections.
//!
//! The cursor is the last `id:` of any frame, whatever its name: a ping moves an idle cursor on, a
//! gap may move it back. Every connection after the first `ready` starts from it, so nothing is
//! missed and nothing comes twice.

mod control;
mod stream;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response};
use sse_stream::Sse;
use tokio::time::{sleep, timeout};

use self::control::Control;
use super::backoff::Backoff;
use super::client::{Client, refusal, root_cause};
use super::print::Printer;
use super::{Ending, Server, say};

/// How long a stream may be silent until `ready` has said how often it pings: as if every 10 s.
const FIRST_SILENCE: Duration = Duration::from_secs(25);

/// What two missed heartbeats may be late by.
const SLACK: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Notifications go to stdout, everything else to stderr. The program connects again by itself and
goes on where it was; it ends only with Ctrl-C, or when the server refuses the request.

Examples:
  tidings tail shop ada                                  what comes from now on
  tidings tail shop ada --after earliest                 everything that is kept, then what comes
  tidings tail shop ada --after 01JDAYQ5E0000000000000000A
  tidings tail shop ada --json | jq --unbuffered .data";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// App that the user belongs to
    app: String,
    /// User to follow
    user: String,
    /// Begin after this id; earliest begins with the oldest notification kept
    #[arg(long, value_name = "ID", value_parser = id_or_earliest)]
    after: Option<String>,
    /// Print one JSON object a line: id, event, data
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

fn id_or_earliest(text: &str) -> Result<String, String> {
    match text {
        "earliest" => Ok(text.to_owned()),
        _ => super::id(text).map_err(|why| format!("{why}, or earliest")),
    }
}

impl Tail {
    pub(super) async fn run(self) -> Result<(), Ending> {
        let client = Client::new(self.server.address()?)?;
        let printer = Printer::new(std::io::stdout().lock(), self.json);
        let mut follower = Follower::new(client, &self.app, &self.user, self.after, printer)?;
        tokio::select! {
            ended = follower.follow() => ended.map(|never| match never {}),
            _ = tokio::signal::ctrl_c() => Err(Ending::Interrupted),
        }
    }
}

/// Why one connection is over.
enum Break {
    /// Connect again.
    Lost(String),
    /// Give up.
    Final(Ending),
}

struct Follower<W> {
    client: Client,
    address: reqwest::Url,
    /// Where the person asked to begin. In the query, because a header cannot say `earliest`; and only
    /// until the stream has told a cursor.
    after: Option<String>,
    cursor: Option<HeaderValue>,
    backoff: Backoff,
    control: Control,
    printer: Printer<W>,
}

impl<W: Write> Follower<W> {
    fn new(
        client: Client,
        app: &str,
        user: &str,
        after: Option<String>,
        printer: Printer<W>,
    ) -> Result<Self, Ending> {
        let address = client.address("subscribe", app, user)?;
        let (backoff, control) = (Backoff::default(), Control::default());
        Ok(Self { client, address, after, cursor: None, backoff, control, printer })
    }

    async fn follow(&mut self) -> Result<Infallible, Ending> {
        loop {
            let lost = match self.one_stream().await {
                Ok(never) => match never {},
                Err(Break::Final(ending)) => return Err(ending),
                Err(Break::Lost(why)) => why,
            };
            let wait = self.backoff.next();
            say(format_args!("{lost}; connecting again in {:.1} s", wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    /// From connecting to the break: an open stream never ends well.
    async fn one_stream(&mut self) -> Result<Infallible, Break> {
        let response = self.open().await?;
        let silence = Cell::new(FIRST_SILENCE);
        let mut frames = pin!(stream::frames(response, &silence));
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| {
                Break::Lost(format!("the stream broke: {}", root_cause(&error)))
            })?;
            self.take(frame, &silence).map_err(Break::Final)?;
        }
        Err(Break::Lost("the server ended the stream".to_owned()))
    }

    async fn open(&self) -> Result<Response, Break> {
        let server = self.client.server();
        let answer = timeout(FIRST_SILENCE, self.request().send()).await;
        let response =
            answer.map_err(|_| Break::Lost(format!("{server} does not answer")))?.map_err(
                |error| Break::Lost(format!("cannot reach {server}: {}", root_cause(&error))),
            )?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(match timeout(FIRST_SILENCE, refusal(response)).await {
                Ok(Ending::Refused(why)) => Break::Final(Ending::Refused(why)),
                Ok(other) => Break::Lost(other.to_string()),
                Err(_) => Break::Lost(format!("{server} does not answer in full")),
            });
        }
        let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if !kind.starts_with(b"text/event-stream") {
            return Err(Break::Lost(format!("{server} did not answer with an event stream")));
        }
        Ok(response)
    }

    fn request(&self) -> RequestBuilder {
        let mut address = self.address.clone();
        if let (None, Some(after)) = (&self.cursor, &self.after) {
            address.query_pairs_mut().append_pair("last_event_id", after);
        }
        let request = self.client.get(address).header(ACCEPT, "text/event-stream");
        match &self.cursor {
            Some(cursor) => request.header("last-event-id", cursor),
            None => request,
        }
    }

    fn take(&mut self, frame: Sse, silence: &Cell<Duration>) -> Result<(), Ending> {
        if let Some(milliseconds) = frame.retry {
            self.backoff.ask(Duration::from_millis(milliseconds));
        }
        let id = frame.id.unwrap_or_default();
        let event = frame.event.filter(|name| !name.is_empty());
        if let Some(data) = &frame.data {
            match event.as_deref() {
                Some(name) if name.starts_with("tidings.") => self.heed(name, data, silence),
                event => {
                    self.printer.notification(&id, event, data)?;
                    self.printer.flush()?;
                }
            }
        }
        // An empty id means "forget the cursor" to a browser; it would lose everything here.
        if let (false, Ok(cursor)) = (id.is_empty(), HeaderValue::from_str(&id)) {
            self.cursor = Some(cursor);
        }
        Ok(())
    }

    fn heed(&mut self, name: &str, data: &str, silence: &Cell<Duration>) {
        if name == "tidings.ready" {
            self.backoff.succeeded();
            if let Some(heartbeat) = control::heartbeat(data) {
                silence.set(heartbeat.saturating_mul(2).saturating_add(SLACK));
            }
        }
        if let Some(words) = self.control.words(name, data) {
            say(words);
        }
    }
}

#[cfg(test)]
mod tests;
