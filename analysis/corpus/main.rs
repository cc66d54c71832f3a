//! Scores the trend verdict, and the usual rules beside it, on generated series or on a folder of labelled runs.
//!
//! ```text
//! cargo run --release -p pgsoak-analysis --example trend_corpus                  table by family, seeds 0 to 9
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- 0 3           seeds 0 to 2
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- DIR LABELS    folders of DIR, truth in LABELS (JSON)
//! cargo run --release -p pgsoak-analysis --example trend_corpus -- looks 0 10    looks at days that go on
//! ```
//! Leaks are drawn from a quarter to sixteen times what is stated as detectable (2 δ); the table counts those above it. On all cores.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::print_stdout,
    clippy::indexing_slicing
)] // a scorer on data that it made itself

mod generate;
mod looks;
mod rivals;

use generate::{FAMILIES, Leaks, Random, Run, Shape};
use pgsoak_analysis::{judge::judge_path, result::Verdict, trend};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// What became of the runs of one family.
#[derive(Clone, Default)]
struct Score {
    runs: usize,
    fail: usize,
    pass: usize,
    /// By the usual rules.
    rivals: [usize; rivals::RULES.len()],
}

/// One judged run.
struct Scored {
    family: String,
    leaks: bool,
    /// Above what is stated as detectable.
    counts: bool,
    verdict: Verdict,
    /// By the usual rules; `None`: not asked.
    rivals: Option<[bool; rivals::RULES.len()]>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let scored = match arguments.as_slice() {
        [] => generated(0..10),
        [word, from, to] if word == "looks" => {
            looks::print(from.parse()?..to.parse()?);
            return Ok(());
        }
        [from, to] if from.parse::<u64>().is_ok() => generated(from.parse()?..to.parse()?),
        [dir, labels] => labelled(Path::new(dir), Path::new(labels))?,
        _ => return Err("give nothing, FROM TO, or DIR LABELS".into()),
    };
    print_table(&scored);
    Ok(())
}

/// Every family over 1 h, 4 h and 24 h with little, usual and much noise.
fn generated(seeds: std::ops::Range<u64>) -> Vec<Scored> {
    let mut shapes = Vec::new();
    for seed in seeds {
        for family in FAMILIES {
            for (length, every) in [(3_600.0, 10.0), (14_400.0, 30.0), (86_400.0, 30.0)] {
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
        let mut found = [false; rivals::RULES.len()];
        let alpha = 0.01 / series.len() as f64;
        for one in &series {
            let (t, y): (Vec<f64>, Vec<f64>) =
                one.t_s.iter().zip(one.bytes).filter(|(_, y)| !y.is_nan()).unzip();
            for (found, (_, rule)) in found.iter_mut().zip(rivals::RULES) {
                *found = *found || rule(&t, &y, threshold, alpha);
            }
        }
        let leaks = shape.family.leaks != Leaks::Nobody;
        Scored {
            family: shape.family.name.to_owned(),
            leaks,
            counts: !leaks || shape.leak >= 2.0 * threshold,
            verdict: trend.verdict,
            rivals: Some(found),
        }
    })
}

/// Folders of series with their truth: `{run: {family, verdict, leak_rate_bps, duration_s}}`.
fn labelled(dir: &Path, labels: &Path) -> Result<Vec<Scored>, Box<dyn Error>> {
    let labels: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&fs::read(labels)?)?;
    let labels: Vec<_> = labels.into_iter().collect();
    let scored = on_all_cores(&labels, |(run, label)| {
        let judged = judge_path(&dir.join(run)).map_err(|error| error.to_string())?;
        let number = |key: &str| label[key].as_f64().unwrap_or(0.0);
        let leaks = label["verdict"] == "leak";
        let detectable = 2.0 * trend::Settings::default().threshold(number("duration_s"));
        Ok(Scored {
            family: label["family"].as_str().unwrap_or("").to_owned(),
            leaks,
            counts: !leaks || number("leak_rate_bps") >= detectable,
            verdict: judged.verdict,
            rivals: None,
        })
    });
    scored.into_iter().collect::<Result<_, String>>().map_err(Into::into)
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

fn print_table(scored: &[Scored]) {
    let mut families: Vec<(&str, bool, Score)> = Vec::new();
    for run in scored.iter().filter(|run| run.counts) {
        let total = if run.leaks { "all leaks" } else { "all healthy" };
        for name in [run.family.as_str(), total] {
            let at = families.iter().position(|family| family.0 == name).unwrap_or_else(|| {
                families.push((name, run.leaks, Score::default()));
                families.len() - 1
            });
            let score = &mut families[at].2;
            score.runs += 1;
            score.fail += usize::from(run.verdict == Verdict::Fail);
            score.pass += usize::from(run.verdict == Verdict::Pass);
            let found = run.rivals.unwrap_or_default();
            score.rivals.iter_mut().zip(found).for_each(|(sum, found)| *sum += usize::from(found));
        }
    }
    families.sort_by_key(|family| (family.1, family.0.starts_with("all ")));
    let asked = scored.iter().any(|run| run.rivals.is_some());
    let rules = if asked { &rivals::RULES[..] } else { &[] };
    print!("| family | runs | fail | pass | inconclusive |");
    rules.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|---:|---:|---:|---:|{}", "---:|".repeat(rules.len()));
    for (name, _, score) in families {
        let share = |n: usize| format!("{:.1} %", 100.0 * n as f64 / score.runs as f64);
        let unclear = score.runs - score.fail - score.pass;
        print!(
            "| {name} | {} | {} | {} | {} |",
            score.runs,
            share(score.fail),
            share(score.pass),
            share(unclear)
        );
        score.rivals.iter().take(rules.len()).for_each(|found| print!(" {} |", share(*found)));
        println!();
    }
}
