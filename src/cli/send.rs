//! `tidings send`: one notification. JSON goes out byte for byte as it was given: read and written
//! again, `1.0` or a number over 2^53 would become another.

use std::io::{Read, Write};

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::{Ending, Server};

const EXAMPLES: &str = "\
Examples:
  tidings send shop ada '{\"order\": 17, \"state\": \"shipped\"}'
  tidings send shop ada 'Your parcel is here'            not JSON, so it is sent as text
  tidings send shop ada --text 17                        text that looks like JSON
  tidings send shop ada --event order.shipped '{\"order\": 17}'
  printf 'from a pipe' | tidings send shop ada -";

/// A send is not repeated by itself: without an answer nobody knows whether it was stored.
const BROKEN: &str = "the connection broke before the answer: \
     the notification may or may not have been stored; `tidings history` shows which";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// App that the user belongs to
    app: String,
    /// User to send to
    user: String,
    /// JSON if it parses as JSON, else text; - reads it from stdin
    #[arg(allow_negative_numbers = true)]
    data: String,
    /// Take DATA as text even if it looks like JSON
    #[arg(long)]
    text: bool,
    /// Name of the event: letters, digits and _ . : - (at most 64)
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Sent {
    id: String,
}

impl Send {
    pub(super) async fn run(self) -> Result<(), Ending> {
        let client = Client::new(self.server.address()?)?;
        let address = client.address("send", &self.app, &self.user)?;
        let data = if self.data == "-" { read_stdin()? } else { self.data };
        let body = body(&data, self.text, self.event.as_deref());
        let answer = client.answer(client.post_json(address, body), BROKEN).await?;
        let Ok(Sent { id }) = serde_json::from_str(&answer) else {
            return Err(Ending::Failed(format!(
                "{} did not answer as Tidings does: check --url",
                client.server()
            )));
        };
        Ok(writeln!(std::io::stdout().lock(), "{id}")?)
    }
}

fn read_stdin() -> Result<String, Ending> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| Ending::Usage("stdin is not UTF-8 text".to_owned()))
}

fn body(data: &str, text: bool, event: Option<&str>) -> String {
    let is_json = !text && serde_json::from_str::<&RawValue>(data).is_ok();
    let data = if is_json { data.to_owned() } else { quoted(data) };
    match event {
        Some(event) => format!(r#"{{"data":{data},"event":{}}}"#, quoted(event)),
        None => format!(r#"{{"data":{data}}}"#),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_sent_byte_for_byte() {
        for data in
            ["1.0", "18446744073709551616", r#"{"b":1,"a":1e5,"b":2}"#, r#""\u00e9""#, " [ 1 ]\n"]
        {
            assert_eq!(body(data, false, None), format!(r#"{{"data":{data}}}"#));
        }
    }

    #[test]
    fn what_is_not_json_is_sent_as_text() {
        for data in ["hello", "", "{'a': 1}", "1 2", "say \"hi\"\n", "01"] {
            let sent: serde_json::Value = serde_json::from_str(&body(data, false, None)).unwrap();
            assert_eq!(sent["data"], data);
        }
    }

    #[test]
    fn text_forces_text_and_the_event_stands_beside_the_data() {
        assert_eq!(body("17", true, Some("a.b")), r#"{"data":"17","event":"a.b"}"#);
    }
}
