//! What the runner says and leaves when something goes wrong.

use crate::desk::{Job, spec};
use pgsoak_proto::evidence::Body;
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::JobStage;
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

const LOOP: &str = r#"
name = "w"
[[phase]]
name = "create"
kind = "once"
sql = "CREATE TABLE item (n bigint)"
[[phase]]
name = "steady"
kind = "loop"
workers = 2
operations = 100
for = "90s"
rate = 200
sql = "INSERT INTO item VALUES (${n})"
"#;

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn is_a_round(body: &Body) -> bool {
    matches!(body, Body::AtRest(rest) if rest.session == 2 && rest.round >= 1)
}

/// Pid of a process that the evidence speaks of.
fn pid_of(job: &Job, wanted: impl Fn(&pgsoak_proto::evidence::ProcessAppeared) -> bool) -> u32 {
    job.frames()
        .iter()
        .find_map(|frame| match &frame.body {
            Body::ProcessAppeared(who) if wanted(who) => Some(who.pid),
            _ => None,
        })
        .expect("no such process in the evidence")
}

#[test]
fn a_refused_statement_is_the_products_failure() {
    let workload = LOOP.replace("INSERT INTO item VALUES (${n})", "SELECT 1 / (50 - ${n})");
    let ended = Job::run(&spec(&workload, 15)).ended().clone();
    assert_eq!(ended.outcome, Outcome::Failed, "{ended:?}");
    assert_eq!(ended.sqlstate, "22012");
    assert_eq!(ended.statement, "SELECT 1 / (50 - 50)");
    assert_eq!(
        ended.reason,
        "phase steady, line 14 of the workload: division by zero (SQLSTATE 22012)"
    );
    assert!(ended.server_log_tail.contains("division by zero"), "{}", ended.server_log_tail);
}

#[test]
fn a_statement_that_ends_its_own_backend_is_the_products_failure() {
    let sql =
        "SELECT pg_terminate_backend(pg_backend_pid()) FROM generate_series(1, 1) WHERE ${n} = 5";
    let workload = LOOP.replace("INSERT INTO item VALUES (${n})", sql);
    let ended = Job::run(&spec(&workload, 18)).ended().clone();
    assert_eq!(ended.outcome, Outcome::Failed, "{ended:?}");
    assert!(ended.statement.contains("pg_terminate_backend"), "{ended:?}");
    assert!(ended.reason.contains("lost its backend"), "{ended:?}");
}

#[test]
fn a_check_that_does_not_hold_makes_the_job_infrastructure() {
    let workload =
        LOOP.replace("workers = 2", "check = \"SELECT count(*) < 150 FROM item\"\nworkers = 1");
    let evidence = Job::run(&spec(&workload, 15));
    let ended = evidence.ended();
    assert_eq!(ended.outcome, Outcome::Infrastructure, "{ended:?}");
    assert_eq!(ended.reason, "check of phase steady after round 2 does not hold: false");
    let held: Vec<bool> = evidence
        .bodies()
        .filter_map(|body| match body {
            Body::Check(check) => Some(check.holds),
            _ => None,
        })
        .collect();
    assert_eq!(held, [true, false]);
}

#[test]
fn a_workload_that_cannot_be_used_is_named_with_its_line() {
    let ended = Job::run(&spec("name = \"w\"\nphases = 3\n", 15)).ended().clone();
    assert_eq!(ended.outcome, Outcome::Infrastructure, "{ended:?}");
    assert!(ended.reason.contains("w.toml:2:"), "{ended:?}");
}

#[test]
fn a_setting_that_the_server_refuses_is_infrastructure_with_the_logs_last_lines() {
    let workload = format!("{LOOP}[cluster]\nsettings = {{ shared_buffers = \"nonsense\" }}\n");
    let ended = Job::run(&spec(&workload, 15)).ended().clone();
    assert_eq!(ended.outcome, Outcome::Infrastructure, "{ended:?}");
    assert!(ended.server_log_tail.contains("shared_buffers"), "{ended:?}");
}

