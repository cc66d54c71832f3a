//! What the trend must find, must not find, and must not be fooled by.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)] // a test may

#[path = "../corpus/generate.rs"]
mod generate;

use generate::{FAMILIES, Family, Leaks, Run, Shape};
use pgsoak_analysis::{
    result::Verdict,
    trend::{Series, Settings, Trend, judge},
};
use proptest::prelude::*;

const DAY: f64 = 86_400.0;

/// Detectable in a day, bytes per second.
const DETECTABLE: f64 = 128.0;

fn family(name: &str) -> Family {
    *FAMILIES.iter().find(|family| family.name == name).unwrap()
}

fn shape(name: &str, seed: u64, leak: f64) -> Shape {
    Shape { family: family(name), seed, length: DAY, every: 60.0, noise: 1.0, leak }
}

fn verdict_of(shape: &Shape) -> Trend {
    let run = Run::draw(shape);
    judge(&run.series(), &run.settings)
}

#[test]
fn leaks_of_twice_the_threshold_fail_and_those_of_half_of_it_do_not() {
    for family in FAMILIES.iter().filter(|family| family.leaks != Leaks::Nobody) {
        for seed in 0..3 {
            for (times, red) in
                [(1.0, None), (2.0, Some(true)), (4.0, Some(true)), (0.125, Some(false))]
            {
                let trend = verdict_of(&shape(family.name, seed, times * DETECTABLE));
                if red == Some(true) {
                    assert_eq!(
                        trend.verdict,
                        Verdict::Fail,
                        "{} ×{times}: {}",
                        family.name,
                        trend.reason
                    );
                } else if red == Some(false) {
                    assert_ne!(
                        trend.verdict,
                        Verdict::Fail,
                        "{} ×{times}: {}",
                        family.name,
                        trend.reason
                    );
                }
            }
        }
    }
}

#[test]
fn healthy_families_are_never_called_leaks() {
    for family in FAMILIES.iter().filter(|family| family.leaks == Leaks::Nobody) {
        for seed in 10..14 {
            let trend = verdict_of(&shape(family.name, seed, 0.0));
            assert_ne!(
                trend.verdict,
                Verdict::Fail,
                "{} seed {seed}: {}",
                family.name,
                trend.reason
            );
        }
    }
}

#[test]
fn the_one_process_that_leaks_is_named_with_its_rate() {
    let run = Run::draw(&shape("leak in one process", 3, 800.0));
    let trend = judge(&run.series(), &run.settings);
    assert_eq!(trend.guilty.len(), 1, "{}", trend.reason);
    let guilty = &trend.guilty[0];
    let slope = guilty.bytes_per_second.unwrap();
    assert!((slope - 800.0).abs() < 40.0, "{slope}");
    assert!(guilty.low.unwrap() <= slope && slope <= guilty.high.unwrap());
    assert!(trend.reason.starts_with(&guilty.label()), "{}", trend.reason);
}

#[test]
fn rows_that_are_declared_are_no_leak_and_rows_that_are_not_known_are_no_pass() {
    let run = Run::draw(&shape("follows its rows", 5, 0.0));
    assert_eq!(judge(&run.series(), &run.settings).verdict, Verdict::Pass);
    let undeclared = Settings { allow_bytes_per_row: 0.0, ..run.settings.clone() };
    assert_eq!(judge(&run.series(), &undeclared).verdict, Verdict::Fail);
    let blind: Vec<_> =
        run.series().into_iter().map(|series| Series { covariates: None, ..series }).collect();
    assert_eq!(judge(&blind, &run.settings).verdict, Verdict::Inconclusive);
}

#[test]
fn a_pass_states_what_it_would_have_caught() {
    let trend = verdict_of(&shape("level", 1, 0.0));
    assert_eq!((trend.verdict, trend.threshold), (Verdict::Pass, 64.0));
    assert_eq!(trend.detects_bytes_per_second, Some(DETECTABLE));
    assert!(trend.reason.contains("128 B/s"), "{}", trend.reason);
    let between = trend.between.unwrap();
    assert_eq!((between.units, between.by_host), (18, false));
    assert!(between.low <= between.mean && between.mean <= between.high);
}

#[test]
fn a_leak_says_when_the_memory_limit_is_reached() {
    let run = Run::draw(&shape("leak", 2, 2_000.0));
    let now: f64 = run
        .series()
        .iter()
        .map(|series| series.bytes.iter().rev().find(|bytes| !bytes.is_nan()).unwrap())
        .sum();
    let settings =
        Settings { mem_limit_bytes: Some(now + 18.0 * 2_000.0 * DAY), ..run.settings.clone() };
    let trend = judge(&run.series(), &settings);
    let days = trend.limit_in_s.unwrap() / DAY;
    assert!((0.9..1.1).contains(&days), "{days}");
    let far = Settings { mem_limit_bytes: Some(now + 18.0 * 2_000.0 * 11.0 * DAY), ..settings };
    assert_eq!(judge(&run.series(), &far).limit_in_s, None);
}

