//! Ways to be wrong. Each mutant breaks one thing that an invariant rests on, so that the fault tester
//! can prove that it would notice (`torture mutants`). They exist only with the feature `mutants`, where
//! `TIDINGS_MUTANT` chooses one; in any other build `mutant!(…)` is the word `false` and nothing more.

#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is($crate::mutant::Mutant::$name)
    };
}

#[cfg(feature = "mutants")]
pub(crate) use chosen::{Mutant, chosen, is, with_small_bounds};

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::OnceLock;

    use crate::config::Config;

    /// What is wrong.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Mutant {
        /// Positions are issued before the lane is taken.
        IdsBeforeLane,
        /// What a NOTIFY names is dispatched, and nothing else is read.
        NotifyIsTheData,
        /// Going live, what the last page had is not left out of what the ring has.
        HandoverWithoutIdFilter,
        /// Who has fallen off the ring goes on with what is left in it.
        SkipOnOverflow,
        /// A listener that breaks is left as it is. The timer is off: it makes up for that in a second.
        ListenerErrorIgnored,
        /// An append that broke off is made again without looking for the first one.
        ResendAfterBreak,
        /// The instance's own group is dispatched though others' rows come before it.
        StalePrev,
        /// A page that was cut hands on the largest id as its cursor.
        PageCursorIsLargestId,
        /// A page is called complete up to what the sequence has issued.
        CompleteBySequence,
        /// Pings name the position of the hub, not of the stream.
        PingWithHubPosition,
        /// `Last-Event-ID` is not looked at.
        ReconnectWithoutCursor,
        /// When an audience's last event leaves the ring, it is not noted that something has left.
        RingOffByOne,
        /// Where rows may be gone, the stream goes on without saying so.
        GapNotSent,
        /// Who is connected is looked up by the audience alone, in whatever app comes first.
        CrossAppLeak,
        /// Idempotency keys are looked up before the lane is taken.
        KeyBeforeLane,
        /// A database that went back is taken for the one that was there before.
        RestoreUnnoticed,
    }

    /// By the names that the fault tester knows them by.
    const NAMES: [(&str, Mutant); 16] = [
        ("ids-before-lane", Mutant::IdsBeforeLane),
        ("notify-is-the-data", Mutant::NotifyIsTheData),
        ("handover-without-id-filter", Mutant::HandoverWithoutIdFilter),
        ("skip-on-overflow", Mutant::SkipOnOverflow),
        ("listener-error-ignored", Mutant::ListenerErrorIgnored),
        ("resend-after-break", Mutant::ResendAfterBreak),
        ("stale-prev", Mutant::StalePrev),
        ("page-cursor-is-largest-id", Mutant::PageCursorIsLargestId),
        ("complete-by-sequence", Mutant::CompleteBySequence),
        ("ping-with-hub-position", Mutant::PingWithHubPosition),
        ("reconnect-without-cursor", Mutant::ReconnectWithoutCursor),
        ("ring-off-by-one", Mutant::RingOffByOne),
        ("gap-not-sent", Mutant::GapNotSent),
        ("cross-app-leak", Mutant::CrossAppLeak),
        ("key-before-lane", Mutant::KeyBeforeLane),
        ("restore-unnoticed", Mutant::RestoreUnnoticed),
    ];

    /// Small enough for a short run with little load to go beyond them.
    const SMALL_RING: usize = 2 << 10;
    const SMALL_PAGE: usize = 20;

    /// The mutant that this process is; none if it is as it should be.
    pub(crate) fn chosen() -> Option<Mutant> {
        static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var("TIDINGS_MUTANT").ok().filter(|name| !name.is_empty())?;
            let found = NAMES.iter().find(|(name, _)| *name == wanted);
            let (_, mutant) = found.unwrap_or_else(|| panic!("there is no mutant {wanted}"));
            Some(*mutant)
        })
    }

    /// Whether this process is that mutant.
    pub(crate) fn is(mutant: Mutant) -> bool {
        chosen() == Some(mutant)
    }

    /// With `TIDINGS_MUTANT_BOUNDS=small`, a ring and pages that a short run goes beyond.
    pub(crate) fn with_small_bounds(mut config: Config) -> Config {
        if std::env::var("TIDINGS_MUTANT_BOUNDS").is_ok_and(|bounds| bounds == "small") {
            config.limits.ring_bytes = SMALL_RING;
            config.limits.page.rows = SMALL_PAGE;
        }
        config
    }
}
