//! One client of `cuts`: it is cut in a planned phase of its connection, stays away while more is
//! sent, and comes back with the last id it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use ulid::Ulid;

use crate::Outcome;
use crate::follower::{Follower, Kind};
use crate::stream::Stream;
use crate::subscriber::SILENCE;
use crate::target::subscribe_head;

const GRACE: Duration = Duration::from_millis(500); // for a notification too many, at the end
const LOOK: Duration = Duration::from_millis(10); // at how much was sent meanwhile
const ATTEMPTS: usize = 100; // then the server ends streams faster than they can be cut

/// Where in a connection's life it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Right after the ready frame.
    Ready,
    /// Between two replayed notifications.
    Replay,
    /// After the last replayed notification, before `tidings.live`.
    Handover,
    Live,
}

pub(crate) const PHASES: [Phase; 4] = [Phase::Ready, Phase::Replay, Phase::Handover, Phase::Live];

/// What all clients share.
pub(crate) struct Scene {
    pub(crate) server: SocketAddr,
    /// Cuts in the handover.
    pub(crate) proxy: SocketAddr,
    pub(crate) app: String,
    /// How many notifications each user gets in all.
    pub(crate) per_user: usize,
    pub(crate) cuts: usize,
    pub(crate) clients: usize,
    /// Sending starts when everyone is live.
    pub(crate) everyone_live: Barrier,
    /// Cuts that happened, by phase.
    pub(crate) counts: [AtomicUsize; 4],
    /// Streams that ended without being cut, which is allowed, but worth knowing.
    pub(crate) ended_by_server: AtomicUsize,
}

pub(crate) struct Client {
    pub(crate) scene: Arc<Scene>,
    pub(crate) number: usize,
    pub(crate) user: String,
    /// How many sends to this user have been answered.
    pub(crate) sent: Arc<AtomicUsize>,
    pub(crate) follower: Follower,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Wanted,
    Closed,
    Silent,
}

impl Client {
    /// Returns every id received, in order.
    pub(crate) async fn run(mut self) -> Outcome<Vec<Ulid>> {
        let mut stream = self.connect(self.scene.server).await?;
        let live = self.read(&mut stream, |follower| follower.session.live).await?;
        if live != Ended::Wanted {
            return Err(format!("{} did not become live: {live:?}", self.user).into());
        }
        self.scene.everyone_live.wait().await;
        let first = self.milestone(1);
        self.read(&mut stream, |follower| follower.ids.len() >= first).await?;
        self.cut(stream, Phase::Live)?;
        for cut in 1..self.scene.cuts {
            self.stay_away(2 * cut).await;
            let phase = PHASES[(self.number + cut) % PHASES.len()];
            self.connect_and_cut(phase, 2 * cut + 1).await?;
        }
        self.stay_away(2 * self.scene.cuts).await;
        self.finish().await?;
        Ok(self.follower.ids)
    }

    /// How many of this user's notifications have come by at step `step`: the steps, connected and
    /// away in turn, divide the whole. Clients are shifted, or all would be cut at once.
    fn milestone(&self, step: usize) -> usize {
        let scene = &self.scene;
        let shifted = step * scene.clients + scene.clients * self.number / (2 * scene.clients);
        (scene.per_user * shifted / ((2 * scene.cuts + 1) * scene.clients)).max(1)
    }

    /// Time passes until enough was sent; at least one notification that this client has not got,
    /// or there would be nothing to replay.
    async fn stay_away(&self, step: usize) {
        let enough = self.milestone(step).max(self.follower.ids.len() + 2).min(self.scene.per_user);
        while self.sent.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn connect_and_cut(&mut self, phase: Phase, step: usize) -> Outcome<()> {
        let milestone = self.milestone(step);
        for _ in 0..ATTEMPTS {
            let waiting = self.sent.load(Ordering::Relaxed).saturating_sub(self.follower.ids.len());
            let some = fastrand::usize(1..=waiting.saturating_sub(1).max(1));
            let proxied = phase == Phase::Handover;
            let address = if proxied { self.scene.proxy } else { self.scene.server };
            let mut stream = self.connect(address).await?;
            let ended = self
                .read(&mut stream, |Follower { ids, session, .. }| match phase {
                    Phase::Ready => session.ready,
                    Phase::Replay => session.live || session.replayed >= some,
                    Phase::Handover => false,
                    Phase::Live => session.live && ids.len() >= milestone,
                })
                .await?;
            // The proxy counts its cuts itself: it knows that live was the next frame.
            if proxied && ended == Ended::Closed {
                return Ok(());
            }
            if ended == Ended::Wanted || (ended == Ended::Silent && self.follower.session.live) {
                return self.cut(stream, self.phase());
            }
            self.scene.ended_by_server.fetch_add(1, Ordering::Relaxed);
        }
        Err(format!("{}: no stream lasted until its cut in {phase:?}", self.user).into())
    }

    /// The phase the connection really is in, whatever was planned.
    fn phase(&self) -> Phase {
        let session = &self.follower.session;
        match (session.live, session.replayed) {
            (true, _) => Phase::Live,
            (false, 0) => Phase::Ready,
            (false, _) => Phase::Replay,
        }
    }

    fn cut(&self, stream: Stream, phase: Phase) -> Outcome<()> {
        self.scene.counts[phase as usize].fetch_add(1, Ordering::Relaxed);
        stream.cut()
    }

    /// The last connection: everything must have come, and then nothing more.
    async fn finish(&mut self) -> Outcome<()> {
        for _ in 0..ATTEMPTS {
            let mut stream = self.connect(self.scene.server).await?;
            let all = self.scene.per_user;
            let complete = |follower: &Follower| follower.session.live && follower.ids.len() >= all;
            if self.read(&mut stream, complete).await? != Ended::Closed {
                let more = self.read(&mut stream, |_| false);
                return tokio::time::timeout(GRACE, more)
                    .await
                    .map_or(Ok(()), |ended| ended.map(drop));
            }
            self.scene.ended_by_server.fetch_add(1, Ordering::Relaxed);
        }
        Err(format!("{}: no stream lasted until the end", self.user).into())
    }

    async fn connect(&mut self, address: SocketAddr) -> Outcome<Stream> {
        let Self { scene, user, follower, .. } = self;
        follower.reconnect();
        // The server's name also through the proxy: it passes the request on as it is.
        let request = subscribe_head(scene.server, &scene.app, user, follower.cursor);
        Stream::open(address, request.as_bytes()).await
    }

    /// Takes one frame after the other until `wanted`; frames behind that are left unread, as a cut
    /// leaves them.
    async fn read(
        &mut self,
        stream: &mut Stream,
        wanted: impl Fn(&Follower) -> bool,
    ) -> Outcome<Ended> {
        let mut quiet_until = tokio::time::Instant::now() + SILENCE;
        loop {
            while let Some(frame) = stream.next_frame() {
                let kind = self.follower.take(&frame).map_err(|error| self.named(&error))?;
                if wanted(&self.follower) {
                    return Ok(Ended::Wanted);
                }
                if kind != Kind::Control {
                    quiet_until = tokio::time::Instant::now() + SILENCE;
                }
            }
            match tokio::time::timeout_at(quiet_until, stream.fill()).await {
                Err(_) => return Ok(Ended::Silent),
                Ok(filled) => {
                    if !filled? {
                        return Ok(Ended::Closed);
                    }
                }
            }
        }
    }

    fn named(&self, error: &crate::Failure) -> crate::Failure {
        format!("{}, client {}: {error}", self.user, self.number).into()
    }
}
