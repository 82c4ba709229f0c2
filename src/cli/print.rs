//! How notifications look on stdout: columns for people, objects for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use chrono::{Local, SecondsFormat, TimeZone};
use serde::Serialize;
use serde_json::value::RawValue;
use ulid::Ulid;

pub(super) struct Printer<W> {
    out: W,
    pub(super) json: bool,
}

/// The members in the order they are printed.
#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    event: Option<&'a str>,
    data: &'a RawValue,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, json: bool) -> Self {
        Self { out, json }
    }

    /// One notification, on one line. `data` is JSON and keeps its bytes, but for a terminal's sake.
    pub(super) fn notification(
        &mut self,
        id: &str,
        event: Option<&str>,
        data: &str,
    ) -> io::Result<()> {
        if !self.json {
            let (time, event) = (local_time(id), event.unwrap_or("-"));
            return writeln!(self.out, "{time}  {}  {}", harmless(event), harmless(data));
        }
        let not_json = || io::Error::other(format!("the data of {id} is not JSON"));
        let data: &RawValue = serde_json::from_str(data).map_err(|_| not_json())?;
        serde_json::to_writer(&mut self.out, &Object { id, event, data })?;
        writeln!(self.out)
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
impl Printer<Vec<u8>> {
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.out).unwrap()
    }
}

/// The time in an id, as this machine's clocks show it.
fn local_time(id: &str) -> String {
    let Ok(id) = Ulid::from_string(id) else { return "-".to_owned() };
    let milliseconds = i64::try_from(id.timestamp_ms()).unwrap_or(i64::MAX);
    match Local.timestamp_millis_opt(milliseconds).single() {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, false),
        None => "-".to_owned(),
    }
}

/// JSON may hold U+007F to U+009F as they are, and some terminals obey those. Escaped they are the
/// same JSON.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(shown, "\\u{:04x}", u32::from(c)); // writing to a String cannot fail
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01JDAYQ5E00000000000000000";

    fn printed(json: bool, event: Option<&str>, data: &str) -> String {
        let mut printer = Printer::new(Vec::new(), json);
        printer.notification(ID, event, data).unwrap();
        printer.into_text()
    }

    #[test]
    fn people_get_the_time_in_the_id_the_event_and_the_data() {
        let line = printed(false, None, r#"{"n":1.0}"#);
        let (time, rest) = line.split_once("  ").unwrap();
        assert_eq!(rest, "-  {\"n\":1.0}\n");
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap();
        let expected = Ulid::from_string(ID).unwrap().timestamp_ms();
        assert_eq!(time.timestamp_millis(), expected as i64);
        assert!(printed(false, Some("order.shipped"), "1").ends_with("  order.shipped  1\n"));
    }

    #[test]
    fn programs_get_one_object_with_the_datas_own_bytes() {
        let expected = format!("{{\"id\":\"{ID}\",\"event\":\"a\",\"data\":{{\"n\":1.0}}}}\n");
        assert_eq!(printed(true, Some("a"), r#"{"n":1.0}"#), expected);
        assert!(
            printed(true, None, "18446744073709551616")
                .contains("null,\"data\":18446744073709551616}")
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert!(printed(false, None, "\"\u{9b}2J\u{7f}\"").ends_with("\"\\u009b2J\\u007f\"\n"));
        assert!(printed(true, None, "\"\u{9b}2J\"").contains('\u{9b}'));
    }

    #[test]
    fn an_id_that_is_no_ulid_has_no_time() {
        assert_eq!(local_time("17"), "-");
        assert_ne!(local_time("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), "");
    }
}
