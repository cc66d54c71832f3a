//! Candidate against baseline within one run: same workload, phase and tool.
//!
//! Bytes per operation (rounds, leak records) are decided by one run on one host: the interval of the difference against a margin of
//! 1 byte or 5 %, whichever is more (RssAnon: its own threshold, since pages are coarser). Peaks are compared over pairs of replicas on a log
//! scale with a margin of 5 % and a moderated variance; a single pair is `can't tell` at most. Growth at rest is listed.

mod equals;
mod figures;
mod keyed;
mod metrics;
mod moderated;
mod rows;
mod sets;
mod shown;
mod verdict_of_rows;

pub use figures::JobFigures;
pub use metrics::{JobPoint, MetricName};
pub use sets::{Set, SetComparison, SetRow, Side, compare_sets};
pub use shown::{FIGURES, figure_words};

use crate::budgets::What;
use crate::facts::Facts;
use crate::result::{Compared, Comparison};
use crate::rounds::{Growth, Subject};
use crate::stats::{count, median};
use moderated::{
    LOG_DEVIATION, LOG_MARGIN, Spread, answer, moderated, rate_answer, rate_deviation,
};
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Tool};
use std::collections::BTreeMap;

/// The two arms of one workload under one tool.
struct Pair<'a> {
    workload: &'a str,
    tool: Tool,
    candidates: Vec<&'a Facts<'a>>,
    baselines: Vec<&'a Facts<'a>>,
}

/// Every comparison that the run's jobs allow, in the order of the plan.
pub fn compare(all: &[Facts<'_>]) -> Vec<Comparison> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for facts in all.iter().filter(|facts| facts.job.spec.arm == Arm::Candidate) {
        let (workload, tool) = (facts.job.workload.name.as_str(), facts.job.spec.tool);
        if let Some(pair) =
            pairs.iter_mut().find(|pair| pair.workload == workload && pair.tool == tool)
        {
            pair.candidates.push(facts);
            continue;
        }
        let baselines: Vec<&Facts<'_>> = all
            .iter()
            .filter(|other| {
                other.job.spec.arm == Arm::Baseline
                    && other.is_same_workload(facts)
                    && other.job.spec.tool == tool
            })
            .collect();
        if !baselines.is_empty() {
            pairs.push(Pair { workload, tool, candidates: vec![facts], baselines });
        }
    }
    pairs.iter().flat_map(Pair::compare).collect()
}

