//! The history of a run: every request, answer, frame and fault with its time, one JSON line each, in
//! a file that is only appended to. The checker and the report read nothing else, so a run that was
//! interrupted is judged by what it had written.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use wire::{Failure, Outcome};

/// The name of the file in a run's folder.
pub const FILE: &str = "history.jsonl";

/// How long an entry may wait in memory while little happens.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// One line: microseconds since the run began, and what happened then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry(pub u64, pub Event);

/// The number of a send; it is in the data of all its notifications.
pub type SendNumber = u64;

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first entry.
    Began {
        /// Of the plan.
        seed: u64,
        /// Servers on the one database.
        instances: usize,
        /// What was asked for, in seconds.
        seconds: u64,
        /// The names of the faults asked for.
        faults: Vec<String>,
    },
    /// A subscriber, before it connects for the first time.
    Client {
        /// Its number.
        client: usize,
        /// Its app.
        app: String,
        /// Its user.
        user: String,
        /// The topics it asks for.
        topics: Vec<String>,
        /// It does nothing but come back when its stream ends; recovery is measured on such ones.
        steady: bool,
    },
    /// A send that will be tried at least once.
    Send {
        /// Its number.
        send: SendNumber,
        /// Who sends; one send at a time.
        sender: usize,
        /// The app.
        app: String,
        /// Over HTTP, or by SQL.
        by: Way,
        /// The idempotency key; such a send is repeated until it is answered.
        key: Option<String>,
        /// The event name of all its notifications.
        event: Option<String>,
        /// One row each, in order: the audience (`user:ada`, `topic:t`, `everyone`) and the data.
        rows: Vec<(String, String)>,
        /// Its notifications expire or may be replaced, so they need not be delivered.
        #[serde(default)]
        fleeting: bool,
    },
    /// The request of an attempt is about to be written.
    Attempt {
        /// Which send.
        send: SendNumber,
        /// From 1.
        attempt: u32,
        /// The instance's number, or `balancer`.
        to: String,
    },
    /// An attempt was answered.
    Answer {
        /// Which send.
        send: SendNumber,
        /// Which attempt.
        attempt: u32,
        /// 201 is an acknowledgement.
        status: u16,
        /// Of the rows, in order; empty if the answer names none.
        ids: Vec<Ulid>,
        /// The last word of the problem's type.
        problem: Option<String>,
    },
    /// An attempt ended without an answer: what became of it is not known.
    Broke {
        /// Which send.
        send: SendNumber,
        /// Which attempt.
        attempt: u32,
        /// What the socket said.
        how: String,
    },
    /// A subscriber sent its request and was answered with a stream.
    Open {
        /// Who.
        client: usize,
        /// How often it has connected, this time included.
        connection: u32,
        /// The instance's number, or `balancer`.
        to: String,
        /// The `Last-Event-ID` it sent.
        cursor: Option<Ulid>,
    },
    /// A whole frame was received.
    Frame {
        /// By whom.
        client: usize,
        /// On which connection.
        connection: u32,
        /// Its bytes with the empty line at its end.
        raw: String,
    },
    /// A connection ended, or could not be made.
    Close {
        /// Whose.
        client: usize,
        /// Which.
        connection: u32,
        /// Who ended it, and how.
        how: String,
    },
    /// A client will not come back: it need not have everything.
    Left {
        /// Who.
        client: usize,
    },
    /// A reader of the table by `id > cursor` found rows.
    Read {
        /// Which reader.
        reader: usize,
        /// In the order of the result.
        ids: Vec<Ulid>,
    },
    /// A fault is about to be injected.
    Inject {
        /// Its number in this run.
        fault: usize,
        /// Its name.
        name: String,
        /// Requests without an answer yet.
        in_flight: usize,
    },
    /// The fault was seen to have taken effect.
    Effect {
        /// Which.
        fault: usize,
        /// What was seen.
        observed: String,
        /// Connections that it broke or stopped.
        connections: usize,
    },
    /// The fault did not take effect, and does not count.
    NoEffect {
        /// Which.
        fault: usize,
        /// What was seen instead.
        why: String,
    },
    /// What the fault took away is back; the markers were sent from here on.
    Healed {
        /// Which.
        fault: usize,
    },
    /// Every steady client has the markers, and so everything before them.
    Recovered {
        /// Which.
        fault: usize,
        /// Since it was healed.
        micros: u64,
    },
    /// Not within the deadline.
    NotRecovered {
        /// Which.
        fault: usize,
        /// Who lacks the markers.
        missing: Vec<usize>,
    },
    /// There is a copy of the database. What it does not have will be lost.
    Copied {
        /// It has everything that was known to anybody before (µs since the run began).
        complete: u64,
    },
    /// The database went back to the copy; noted before anybody could append to it.
    WentBack {
        /// When what went on after the copy was gone (µs since the run began).
        gone: u64,
        /// The last row that was kept.
        kept: Ulid,
        /// Above every id that was lost, and below every one that is given from now on.
        until: Ulid,
    },
    /// A fault that this machine cannot make.
    Skipped {
        /// Its name.
        name: String,
        /// What is missing.
        why: String,
    },
    /// A row of the table when all was over.
    Stored {
        /// Its id.
        id: Ulid,
        /// Its app.
        app: String,
        /// `user:ada`, `topic:t`, `everyone`.
        audience: String,
        /// Its event name.
        event: Option<String>,
        /// Its data, as stored.
        data: String,
        /// Withdrawn, replaced or expired: it need not be delivered.
        gone: bool,
    },
    /// All rows were recorded, everything was healed, and nothing was sent any more.
    Settled {
        /// Clients that have received everything, by the final markers.
        complete: usize,
    },
}

