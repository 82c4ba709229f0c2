//! What each kind of connection sets for itself, whatever the role or the database has by default.

/// In all: names mean Postgres' own functions, so that nobody who may create some elsewhere can put them
/// under ours; under the lane a later statement has to see what was committed before it; and a machine
/// that is gone or frozen keeps its locks and its place for a minute, and not for hours.
macro_rules! settings {
    ($own:literal) => {
        concat!(
            "set search_path = pg_catalog, pg_temp;
            set default_transaction_isolation = 'read committed';
            set tcp_user_timeout = 30000; set tcp_keepalives_idle = 30;
            set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3; ",
            $own
        )
    };
}

/// For sessions of our own. The patterns in migrations are full of backslashes, and take their time.
/// statement_timeout stays off: it would end a wait for a synchronous standby as if the standby had
/// confirmed.
pub(super) const FOR_SESSIONS: &str =
    settings!("set standard_conforming_strings = on; set statement_timeout = 0");

/// For reads of streams. The planner's guesses about many clients in one query are high, and compiling
/// it for them takes longer than running it for all. Postgres does not notice that we have given a read
/// up; those that wait for a lock would become more and more. (Not by a statement_timeout: an epoch may
/// be opened here.)
pub(super) const FOR_READS: &str = settings!("set jit = off; set lock_timeout = '5s'");

/// For reads of requests, which end there when we have given them up.
pub(super) const FOR_REQUESTS: &str = settings!("set jit = off; set statement_timeout = '5s'");

/// The same behind a pooler: whatever is set in a session there is met by whoever gets it next.
pub(super) const BEGIN_REQUEST: &str = "begin read only;
    set local search_path = pg_catalog, pg_temp; set local statement_timeout = '5s'";

/// For calls that commit inside, hence no statement_timeout. One plan for all values: with plans for
/// each, most of a call would be planning.
pub(super) const FOR_CHANGES: &str = settings!(
    "set jit = off; set statement_timeout = 0; set lock_timeout = '2s';
    set plan_cache_mode = force_generic_plan"
);