impl Pair<'_> {
    fn compare(&self) -> Vec<Comparison> {
        let mut rows = Vec::new();
        if let Some(why) = self.why_not() {
            let row = self.row("", "all", None, None);
            return vec![Comparison { message: why, ..row }];
        }
        let phases: Vec<&str> = self
            .candidates
            .first()
            .map(|facts| {
                facts.job.workload.phases.iter().map(|phase| phase.name.as_str()).collect()
            })
            .unwrap_or_default();
        for phase in phases {
            rows.extend(self.slopes(phase, "context_bytes_per_operation", &Subject::Used));
            rows.extend(self.slopes(phase, "bytes_per_operation", &Subject::Anonymous));
            rows.extend(self.stacks(phase));
            rows.extend(self.peaks(phase));
            rows.extend(self.growths(phase));
        }
        rows
    }

    fn why_not(&self) -> Option<String> {
        let unsound = |arm: &[&Facts<'_>]| !arm.iter().any(|facts| facts.is_sound());
        match (unsound(&self.candidates), unsound(&self.baselines)) {
            (false, false) => None,
            (true, false) => Some("the candidate's job did not do its work".to_owned()),
            (false, true) => Some("the baseline's job did not do its work".to_owned()),
            (true, true) => Some("neither job did its work".to_owned()),
        }
    }

    fn row(
        &self,
        phase: &str,
        what: &str,
        candidate: Option<f64>,
        baseline: Option<f64>,
    ) -> Comparison {
        let build = |arm: &[&Facts<'_>]| {
            arm.first().map(|facts| facts.job.spec.build.to_string()).unwrap_or_default()
        };
        Comparison {
            workload: self.workload.to_owned(),
            phase: phase.to_owned(),
            tool: self.tool,
            what: what.to_owned(),
            candidate_build: build(&self.candidates),
            baseline_build: build(&self.baselines),
            candidate,
            baseline,
            low: None,
            high: None,
            answer: Compared::CantTell,
            message: String::new(),
        }
    }

    fn slopes(&self, phase: &str, what: &str, subject: &Subject) -> Option<Comparison> {
        let mean = |arm: &[&Facts<'_>]| {
            let all: Vec<&Growth> = arm
                .iter()
                .filter(|facts| facts.is_sound())
                .filter_map(|facts| {
                    facts.rounds.iter().find(|rounds| rounds.phase == phase)?.raw.get(subject)
                })
                .collect();
            let n = count(all.len());
            let square: f64 = all.iter().map(|growth| growth.half_width().powi(2)).sum();
            let threshold = all.iter().map(|growth| growth.threshold).fold(0.0, f64::max);
            (!all.is_empty()).then(|| {
                (
                    all.iter().map(|growth| growth.slope).sum::<f64>() / n,
                    square.sqrt() / n,
                    threshold,
                    all.iter().any(|growth| growth.is_leak()),
                    all.len(),
                )
            })
        };
        let (candidate, baseline) = (mean(&self.candidates), mean(&self.baselines));
        if candidate.is_none() && baseline.is_none() {
            return None;
        }
        let mut row =
            self.row(phase, what, candidate.map(|mean| mean.0), baseline.map(|mean| mean.0));
        let (Some(candidate), Some(baseline)) = (candidate, baseline) else {
            row.message = "too few rounds of one backend in one of the arms".to_owned();
            return Some(row);
        };
        let margin = candidate.2.max(baseline.2).max(0.05 * baseline.0.abs()).max(1.0);
        let width = candidate.1.hypot(baseline.1);
        let deviation = rate_deviation(
            *subject == Subject::Anonymous,
            candidate.2.max(baseline.2),
            candidate.0.abs().max(baseline.0.abs()),
        );
        let difference = candidate.0 - baseline.0;
        let pairs = candidate.4.min(baseline.4);
        let Some((_, between)) = moderated(&vec![difference; pairs], &Spread::new(deviation, []))
        else {
            return Some(row);
        };
        let (decided, width) = rate_answer(difference, width, between, margin);
        // Short enough to read back from JSON as it was written.
        let rounded = |bytes: f64| (bytes * 1e3).round() / 1e3;
        row.low = Some(rounded(difference - width));
        row.high = Some(rounded(difference + width));
        row.answer = decided;
        let unsteady = match row.answer {
            Compared::Worse => !candidate.3,
            Compared::Better => !baseline.3,
            _ => false,
        };
        if unsteady {
            row.answer = Compared::CantTell;
            row.message = "it grew more, but not steadily".to_owned();
        }
        Some(row)
    }

    /// Stacks of memcheck that grow in proportion in either arm.
    fn stacks(&self, phase: &str) -> Vec<Comparison> {
        type Key = (LeakKind, String);
        let rates = |arm: &[&Facts<'_>]| {
            let mut rates: BTreeMap<Key, (Vec<f64>, String)> = BTreeMap::new();
            let phases =
                arm.iter().flat_map(|facts| &facts.leaks).filter(|leaks| leaks.phase == phase);
            for growth in
                phases.flat_map(|leaks| &leaks.stacks).filter(|growth| growth.proportional)
            {
                let known = rates.entry((growth.kind, growth.fingerprint.clone())).or_default();
                known.0.push(growth.bytes_per_operation);
                known.1.clone_from(&growth.function);
            }
            rates
        };
        let was_judged = |arm: &[&Facts<'_>]| {
            arm.iter()
                .flat_map(|facts| &facts.leaks)
                .any(|leaks| leaks.phase == phase && leaks.intervals >= 2)
        };
        if !was_judged(&self.candidates) || !was_judged(&self.baselines) {
            return Vec::new();
        }
        let (candidates, baselines) = (rates(&self.candidates), rates(&self.baselines));
        let keys: std::collections::BTreeSet<&Key> =
            candidates.keys().chain(baselines.keys()).collect();
        let mut rows = Vec::new();
        for key in keys {
            let rate = |rates: &BTreeMap<Key, (Vec<f64>, String)>| {
                rates.get(key).and_then(|(figures, _)| median(figures)).unwrap_or(0.0)
            };
            let (candidate, baseline) = (rate(&candidates), rate(&baselines));
            let what = match key.0 {
                LeakKind::Reachable => "kept_bytes_per_operation",
                _ => "lost_bytes_per_operation",
            };
            let function = candidates
                .get(key)
                .or_else(|| baselines.get(key))
                .map(|(_, function)| function.as_str())
                .unwrap_or_default();
            let mut row = self.row(phase, what, Some(candidate), Some(baseline));
            decide(&mut row, candidate - baseline, 0.0, (0.05 * baseline.abs()).max(1.0));
            row.message = match (candidates.contains_key(key), baselines.contains_key(key)) {
                (true, false) => format!("new: {function} [{}]", key.1),
                (false, true) => format!("gone: {function} [{}]", key.1),
                _ => format!("{function} [{}]", key.1),
            };
            rows.push(row);
        }
        rows
    }

    /// A figure of each sound replica, candidate and baseline paired in order.
    fn figures(&self, phase: &str, what: What) -> (Vec<f64>, Vec<f64>) {
        let of = |arm: &[&Facts<'_>]| -> Vec<f64> {
            arm.iter()
                .filter(|facts| facts.is_sound())
                .flat_map(|facts| &facts.measured)
                .filter(|measured| measured.phase == phase && measured.what == what)
                .filter_map(|measured| measured.measured)
                .collect()
        };
        (of(&self.candidates), of(&self.baselines))
    }

    fn peaks(&self, phase: &str) -> Option<Comparison> {
        let (candidates, baselines) = self.figures(phase, What::Peak);
        let mut row = self.row(phase, "peak", median(&candidates), median(&baselines));
        row.candidate?;
        row.baseline?;
        let ratios: Vec<f64> = candidates
            .iter()
            .zip(&baselines)
            .filter(|(candidate, baseline)| **candidate > 0.0 && **baseline > 0.0)
            .map(|(candidate, baseline)| (candidate / baseline).ln())
            .collect();
        if ratios.len() < 2 {
            row.message = "one run on one host".to_owned();
            return Some(row);
        }
        let Some((mean, width)) = moderated(&ratios, &Spread::new(LOG_DEVIATION, [])) else {
            return Some(row);
        };
        decide(&mut row, mean, width, LOG_MARGIN);
        // The interval is shown in bytes of the candidate against the baseline's median.
        let baseline = row.baseline.unwrap_or(0.0);
        row.low = row.low.map(|low| baseline * low.exp_m1());
        row.high = row.high.map(|high| baseline * high.exp_m1());
        Some(row)
    }

    fn growths(&self, phase: &str) -> Option<Comparison> {
        let (candidates, baselines) = self.figures(phase, What::Growth);
        let mut row = self.row(phase, "growth", median(&candidates), median(&baselines));
        row.candidate?;
        row.baseline?;
        row.message = "a single figure per run: listed, not decided".to_owned();
        Some(row)
    }
}

fn decide(row: &mut Comparison, difference: f64, width: f64, margin: f64) {
    let (low, high) = (difference - width, difference + width);
    row.low = Some(low);
    row.high = Some(high);
    row.answer = answer(low, high, margin);
}
