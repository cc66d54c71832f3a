//! Wall clocks that jump by hours, forwards and back, under coordinator, daemon and runner.

use crate::evidence;
use crate::fleet::Fleet;
use crate::support::{file, text};
use std::{path::PathBuf, thread, time::Duration};

/// Where Debian puts libfaketime.
fn library() -> PathBuf {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let found = places
        .iter()
        .map(|place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists());
    found.expect("libfaketime is not here; `make setup` installs it (package faketime)")
}

#[test]
fn a_clock_that_jumps_hours_both_ways_changes_nothing() {
    let mut fleet = Fleet::new(1, 1);
    let offset = file(fleet.dir.path(), "offset", "+0");
    let environment: Vec<(String, String)> = [
        ("LD_PRELOAD", text(&library())),
        ("FAKETIME_TIMESTAMP_FILE", text(&offset)),
        ("FAKETIME_NO_CACHE", "1"),
        // A jump of the wall clock leaves the monotonic one alone.
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    fleet.coordinator.environment.clone_from(&environment);
    fleet.agents[0].environment = environment;
    fleet.start();
    let run = fleet.submit(&fleet.plan(40, 1, ""));
    fleet.wait_for_samples(&run);
    for jump in ["+3h", "-5h", "+0"] {
        file(fleet.dir.path(), "offset", jump);
        thread::sleep(Duration::from_secs(8));
    }
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    let stored = evidence::stored(&fleet.url(), &run);
    assert_eq!(stored.len(), 1);
    for attempt in stored.values() {
        attempt.check_complete();
        assert_eq!(attempt.gaps(), 0);
        assert!(attempt.frames.windows(2).all(|pair| pair[0].elapsed <= pair[1].elapsed));
    }
    assert_eq!(fleet.report(&run)["jobs"][0]["attempts"], 1);
    fleet.check_nothing_left();
}
