//! A group as the procedure takes it, in arrays, and what it answers, for each send.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::event_id::EventId;
use crate::notification::NewSend;

/// What became of one send.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Stored now; this is its first row, and the others follow without a hole.
    Stored(EventId),
    /// Its key was there already: this is what that request was answered.
    Known(Answered),
}

/// What a send with an `Idempotency-Key` was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Of the request that was answered.
    pub fingerprint: [u8; 32],
    /// `None`: it was a scheduled send.
    pub first: Option<EventId>,
    /// Rows, from the first one on.
    pub count: usize,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

/// The columns of a group's rows.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) apps: Vec<&'a str>,
    pub(super) audiences: Vec<String>,
    pub(super) events: Vec<Option<&'a str>>,
    pub(super) datas: Vec<&'a str>,
    pub(super) lifetimes: Vec<Option<i32>>,
    pub(super) replaces: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(group: &[&'a NewSend]) -> Columns<'a> {
        let mut columns = Columns::default();
        for n in group.iter().flat_map(|send| &send.notifications) {
            columns.apps.push(n.app.as_str());
            columns.audiences.push(n.audience.to_sql());
            columns.events.push(n.event.as_ref().map(|event| event.as_str()));
            columns.datas.push(n.data.as_str());
            columns.lifetimes.push(n.expires_in.map(|seconds| seconds as i32));
            columns.replaces.push(n.replaces.as_ref().map(|key| key.as_str()));
        }
        columns
    }
}

/// The keys of a group's sends, and which rows each covers, counted from 1.
#[derive(Default)]
pub(super) struct Keys<'a> {
    pub(super) sends: Vec<usize>,
    pub(super) apps: Vec<&'a str>,
    pub(super) keys: Vec<&'a str>,
    pub(super) fingerprints: Vec<&'a [u8]>,
    pub(super) firsts: Vec<i32>,
    pub(super) counts: Vec<i32>,
}

impl<'a> Keys<'a> {
    pub(super) fn of(group: &[&'a NewSend]) -> Keys<'a> {
        let mut keys = Keys::default();
        let mut row = 1;
        for (index, send) in group.iter().enumerate() {
            let count = send.notifications.len() as i32;
            if let Some(key) = &send.key {
                keys.sends.push(index);
                keys.apps.push(send.app().as_str());
                keys.keys.push(&key.key);
                keys.fingerprints.push(&key.fingerprint);
                keys.firsts.push(row);
                keys.counts.push(count);
            }
            row += count;
        }
        keys
    }
}

pub(super) fn answers(
    fingerprints: Vec<Vec<u8>>,
    firsts: Vec<Uuid>,
    counts: Vec<i32>,
    at: Vec<DateTime<Utc>>,
) -> impl Iterator<Item = Answered> {
    fingerprints
        .into_iter()
        .zip(firsts)
        .zip(counts)
        .zip(at)
        .map(|(((fingerprint, first), count), at)| answered(fingerprint, Some(first), count, at))
}

pub(super) fn answered(
    fingerprint: Vec<u8>,
    first: Option<Uuid>,
    count: i32,
    at: DateTime<Utc>,
) -> Answered {
    Answered {
        // One of another length is of no request of ours, and matches none.
        fingerprint: fingerprint.try_into().unwrap_or_default(),
        first: first.map(EventId::from).filter(|first| *first != EventId::ZERO),
        count: count as usize,
        at,
    }
}

/// Gives each send its first row, from the group's `first` on; those whose key was known have none.
/// Also returns the number of rows.
pub(super) fn outcomes(
    group: &[&NewSend],
    first: EventId,
    mut known: HashMap<usize, Answered>,
) -> (Vec<Outcome>, usize) {
    let mut rows = 0;
    let outcomes = group.iter().enumerate().map(|(index, send)| {
        if let Some(answered) = known.remove(&index) {
            return Outcome::Known(answered);
        }
        let first = first.followed_by(rows);
        rows += send.notifications.len();
        Outcome::Stored(first)
    });
    (outcomes.collect(), rows)
}
