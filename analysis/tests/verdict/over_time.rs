//! Growth over time within a run's verdict: when it speaks, what it says, and what it must not miss.

use crate::made::*;
use pgsoak_analysis::evidence::{JobEvidence, ProcessSeries};
use pgsoak_analysis::result::{EvidenceKind, Finding, RunResult, Verdict};
use pgsoak_proto::evidence::ProcessAppeared;
use pgsoak_proto::job::{Arm, Outcome, Tool};
use std::time::Duration;

pub const HOUR: f64 = 3_600.0;
const MIB: f64 = 1_048_576.0;
/// Between two readings, seconds.
const EVERY: u64 = 10;

/// What counts as a leak in so many hours, bytes per second.
fn threshold(hours: f64) -> f64 {
    (4.0 * MIB / (hours * HOUR)).max(64.0)
}

/// Noise of some pages, the same in every run of the test.
fn noise(seed: u64) -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^= state >> 33;
    (state % 16) as f64 * 4096.0
}

/// Settles within minutes, as a backend does.
fn warm(t: f64) -> f64 {
    3.0 * MIB * (1.0 - (-t / 400.0).exp())
}

/// A process that is read from `from` to `to` seconds; `held` by its age.
fn process(
    number: u32,
    session: Option<u32>,
    kind: &str,
    from: u64,
    to: u64,
    is_over: bool,
    held: &dyn Fn(f64) -> f64,
) -> (u32, ProcessSeries) {
    let second = 1_000_000;
    let times: Vec<u64> = (from..to).step_by(EVERY as usize).collect();
    let who = ProcessAppeared {
        process: number,
        pid: 1000 + number,
        start_time_ticks: 1,
        backend_type: kind.to_owned(),
        session,
    };
    let series = ProcessSeries {
        who,
        elapsed_us: times.iter().map(|t| t * second).collect(),
        rss_anon_bytes: times
            .iter()
            .map(|t| {
                let bytes = held((t - from) as f64) + noise(t * 7919 + u64::from(number));
                pages(BASE + bytes.max(0.0) as u64)
            })
            .collect(),
        cpu_us: times.iter().map(|t| t * 1000).collect(),
        ended_elapsed_us: is_over.then_some(to * second),
    };
    (number, series)
}

/// A finished job whose loop of two workers took so many hours. Rounds are flat; `held` is by worker and age.
pub fn long(arm: Arm, hours: f64, held: impl Fn(u32, f64) -> f64) -> JobEvidence {
    let mut made = job(Tool::Plain, arm, 2, 20, flat);
    let length = (hours * HOUR) as u64;
    let end = length + 10;
    stretched(&mut made, length);
    made.attempt.processes = [
        process(0, Some(0), "client backend", 0, end, false, &|_| 0.0),
        process(1, Some(1), "client backend", 10, end, false, &|t| held(1, t)),
        process(2, Some(2), "client backend", 10, end, false, &|t| held(2, t)),
        process(3, None, "checkpointer", 0, end, false, &|_| 0.0),
        process(4, None, "postmaster", 0, end, false, &|_| 0.0),
    ]
    .into();
    made
}

/// Puts the loop, its rounds and its ticks on so many seconds, from the tenth on.
fn stretched(made: &mut JobEvidence, length: u64) {
    let second = 1_000_000;
    let end = length + 10;
    made.spec.sample_every = Duration::from_secs(EVERY);
    made.spec.hard_end = Duration::from_secs(10 * length);
    let attempt = &mut made.attempt;
    attempt.ticks_elapsed_us = (0..end).step_by(EVERY as usize).map(|t| t * second).collect();
    attempt.operations =
        attempt.ticks_elapsed_us.iter().map(|at| (at / second).saturating_sub(10) * 20).collect();
    attempt.phases[1].started_elapsed_us = 10 * second;
    attempt.phases[1].ended_elapsed_us = Some(end * second);
    for (reading, at) in attempt.at_rest.iter_mut().zip(&mut attempt.at_rest_elapsed_us) {
        if reading.session > 0 {
            *at = (10 + u64::from(reading.round) * length / 20) * second;
            reading.operations = u64::from(reading.round) * length / 20 * 10;
        }
    }
    let ticks = attempt.ticks_elapsed_us.len() as u64;
    let ended = attempt.ended.as_mut().unwrap();
    (ended.ticks, ended.ticks_sampled) = (ticks, ticks);
}

