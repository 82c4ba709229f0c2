//! Live delivery beside something else: a few users with a stream each, sent to at a constant rate, so
//! that a storm on the same server is seen in what everybody else gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::latency::Times;
use crate::sender::{Envelope, Paced};
use crate::stats::Samples;
use crate::subscriber::{self, Subscriber};
use crate::target::Target;
use crate::{Outcome, random_name, users};

/// Streams that stay open meanwhile.
pub(crate) const USERS: usize = 16;
const CONNECTIONS: usize = 32;

/// Sends that are under way, and what became of them.
pub(crate) struct Live {
    times: Arc<Times>,
    subscribers: Vec<Subscriber>,
    sends: JoinHandle<Outcome<()>>,
}

impl Live {
    /// Sends `rate` a second for as long as `lasts`.
    pub(crate) async fn start(target: &Target, rate: u32, lasts: Duration) -> Outcome<Self> {
        let (app, users) = (random_name("live"), users(USERS));
        let count = u64::from(rate) * lasts.as_secs();
        let times = Arc::new(Times::new(usize::try_from(count)?, 0, USERS));
        let sink = times.clone();
        let parsed = Arc::new(move |number| sink.parsed(number));
        let subscribers = subscriber::open_all(target.address, &app, &users, &parsed).await?;
        let envelopes = users.iter().map(|user| Envelope::new(target.address, &app, user));
        let envelopes: Arc<[Envelope]> = envelopes.collect();
        let paced = Paced { rate, count, connections: CONNECTIONS };
        let (address, watch) = (target.address, times.clone());
        let sends = tokio::spawn(async move { paced.run(address, envelopes, watch).await });
        Ok(Self { times, subscribers, sends })
    }

    /// From written to parsed, of what was written in this time. Asked when all of it has arrived.
    pub(crate) fn delivery(&self, from: Instant, to: Instant) -> Samples {
        self.times.delivery(from, to)
    }

    /// Waits for the rest, and compares every stream with what its senders were promised.
    pub(crate) async fn finish(&mut self) -> Outcome<()> {
        (&mut self.sends).await??;
        let promised = self.times.promised();
        subscriber::verify(&self.subscribers, |user| &promised[user]).await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.sends.abort();
    }
}
