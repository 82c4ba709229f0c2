//! Compares what a subscriber received with what the senders were promised.

use std::collections::HashSet;
use std::fmt;

use ulid::Ulid;

use crate::Outcome;

const EXAMPLES: usize = 3; // enough to search a log for

/// What is wrong with one received sequence, or with many added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) missed: usize,
    pub(crate) twice: usize,
    pub(crate) out_of_order: usize,
    /// Received though no sender got a 201 for it.
    pub(crate) unknown: usize,
    examples: Vec<String>,
}

/// The promise: `expected` in id order, each once. `expected` need not be sorted.
pub(crate) fn compare(who: &str, expected: &[Ulid], received: &[Ulid]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    if expected == received {
        return verdict;
    }
    let wanted: HashSet<_> = expected.iter().copied().collect();
    let mut seen = HashSet::with_capacity(received.len());
    let mut highest = Ulid::nil();
    for &id in received {
        if !seen.insert(id) {
            verdict.twice += 1;
            verdict.note(who, "got twice", id);
        } else if id < highest {
            verdict.out_of_order += 1;
            verdict.note(who, "got after a higher id", id);
        }
        if !wanted.contains(&id) {
            verdict.unknown += 1;
            verdict.note(who, "got, though no sender did,", id);
        }
        highest = highest.max(id);
    }
    for &id in expected.iter().filter(|id| !seen.contains(*id)) {
        verdict.missed += 1;
        verdict.note(who, "missed", id);
    }
    verdict
}

impl Verdict {
    pub(crate) fn add(&mut self, other: Self) {
        self.missed += other.missed;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
        self.unknown += other.unknown;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// An error that says what was wrong, unless nothing was.
    pub(crate) fn into_outcome(self) -> Outcome<()> {
        let wrong = self.missed + self.twice + self.out_of_order + self.unknown;
        if wrong == 0 { Ok(()) } else { Err(self.to_string().into()) }
    }

    fn note(&mut self, who: &str, what: &str, id: Ulid) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{who} {what} {id}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missed, twice, out_of_order, unknown, examples } = self;
        write!(
            f,
            "missed {missed}, twice {twice}, out of order {out_of_order}, unknown {unknown}"
        )?;
        if examples.is_empty() { Ok(()) } else { write!(f, ": {}", examples.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<Ulid> {
        numbers.iter().copied().map(Ulid).collect()
    }

    fn verdict(received: &[u128]) -> (usize, usize, usize, usize) {
        let verdict = compare("ada", &ids(&[2, 1, 3, 4]), &ids(received));
        (verdict.missed, verdict.twice, verdict.out_of_order, verdict.unknown)
    }

    #[test]
    fn the_promised_sequence_is_clean() {
        assert_eq!(verdict(&[1, 2, 3, 4]), (0, 0, 0, 0));
        assert!(compare("ada", &[], &[]).into_outcome().is_ok());
    }

    #[test]
    fn a_missing_id_is_reported() {
        assert_eq!(verdict(&[1, 2, 4]), (1, 0, 0, 0));
        assert_eq!(verdict(&[]), (4, 0, 0, 0));
    }

    #[test]
    fn a_doubled_id_is_reported() {
        assert_eq!(verdict(&[1, 2, 2, 3, 4]), (0, 1, 0, 0));
        assert_eq!(verdict(&[1, 2, 3, 4, 1, 2]), (0, 2, 0, 0));
    }

    #[test]
    fn a_swapped_id_is_reported() {
        assert_eq!(verdict(&[1, 3, 2, 4]), (0, 0, 1, 0));
    }

    #[test]
    fn an_id_nobody_sent_is_reported() {
        assert_eq!(verdict(&[1, 2, 3, 4, 5]), (0, 0, 0, 1));
    }

    #[test]
    fn the_error_names_the_subscriber_and_the_id() {
        let error = compare("ada", &ids(&[1, 2]), &ids(&[1])).into_outcome().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("missed 1, twice 0, out of order 0, unknown 0"), "{text}");
        assert!(text.ends_with(&format!("ada missed {}", Ulid(2))), "{text}");
    }
}