/// Workers that get a new backend every so many seconds; `held` by age. No life has twelve rounds.
fn reconnecting(hours: f64, life: u64, held: impl Fn(f64) -> f64) -> JobEvidence {
    let mut made = long(Arm::Candidate, hours, |_, _| 0.0);
    let length = (hours * HOUR) as u64;
    let mut number = 10;
    made.attempt.processes.retain(|_, series| series.who.session.is_none_or(|s| s == 0));
    for worker in 1..=2 {
        for from in (10..length).step_by(life as usize) {
            let to = (from + life).min(length + 10);
            let (number_, series) =
                process(number, Some(worker), "client backend", from, to, true, &held);
            made.attempt.processes.insert(number_, series);
            number += 1;
        }
    }
    for reading in &mut made.attempt.at_rest {
        if reading.session > 0 {
            reading.process = 100 * reading.session + reading.round / 2;
        }
    }
    made
}

fn of_trend(result: &RunResult) -> Vec<&Finding> {
    result.findings.iter().filter(|f| f.evidence == EvidenceKind::Trend).collect()
}

#[test]
fn a_plateau_of_hours_passes_and_says_what_it_would_have_caught() {
    let result = judged(vec![long(Arm::Candidate, 4.0, |_, t| warm(t))]);
    assert_eq!(result.verdict, Verdict::Pass, "{:#?}", result.findings);
    let detects = result.detects.bytes_per_second.unwrap();
    assert!((2.0 * threshold(4.0)..6.0 * threshold(4.0)).contains(&detects), "{detects}");
    assert!(result.sentence.contains("per second"), "{}", result.sentence);
    assert_eq!(of_trend(&result).len(), 2, "workers, and the server's processes");
}

#[test]
fn a_leak_of_twice_and_four_times_the_threshold_fails() {
    for times in [2.0, 4.0] {
        let rate = times * threshold(4.0);
        let result = judged(vec![long(Arm::Candidate, 4.0, |_, t| warm(t) + rate * t)]);
        assert_eq!(result.verdict, Verdict::Fail, "{times}: {:#?}", result.findings);
        let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
        let slope = finding.bytes_per_second.unwrap();
        assert!((slope / rate - 1.0).abs() < 0.1, "{times}: {slope} for {rate}");
        assert!(finding.low.unwrap() < slope && slope < finding.high.unwrap());
        assert_eq!((finding.evidence, finding.phase.as_str()), (EvidenceKind::Trend, "steady"));
        assert!(result.sentence.contains("per second"), "{}", result.sentence);
    }
    let below = judged(vec![long(Arm::Candidate, 4.0, |_, t| warm(t) + 0.3 * threshold(4.0) * t)]);
    assert_ne!(below.verdict, Verdict::Fail, "{:#?}", below.findings);
}

#[test]
fn one_worker_and_one_server_process_that_leak_are_named() {
    let rate = 4.0 * threshold(4.0);
    let one = |worker: u32, t: f64| warm(t) + if worker == 2 { rate * t } else { 0.0 };
    let result = judged(vec![long(Arm::Candidate, 4.0, one)]);
    assert_eq!(failing(&result)[0].subject, "worker 2", "{:#?}", result.findings);
    let mut made = long(Arm::Candidate, 4.0, |_, t| warm(t));
    let (number, series) = process(3, None, "checkpointer", 0, 14_410, false, &|t| rate * t);
    made.attempt.processes.insert(number, series);
    let result = judged(vec![made]);
    assert_eq!(failing(&result)[0].subject, "checkpointer", "{:#?}", result.findings);
}

#[test]
fn a_warm_up_is_no_leak() {
    for settles in [300.0, 900.0] {
        let slow = |_: u32, t: f64| 40.0 * MIB * (1.0 - (-t / settles).exp());
        let result = judged(vec![long(Arm::Candidate, 4.0, slow)]);
        assert_ne!(result.verdict, Verdict::Fail, "{settles}: {:#?}", result.findings);
    }
}

