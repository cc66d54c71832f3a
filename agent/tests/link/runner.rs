//! A runner that does what the job's workload says: the test's own program, started again by the agent under test.
//!
//! Words of the workload: `frames=N` (each about 300 bytes), `every_ms=N`, `artifact=BYTES`, and one of `end`, `wait` (until
//! cancelled), `stubborn` (never ends), `die` (exit code 3 without a last frame).

use pgsoak_agent::folder::JobFolder;
use pgsoak_agent::spool::{SpoolLimits, SpoolWriter};
use pgsoak_proto::evidence::{AttemptEnded, AttemptStarted, Body, CheckResult};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::{JobProgress, JobStage};
use std::fs;
use std::process::{Command, exit};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Plays the runner if this process was started as one, and does not come back then.
pub fn play() {
    let Some(folder) = std::env::args().next_back().map(JobFolder::at) else { return };
    let Ok(assignment) = folder.assignment() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut term = runtime.block_on(async { signal(SignalKind::terminate()).unwrap() });
    folder.write_runner().unwrap();
    let words: Vec<&str> = assignment.spec.workload_toml.split_whitespace().collect();
    let number = |key: &str| -> u64 {
        let value = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.map_or(0, |value| value.parse().unwrap())
    };
    let began = Instant::now();
    let spool = SpoolWriter::create(&folder.spool(), SpoolLimits::default()).unwrap();
    let started = AttemptStarted { cores: 1, sample_every_ms: 1000, ..AttemptStarted::default() };
    spool.append(began.elapsed(), Body::Started(started)).unwrap();
    let progress = |stage, done| JobProgress {
        lease: assignment.lease,
        stage,
        phase: "scripted".into(),
        round: 1,
        rounds: 2,
        operations: 10,
        done,
        left_ms: 0,
        rss_anon_bytes: 0,
    };
    for round in 0..u32::try_from(number("frames")).unwrap() {
        let answer = "x".repeat(300);
        let sql = "SELECT true".into();
        let check = CheckResult { phase: 0, round, holds: true, sql, answer };
        spool.append(began.elapsed(), Body::Check(check)).unwrap();
        if round % 10 == 0 {
            folder.write_progress(&progress(JobStage::Running, 0.5)).unwrap();
        }
        thread::sleep(Duration::from_millis(number("every_ms")));
    }
    folder.write_progress(&progress(JobStage::Running, 1.0)).unwrap();
    // A server that a runner leaves behind.
    let mut server =
        Command::new("/bin/sleep").arg("600").current_dir(folder.path()).spawn().unwrap();
    if words.contains(&"die") {
        spool.sync().unwrap();
        eprintln!("something is wrong here");
        exit(3);
    }
    while words.contains(&"stubborn") {
        thread::sleep(Duration::from_secs(1));
    }
    let mut outcome = Outcome::Finished;
    if words.contains(&"wait") {
        runtime.block_on(term.recv());
        assert!(folder.cancel_reason().is_some(), "the reason is there before the signal");
        outcome = Outcome::Cancelled;
    }
    server.kill().unwrap();
    server.wait().unwrap();
    if number("artifact") > 0 {
        fs::create_dir(folder.artifacts()).unwrap();
        let bytes: Vec<u8> = (0..number("artifact")).map(|n| (n % 251) as u8).collect();
        fs::write(folder.artifacts().join("raw.zst"), bytes).unwrap();
        fs::write(folder.artifacts().join("empty.zst"), b"").unwrap();
    }
    let ended = AttemptEnded::bare(outcome, folder.cancel_reason().unwrap_or_default());
    spool.append(began.elapsed(), Body::Ended(ended)).unwrap();
    spool.close().unwrap();
    exit(0);
}
