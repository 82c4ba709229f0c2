//! `tidings history`: past notifications, a page at a time, printed as `tail` prints them.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::print::Printer;
use super::{Ending, Server, say};

/// The server's largest page: `--all` asks as seldom as it can.
const LARGEST_PAGE: u16 = 500;

const BROKEN: &str = "the connection broke before the whole answer came";

const EXAMPLES: &str = "\
Examples:
  tidings history shop ada                               the newest 50, newest first
  tidings history shop ada --order asc --all             everything, oldest first
  tidings history shop ada --after 01JDAYQ5E0000000000000000A --order asc
  tidings history shop ada --all --json | jq .data";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct History {
    /// App that the user belongs to
    app: String,
    /// User whose notifications to print
    user: String,
    /// How many to print, 1 to 500; with --all, how many to ask for at a time
    /// [default: 50, with --all 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: Option<u16>,
    /// Only notifications older than this id
    #[arg(long, value_name = "ID", value_parser = super::id)]
    before: Option<String>,
    /// Only notifications newer than this id
    #[arg(long, value_name = "ID", value_parser = super::id)]
    after: Option<String>,
    /// Oldest first (asc) or newest first (desc)
    #[arg(long, value_enum, default_value = "desc")]
    order: Order,
    /// Go on to the end, page after page
    #[arg(long)]
    all: bool,
    /// Print one JSON object a line, as received
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Asc,
    Desc,
}

/// One page as received: nothing in it is read further than printing needs.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    notifications: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Row<'a> {
    id: String,
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl History {
    pub(super) async fn run(mut self) -> Result<(), Ending> {
        let client = Client::new(self.server.address()?)?;
        let mut printer = Printer::new(std::io::stdout().lock(), self.json);
        loop {
            let mut address = client.address("history", &self.app, &self.user)?;
            address.query_pairs_mut().extend_pairs(self.query());
            let answer = client.answer(client.get(address), BROKEN).await?;
            let page: Page<'_> = serde_json::from_str(&answer).map_err(unexpected)?;
            print(&page, &mut printer)?;
            match page.next {
                Some(next) if self.all => self.go_on_from(next),
                next => {
                    self.say_there_is_more(next);
                    return Ok(());
                }
            }
        }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let limit = self.limit.or(self.all.then_some(LARGEST_PAGE));
        let order = if self.order == Order::Asc { "asc" } else { "desc" };
        let mut query = vec![("order", order.to_owned())];
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        query.extend(self.before.clone().map(|id| ("before", id)));
        query.extend(self.after.clone().map(|id| ("after", id)));
        query
    }

    /// `next` continues in the same direction; the bound on the other side stays.
    fn go_on_from(&mut self, next: String) {
        match self.order {
            Order::Asc => self.after = Some(next),
            Order::Desc => self.before = Some(next),
        }
    }

    fn say_there_is_more(&self, next: Option<String>) {
        if let (Some(next), false) = (next, self.json) {
            let bound = if self.order == Order::Asc { "--after" } else { "--before" };
            say(format_args!("there are more: {bound} {next} continues, --all prints everything"));
        }
    }
}

fn print<W: Write>(page: &Page<'_>, printer: &mut Printer<W>) -> Result<(), Ending> {
    for received in &page.notifications {
        if printer.json {
            printer.line(received.get())?;
        } else {
            let row: Row<'_> = serde_json::from_str(received.get()).map_err(unexpected)?;
            printer.notification(&row.id, row.event.as_deref(), row.data.get())?;
        }
    }
    Ok(printer.flush()?)
}

fn unexpected(error: serde_json::Error) -> Ending {
    Ending::Failed(format!("the answer is not one of Tidings': check --url ({error})"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        history: History,
    }

    const OLD: &str = "01JDAYQ5E00000000000000000";
    const NEW: &str = "01JDAYQ5E00000000000000001";

    fn history(line: &str) -> History {
        let words = ["history", "shop", "ada"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().history
    }

    #[test]
    fn all_continues_in_the_direction_asked_for_and_keeps_the_other_bound() {
        let mut newest_first = history(&format!("--all --after {OLD}"));
        newest_first.go_on_from("01X".into());
        let expected = [("order", "desc"), ("limit", "500"), ("before", "01X"), ("after", OLD)];
        assert_eq!(newest_first.query(), expected.map(|(name, value)| (name, value.to_owned())));

        let mut oldest_first = history(&format!("--all --order asc --limit 7 --before {NEW}"));
        oldest_first.go_on_from("01B".into());
        let expected = [("order", "asc"), ("limit", "7"), ("before", NEW), ("after", "01B")];
        assert_eq!(oldest_first.query(), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn json_lines_are_as_received() {
        let answer =
            r#"{"notifications":[{"id":"01A","event":null,"data":1.0,"x":{}}],"next":null}"#;
        let page: Page<'_> = serde_json::from_str(answer).unwrap();
        let mut printer = Printer::new(Vec::new(), true);
        print(&page, &mut printer).unwrap();
        assert_eq!(printer.into_text(), "{\"id\":\"01A\",\"event\":null,\"data\":1.0,\"x\":{}}\n");
    }

    #[test]
    fn people_get_the_columns_of_tail() {
        let answer = r#"{"notifications":[{"id":"x","event":"a.b","data":{"n":1.0}}],"next":null}"#;
        let page: Page<'_> = serde_json::from_str(answer).unwrap();
        let mut printer = Printer::new(Vec::new(), false);
        print(&page, &mut printer).unwrap();
        assert_eq!(printer.into_text(), "-  a.b  {\"n\":1.0}\n");
    }
}
