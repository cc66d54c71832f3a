//! `kill -9` of the coordinator, of the agent's daemon and of both, at random times of real runs.

use crate::evidence;
use crate::fleet::Fleet;
use std::{env, thread, time::Duration, time::SystemTime};

/// A run lasts so long without kills.
const SECONDS: u32 = 60;

/// Small, fast and good enough to choose times (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same throws.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn pause(dice: &mut Dice, most_ms: u64) {
    thread::sleep(Duration::from_millis(dice.below(most_ms)));
}

#[test]
fn kills_at_random_times_lose_nothing_and_leave_nothing() {
    let kills = number("PGSOAK_KILLS").unwrap_or(10);
    let seed = number("PGSOAK_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("{kills} kills; PGSOAK_SEED={seed} repeats their times");
    let mut dice = Dice::new(seed);
    let mut fleet = Fleet::new(1, 2);
    fleet.start();
    let plan = fleet.plan(SECONDS, 2, "");
    let mut done = 0;
    while done < kills {
        let run = fleet.submit(&plan);
        while done < kills && !(fleet.coordinator.is_started() && fleet.verdict_now(&run).is_some())
        {
            pause(&mut dice, 8_000);
            let (coordinator, agent) =
                [(true, false), (false, true), (true, true)][dice.below(3) as usize];
            if coordinator {
                fleet.coordinator.kill();
            }
            if agent {
                fleet.agents[0].kill();
            }
            pause(&mut dice, 4_000);
            // Whoever comes first waits for the other.
            if agent && dice.below(2) == 0 {
                fleet.agents[0].spawn();
            }
            if coordinator {
                fleet.start_coordinator();
            }
            if !fleet.agents[0].is_started() {
                fleet.agents[0].spawn();
            }
            done += 1;
            println!("kill {done}: coordinator {coordinator}, daemon {agent}");
        }
        check_run(&fleet, &run);
    }
}

fn check_run(fleet: &Fleet, run: &str) {
    assert_eq!(fleet.verdict(run), "pass", "{:#}", fleet.report(run));
    let report = fleet.report(run);
    for job in report["jobs"].as_array().unwrap() {
        assert_eq!(job["attempts"], 1, "{job:#}");
        assert_eq!(job["outcome"], "finished", "{job:#}");
        assert_eq!(job["samples"]["expected"], job["samples"]["stored"], "{job:#}");
        assert_eq!(job["samples"]["gaps"], 0, "{job:#}");
    }
    let stored = evidence::stored(&fleet.url(), run);
    assert_eq!(stored.len(), 2, "two jobs, one attempt each");
    for attempt in stored.values() {
        attempt.check_complete();
        // Before the first operation, and after every round.
        assert!(attempt.rounds() > SECONDS as usize, "{} readings at rest", attempt.rounds());
    }
    fleet.check_nothing_left();
    let frames: usize = stored.values().map(|attempt| attempt.frames.len()).sum();
    println!("run {run}: {frames} frames, each exactly once");
}
