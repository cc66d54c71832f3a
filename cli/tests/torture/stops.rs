//! Processes that are stopped (SIGSTOP) as a suspended machine, a debugger or a hung disk stops them.

use crate::evidence::{self, Attempt};
use crate::fleet::{Fleet, signal};
use crate::support::{stdout, wait_for};
use pgsoak_proto::wire::JobPlace;
use rustix::process::{Pid, Signal};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Longer than the lease (30 s).
const STOPPED: Duration = Duration::from_secs(40);

fn only(fleet: &Fleet, run: &str) -> Attempt {
    let mut stored = evidence::stored(&fleet.url(), run);
    assert_eq!(stored.len(), 1, "one job, one attempt");
    stored.pop_first().unwrap().1
}

#[test]
fn a_coordinator_that_stands_still_longer_than_the_lease_costs_nothing() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(60, 1, ""));
    fleet.wait_for_samples(&run);
    fleet.coordinator.signal(Signal::STOP);
    thread::sleep(STOPPED);
    fleet.coordinator.signal(Signal::CONT);
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    let report = fleet.report(&run);
    assert_eq!(report["jobs"][0]["attempts"], 1);
    let attempt = only(&fleet, &run);
    attempt.check_complete();
    assert_eq!(attempt.gaps(), 0);
    fleet.check_nothing_left();
}

#[test]
fn a_daemon_that_stands_still_is_unreachable_and_costs_nothing() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(60, 1, ""));
    fleet.wait_for_samples(&run);
    fleet.agents[0].signal(Signal::STOP);
    wait_for("the job to be unreachable", Duration::from_secs(60), || {
        let view = evidence::view(&fleet.url(), &run);
        (view.jobs[0].place() == JobPlace::Unreachable).then_some(())
    });
    fleet.agents[0].signal(Signal::CONT);
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    let attempt = only(&fleet, &run);
    attempt.check_complete();
    assert_eq!(attempt.gaps(), 0);
    fleet.check_nothing_left();
}

#[test]
fn a_runner_that_stands_still_leaves_a_counted_gap() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(60, 1, ""));
    fleet.wait_for_samples(&run);
    let runner = fleet.runner(0);
    signal(runner, Signal::STOP);
    thread::sleep(STOPPED);
    signal(runner, Signal::CONT);
    let verdict = fleet.verdict(&run);
    let report = fleet.report(&run);
    let attempt = only(&fleet, &run);
    attempt.check_complete();
    let least = u64::try_from(STOPPED.as_millis() / 200).unwrap() * 9 / 10;
    assert!(attempt.gaps() >= least, "{} ticks are counted as missing", attempt.gaps());
    let samples = &report["jobs"][0]["samples"];
    assert_eq!(samples["gaps"], attempt.gaps(), "{samples}");
    // More than a fifth of the ticks is missing.
    assert_eq!(verdict, "inconclusive", "{report:#}");
    assert!(report.to_string().contains("samples"), "{report:#}");
    fleet.check_nothing_left();
}

#[test]
fn a_stopped_server_can_be_cancelled() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(300, 1, ""));
    fleet.wait_for_samples(&run);
    signal(fleet.postmaster(0), Signal::STOP);
    let since = Instant::now();
    stdout(&mut fleet.ask(&["cancel", &run, "--wait", "--json"]));
    assert!(since.elapsed() < Duration::from_secs(90), "{:?}", since.elapsed());
    fleet.check_nothing_left();
    let report = fleet.report(&run);
    assert_eq!(report["jobs"][0]["outcome"], "cancelled", "{report:#}");
    only(&fleet, &run).check_whole();
}

#[test]
fn a_stopped_runner_can_be_cancelled() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(300, 1, ""));
    fleet.wait_for_samples(&run);
    signal(fleet.runner(0), Signal::STOP);
    let since = Instant::now();
    stdout(&mut fleet.ask(&["cancel", &run, "--wait", "--json"]));
    assert!(since.elapsed() < Duration::from_secs(90), "{:?}", since.elapsed());
    fleet.check_nothing_left();
    let report = fleet.report(&run);
    assert_eq!(report["jobs"][0]["outcome"], "cancelled", "{report:#}");
    only(&fleet, &run).check_whole();
}

#[test]
fn a_postmaster_that_stands_still_at_the_end_is_killed_and_its_evidence_counts() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(20, 1, ""));
    fleet.wait_for_samples(&run);
    // Its sessions go on; it cannot shut down. Everything that a plain job needs was read before.
    signal(fleet.postmaster(0), Signal::STOP);
    let since = Instant::now();
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    assert!(since.elapsed() < Duration::from_secs(200), "{:?}", since.elapsed());
    only(&fleet, &run).check_complete();
    fleet.check_nothing_left();
}

