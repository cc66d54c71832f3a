//! Scores the trend verdict, and the usual rules beside it, on generated series or on a folder of labelled runs.
//!
//! ```text
//! cargo run --release -p pgsoak-analysis --example trend_corpus                  table by family, seeds 0 to 9
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- 0 3           seeds 0 to 2
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- DIR LABELS    folders of DIR, truth in LABELS (JSON)
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- looks 0 10    looks at days that go on
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- into docs/verdict.md [0 3 | DIR LABELS]
//!                                                                               the table is put where FILE has one
//! ```
//! Leaks are drawn from a quarter to sixteen times what is stated as detectable (2 δ); the table counts those above it. On all cores.
//! Exit code 1 where the aim is missed: more than 1 % of the healthy runs fail, fewer than 97 % of the leaks do, or one passes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing
)] // a scorer on data that it made itself

mod folders;
mod generate;
mod looks;
mod rivals;
mod table;

use generate::{FAMILIES, Leaks, Random, Run, Shape};
use pgsoak_analysis::{result::Verdict, trend};
use std::{
    env,
    error::Error,
    fs,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Length and seconds between readings of what is generated.
const LENGTHS: [(f64, f64); 4] =
    [(3_600.0, 10.0), (3_600.0, 30.0), (14_400.0, 30.0), (86_400.0, 30.0)];

/// Times and bytes of a series, missed readings left out.
type Readings = (Vec<f64>, Vec<f64>);

/// One judged run.
struct Scored {
    family: String,
    /// Seconds.
    length: f64,
    /// Seconds between readings.
    every: f64,
    leaks: bool,
    /// Above what is stated as detectable.
    counts: bool,
    verdict: Verdict,
    /// By the usual rules.
    rivals: [bool; rivals::RULES.len()],
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (into, what) = match arguments.as_slice() {
        [word, file, what @ ..] if word == "into" => (Some(Path::new(file)), what),
        what => (None, what),
    };
    let (name, scored) = match what {
        [] => ("generated", generated(0..10)),
        [word, from, to] if word == "looks" => {
            looks::print(from.parse()?..to.parse()?);
            return Ok(ExitCode::SUCCESS);
        }
        [from, to] if from.parse::<u64>().is_ok() => {
            ("generated", generated(from.parse()?..to.parse()?))
        }
        [dir, labels] => ("folders", folders::scored(Path::new(dir), Path::new(labels))?),
        _ => return Err("give nothing, FROM TO, DIR LABELS, or looks FROM TO".into()),
    };
    let table = table::of(&scored);
    print!("{table}");
    if let Some(file) = into {
        fs::write(file, table::replaced(&fs::read_to_string(file)?, name, &table)?)?;
    }
    let missed = table::missed(&scored);
    missed.iter().for_each(|what| eprintln!("{what}"));
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}

/// Every family over 1 h (at 10 s and at 30 s), 4 h and 24 h with little, usual and much noise.
fn generated(seeds: std::ops::Range<u64>) -> Vec<Scored> {
    let mut shapes = Vec::new();
    for seed in seeds {
        for family in FAMILIES {
            for (length, every) in LENGTHS {
                for noise in [0.3_f64, 1.0, 3.0] {
                    let detectable = 2.0 * trend::Settings::default().threshold(length);
                    let words = [seed, length as u64, noise.to_bits(), family.key()];
                    let leak = detectable * Random::of(&words).between(0.25, 16.0);
                    shapes.push(Shape { family, seed, length, every, noise, leak });
                }
            }
        }
    }
    on_all_cores(&shapes, |shape| {
        let run = Run::draw(shape);
        let series = run.series();
        let trend = trend::judge(&series, &run.settings);
        let threshold = run.settings.threshold(shape.length);
        let readings = series
            .iter()
            .map(|one| one.t_s.iter().zip(one.bytes).filter(|(_, y)| !y.is_nan()).unzip());
        let rivals = by_rivals(&readings.collect::<Vec<_>>(), threshold);
        let leaks = shape.family.leaks != Leaks::Nobody;
        Scored {
            family: shape.family.name.to_owned(),
            length: shape.length,
            every: shape.every,
            leaks,
            counts: !leaks || shape.leak >= 2.0 * threshold,
            verdict: trend.verdict,
            rivals,
        }
    })
}

/// Whether each usual rule calls any of the series a leak, at 1 % shared between them.
fn by_rivals(series: &[Readings], threshold: f64) -> [bool; rivals::RULES.len()] {
    let mut found = [false; rivals::RULES.len()];
    let alpha = 0.01 / series.len() as f64;
    for (t, y) in series {
        for (found, (_, rule)) in found.iter_mut().zip(rivals::RULES) {
            *found = *found || rule(t, y, threshold, alpha);
        }
    }
    found
}

/// Results in the order of the items.
fn on_all_cores<I: Sync, O: Send>(items: &[I], work: impl Fn(&I) -> O + Sync) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut done: Vec<(usize, O)> = thread::scope(|scope| {
        let take = || {
            let mut done = Vec::new();
            while let Some((index, item)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                items.get(index).map(|item| (index, item))
            } {
                done.push((index, work(item)));
            }
            done
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