#[test]
fn replaced_backends_are_judged_by_their_age() {
    let level = judged(vec![reconnecting(4.0, 1_200, |age| warm(age).min(2.0 * MIB))]);
    assert_eq!(level.verdict, Verdict::Pass, "{:#?}", level.findings);
    let leak =
        judged(vec![reconnecting(4.0, 1_200, |age| warm(age).min(2.0 * MIB) + 8_000.0 * age)]);
    assert_eq!(leak.verdict, Verdict::Fail, "{:#?}", leak.findings);
    // Fifteen readings of a life are too few for its curve; many lives together are not.
    let level = judged(vec![reconnecting(4.0, 150, |_| 0.0)]);
    assert_eq!(level.verdict, Verdict::Pass, "{:#?}", level.findings);
    let leak = judged(vec![reconnecting(4.0, 150, |age| 20_000.0 * age)]);
    assert_eq!(leak.verdict, Verdict::Fail, "{:#?}", leak.findings);
    // Without enough of a life nothing is said for or against it.
    let short = judged(vec![reconnecting(4.0, 60, |_| 0.0)]);
    assert_eq!(short.verdict, Verdict::Inconclusive, "{:#?}", short.findings);
}

#[test]
fn short_runs_that_rounds_judged_are_silent() {
    let leak = |_: u32, t: f64| 2_000.0 * t;
    for hours in [0.1, 0.6, 0.9] {
        let result = judged(vec![long(Arm::Candidate, hours, leak)]);
        assert!(of_trend(&result).is_empty(), "{hours}");
        assert_eq!(result.verdict, Verdict::Pass);
        assert_eq!(result.detects.bytes_per_second, None);
    }
}

#[test]
fn missing_readings_never_pass() {
    let quiet = || long(Arm::Candidate, 4.0, |_, t| warm(t));
    let changes: [fn(&mut JobEvidence); 5] = [
        // A worker that nobody read.
        |job| drop(job.attempt.processes.remove(&2)),
        // One whose readings stop, though it did not end.
        |job| {
            let series = job.attempt.processes.get_mut(&2).unwrap();
            series.elapsed_us.truncate(700);
            series.rss_anon_bytes.truncate(700);
            series.cpu_us.truncate(700);
        },
        // A server process whose readings stop.
        |job| {
            let series = job.attempt.processes.get_mut(&3).unwrap();
            series.elapsed_us.truncate(100);
            series.rss_anon_bytes.truncate(100);
            series.cpu_us.truncate(100);
        },
        // A sampler that has died repeats itself.
        |job| {
            for series in job.attempt.processes.values_mut() {
                series.rss_anon_bytes.fill(BASE);
                series.cpu_us.fill(1);
            }
        },
        |job| job.outcome = Outcome::TimedOut,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut made = quiet();
        change(&mut made);
        let result = judged(vec![made]);
        assert_eq!(result.verdict, Verdict::Inconclusive, "{at}: {:#?}", result.findings);
    }
}

#[test]
fn memory_that_never_moves_passes_where_the_processes_worked() {
    let mut made = long(Arm::Candidate, 4.0, |_, _| 0.0);
    made.attempt.processes.values_mut().for_each(|series| series.rss_anon_bytes.fill(BASE));
    let result = judged(vec![made]);
    assert_eq!(result.verdict, Verdict::Pass, "{:#?}", result.findings);
    assert_eq!(result.detects.bytes_per_second, Some(2.0 * 4.0 * MIB / 14_400.0));
}

#[test]
fn processes_that_come_and_go_are_no_gap() {
    let mut made = long(Arm::Candidate, 4.0, |_, t| warm(t));
    for (at, from) in (0..14_000_u64).step_by(60).enumerate() {
        let number = 100 + at as u32;
        let (number, series) =
            process(number, None, "autovacuum worker", from, from + 50, true, &|t| 1e4 * t);
        made.attempt.processes.insert(number, series);
    }
    let (number, series) = process(99, None, "client backend", 700, 900, true, &|_| 0.0);
    made.attempt.processes.insert(number, series);
    let result = judged(vec![made]);
    assert_eq!(result.verdict, Verdict::Pass, "{:#?}", result.findings);
}