#[test]
fn a_memory_context_is_held_to_a_finer_threshold() {
    let shape = Shape { length: 14_400.0, every: 10.0, noise: 0.05, ..shape("leak", 4, 150.0) };
    let run = Run::draw(&shape);
    let contexts = Settings { least_growth_bytes: 262_144.0, ..Settings::default() };
    assert_eq!(judge(&run.series(), &contexts).verdict, Verdict::Fail);
    assert_ne!(judge(&run.series(), &Settings::default()).verdict, Verdict::Fail);
}

/// A healthy day of one host with something wrong with it.
/// An hour with a reading every 30 s: 121 readings, lives of 14 to 40.
#[test]
fn an_hour_at_30_s_finds_leaks_of_twice_the_threshold_and_passes_nothing() {
    let hour = |name, seed, leak| {
        verdict_of(&Shape { length: 3_600.0, every: 30.0, ..shape(name, seed, leak) })
    };
    let detectable = 2.0 * Settings::default().threshold(3_600.0);
    for family in FAMILIES {
        for seed in 40..43 {
            let leaks = family.leaks != Leaks::Nobody;
            let trend = hour(family.name, seed, 1.2 * detectable);
            let expected = if leaks { Verdict::Fail } else { Verdict::Inconclusive };
            assert_eq!(trend.verdict, expected, "{} seed {seed}: {}", family.name, trend.reason);
        }
    }
}

/// What counts as a leak of a short life is more than what counts as one over the run.
#[test]
fn no_life_is_so_short_that_a_leak_of_twice_the_threshold_passes() {
    let detectable = 2.0 * Settings::default().threshold(3_600.0);
    for seed in 0..20 {
        for every in [5.0, 10.0] {
            let recycled = shape("leak, recycled", seed, detectable);
            let trend = verdict_of(&Shape { length: 3_600.0, every, noise: 0.3, ..recycled });
            assert_ne!(trend.verdict, Verdict::Pass, "seed {seed}: {}", trend.reason);
        }
    }
}

fn spoilt(spoil: impl Fn(&mut Vec<f64>, &mut Vec<f64>)) -> Trend {
    let run = Run::draw(&shape("level", 9, 0.0));
    let spoilt: Vec<_> = run
        .series()
        .iter()
        .map(|series| {
            let (mut t, mut bytes) = (series.t_s.to_vec(), series.bytes.to_vec());
            spoil(&mut t, &mut bytes);
            (series.host, series.slot, t, bytes)
        })
        .collect();
    let series: Vec<_> = spoilt
        .iter()
        .map(|(host, slot, t_s, bytes)| Series {
            host,
            slot,
            t_s,
            bytes,
            pid: &[],
            covariates: None,
        })
        .collect();
    judge(&series, &Settings::default())
}

#[test]
fn missing_or_broken_evidence_never_passes() {
    type Spoil = fn(&mut Vec<f64>, &mut Vec<f64>);
    assert_eq!(spoilt(|_, _| {}).verdict, Verdict::Pass);
    let cases: [(&str, Spoil, &str); 13] = [
        ("empty", |t, y| (t.clear(), y.clear()).0, "no two readings"),
        ("one reading", |t, y| (t.truncate(1), y.truncate(1)).0, "no two readings"),
        ("two readings", |t, y| (t.truncate(2), y.truncate(2)).0, "2 readings"),
        ("short", |t, y| (t.truncate(95), y.truncate(95)).0, "at least 180"),
        (
            "too short to pass",
            |t, y| (t.truncate(179), y.truncate(179)).0,
            "180 are needed to pass",
        ),
        ("no reading", |_, y| y.fill(f64::NAN), "0 readings"),
        ("constant", |_, y| y.fill(8e6), "no reading ever changed"),
        ("infinite", |_, y| y[700] = f64::INFINITY, "infinite or negative"),
        ("negative", |_, y| y[700] = -4_096.0, "infinite or negative"),
        ("backwards clock", |t, _| t[700] -= 3_600.0, "its clock goes back"),
        ("duplicate time", |t, _| t[700] = t[699], "two readings at"),
        ("a time that is none", |t, _| t[700] = f64::NAN, "a time is not a number"),
        ("columns of different length", |_, y| y.truncate(1_000), "different length"),
    ];
    for (name, spoil, told) in cases {
        let trend = spoilt(spoil);
        assert_eq!(trend.verdict, Verdict::Inconclusive, "{name}: {}", trend.reason);
        assert!(trend.reason.contains(told), "{name}: {}", trend.reason);
    }
    let gappy: [(&str, Spoil); 4] = [
        ("a quarter lost", |_, y| y[200..560].fill(f64::NAN)),
        ("half lost here and there", |_, y| {
            y.chunks_mut(100).step_by(2).for_each(|part| part.fill(f64::NAN));
        }),
        ("late beginning", |_, y| y[..400].fill(f64::NAN)),
        ("readings in reverse", |t, y| (t.reverse(), y.reverse()).0),
    ];
    for (name, spoil) in gappy {
        let trend = spoilt(spoil);
        assert_eq!(trend.verdict, Verdict::Inconclusive, "{name}: {}", trend.reason);
    }
    assert_eq!(judge(&[], &Settings::default()).verdict, Verdict::Inconclusive);
}

