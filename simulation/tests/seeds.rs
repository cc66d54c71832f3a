//! Seeds: fixed ones, fresh ones, those that once found something, and a day of twenty hosts.
//!
//! `PGSOAK_SEED=N` replays one world, `PGSOAK_SEEDS=N` says how many fresh ones there are beside the fixed (20),
//! `PGSOAK_SECONDS=N` begins no further fresh one after so many seconds; `PGSOAK_LOG=info` shows what everybody says.

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
    sync::Mutex,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tracing_subscriber::EnvFilter;

/// Seeds 0, 1, 2 …: the same in every run.
const FIXED: u64 = 30;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn live(seed: u64, shape: Shape) -> Report {
    if let Ok(filter) = EnvFilter::try_from_env("PGSOAK_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
    }
    // Said before, so that it stands above whatever fails.
    println!("seed {seed}: PGSOAK_SEED={seed} make simulate replays it");
    let report = World::new(seed, shape).live();
    println!("{report}");
    report
}

#[test]
fn no_seed_breaks_a_contract() {
    let began = Instant::now();
    if let Some(seed) = number("PGSOAK_SEED") {
        println!("{:#?}", live(seed, Shape::SMALL).faults);
        return;
    }
    let fresh = number("PGSOAK_SEEDS").unwrap_or(20);
    let limit = number("PGSOAK_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let from = now.as_secs().wrapping_mul(1_000_003) % 1_000_000_000 + FIXED;
    let next = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    let work = || loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let seed = if number < FIXED { number } else { from + number - FIXED };
        if number >= FIXED + fresh || (number >= FIXED && began.elapsed() >= limit) {
            break;
        }
        let report = live(seed, Shape::SMALL);
        reports.lock().unwrap().push(report);
    };
    // A world is one thread's.
    thread::scope(|scope| {
        let threads: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(work))
            .collect();
        for thread in threads {
            thread.join().expect("every world keeps the contracts");
        }
    });
    let reports = reports.into_inner().unwrap();
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
    let report = live(1, Shape { rate: 0, ..Shape::SMALL });
    assert_eq!(report.faults, []);
}

#[test]
fn a_seed_gives_the_same_world_again() {
    let shape = Shape { faults_for: Duration::from_secs(3_600), ..Shape::SMALL };
    let (first, second) = (live(11, shape), live(11, shape));
    assert_eq!(first.faults, second.faults);
    assert_eq!((first.ledger, first.lived), (second.ledger, second.lived));
}

#[test]
fn a_day_of_twenty_hosts_is_exact_to_the_sample() {
    let report = live(number("PGSOAK_SEED").unwrap_or(7), Shape::DAY);
    println!("{:?}", report.faults);
    assert!(report.lived >= Duration::from_secs(24 * 3_600));
}
