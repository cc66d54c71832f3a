//! Which runs somebody means, and in which order: filters, sorting and pages over the lines of the history. Pure.

use crate::domain::history::RunLine;
use crate::domain::run::RunState;
use crate::domain::time::UnixUs;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::Arm;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What runs must have. Of several words in one list one must fit; every list that is not empty must be met. `*` in a word
/// stands for any characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Submitted then or later.
    pub since: Option<UnixUs>,
    /// Submitted before.
    pub until: Option<UnixUs>,
    /// Plans.
    pub plans: Vec<String>,
    /// Workloads.
    pub workloads: Vec<String>,
    /// Tools.
    pub tools: Vec<String>,
    /// Builds (`NAME@RELEASE`, `system`, …) of candidates and baselines.
    pub builds: Vec<String>,
    /// Releases (what follows the `@`) of candidates.
    pub releases: Vec<String>,
    /// Agents that ran a job of it.
    pub agents: Vec<String>,
    /// `pass`, `fail`, `inconclusive`, `invalid`, or where an unfinished run stands.
    pub verdicts: Vec<String>,
    /// Labels; a value of `*` asks for the label alone.
    pub labels: BTreeMap<String, String>,
    /// Part of the id, plan, sentence, notes, labels or workloads; upper and lower case are the same.
    pub text: String,
    /// Pinned ones only.
    pub is_pinned: bool,
}

/// By what runs are sorted; ties by id.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sort {
    /// When they were submitted.
    #[default]
    Submitted,
    /// When they were over; unfinished ones count as the latest.
    Finished,
    /// How long they took from the first job given away.
    Took,
    /// The plan's name.
    Plan,
    /// From pass to fail; unfinished ones come first.
    Verdict,
}

/// One page of runs.
#[derive(Clone, Debug)]
pub struct Page {
    /// In order.
    pub runs: Vec<Arc<RunLine>>,
    /// Runs that fit the filter, on all pages.
    pub total: usize,
    /// Further runs follow the last one here.
    pub has_more: bool,
}

/// A page begins after a run that is no longer among those that fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "run {0}, where the last page ended, no longer fits the filter; begin with the first page again"
)]
pub struct LostPlace(pub RunId);

// === impl Filter ===

impl Filter {
    /// Whether a run has everything that is asked.
    pub fn fits(&self, line: &RunLine) -> bool {
        let RunLine { record, facts, annotations } = line;
        let at = record.submitted_at;
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && any(&self.plans, [record.plan.as_str()])
            && any(&self.verdicts, [verdict_word(&record.state)])
            && any(&self.workloads, facts.workloads.iter().map(String::as_str))
            && any(&self.tools, facts.tools.iter().map(|tool| tool.label()))
            && any(&self.agents, facts.agents.iter().map(String::as_str))
            && any(
                &self.builds,
                facts
                    .builds
                    .iter()
                    .filter(|(arm, _)| *arm != Arm::Control)
                    .map(|(_, b)| b.as_str()),
            )
            && any(
                &self.releases,
                facts
                    .builds
                    .iter()
                    .filter(|(arm, _)| *arm == Arm::Candidate)
                    .filter_map(|(_, build)| build.split_once('@').map(|(_, release)| release)),
            )
            && self.labels.iter().all(|(key, wanted)| {
                record.labels.get(key).is_some_and(|value| is_like(wanted, value))
            })
            && (!self.is_pinned || annotations.pin.is_some())
            && (self.text.is_empty() || has_text(line, &self.text.to_lowercase()))
    }
}

/// The word for where a run stands, or for its verdict.
pub fn verdict_word(state: &RunState) -> &'static str {
    use pgsoak_analysis::result::Verdict;
    match state {
        RunState::Finished { verdict, .. } => match verdict {
            Verdict::Pass => "pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Invalid => "invalid",
            Verdict::Fail => "fail",
        },
        other => other.label(),
    }
}

fn any<'a>(wanted: &[String], has: impl IntoIterator<Item = &'a str>) -> bool {
    wanted.is_empty()
        || has.into_iter().any(|word| wanted.iter().any(|pattern| is_like(pattern, word)))
}

