//! Seeds: fixed ones, fresh ones, those that once found something, and a day of twenty hosts.
//!
//! Each world has a process of its own: what a process has lived through before (tokio counts tasks) is part of the order of things, and a
//! seed shall give the same world again. `PGSOAK_SEED=N` replays one, `PGSOAK_SEEDS=N` says how many fresh ones there are beside the fixed
//! (none), `PGSOAK_SECONDS=N` begins no further fresh one after so many seconds; `PGSOAK_LOG=info` shows what everybody says.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

use pgsoak_simulation::shape::Shape;
use pgsoak_simulation::world::{Report, World};
use std::{
    env,
    process::Command,
    sync::Mutex,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tracing_subscriber::EnvFilter;

/// Seeds 0, 1, 2 …: the same in every run.
const FIXED: u64 = 50;
/// Seeds that once broke a contract: a session that was opened and never welcomed kept its agent waiting for ever (two); a run whose jobs were
/// over waited for a clock that had been set back to come round again.
const FOUND: [u64; 3] = [106_507_415, 106_507_481, 388_514_190];
/// Names the world of a process: seed and shape.
const WORLD: &str = "PGSOAK_WORLD";
/// Before a world's report.
const REPORT: &str = "report: ";

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn shape(name: &str) -> Shape {
    match name {
        "small" => Shape::SMALL,
        "calm" => Shape { rate: 0, ..Shape::SMALL },
        "day" => Shape::DAY,
        other => panic!("no shape '{other}'"),
    }
}

/// The world of this process.
#[test]
#[ignore = "other tests start it, each world in a process of its own"]
fn a_world() {
    let world = env::var(WORLD).unwrap();
    let (seed, name) = world.split_once(' ').unwrap();
    if let Ok(filter) = EnvFilter::try_from_env("PGSOAK_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
    }
    let report = World::new(seed.parse().unwrap(), shape(name)).live();
    println!("{REPORT}{}", serde_json::to_string(&report).unwrap());
}

fn live(seed: u64, shape: &str) -> Report {
    let report = try_live(seed, shape).unwrap_or_else(|what| panic!("{what}"));
    println!("{report}");
    report
}

/// What became of a world, or what it said when it broke.
fn try_live(seed: u64, shape: &str) -> Result<Report, String> {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_world", "--ignored", "--nocapture"])
        .env(WORLD, format!("{seed} {shape}"))
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = out.lines().find_map(|line| line.split_once(REPORT)).map(|(_, json)| json);
    if env::var_os("PGSOAK_LOG").is_some() {
        println!("{out}{err}");
    }
    let Some(report) = report else {
        return Err(format!(
            "seed {seed} ({shape}): PGSOAK_SEED={seed} make simulate replays it\n{out}\n{err}"
        ));
    };
    Ok(serde_json::from_str(report).unwrap())
}

#[test]
fn no_seed_breaks_a_contract() {
    let began = Instant::now();
    if let Some(seed) = number("PGSOAK_SEED") {
        println!("{:#?}", live(seed, "small").faults);
        return;
    }
    let fresh = number("PGSOAK_SEEDS").unwrap_or(0);
    let limit = number("PGSOAK_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let from = now.as_secs().wrapping_mul(1_000_003) % 1_000_000_000 + FIXED;
    let known: Vec<u64> = (0..FIXED).chain(FOUND).collect();
    let next = AtomicUsize::new(0);
    let (reports, broken) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let seed = match known.get(number) {
            Some(seed) => *seed,
            None if began.elapsed() >= limit => break,
            None => match (number - known.len()) as u64 {
                number if number < fresh => from + number,
                _ => break,
            },
        };
        match try_live(seed, "small") {
            Ok(report) => {
                println!("{report}");
                reports.lock().unwrap().push(report);
            }
            // The others are still worth knowing.
            Err(what) => {
                println!("{what}");
                broken.lock().unwrap().push(what);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (reports, broken) = (reports.into_inner().unwrap(), broken.into_inner().unwrap());
    assert!(broken.is_empty(), "{} worlds broke a contract:\n{}", broken.len(), broken.join("\n"));
    let frames: u64 = reports.iter().map(|report| report.ledger.frames).sum();
    let faults: u64 =
        reports.iter().flat_map(|report| &report.faults).map(|(_, count)| count).sum();
    println!(
        "{} worlds, {faults} faults, {frames} frames, in {:?}",
        reports.len(),
        began.elapsed()
    );
    // A world in which nothing goes wrong or nothing passes proves little.
    assert!(faults > reports.len() as u64 * 5, "{faults} faults");
    assert!(reports.iter().any(|report| report.ledger.verdicts.contains_key("pass")));
}

#[test]
fn a_world_without_faults_loses_nothing_and_needs_no_second_attempt() {
    assert_eq!(live(1, "calm").faults, []);
}

#[test]
fn a_seed_gives_the_same_world_again() {
    let (first, second) = (live(11, "small"), live(11, "small"));
    assert_eq!(first.faults, second.faults);
    assert_eq!((first.ledger, first.lived), (second.ledger, second.lived));
}

#[test]
fn a_day_of_twenty_hosts_is_exact_to_the_sample() {
    let report = live(number("PGSOAK_SEED").unwrap_or(7), "day");
    println!("{:?}", report.faults);
    assert!(report.lived >= Duration::from_secs(24 * 3_600));
}