#[test]
fn a_killed_runner_is_told_from_a_killed_server() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let plan = fleet.plan(300, 1, "");
    for (who, outcome, verdict) in
        [("runner", "infrastructure", "invalid"), ("postmaster", "failed", "fail")]
    {
        let run = fleet.submit(&plan);
        fleet.wait_for_samples(&run);
        let pid = if who == "runner" { fleet.runner(0) } else { fleet.postmaster(0) };
        signal(pid, Signal::KILL);
        assert_eq!(fleet.verdict(&run), verdict, "{who}: {:#}", fleet.report(&run));
        let report = fleet.report(&run);
        assert_eq!(report["jobs"][0]["outcome"], outcome, "{report:#}");
        println!("{who} killed: {}", report["jobs"][0]["reason"]);
        only(&fleet, &run).check_whole();
        fleet.check_nothing_left();
    }
}

/// A server under memcheck whose every process is stopped answers nothing and writes no report.
#[test]
fn a_server_that_hangs_under_valgrind_can_be_cancelled() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(600, 1, "tool = \"memcheck\""));
    fleet.wait_for_samples(&run);
    for pid in pids_in(&fleet.agents[0].data, "data") {
        signal(pid, Signal::STOP);
    }
    let since = Instant::now();
    stdout(&mut fleet.ask(&["cancel", &run, "--wait", "--json"]));
    // 90 s for a tool's report, which does not come, and some more.
    assert!(since.elapsed() < Duration::from_secs(200), "{:?}", since.elapsed());
    fleet.check_nothing_left();
    let report = fleet.report(&run);
    assert_eq!(report["jobs"][0]["outcome"], "cancelled", "{report:#}");
    only(&fleet, &run).check_whole();
}

/// A process that the server started and that left session, folder, parent and environment behind.
#[test]
fn a_cancel_ends_processes_that_escaped_their_session_also_when_the_runner_is_gone() {
    // `env -i`: not even the job's mark is left; the cgroup is.
    let escape = |mark: &str| {
        format!(
            "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; cd /; setsid {mark} sleep 98765 >/dev/null 2>&1 </dev/null &'"
        )
    };
    let has_group = fs::create_dir("/sys/fs/cgroup/unified/pgsoak-torture")
        .or_else(|_| fs::create_dir("/sys/fs/cgroup/pgsoak-torture"))
        .is_ok();
    for path in ["/sys/fs/cgroup/unified/pgsoak-torture", "/sys/fs/cgroup/pgsoak-torture"] {
        let _ = fs::remove_dir(path);
    }
    let mut marks = vec![""];
    marks.extend(has_group.then_some("env -i"));
    for mark in marks {
        for is_runner_killed in [false, true] {
            let mut fleet = Fleet::new(1, 1);
            fleet.start();
            let plan = fleet.plan(300, 1, "");
            let workload = fleet.dir.path().join("steady.toml");
            let text = fs::read_to_string(&workload).unwrap();
            let sql = format!("CREATE TABLE t (a int, b text); {}", escape(mark));
            fs::write(&workload, text.replace("CREATE TABLE t (a int, b text)", &sql)).unwrap();
            let run = fleet.submit(&plan);
            fleet.wait_for_samples(&run);
            assert_eq!(sleepers().len(), 1, "it is there");
            if is_runner_killed {
                signal(fleet.runner(0), Signal::KILL);
                assert_eq!(fleet.verdict(&run), "invalid");
            } else {
                stdout(&mut fleet.ask(&["cancel", &run, "--wait", "--json"]));
            }
            assert_eq!(
                sleepers(),
                Vec::<u32>::new(),
                "{mark:?}, runner killed: {is_runner_killed}"
            );
            fleet.check_nothing_left();
        }
    }
}

/// Pids of the processes that escaped.
fn sleepers() -> Vec<u32> {
    let is_one = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line == b"sleep\0".iter().chain(b"98765\0").copied().collect::<Vec<u8>>()
        })
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Processes whose working folder lies in a folder of this name of the agent's only job.
fn pids_in(agent: &Path, name: &str) -> Vec<Pid> {
    let job = fs::read_dir(agent.join("jobs")).unwrap().next().unwrap().unwrap().path();
    let place = fs::canonicalize(job.join(name)).unwrap();
    let works_there = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&place))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(works_there)
        .collect();
    assert!(!pids.is_empty(), "the server is there");
    pids.into_iter().filter_map(Pid::from_raw).collect()
}