#[test]
fn the_order_of_hosts_changes_nothing() {
    let rate = 3.0 * threshold(4.0);
    let host = |name: &str, shift: f64| {
        let mut made = long(Arm::Candidate, 4.0, |_, t| warm(t) + (rate + shift) * t);
        made.agent = name.to_owned();
        made
    };
    let hosts = [host("a", 0.0), host("b", 20.0), host("c", -30.0)];
    let forth = judged(hosts.to_vec());
    let back = judged(hosts.into_iter().rev().collect());
    assert_eq!(forth.findings, back.findings);
    assert_eq!((forth.verdict, forth.detects), (back.verdict, back.detects));
    assert_eq!(failing(&forth)[0].hosts, ["a", "b", "c"]);
}

#[test]
fn rounds_and_trend_of_one_cause_are_one_finding() {
    let mut made = long(Arm::Candidate, 4.0, |_, t| warm(t) + 1_120.0 * t);
    // Ten operations a second and worker: 112 bytes each.
    for reading in made.attempt.at_rest.iter_mut().filter(|reading| reading.session > 0) {
        reading.rss_anon_bytes = pages(BASE + 112 * reading.operations);
    }
    let result = judged(vec![made]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.evidence, EvidenceKind::Rounds);
    assert_eq!(finding.agreeing, [EvidenceKind::Trend]);
    assert!((finding.bytes_per_operation.unwrap() - 112.0).abs() < 2.0);
    assert!((finding.bytes_per_second.unwrap() - 1_120.0).abs() < 60.0);
}

#[test]
fn what_vanilla_grows_by_is_taken_off() {
    let rate = 5.0 * threshold(4.0);
    let grows = |arm: Arm, times: f64| long(arm, 4.0, move |_, t| warm(t) + times * rate * t);
    let alike = judged(vec![grows(Arm::Candidate, 1.0), grows(Arm::Control, 1.0)]);
    assert_eq!(alike.verdict, Verdict::Pass, "{:#?}", alike.findings);
    let more = judged(vec![grows(Arm::Candidate, 2.0), grows(Arm::Control, 1.0)]);
    let finding = failing(&more)[0];
    assert_eq!(finding.owner, pgsoak_analysis::result::Owner::Extension);
    assert!((finding.bytes_per_second.unwrap() / rate - 1.0).abs() < 0.1, "{finding:#?}");
    let mut broken = grows(Arm::Control, 1.0);
    broken.attempt.missing_frames = 1;
    let suspected = judged(vec![grows(Arm::Candidate, 2.0), broken]);
    assert!(of_trend(&suspected).iter().all(|f| f.verdict != Verdict::Fail));
}

#[test]
fn a_floor_in_bytes_per_second_is_demanded() {
    let judged_with = |floor: f64, hours: f64| {
        let mut evidence = run(vec![long(Arm::Candidate, hours, |_, t| warm(t))]);
        evidence.plan.floor.bytes_per_second = Some(floor);
        pgsoak_analysis::verdict::judge(&evidence).verdict
    };
    assert_eq!(judged_with(2_000.0, 4.0), Verdict::Pass);
    assert_eq!(judged_with(128.0, 4.0), Verdict::Inconclusive);
    assert_eq!(judged_with(2_000.0, 0.5), Verdict::Inconclusive, "nothing judged it");
}

#[test]
fn rows_that_are_declared_are_no_leak() {
    let per_row = 100.0;
    let held = |_: u32, t: f64| warm(t) + per_row * 10.0 * t;
    let with_rows = |declares: bool| {
        let mut made = long(Arm::Candidate, 4.0, held);
        made.workload.allow_bytes_per_row = per_row;
        made.workload.phases[1].rows = declares.then(|| "SELECT count(*) FROM t".to_owned());
        let times = made.attempt.at_rest_elapsed_us.clone();
        for (reading, at) in made.attempt.at_rest.iter_mut().zip(times) {
            if reading.session > 0 {
                reading.rows = (at / 1_000_000 - 10) * 10;
                reading.rss_anon_bytes = pages(BASE + 100 * reading.rows);
                reading.contexts.clear();
            }
        }
        judged(vec![made])
    };
    assert_eq!(with_rows(true).verdict, Verdict::Pass, "{:#?}", with_rows(true).findings);
    assert_eq!(with_rows(false).verdict, Verdict::Inconclusive);
}