#[test]
fn a_signal_in_the_middle_of_a_loop_leaves_nothing() {
    let job = Job::new(&spec(LOOP, 18));
    let mut runner = job.start();
    job.wait_for(&mut runner, is_a_round);
    // Told of at most twice a second.
    let progress = loop {
        match job.folder.progress() {
            Some(progress) if progress.operations > 0 => break progress,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!((progress.stage, progress.phase.as_str()), (JobStage::Running, "steady"));
    assert!(progress.rss_anon_bytes > 0, "{progress:?}");
    assert!(job.folder.runner().unwrap().unwrap().is_alive());
    let asked_at = Instant::now();
    signal(runner.id(), Signal::TERM);
    let evidence = job.finish(runner);
    assert!(asked_at.elapsed() < Duration::from_secs(10), "{:?}", asked_at.elapsed());
    let ended = evidence.ended();
    assert_eq!(ended.outcome, Outcome::Cancelled, "{ended:?}");
    assert_eq!(ended.reason, "stopped by SIGTERM");
    assert!(ended.ticks > 0 && ended.process_samples > 0, "{ended:?}");
}

#[test]
fn a_signal_in_the_middle_of_the_preparation_leaves_nothing() {
    for wait_for in ["tree", "data", "logs/server.log"] {
        let job = Job::new(&spec(LOOP, 15));
        let runner = job.start();
        while !job.folder.path().join(wait_for).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(runner.id(), Signal::TERM);
        let ended = job.finish(runner).ended().clone();
        assert_eq!(ended.outcome, Outcome::Cancelled, "{wait_for}: {ended:?}");
    }
}

#[test]
fn a_cancel_file_ends_a_long_statement_with_its_reason() {
    let job =
        Job::new(&spec(&LOOP.replace("CREATE TABLE item (n bigint)", "SELECT pg_sleep(100)"), 15));
    let mut runner = job.start();
    job.wait_for(&mut runner, |body| matches!(body, Body::AtRest(_)));
    job.folder.ask_cancel("nobody wants it").unwrap();
    let ended = job.finish(runner).ended().clone();
    assert_eq!((ended.outcome, ended.reason.as_str()), (Outcome::Cancelled, "nobody wants it"));
}

#[test]
fn the_hard_end_comes_even_when_the_server_hangs() {
    let mut spec = spec(LOOP, 15);
    spec.hard_end = Duration::from_secs(12);
    let job = Job::new(&spec);
    let mut runner = job.start();
    job.wait_for(&mut runner, is_a_round);
    // All of it: who would answer, and who would stop it.
    signal(pid_of(&job, |who| who.session == Some(1)), Signal::STOP);
    signal(pid_of(&job, |who| who.backend_type == "postmaster"), Signal::STOP);
    let ended = job.finish(runner).ended().clone();
    assert_eq!(ended.outcome, Outcome::TimedOut, "{ended:?}");
    assert!(ended.reason.contains("hard end of 12 s"), "{ended:?}");
}

#[test]
fn a_killed_backend_is_a_crash_of_the_server() {
    let job = Job::new(&spec(LOOP, 18));
    let mut runner = job.start();
    job.wait_for(&mut runner, is_a_round);
    signal(pid_of(&job, |who| who.session == Some(2)), Signal::KILL);
    let ended = job.finish(runner).ended().clone();
    assert_eq!(ended.outcome, Outcome::Failed, "{ended:?}");
    assert!(ended.reason.contains("crashed") && ended.reason.contains("signal 9"), "{ended:?}");
    assert!(ended.server_log_tail.contains("terminated by signal 9"), "{ended:?}");
}

#[test]
fn reconnecting_workers_are_told_apart_by_their_processes() {
    let workload = LOOP
        .replace("for = \"90s\"", "rounds = 3\nreconnect = \"every 40 operations\"")
        .replace("rate = 200\n", "");
    let evidence = Job::run(&spec(&workload, 15));
    assert_eq!(evidence.ended().outcome, Outcome::Finished, "{:?}", evidence.ended());
    let mut backends: Vec<u32> = evidence
        .bodies()
        .filter_map(|body| match body {
            Body::ProcessAppeared(who) if who.session == Some(1) => Some(who.process),
            _ => None,
        })
        .collect();
    backends.dedup();
    // 300 operations: a new one after every 40.
    assert_eq!(backends.len(), 8, "{backends:?}");
    let last = evidence.at_rest(1).last().map(|rest| (rest.operations, rest.process));
    assert_eq!(last, Some((300, *backends.last().unwrap())));
}

#[test]
fn a_loop_by_time_keeps_its_pace_and_leaves_enough_rounds() {
    let mut spec = spec(LOOP, 15);
    spec.loop_for = Some(Duration::from_secs(6));
    let evidence = Job::run(&spec);
    assert_eq!(evidence.ended().outcome, Outcome::Finished, "{:?}", evidence.ended());
    let rounds = evidence.at_rest(1).last().unwrap().round;
    assert!((12..=21).contains(&rounds), "{rounds}");
    let ended = evidence.bodies().find_map(|body| match body {
        Body::PhaseEnded(ended) if ended.phase == 1 => Some(*ended),
        _ => None,
    });
    let ended = ended.unwrap();
    // 2 workers × 200 a second × 6 s, less the time at rest.
    assert!((1200..=2600).contains(&ended.operations), "{ended:?}");
}
