//! The rows of one workload under one tool: each figure, before against after, with its interval, its margin and what would tell.

use crate::budgets::What;
use crate::compare::figures::{ANONYMOUS, CONTEXTS, JobFigures, Rate, Stack};
use crate::compare::moderated::{
    LOG_DEVIATION, LOG_MARGIN, Spread, answer, moderated, pairs_needed, rate_answer, rate_deviation,
};
use crate::compare::sets::{Match, SetRow};
use crate::over_time::Whose;
use crate::result::Compared;
use crate::stats::{count, median};
use pgsoak_proto::evidence::LeakKind;
use std::collections::{BTreeMap, BTreeSet};

/// Added to amounts before their ratio is taken: what a backend holds anyway. Without it a growth of nothing against one of a page would be endless.
const GROUND_BYTES: f64 = 4.0 * 1_048_576.0;

impl<'a> Match<'a> {
    /// Every figure that both sides have, phase by phase.
    pub(super) fn rows(&self) -> Vec<SetRow> {
        let mut rows = Vec::new();
        let phases: Vec<String> =
            self.after.first().map(|job| job.phases.clone()).unwrap_or_default();
        for phase in phases.iter().map(String::as_str).chain([""]) {
            for what in [What::Growth, What::Peak, What::Residual] {
                rows.extend(self.amount(phase, what));
            }
            rows.extend(self.level(phase));
            for whose in [Whose::Workers, Whose::Server] {
                rows.extend(self.drift(phase, whose));
            }
            rows.extend(self.rates(phase));
            rows.extend(self.stacks(phase));
        }
        rows
    }

    fn row(&self, phase: &str, what: &str, subject: &str) -> SetRow {
        SetRow {
            workload: self.workload.to_owned(),
            phase: phase.to_owned(),
            tool: self.tool,
            what: what.to_owned(),
            subject: subject.to_owned(),
            before: None,
            after: None,
            low: None,
            high: None,
            margin: None,
            pairs: self.pairs.len(),
            answer: Compared::CantTell,
            message: String::new(),
        }
    }

    /// Medians over the units of both sides.
    fn ends(&self, row: &mut SetRow, of: &dyn Fn(&JobFigures) -> Option<f64>) {
        let side = |jobs: &[&JobFigures]| {
            median(&jobs.iter().filter_map(|job| of(job)).collect::<Vec<_>>())
        };
        (row.before, row.after) = (side(&self.before), side(&self.after));
    }

    /// Differences of the pairs that have the figure on both sides.
    fn differences(&self, of: &dyn Fn(&JobFigures) -> Option<f64>) -> Vec<f64> {
        let mean = |jobs: &[&JobFigures]| {
            let figures: Vec<f64> = jobs.iter().filter_map(|job| of(job)).collect();
            (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / count(figures.len()))
        };
        self.pairs.iter().filter_map(|(a, b)| Some(mean(b)? - mean(a)?)).collect()
    }

    /// What two runs of one build differ by in a figure.
    fn spread(&self, prior: f64, of: &dyn Fn(&JobFigures) -> Option<f64>) -> Spread {
        Spread::new(prior, self.equals.iter().filter_map(|(a, b)| Some(of(b)? - of(a)?)))
    }

    /// Decides on the log scale, in percent.
    fn decide_ratio(&self, row: &mut SetRow, differences: &[f64], spread: &Spread) {
        let percent = |log: f64| 100.0 * log.exp_m1();
        row.pairs = differences.len();
        row.margin = Some(percent(LOG_MARGIN));
        let Some((mean, width)) = moderated(differences, spread) else { return };
        row.low = Some(percent(mean - width));
        row.high = Some(percent(mean + width));
        if !self.same_length {
            row.message = "the jobs were of different length or scale".to_owned();
        } else if differences.len() < 2 && !spread.is_known() {
            row.message = more(differences, spread, LOG_MARGIN);
        } else {
            row.answer = answer(mean - width, mean + width, LOG_MARGIN);
            if row.answer == Compared::CantTell {
                row.message = more(differences, spread, LOG_MARGIN);
            }
        }
    }

    fn amount(&self, phase: &str, what: What) -> Option<SetRow> {
        let key = (phase.to_owned(), what);
        let figure = |job: &JobFigures| job.amounts.get(&key).map(|(bytes, _)| *bytes);
        let mut row = self.row(phase, what.label(), "");
        self.ends(&mut row, &figure);
        let (before, after) = (row.before?, row.after?);
        let logs = |job: &JobFigures| Some((figure(job)?.max(0.0) + GROUND_BYTES).ln());
        let spread = self.spread(LOG_DEVIATION, &logs);
        self.decide_ratio(&mut row, &self.differences(&logs), &spread);
        let budget = self.after.iter().find_map(|job| job.amounts.get(&key)?.1);
        if let Some(budget) = budget {
            let (was, is) = (before > budget, after > budget);
            let told = match (was, is) {
                (false, true) => "now over its budget",
                (true, false) => "now within its budget",
                (true, true) => "over its budget as before",
                (false, false) => "",
            };
            if !told.is_empty() {
                row.message = match row.message.is_empty() {
                    true => told.to_owned(),
                    false => format!("{told}; {}", row.message),
                };
            }
        }
        Some(row)
    }

