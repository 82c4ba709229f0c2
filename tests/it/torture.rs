//! Every promise at once: the fault tester with the faults that need nothing but Postgres, each at
//! least once, over several servers. It judges by a checker of its own.

use std::time::Duration;

#[cfg(not(feature = "mutants"))]
use torture::mutants;
use torture::{FAULTS, Fault, Options, report};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_every_fault_nothing_is_lost_doubled_reordered_or_told_to_others() {
    let out = tempfile::tempdir().unwrap();
    let faults: Vec<Fault> =
        FAULTS.iter().map(|(fault, ..)| *fault).filter(|fault| fault.is_cheap()).collect();
    let options = Options {
        server: env!("CARGO_BIN_EXE_tidings").into(),
        // Another run each time; a failure names it.
        seed: fastrand::u64(..1_000_000),
        length: Duration::from_secs(30),
        instances: 2,
        senders: 6,
        faults: faults.clone(),
        one_sided: false,
        environment: Vec::new(),
        out: out.path().to_owned(),
    };

    let run = torture::run(&options, std::future::pending()).await;

    let report = report::of_run(out.path()).unwrap();
    if run.is_err() || !report.clean {
        let kept = out.keep();
        panic!("{run:?}\n{}\nkept: {}", report.text, kept.display());
    }
    let missing: Vec<&str> = faults
        .iter()
        .map(|fault| fault.name())
        .filter(|name| !report.effective.iter().any(|effective| effective == name))
        .collect();
    assert!(missing.is_empty(), "{missing:?} took no effect\n{}", report.text);
}

/// The same search finds all of them in the build that `torture mutants` makes, or that makes no run.
#[cfg(not(feature = "mutants"))]
#[test]
fn a_build_that_was_not_made_for_it_has_no_mutant_in_it() {
    let server = std::path::Path::new(env!("CARGO_BIN_EXE_tidings"));
    let mut names = mutants::names();
    names.push("TIDINGS_HEARTBEAT");

    let found = mutants::found_in(server, &names).unwrap();

    assert_eq!(found, ["TIDINGS_HEARTBEAT"]);
}
