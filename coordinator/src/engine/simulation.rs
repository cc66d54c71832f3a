//! A fleet in virtual time: the engine's real state, the real catalogue and the real evidence store, against scripted agents,
//! a network that is cut, delayed and one-way, and crashes of either side, all drawn from a seed.
//!
//! Real: [`State`] with all its decisions, what it writes and when it speaks; the catalogue; frames, marks and holes of the
//! evidence. Scripted: agents (as the contract of sessions describes them), the streams between, the clock. Not here: sockets,
//! tonic, disks (the tests of real processes have these).
//!
//! `PGSOAK_SEEDS` says how many fresh seeds (beside the fixed ones), `PGSOAK_SEED` replays one.

mod agent;
mod contracts;
mod coordinator;
mod dice;
mod world;

use crate::engine::simulation::world::{Shape, World};
use std::{env, time::Duration, time::Instant, time::SystemTime};

/// Seeds that once found something, and a few more.
const FIXED: std::ops::Range<u64> = 0..40;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn simulate(seed: u64, shape: Shape) -> u64 {
    // The seed is in the message of whatever fails.
    println!("seed {seed}: replay with PGSOAK_SEED={seed}");
    World::new(seed, shape).live()
}

#[test]
fn no_seed_breaks_a_contract() {
    let began = Instant::now();
    let shape = Shape { agents: 6, runs: 4, faults_for: Duration::from_secs(2 * 3_600) };
    if let Some(seed) = number("PGSOAK_SEED") {
        println!("{} frames", simulate(seed, shape));
        return;
    }
    let fresh = number("PGSOAK_SEEDS").unwrap_or(20);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let from = now.as_secs().wrapping_mul(1_000_003) % 1_000_000_000 + FIXED.end;
    let seeds = FIXED.chain(from..from + fresh);
    let (mut count, mut frames) = (0, 0);
    for seed in seeds {
        frames += simulate(seed, shape);
        count += 1;
    }
    println!("{count} seeds, {frames} frames, each exactly once, in {:?}", began.elapsed());
}

#[test]
fn a_day_of_twenty_agents_is_exact_to_the_frame() {
    let began = Instant::now();
    let shape = Shape { agents: 20, runs: 12, faults_for: Duration::from_secs(24 * 3_600) };
    let frames = simulate(7, shape);
    println!("a day of 20 agents: {frames} frames in {:?}", began.elapsed());
}
