//! The control events, `tidings.*`, in words for a person.

use std::time::Duration;

use serde::Deserialize;

/// What a person was told already.
#[derive(Default)]
pub(super) struct Control {
    database_is_away: bool,
}

#[derive(Deserialize)]
struct Ready {
    #[serde(default)]
    heartbeat_seconds: f64,
}

#[derive(Deserialize)]
struct Live {
    replayed: u64,
}

#[derive(Deserialize)]
struct Ping {
    #[serde(default)]
    database: String,
}

#[derive(Deserialize)]
struct Gap {
    after: Option<String>,
    resumes_after: String,
    reason: String,
}

#[derive(Deserialize)]
struct Goodbye {
    reason: String,
}

/// How often this stream pings, as `ready` says.
pub(super) fn heartbeat(ready: &str) -> Option<Duration> {
    let seconds = serde_json::from_str::<Ready>(ready).ok()?.heartbeat_seconds;
    Duration::try_from_secs_f64(seconds).ok().filter(|heartbeat| !heartbeat.is_zero())
}

impl Control {
    /// None when there is nothing to say. What a later server adds is shown as it is.
    pub(super) fn words(&mut self, name: &str, data: &str) -> Option<String> {
        let said = match name {
            "tidings.ready" => return None, // `live` says that the connection stands
            "tidings.ping" => return self.database_words(data),
            "tidings.live" => read(data).map(live),
            "tidings.gap" => read(data).map(gap),
            "tidings.goodbye" => read(data).map(goodbye),
            _ => None,
        };
        Some(said.unwrap_or_else(|| format!("{name}: {}", data.escape_debug())))
    }

    /// Only the change is news: a ping comes every few seconds.
    fn database_words(&mut self, data: &str) -> Option<String> {
        let away = read::<Ping>(data)?.database == "unreachable";
        let before = std::mem::replace(&mut self.database_is_away, away);
        match (before, away) {
            (false, true) => Some("the server cannot reach its database and waits for it".into()),
            (true, false) => Some("the server's database is back".into()),
            _ => None,
        }
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Option<T> {
    serde_json::from_str(data).ok()
}

fn live(Live { replayed }: Live) -> String {
    format!("up to date, replayed {replayed}")
}

fn goodbye(Goodbye { reason }: Goodbye) -> String {
    match reason.as_str() {
        "shutdown" => "the server shuts down".to_owned(),
        "overloaded" => "the server has no room for this stream now".to_owned(),
        "max-age" => "this stream has reached its greatest age".to_owned(),
        "slow" => "this side read too slowly".to_owned(),
        _ => format!("the server says goodbye ({})", reason.escape_debug()),
    }
}

fn gap(gap: Gap) -> String {
    let resumes = gap.resumes_after.escape_debug();
    let after = gap.after.as_deref().unwrap_or("the cursor").escape_debug();
    match gap.reason.as_str() {
        "expired" => format!(
            "gap: notifications after {after} may be missing: they were kept only for a time; \
             going on after {resumes}"
        ),
        "ahead" => format!(
            "gap: {after} is newer than anything this server has ever stored, so notifications may \
             be missing; going on after {resumes}"
        ),
        "restored" => format!(
            "gap: the server's database was restored from an older state: notifications after \
             {after} may be missing; going on after {resumes}"
        ),
        "bad-cursor" => format!(
            "gap: the server could not read the cursor, so earlier notifications may be missing; \
             going on after {resumes}"
        ),
        reason => format!(
            "gap: notifications after {after} may be missing ({}); going on after {resumes}",
            reason.escape_debug()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, data: &str) -> Option<String> {
        Control::default().words(name, data)
    }

    #[test]
    fn a_gap_says_what_may_be_missing_and_where_it_goes_on() {
        for reason in ["expired", "ahead", "restored", "something-new"] {
            let data = format!(r#"{{"after":"01A","resumes_after":"01B","reason":"{reason}"}}"#);
            let said = words("tidings.gap", &data).unwrap();
            assert!(said.contains("01A") && said.contains("01B"), "{said}");
            assert!(said.contains("may be missing"), "{said}");
        }
        let bad = r#"{"after":null,"resumes_after":"01B","reason":"bad-cursor"}"#;
        assert!(words("tidings.gap", bad).unwrap().contains("could not read the cursor"));
    }

    #[test]
    fn live_and_goodbye_are_sentences_and_ready_is_silent() {
        let live = words("tidings.live", r#"{"replayed":3}"#);
        assert_eq!(live.as_deref(), Some("up to date, replayed 3"));
        let goodbye = words("tidings.goodbye", r#"{"reason":"shutdown"}"#);
        assert_eq!(goodbye.as_deref(), Some("the server shuts down"));
        assert_eq!(words("tidings.ready", r#"{"cursor":"01A","heartbeat_seconds":10}"#), None);
    }

    #[test]
    fn pings_speak_only_when_the_database_goes_or_comes_back() {
        let mut control = Control::default();
        let mut ping = |state: &str| {
            control.words("tidings.ping", &format!(r#"{{"time":"t","database":"{state}"}}"#))
        };
        assert_eq!(ping("up"), None);
        assert!(ping("unreachable").unwrap().contains("cannot reach"));
        assert_eq!(ping("unreachable"), None);
        assert!(ping("up").unwrap().contains("back"));
    }

    #[test]
    fn what_is_not_understood_is_shown() {
        let expected = Some(r#"tidings.new: \u{1b}[2J"#.to_owned());
        assert_eq!(words("tidings.new", "\u{1b}[2J"), expected);
        assert_eq!(words("tidings.live", "?").as_deref(), Some("tidings.live: ?"));
    }

    #[test]
    fn the_heartbeat_is_read_and_nonsense_is_not() {
        assert_eq!(heartbeat(r#"{"heartbeat_seconds":0.5}"#), Some(Duration::from_millis(500)));
        for nonsense in ["{}", r#"{"heartbeat_seconds":-1}"#, r#"{"heartbeat_seconds":1e300}"#] {
            assert_eq!(heartbeat(nonsense), None);
        }
    }
}