/// Whether `word` is `pattern`, in which `*` stands for any characters.
pub fn is_like(pattern: &str, word: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return word.is_empty() };
    let Some(mut rest) = word.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

fn has_text(line: &RunLine, wanted: &str) -> bool {
    let RunLine { record, facts, annotations } = line;
    let sentence = match &record.state {
        RunState::Finished { sentence, .. } => sentence.as_str(),
        _ => "",
    };
    let has = |text: &str| text.to_lowercase().contains(wanted);
    has(&record.plan)
        || has(sentence)
        || record.run.to_string().contains(wanted)
        || record.notes.iter().any(|note| has(note))
        || annotations.notes.iter().chain(&annotations.pin).any(|remark| has(&remark.text))
        || record.labels.iter().any(|(key, value)| has(key) || has(value))
        || facts.workloads.iter().chain(&facts.agents).any(|name| has(name))
        || facts.builds.iter().any(|(_, build)| has(build))
}

// === pages ===

/// Runs that fit, from after `after` on, at most `limit`.
///
/// # Errors
///
/// When `after` is not among them.
pub fn page<'a>(
    lines: impl Iterator<Item = &'a Arc<RunLine>>,
    filter: &Filter,
    sort: Sort,
    is_descending: bool,
    after: Option<RunId>,
    limit: usize,
) -> Result<Page, LostPlace> {
    let mut found: Vec<&Arc<RunLine>> = lines.filter(|line| filter.fits(line)).collect();
    found.sort_by(|a, b| {
        let order = compare(sort, a, b).then(a.record.run.cmp(&b.record.run));
        if is_descending { order.reverse() } else { order }
    });
    let from = match after {
        None => 0,
        Some(run) => {
            found.iter().position(|line| line.record.run == run).ok_or(LostPlace(run))? + 1
        }
    };
    let runs: Vec<Arc<RunLine>> =
        found.iter().skip(from).take(limit).map(|l| Arc::clone(l)).collect();
    let has_more = from + runs.len() < found.len();
    Ok(Page { runs, total: found.len(), has_more })
}

