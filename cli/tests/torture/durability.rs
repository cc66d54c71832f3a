//! Acknowledged means durable: strace watches a coordinator, and a script reads what it saw.

use crate::fleet::Fleet;
use crate::support::{stdout, text};
use std::{path::Path, process::Command};

#[test]
fn every_acknowledgement_follows_an_fdatasync_of_what_it_promises() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/check-durability.sh");
    let mut fleet = Fleet::new(1, 1);
    let trace = fleet.dir.path().join("trace");
    // What strace is asked to see stands in one place, the script.
    let options = stdout(Command::new(&script).arg("--options"));
    fleet.coordinator.under = std::iter::once("strace")
        .chain(options.split_whitespace())
        .chain(["-o", text(&trace)])
        .map(ToOwned::to_owned)
        .collect();
    fleet.start();
    let run = fleet.submit(&fleet.plan(15, 1, ""));
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    let said = stdout(Command::new(&script).arg(&trace));
    println!("{said}");
    assert!(said.contains("acknowledgements, each after an fdatasync"), "{said}");
    fleet.check_nothing_left();
}
