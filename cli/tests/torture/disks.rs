//! Full and read-only disks, made with small tmpfs mounts.

use crate::evidence;
use crate::fleet::Fleet;
use crate::hosts::tool;
use crate::support::{file, folder, pgsoak, show, text};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// A tmpfs at a folder; unmounted at the end.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=755");
        tool("mount", &["-t", "tmpfs", "-o", &options, "pgsoak-torture", text(at)]);
        Self { at: at.to_owned() }
    }

    fn remount(&self, how: &str) {
        tool("mount", &["-o", &format!("remount,{how}"), text(&self.at)]);
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.at.join("filler")).unwrap();
        let block = vec![1_u8; 4 << 10];
        while filler.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.at.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", text(&self.at)]).status();
    }
}

/// The run passed, with everything there.
fn check_passed(fleet: &Fleet, run: &str) {
    assert_eq!(fleet.verdict(run), "pass", "{:#}", fleet.report(run));
    for attempt in evidence::stored(&fleet.url(), run).values() {
        attempt.check_complete();
        assert_eq!(attempt.gaps(), 0);
    }
    assert_eq!(fleet.report(run)["jobs"][0]["attempts"], 1);
    fleet.check_nothing_left();
}

#[test]
fn a_coordinator_whose_disk_is_full_acknowledges_nothing_and_loses_nothing() {
    let mut fleet = Fleet::new(1, 1);
    let disk = Disk::mount(&fleet.coordinator.data.clone(), "64m");
    fleet.start();
    let run = fleet.submit(&fleet.plan(60, 1, ""));
    fleet.wait_for_samples(&run);
    disk.fill();
    thread::sleep(Duration::from_secs(20));
    disk.empty();
    // A coordinator that cannot write its catalogue ends, which systemd sees and mends; one that only had no room for
    // evidence goes on.
    if fleet.coordinator.has_ended() {
        let code = fleet.coordinator.ended(Duration::from_secs(1));
        assert_eq!(code, Some(3), "{}", fleet.coordinator.said());
        println!("the coordinator ended with code 3");
        fleet.start_coordinator();
    }
    check_passed(&fleet, &run);
    let said = fleet.coordinator.said();
    assert!(said.contains("No space left on device"), "{said}");
    drop(fleet);
    drop(disk);
}

#[test]
fn a_coordinator_whose_disk_turns_read_only_ends_and_goes_on_afterwards() {
    let mut fleet = Fleet::new(1, 1);
    let disk = Disk::mount(&fleet.coordinator.data.clone(), "64m");
    fleet.start();
    let plan = fleet.plan(60, 1, "");
    let run = fleet.submit(&plan);
    fleet.wait_for_samples(&run);
    // What is open for writing keeps a file system from turning read-only in the kernel's way: the coordinator is stopped
    // first, as a machine does that comes up with a damaged disk.
    fleet.coordinator.kill();
    disk.remount("ro");
    fleet.coordinator.spawn();
    let code = fleet.coordinator.ended(Duration::from_secs(30));
    assert_eq!(code, Some(3), "{}", fleet.coordinator.said());
    let said = fleet.coordinator.said();
    assert!(
        said.contains("Read-only file system") && said.contains(text(&fleet.coordinator.data)),
        "{said}"
    );
    disk.remount("rw");
    fleet.start_coordinator();
    check_passed(&fleet, &run);
    drop(fleet);
    drop(disk);
}

#[test]
fn an_agent_whose_disk_is_full_for_a_while_says_so_and_ends_the_job_as_infrastructure_or_not_at_all()
 {
    let mut fleet = Fleet::new(1, 1);
    let disk = Disk::mount(&fleet.agents[0].data.clone(), "300m");
    fleet.start();
    let run = fleet.submit(&fleet.plan(60, 1, ""));
    fleet.wait_for_samples(&run);
    disk.fill();
    thread::sleep(Duration::from_secs(15));
    disk.empty();
    let verdict = fleet.verdict(&run);
    let report = fleet.report(&run);
    println!("agent's disk full: {verdict}: {}", report["jobs"][0]["reason"]);
    // The server under test may need the disk and fail over it: that is the host's doing, never the product's.
    assert!(["pass", "invalid"].contains(&verdict.as_str()), "{report:#}");
    if verdict == "invalid" {
        assert!(report.to_string().contains("No space left on device"), "{report:#}");
    }
    for attempt in evidence::stored(&fleet.url(), &run).values() {
        attempt.check_whole();
    }
    fleet.check_nothing_left();
    drop(fleet);
    drop(disk);
}

#[test]
fn a_read_only_data_folder_is_refused_with_its_name() {
    let dir = folder();
    let data = dir.path().join("data");
    let disk = Disk::mount(&data, "16m");
    disk.remount("ro");
    file(
        dir.path(),
        "tiny.toml",
        "name = \"tiny\"\n[[phase]]\nname = \"a\"\nkind = \"once\"\nsql = \"SELECT 1\"\n",
    );
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"tiny.toml\"\n",
    );
    for args in [
        vec!["agent", "--coordinator", "http://127.0.0.1:1"],
        vec!["coordinator", "--listen", "127.0.0.1:0"],
        vec!["run", text(&plan), "--quiet"],
    ] {
        let output = pgsoak(&args).args(["--data-dir", text(&data)]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", show(&output));
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains("Read-only file system") && err.contains(text(&data)), "{err}");
    }
    drop(disk);
}