/// How a send is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// `POST send/{app}/{user}`.
    User,
    /// `POST send/{app}`.
    To,
    /// `POST batch/{app}`.
    Batch,
    /// `select tidings.send(…)` and its like, in one transaction. Answered 201 without ids when the
    /// commit has returned, and 0 when it was rolled back.
    Sql,
}

/// Writes the history. Cheap to clone; whoever does something notes it.
#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    /// `None` ends the file.
    lines: mpsc::Sender<Option<Entry>>,
    writing: Arc<Mutex<Option<std::thread::JoinHandle<std::io::Result<()>>>>>,
}

impl Recorder {
    /// Begins a history in `folder`.
    pub fn create(folder: &Path) -> Outcome<Self> {
        let file = File::create_new(folder.join(FILE))
            .map_err(|error| format!("cannot create {FILE} in {}: {error}", folder.display()))?;
        let (lines, received) = mpsc::channel();
        let writing = std::thread::spawn(move || write(&received, BufWriter::new(file)));
        Ok(Self { began: Instant::now(), lines, writing: Arc::new(Mutex::new(Some(writing))) })
    }

    /// Notes what has just happened, or is about to; returns when, in microseconds.
    pub fn note(&self, event: Event) -> u64 {
        let at = self.now();
        // The writer ends only on a write error, which `finish` tells.
        let _ = self.lines.send(Some(Entry(at, event)));
        at
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Ends the history: what other clones note from here on is not in it.
    pub fn finish(self) -> Outcome<()> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.lines.send(None);
        let Some(writing) = writing else { return Ok(()) };
        let written = writing.join().map_err(|_| "the writer of the history panicked")?;
        written.map_err(|error| format!("the history could not be written: {error}").into())
    }
}

fn write(lines: &mpsc::Receiver<Option<Entry>>, mut file: BufWriter<File>) -> std::io::Result<()> {
    loop {
        match lines.recv_timeout(FLUSH_EVERY) {
            Ok(Some(entry)) => {
                serde_json::to_writer(&mut file, &entry)?;
                file.write_all(b"\n")?;
            }
            Err(RecvTimeoutError::Timeout) => file.flush()?,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
    }
}

/// Reads the history in `folder`, in the order of time. A last line that was cut off is left out.
pub fn read(folder: &Path) -> Outcome<Vec<Entry>> {
    let path = folder.join(FILE);
    let file =
        File::open(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut lines = BufReader::new(file).lines().enumerate().peekable();
    let mut entries = Vec::new();
    while let Some((number, line)) = lines.next() {
        match serde_json::from_str(&line?) {
            Ok(entry) => entries.push(entry),
            Err(_) if lines.peek().is_none() => break,
            Err(error) => {
                let number = number + 1;
                let what = format!("{} is damaged in line {number}: {error}", path.display());
                return Err(Failure::from(what));
            }
        }
    }
    // Noted by many tasks: two may have taken their times in one order and sent in the other.
    entries.sort_by_key(|Entry(at, _)| *at);
    Ok(entries)
}