    fn level(&self, phase: &str) -> Option<SetRow> {
        let of = |job: &JobFigures| -> BTreeMap<String, f64> {
            let slots = job.levels.iter().filter(|((of, _), _)| of == phase);
            slots.map(|((_, slot), bytes)| (slot.clone(), *bytes)).collect()
        };
        let subject = if phase.is_empty() { "server processes" } else { "worker backends" };
        let mut row = self.row(phase, "level", subject);
        self.ends(&mut row, &|job| {
            let slots = of(job);
            (!slots.is_empty()).then(|| slots.values().sum::<f64>() / count(slots.len()))
        });
        row.before.and(row.after)?;
        // Mean over the slots that both have.
        let difference = |a: &[&JobFigures], b: &[&JobFigures]| {
            let logs = |jobs: &[&JobFigures]| {
                let mut slots: BTreeMap<String, (f64, f64)> = BTreeMap::new();
                for (slot, bytes) in jobs.iter().flat_map(|job| of(job)) {
                    let known = slots.entry(slot).or_default();
                    *known = (known.0 + bytes.max(1.0).ln(), known.1 + 1.0);
                }
                slots
            };
            let (a, b) = (logs(a), logs(b));
            let matched: Vec<f64> = a
                .iter()
                .filter_map(|(slot, a)| b.get(slot).map(|b| b.0 / b.1 - a.0 / a.1))
                .collect();
            (!matched.is_empty()).then(|| matched.iter().sum::<f64>() / count(matched.len()))
        };
        let differences: Vec<f64> =
            self.pairs.iter().filter_map(|(a, b)| difference(a, b)).collect();
        let equals = self.equals.iter().filter_map(|(a, b)| difference(&[*a], &[*b]));
        self.decide_ratio(&mut row, &differences, &Spread::new(LOG_DEVIATION, equals));
        Some(row)
    }

    fn drift(&self, phase: &str, whose: Whose) -> Option<SetRow> {
        let key = (phase.to_owned(), whose);
        let figure = |job: &JobFigures| job.drifts.get(&key).map(|(slope, _)| *slope);
        let subject = match whose {
            Whose::Workers => "worker backends",
            Whose::Server => "server processes",
        };
        let mut row = self.row(phase, "bytes_per_second", subject);
        self.ends(&mut row, &figure);
        row.before.and(row.after)?;
        let margin = self
            .before
            .iter()
            .chain(&self.after)
            .filter_map(|job| job.drifts.get(&key).map(|(_, threshold)| *threshold))
            .fold(0.0, f64::max);
        // A quarter of the threshold for each run, until earlier pairs of equal builds say better.
        let spread = self.spread(std::f64::consts::SQRT_2 * margin / 4.0, &figure);
        let differences = self.differences(&figure);
        row.pairs = differences.len();
        row.margin = Some(margin);
        let (mean, width) = moderated(&differences, &spread)?;
        (row.low, row.high) = (Some(mean - width), Some(mean + width));
        if differences.len() >= 2 || spread.is_known() {
            row.answer = answer(mean - width, mean + width, margin);
        }
        if row.answer == Compared::CantTell {
            row.message = more(&differences, &spread, margin);
        }
        Some(row)
    }

    fn rates(&self, phase: &str) -> Vec<SetRow> {
        let names: BTreeSet<&str> = self
            .before
            .iter()
            .chain(&self.after)
            .flat_map(|job| job.rates.keys())
            .filter(|(of, _)| of == phase)
            .map(|(_, name)| name.as_str())
            .collect();
        names.into_iter().filter_map(|name| self.rate(phase, name)).collect()
    }

