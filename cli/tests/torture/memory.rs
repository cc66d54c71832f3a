//! Backends that the kernel kills for want of memory: in a memory cgroup of the test's own, so that nobody else is.

use crate::evidence;
use crate::fleet::{Fleet, signal};
use crate::support::wait_for;
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Of the cgroup.
const LIMIT: &str = "400M";

/// A memory cgroup; removed at the end.
struct Group {
    at: PathBuf,
}

impl Group {
    fn make(name: &str) -> Self {
        // Version 1, or 2 where the controller may be handed on.
        let places =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (place, limit) in places {
            let at = Path::new(place).join(format!("pgsoak-{name}-{}", std::process::id()));
            if place == "/sys/fs/cgroup" {
                let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            }
            if fs::create_dir(&at).is_ok() {
                if fs::write(at.join(limit), LIMIT).is_ok() {
                    return Self { at };
                }
                let _ = fs::remove_dir(&at);
            }
        }
        panic!("no memory cgroup can be made: this test needs root and cgroup v1 or v2");
    }

    /// What puts a command into it.
    fn under(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.at.display());
        ["sh", "-c", &script, "sh"].map(ToOwned::to_owned).to_vec()
    }

    /// Takes so many MiB of it, and holds them.
    fn hog(&self, mebibytes: u32) -> Child {
        let under = self.under();
        let code = format!("import time; x = bytearray({mebibytes} << 20); time.sleep(600)");
        Command::new(&under[0])
            .args(&under[1..])
            .args(["python3", "-c", &code])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.at).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_backend_that_eats_all_memory_is_the_products_failure_and_says_who_and_how_much() {
    let group = Group::make("eats");
    let mut fleet = Fleet::new(1, 1);
    fleet.agents[0].under = group.under();
    fleet.start();
    let plan = fleet.plan(300, 1, "");
    let workload = fleet.dir.path().join("steady.toml");
    let text = fs::read_to_string(&workload).unwrap();
    // Settings of a session's own live as long as it does: some 60 MB a second.
    let grow = "SELECT length(set_config('grow.a${n}', repeat('x', 600000), false))";
    let text = text.replace("INSERT INTO t VALUES (${n}, 'x'); DELETE FROM t WHERE a = ${n}", grow);
    fs::write(&workload, text).unwrap();
    let run = fleet.submit(&plan);
    assert_eq!(fleet.verdict(&run), "fail", "{:#}", fleet.report(&run));
    let report = fleet.report(&run);
    let job = &report["jobs"][0];
    assert_eq!(job["outcome"], "failed", "{job:#}");
    let reason = job["reason"].as_str().unwrap();
    println!("{reason}");
    for word in [
        "for want of memory",
        "client backend of session 1",
        "MiB at its last readings",
        "cgroup's limit of 400 MiB",
        "set_config",
    ] {
        assert!(reason.contains(word), "'{word}' is not in: {reason}");
    }
    evidence::stored(&fleet.url(), &run).values().for_each(evidence::Attempt::check_whole);
    fleet.check_nothing_left();
    drop(fleet);
    drop(group);
}

#[test]
fn a_small_backend_that_is_killed_for_somebody_elses_memory_is_the_hosts_failure() {
    let group = Group::make("small");
    let mut fleet = Fleet::new(1, 1);
    fleet.agents[0].under = group.under();
    fleet.start();
    let run = fleet.submit(&fleet.plan(300, 1, ""));
    fleet.wait_for_samples(&run);
    let backend = fleet.backend(0);
    // The kernel's choice: the first to go.
    fs::write(format!("/proc/{}/oom_score_adj", backend.as_raw_nonzero()), "1000").unwrap();
    let mut hog = group.hog(390);
    let verdict = fleet.verdict(&run);
    let _ = hog.kill();
    let _ = hog.wait();
    let report = fleet.report(&run);
    assert_eq!(verdict, "invalid", "{report:#}");
    let reason = report["jobs"][0]["reason"].as_str().unwrap();
    println!("{reason}");
    assert!(
        reason.contains("for want of memory")
            && reason.contains("Something else used the memory up"),
        "{reason}"
    );
    fleet.check_nothing_left();
    drop(fleet);
    drop(group);
}

#[test]
fn a_backend_that_somebody_kills_is_no_want_of_memory() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(300, 1, ""));
    fleet.wait_for_samples(&run);
    signal(fleet.backend(0), Signal::KILL);
    assert_eq!(fleet.verdict(&run), "fail", "{:#}", fleet.report(&run));
    let report = wait_for("the report", Duration::from_secs(10), || Some(fleet.report(&run)));
    let reason = report["jobs"][0]["reason"].as_str().unwrap();
    // What ran may itself have asked for `pg_backend_memory_contexts`.
    assert!(
        reason.contains("terminated by signal 9") && !reason.contains("want of memory"),
        "{reason}"
    );
    fleet.check_nothing_left();
}
