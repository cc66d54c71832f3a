//! Folders of series whose truth is known: `{run: {family, verdict, leak_rate_bps, duration_s, interval_s}}`.

use super::{Readings, Scored, by_rivals, on_all_cores};
use pgsoak_analysis::{judge::judge_path, trend};
use std::{collections::BTreeMap, error::Error, fs, path::Path};

/// Every run that the labels name, judged.
pub fn scored(dir: &Path, labels: &Path) -> Result<Vec<Scored>, Box<dyn Error>> {
    let labels: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&fs::read(labels)?)?;
    let labels: Vec<_> = labels.into_iter().collect();
    let scored = on_all_cores(&labels, |(run, label)| {
        one(&dir.join(run), label).map_err(|error| format!("{run}: {error}"))
    });
    let mut scored: Vec<Scored> = scored.into_iter().collect::<Result<_, String>>()?;
    scored.sort_by(|a, b| a.family.cmp(&b.family));
    Ok(scored)
}

fn one(run: &Path, label: &serde_json::Value) -> Result<Scored, Box<dyn Error>> {
    let number = |key: &str| label[key].as_f64().ok_or(format!("no number '{key}'"));
    let word = |key: &str| label[key].as_str().ok_or(format!("no word '{key}'"));
    let leaks = word("verdict")? == "leak";
    let length = number("duration_s")?;
    let threshold = trend::Settings::default().threshold(length);
    Ok(Scored {
        family: word("family")?.to_owned(),
        length,
        every: number("interval_s")?,
        leaks,
        counts: !leaks || number("leak_rate_bps")? >= 2.0 * threshold,
        verdict: judge_path(run)?.verdict,
        rivals: by_rivals(&readings(run)?, threshold),
    })
}

/// Times and bytes of each slot of each host, missed readings left out.
fn readings(run: &Path) -> Result<Vec<Readings>, Box<dyn Error>> {
    let mut series = Vec::new();
    let mut files: Vec<_> = fs::read_dir(run)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "csv"));
    files.sort();
    for file in files {
        let mut table = csv::Reader::from_path(&file)?;
        let header = table.headers()?.clone();
        let slots: Vec<usize> = (0..header.len())
            .filter(|at| header[*at].starts_with('b') && !header[*at].ends_with("_pid"))
            .collect();
        let first = series.len();
        series.resize(first + slots.len(), (Vec::new(), Vec::new()));
        for row in table.records() {
            let row = row?;
            let t: f64 = row[0].parse()?;
            for (slot, column) in series[first..].iter_mut().zip(&slots) {
                if !row[*column].is_empty() {
                    slot.0.push(t);
                    slot.1.push(row[*column].parse()?);
                }
            }
        }
    }
    Ok(series)
}