fn compare(sort: Sort, a: &RunLine, b: &RunLine) -> Ordering {
    let (a, b) = (&a.record, &b.record);
    match sort {
        Sort::Submitted => a.submitted_at.cmp(&b.submitted_at),
        Sort::Finished => {
            let at = |state: &RunState| match state {
                RunState::Finished { finished_at, .. } => *finished_at,
                _ => UnixUs(u64::MAX),
            };
            at(&a.state).cmp(&at(&b.state))
        }
        Sort::Took => {
            let took = |state: &RunState| match state {
                RunState::Finished { started_at: Some(started), finished_at, .. } => {
                    Some(finished_at.since(*started))
                }
                _ => None,
            };
            took(&a.state).cmp(&took(&b.state))
        }
        Sort::Plan => a.plan.cmp(&b.plan),
        Sort::Verdict => {
            let verdict = |state: &RunState| match state {
                RunState::Finished { verdict, .. } => Some(*verdict),
                _ => None,
            };
            verdict(&a.state).cmp(&verdict(&b.state))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::history::Remark;
    use crate::domain::record::RunRecord;
    use pgsoak_analysis::result::Verdict;
    use pgsoak_proto::job::Tool;
    use proptest::prelude::*;

    fn line(at: u64, plan: &str, verdict: Option<Verdict>) -> Arc<RunLine> {
        let state = match verdict {
            None => RunState::Queued,
            Some(verdict) => RunState::Finished {
                started_at: Some(UnixUs(at)),
                finished_at: UnixUs(at + 1_000 - at % 7),
                cancelled: None,
                verdict,
                sentence: format!("{verdict:?}: Cache grows"),
            },
        };
        let record = RunRecord {
            run: RunId::issue(),
            plan: plan.to_owned(),
            submitted_at: UnixUs(at),
            state,
            jobs: Vec::new(),
            jobs_over: 0,
            notes: Vec::new(),
            escalations: Vec::new(),
            labels: BTreeMap::from([("branch".to_owned(), "main".to_owned())]),
            priority: 50,
        };
        let mut line = RunLine::new(record);
        line.facts.workloads.insert("tview_load".to_owned());
        line.facts.tools.insert(Tool::Plain);
        line.facts.builds.insert((Arm::Candidate, "pg_tviews@0.1.0-beta.34".to_owned()));
        line.facts.builds.insert((Arm::Control, "vanilla".to_owned()));
        line.facts.agents.insert("west-1".to_owned());
        Arc::new(line)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn every_filter_tells_runs_apart() {
        let run = line(1_000, "nightly", Some(Verdict::Fail));
        let all = Filter {
            since: Some(UnixUs(1_000)),
            until: Some(UnixUs(1_001)),
            plans: words(&["other", "night*"]),
            workloads: words(&["tview_load"]),
            tools: words(&["plain"]),
            builds: words(&["pg_tviews@*"]),
            releases: words(&["0.1.0-beta.34"]),
            agents: words(&["west-*"]),
            verdicts: words(&["fail"]),
            labels: BTreeMap::from([("branch".to_owned(), "*".to_owned())]),
            text: "cache GROWS".to_owned(),
            is_pinned: false,
        };
        assert!(all.fits(&run));
        let none = [
            Filter { since: Some(UnixUs(1_001)), ..all.clone() },
            Filter { until: Some(UnixUs(1_000)), ..all.clone() },
            Filter { plans: words(&["night"]), ..all.clone() },
            Filter { workloads: words(&["load"]), ..all.clone() },
            Filter { tools: words(&["memcheck"]), ..all.clone() },
            // The control arm is in every run: nobody means it.
            Filter { builds: words(&["vanilla"]), ..all.clone() },
            Filter { releases: words(&["0.1.0-beta.3"]), ..all.clone() },
            Filter { agents: words(&["east-*"]), ..all.clone() },
            Filter { verdicts: words(&["pass", "queued"]), ..all.clone() },
            Filter {
                labels: BTreeMap::from([("branch".to_owned(), "dev".to_owned())]),
                ..all.clone()
            },
            Filter { text: "shrinks".to_owned(), ..all.clone() },
            Filter { is_pinned: true, ..all.clone() },
        ];
        for filter in none {
            assert!(!filter.fits(&run), "{filter:?}");
        }
        let mut pinned = (*run).clone();
        pinned.annotations.pin =
            Some(Remark { at: UnixUs(5), text: "before the rewrite".to_owned() });
        assert!(
            Filter { is_pinned: true, text: "REWRITE".to_owned(), ..Filter::default() }
                .fits(&pinned)
        );
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, word, is) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*", "", true),
            ("a*", "a", true),
            ("*b*", "abc", true),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "x", false),
            ("*a*b", "xaxbxb", true),
        ] {
            assert_eq!(is_like(pattern, word), is, "{pattern} {word}");
        }
    }

    proptest! {
        #[test]
        fn pages_together_are_the_whole_list(
            runs in prop::collection::vec((0_u64..20, "[ab]", 0_u8..5), 0..40),
            limit in 1_usize..7,
            sort in 0_u8..5,
            is_descending: bool,
        ) {
            let lines: Vec<_> = runs
                .iter()
                .map(|(at, plan, verdict)| line(*at, plan, match verdict {
                    0 => Some(Verdict::Pass),
                    1 => Some(Verdict::Fail),
                    2 => Some(Verdict::Invalid),
                    3 => Some(Verdict::Inconclusive),
                    _ => None,
                }))
                .collect();
            let sort = [Sort::Submitted, Sort::Finished, Sort::Took, Sort::Plan, Sort::Verdict]
                [usize::from(sort)];
            let filter = Filter { plans: words(&["a"]), ..Filter::default() };
            let whole = page(lines.iter(), &filter, sort, is_descending, None, usize::MAX).unwrap();
            prop_assert_eq!(whole.total, lines.iter().filter(|l| l.record.plan == "a").count());
            let (mut got, mut after) = (Vec::new(), None);
            loop {
                let next = page(lines.iter(), &filter, sort, is_descending, after, limit).unwrap();
                prop_assert_eq!(next.total, whole.total);
                after = next.runs.last().map(|line| line.record.run);
                got.extend(next.runs);
                if !next.has_more { break; }
            }
            prop_assert_eq!(got, whole.runs);
        }
    }
}