#[test]
fn one_process_that_stopped_being_read_holds_the_pass_back() {
    let run = Run::draw(&shape("level", 9, 0.0));
    let mut bytes = run.series()[4].bytes.to_vec();
    bytes[1_300..].fill(f64::NAN);
    let mut series = run.series();
    series[4].bytes = &bytes;
    let trend = judge(&series, &Settings::default());
    assert_eq!(trend.verdict, Verdict::Inconclusive);
    assert!(trend.reason.contains("host0/b04: its last reading is at 90 %"), "{}", trend.reason);
}

#[test]
fn steady_and_recycled_slots_of_one_run_are_judged_each_in_their_way() {
    let leak = Run::draw(&shape("leak in one process", 3, 800.0));
    let recycled = Run::draw(&shape("recycled", 3, 0.0));
    let mut series = leak.series();
    series.extend(recycled.series().into_iter().map(|one| Series { host: "host9", ..one }).take(6));
    let trend = judge(&series, &Settings::default());
    assert_eq!((trend.verdict, trend.guilty.len()), (Verdict::Fail, 1), "{}", trend.reason);
    assert_eq!(trend.slots.len(), 24);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn neither_order_nor_origin_nor_names_of_hosts_change_anything(
        which in 0..FAMILIES.len(), seed in 0_u64..50, shift in -1.0e6_f64..2.0e9, turn in 0_usize..18,
    ) {
        let shape = Shape {
            family: FAMILIES[which], seed, length: 14_400.0, every: 30.0, noise: 1.0, leak: 1_000.0,
        };
        let run = Run::draw(&shape);
        let before = judge(&run.series(), &run.settings);
        let mut turned = run.series();
        turned.rotate_left(turn);
        turned.reverse();
        prop_assert_eq!(&judge(&turned, &run.settings), &before);
        // A shift by a whole number of 1/8 s, so that differences of times stay what they are.
        let shift = (shift * 8.0).round() / 8.0;
        let mut moved = Run::draw(&shape);
        for host in &mut moved.hosts {
            host.covariates.t_s.iter_mut().for_each(|t| *t += shift);
        }
        let after = judge(&moved.series(), &moved.settings);
        prop_assert_eq!(after.verdict, before.verdict);
        prop_assert_eq!(after.guilty.len(), before.guilty.len());
        if let (Some(a), Some(b)) = (after.bytes_per_second, before.bytes_per_second) {
            prop_assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "{} {}", a, b);
        }
    }

    #[test]
    fn no_numbers_panic_and_few_never_pass(
        t in prop::collection::vec(prop_oneof![any::<f64>(), 0.0..1e5], 0..120),
        y in prop::collection::vec(prop_oneof![any::<f64>(), 0.0..1e9], 0..120),
        pid in prop::collection::vec(0_u64..3, 0..120),
        allow in prop_oneof![Just(0.0), any::<f64>()],
    ) {
        let n = t.len().min(y.len());
        let pid = if pid.len() < n { &[][..] } else { &pid[..n] };
        let one = Series { host: "h", slot: "s", t_s: &t[..n], bytes: &y[..n], pid, covariates: None };
        let settings = Settings { allow_bytes_per_row: allow, ..Settings::default() };
        prop_assert_eq!(judge(&[one, one], &settings).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn no_curve_panics(
        steps in prop::collection::vec(-1e6_f64..1.2e6, 200..400),
        holes in prop::collection::vec(any::<bool>(), 400),
        turns in prop::collection::vec(0_u64..20, 400),
    ) {
        let t: Vec<f64> = (0..steps.len()).map(|k| k as f64 * 30.0).collect();
        let mut level = 2e7;
        let y: Vec<f64> = steps.iter().zip(&holes).enumerate().map(|(k, (step, hole))| {
            level = f64::max(level + step, 0.0);
            if *hole && k % 7 == 0 { f64::NAN } else { level }
        }).collect();
        let mut generation = 0;
        let pid: Vec<u64> = turns.iter().take(t.len()).map(|turn| {
            generation += u64::from(*turn == 0);
            generation
        }).collect();
        for pid in [&[][..], &pid] {
            let one = Series { host: "h", slot: "s", t_s: &t, bytes: &y, pid, covariates: None };
            let trend = judge(&[one], &Settings::default());
            prop_assert!(!trend.reason.is_empty());
        }
    }
}
