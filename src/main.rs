//! The `tidings` program: arguments, a runtime, an exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use tidings::cli::Cli;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            eprintln!("tidings: the runtime did not start: {error}");
            ExitCode::FAILURE
        }
    }
}