    fn rate(&self, phase: &str, name: &str) -> Option<SetRow> {
        let key = (phase.to_owned(), name.to_owned());
        let contexts = (phase.to_owned(), CONTEXTS.to_owned());
        let rate = |job: &JobFigures| -> Option<Rate> {
            job.rates.get(&key).copied().or_else(|| {
                // A context that is not listed does not grow, where contexts were read at all.
                let whole = job.rates.get(&contexts).filter(|_| name != ANONYMOUS)?;
                Some(Rate { slope: 0.0, half_width: 0.0, is_leak: false, ..*whole })
            })
        };
        let mut row = self.row(phase, "bytes_per_operation", name);
        self.ends(&mut row, &|job| rate(job).map(|rate| rate.slope));
        let before = row.before?;
        row.after?;
        let slope = |job: &JobFigures| rate(job).map(|rate| rate.slope);
        let differences = self.differences(&slope);
        let rates =
            |jobs: &[&JobFigures]| jobs.iter().filter_map(|job| rate(job)).collect::<Vec<_>>();
        let (olds, news) = (rates(&self.before), rates(&self.after));
        let threshold = olds.iter().chain(&news).map(|rate| rate.threshold).fold(1.0, f64::max);
        let margin = threshold.max(0.05 * before.abs());
        let within = |rates: &[Rate]| {
            rates.iter().map(|rate| rate.half_width.powi(2)).sum::<f64>().sqrt()
                / count(rates.len().max(1))
        };
        let within = within(&olds).hypot(within(&news));
        let steepest = olds.iter().chain(&news).map(|rate| rate.slope.abs()).fold(0.0, f64::max);
        let prior = rate_deviation(name == ANONYMOUS, threshold, steepest);
        let spread = self.spread(prior, &slope);
        let (mean, between) = moderated(&differences, &spread)?;
        let width;
        (row.answer, width) = rate_answer(mean, within, between, margin);
        row.pairs = differences.len();
        row.margin = Some(margin);
        (row.low, row.high) = (Some(mean - width), Some(mean + width));
        let leak =
            |rates: &[Rate]| rates.iter().filter(|rate| rate.is_leak).count() * 2 > rates.len();
        match row.answer {
            Compared::Worse if !leak(&news) => {
                row.answer = Compared::CantTell;
                row.message =
                    "it grew more, but not steadily: more operations would tell".to_owned();
            }
            Compared::Better if !leak(&olds) => {
                row.answer = Compared::CantTell;
                row.message =
                    "it had grown more, but not steadily: more operations would tell".to_owned();
            }
            Compared::Worse if !olds.iter().any(|rate| rate.is_leak) => {
                row.message = "new: it did not leak before".to_owned();
            }
            Compared::Better if !news.iter().any(|rate| rate.is_leak) => {
                row.message = "gone: it leaks no longer".to_owned();
            }
            Compared::CantTell => {
                row.message = match within > between {
                    true => "more operations would narrow the interval".to_owned(),
                    false => more(&differences, &spread, margin),
                };
            }
            _ => {}
        }
        Some(row)
    }

    /// Stacks of memcheck: new, gone, or as before.
    fn stacks(&self, phase: &str) -> Vec<SetRow> {
        let checked = |jobs: &[&JobFigures]| jobs.iter().any(|job| job.checked.contains(phase));
        if !checked(&self.before) || !checked(&self.after) {
            return Vec::new();
        }
        type Key = (String, LeakKind, String);
        let keys: BTreeSet<&Key> = self
            .before
            .iter()
            .chain(&self.after)
            .flat_map(|job| job.stacks.keys())
            .filter(|(of, ..)| of == phase)
            .collect();
        keys.into_iter()
            .filter_map(|key| {
                let known = |jobs: &[&'a JobFigures]| -> Vec<&'a Stack> {
                    jobs.iter().filter_map(|job| job.stacks.get(key)).collect()
                };
                let (olds, news) = (known(&self.before), known(&self.after));
                let one = news.first().or(olds.first())?;
                let what = match key.1 {
                    LeakKind::Reachable => "kept_bytes_per_operation",
                    _ => "lost_bytes_per_operation",
                };
                let mut row = self.row(phase, what, &one.function);
                let rate = |stacks: &[&Stack]| {
                    let rates: Vec<f64> =
                        stacks.iter().map(|stack| stack.bytes_per_operation).collect();
                    median(&rates).unwrap_or(0.0)
                };
                let (before, after) = (rate(&olds), rate(&news));
                (row.before, row.after) = (Some(before), Some(after));
                let margin = (0.05 * before.abs()).max(1.0);
                row.margin = Some(margin);
                (row.low, row.high) = (Some(after - before), Some(after - before));
                let decided = answer(after - before, after - before, margin);
                let told = match (olds.is_empty(), news.is_empty()) {
                    (true, _) => "new",
                    (_, true) => "gone",
                    _ => "as before",
                };
                let is_lost = matches!(key.1, LeakKind::Definite | LeakKind::Indirect);
                row.answer = match decided {
                    Compared::Same => Compared::Same,
                    decided if one.is_own && is_lost => decided,
                    _ => Compared::CantTell,
                };
                row.message = match (row.answer, one.is_own) {
                    (Compared::CantTell, false) => {
                        format!("{told} [{}]; no frame is the extension's: listed", key.2)
                    }
                    (Compared::CantTell, true) => {
                        format!("{told} [{}]; not lost for certain: rounds of the same workload would tell", key.2)
                    }
                    _ => format!("{told} [{}]", key.2),
                };
                Some(row)
            })
            .collect()
    }
}

/// What would tell.
fn more(differences: &[f64], spread: &Spread, margin: f64) -> String {
    let have = match differences.len() {
        1 => "one run on one host each".to_owned(),
        n => format!("{n} pairs of host and run"),
    };
    match pairs_needed(differences, spread, margin) {
        Some(needed) if needed > differences.len() => {
            format!("{have}; about {needed} would tell, if the difference stays")
        }
        Some(_) => have,
        None => {
            format!("{have}; the difference lies too close to the margin for any number of runs")
        }
    }
}
