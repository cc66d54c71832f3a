//! The table by family, by length and in all, in Markdown.

use super::{Scored, rivals};
use pgsoak_analysis::result::Verdict;
use std::{collections::BTreeMap, fmt::Write};

/// What became of some runs.
#[derive(Clone, Default)]
struct Score {
    runs: usize,
    fail: usize,
    pass: usize,
    /// By the usual rules.
    rivals: [usize; rivals::RULES.len()],
}

impl Score {
    fn add(&mut self, run: &Scored) {
        self.runs += 1;
        self.fail += usize::from(run.verdict == Verdict::Fail);
        self.pass += usize::from(run.verdict == Verdict::Pass);
        for (sum, found) in self.rivals.iter_mut().zip(run.rivals) {
            *sum += usize::from(found);
        }
    }
}

/// Healthy families first; after the families of each kind its lengths, then all.
pub fn of(scored: &[Scored]) -> String {
    let mut rows: BTreeMap<(bool, Place, String), Score> = BTreeMap::new();
    let mut seen: Vec<&str> = Vec::new();
    for run in scored.iter().filter(|run| run.counts) {
        let known = seen.iter().position(|family| *family == run.family);
        let family = known.unwrap_or_else(|| {
            seen.push(&run.family);
            seen.len() - 1
        });
        let kind = if run.leaks { "leaks" } else { "healthy" };
        let over = format!("{kind}, {:.0} h at {:.0} s", run.length / 3_600.0, run.every);
        let length = Place::Length(run.length as u64, run.every as u64);
        for (place, name) in [
            (Place::Family(family), run.family.clone()),
            (length, over),
            (Place::All, format!("all {kind}")),
        ] {
            rows.entry((run.leaks, place, name)).or_default().add(run);
        }
    }
    let mut table = String::from("| family | runs | fail | pass | inconclusive |");
    rivals::RULES.iter().for_each(|(name, _)| table.push_str(&format!(" {name} |")));
    table.push_str("\n|---|---:|---:|---:|---:|");
    table.push_str(&"---:|".repeat(rivals::RULES.len()));
    table.push('\n');
    for ((_, _, name), score) in rows {
        let share = |n: usize| format!("{:.1} %", 100.0 * n as f64 / score.runs as f64);
        let unclear = score.runs - score.fail - score.pass;
        let own = [share(score.fail), share(score.pass), share(unclear)].join(" | ");
        let _ = write!(table, "| {name} | {} | {own} |", score.runs);
        score.rivals.iter().for_each(|found| table.push_str(&format!(" {} |", share(*found))));
        table.push('\n');
    }
    table
}

/// Where a row stands.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Family(usize),
    Length(u64, u64),
    All,
}

/// What the aim asks and the runs did not do, in any length.
pub fn missed(scored: &[Scored]) -> Vec<String> {
    let mut by_length: BTreeMap<(u64, u64), [Score; 2]> = BTreeMap::new();
    for run in scored.iter().filter(|run| run.counts) {
        let scores = by_length.entry((run.length as u64, run.every as u64)).or_default();
        scores[usize::from(run.leaks)].add(run);
    }
    let mut missed = Vec::new();
    for ((length, every), [healthy, leaks]) in by_length {
        let over = format!("{:.0} h at {every} s", length as f64 / 3_600.0);
        if 100 * healthy.fail > healthy.runs {
            missed.push(format!("{over}: {} of {} healthy runs fail", healthy.fail, healthy.runs));
        }
        if 100 * leaks.fail < 97 * leaks.runs {
            missed.push(format!("{over}: {} of {} leaks fail", leaks.fail, leaks.runs));
        }
        if leaks.pass > 0 {
            missed.push(format!("{over}: {} of {} leaks pass", leaks.pass, leaks.runs));
        }
    }
    missed
}

/// The text with the table between its marks replaced.
pub fn replaced(text: &str, name: &str, table: &str) -> Result<String, String> {
    let (open, close) = (format!("<!-- table: {name} -->\n"), "<!-- end of table -->");
    let from = text.find(&open).ok_or(format!("there is no line {open}"))? + open.len();
    let to = text[from..].find(close).ok_or(format!("there is no line {close} after it"))? + from;
    Ok(format!("{}\n{table}\n{}", &text[..from], &text[to..]))
}
