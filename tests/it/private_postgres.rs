//! The private Postgres: its whole life, and every way it can be cut short. The tests run as root
//! and as an ordinary user; what only one of them can see is skipped for the other, with a word.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod deaths;
pub(crate) mod harness;
mod life;
mod one_owner;
mod refusals;

use std::io::{self, Read, Write};

use tidings::postgres::{PrivatePostgres, Settings};

use harness::{CHILD_FOLDER, CHILD_IS_READY};

/// Not a test: the program that the tests kill. It holds the database of the folder it is told
/// until its standard input ends.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child_that_holds_the_database() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let settings = Settings { data_dir: Some(folder.into()), ..Settings::default() };
    let postgres = match PrivatePostgres::start(&settings) {
        Ok(postgres) => postgres,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    writeln!(io::stdout(), "{CHILD_IS_READY}").unwrap();
    let _ = io::stdin().read(&mut [0]);
    drop(postgres);
}
