//! What a run is compared with: what somebody set, else the latest earlier release that passed. Pure.

use crate::domain::history::{Baseline, BaselineOf, RunLine};
use crate::domain::run::RunState;
use pgsoak_analysis::releases::release_order;
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::job::{Arm, BuildRef};
use std::sync::Arc;

/// What was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chosen {
    /// The run or the build.
    pub of: BaselineOf,
    /// Only runs of this plan count; empty: of any.
    pub plan: String,
    /// Why this one, for people.
    pub why: String,
}

/// The baseline of a run; `None`: there is none to be had.
///
/// `lines` are all runs. What is set for the run's plan counts before what is set for all plans, and that before what is
/// chosen here.
pub fn choose(line: &RunLine, lines: &[Arc<RunLine>], set: &[Baseline]) -> Option<Chosen> {
    let plan = &line.record.plan;
    let of_plan = set.iter().find(|baseline| baseline.plan == *plan);
    match of_plan.or_else(|| set.iter().find(|baseline| baseline.plan.is_empty())) {
        Some(baseline) => {
            let is_itself = match &baseline.of {
                BaselineOf::Run(run) => *run == line.record.run,
                BaselineOf::Build(build) => candidates(line).any(|own| own == build.to_string()),
            };
            let reason = match baseline.reason.as_str() {
                "" => format!("set at {}", baseline.set_at),
                reason => format!("set at {}: {reason}", baseline.set_at),
            };
            (!is_itself).then(|| Chosen {
                of: baseline.of.clone(),
                plan: String::new(),
                why: reason,
            })
        }
        None => earlier_release(line, lines).or_else(|| earlier_run(line, lines)),
    }
}

/// Whether a run needs one: it has a candidate, and no baseline arm of its own.
pub fn is_needed(line: &RunLine) -> bool {
    let has = |arm: Arm| line.facts.builds.iter().any(|(of, _)| *of == arm);
    has(Arm::Candidate) && !has(Arm::Baseline)
}

fn candidates(line: &RunLine) -> impl Iterator<Item = &str> {
    let builds = line.facts.builds.iter();
    builds.filter(|(arm, _)| *arm == Arm::Candidate).map(|(_, build)| build.as_str())
}

/// Finished runs of the same plan that passed.
fn passed<'a>(
    line: &'a RunLine,
    lines: &'a [Arc<RunLine>],
) -> impl Iterator<Item = &'a Arc<RunLine>> {
    lines.iter().filter(|other| {
        other.record.plan == line.record.plan
            && other.record.run != line.record.run
            && matches!(other.record.state, RunState::Finished { verdict: Verdict::Pass, .. })
    })
}

fn earlier_release(line: &RunLine, lines: &[Arc<RunLine>]) -> Option<Chosen> {
    let own = candidates(line).filter_map(|build| build.split_once('@'));
    let (name, release) = own.max_by(|a, b| release_order(a.1, b.1))?;
    let earlier = passed(line, lines)
        .flat_map(|other| candidates(other))
        .filter_map(|build| build.split_once('@'))
        .filter(|(other, of)| *other == name && release_order(of, release).is_lt())
        .max_by(|a, b| release_order(a.1, b.1))?;
    let build = BuildRef::Release { name: earlier.0.to_owned(), release: earlier.1.to_owned() };
    let why = format!("the latest release before {release} that passed this plan");
    Some(Chosen { of: BaselineOf::Build(build), plan: line.record.plan.clone(), why })
}

/// Of builds without a release (a folder, what is installed): the run before.
fn earlier_run(line: &RunLine, lines: &[Arc<RunLine>]) -> Option<Chosen> {
    if candidates(line).any(|build| build.contains('@')) {
        return None;
    }
    let before = passed(line, lines)
        .filter(|other| other.record.submitted_at < line.record.submitted_at)
        .filter(|other| candidates(other).eq(candidates(line)))
        .max_by_key(|other| (other.record.submitted_at, other.record.run))?;
    let why = "the latest earlier run of this plan with the same build that passed".to_owned();
    Some(Chosen { of: BaselineOf::Run(before.record.run), plan: String::new(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::RunRecord;
    use crate::domain::time::UnixUs;
    use pgsoak_proto::id::RunId;
    use std::collections::BTreeMap;

    fn line(at: u64, plan: &str, build: &str, verdict: Verdict) -> Arc<RunLine> {
        let mut line = RunLine::new(RunRecord {
            run: RunId::issue(),
            plan: plan.to_owned(),
            submitted_at: UnixUs(at),
            state: RunState::Finished {
                started_at: None,
                finished_at: UnixUs(at + 1),
                cancelled: None,
                verdict,
                sentence: String::new(),
            },
            jobs: Vec::new(),
            jobs_over: 0,
            notes: Vec::new(),
            escalations: Vec::new(),
            labels: BTreeMap::new(),
            priority: 50,
        });
        line.facts.builds.insert((Arm::Candidate, build.to_owned()));
        line.facts.builds.insert((Arm::Control, "vanilla".to_owned()));
        Arc::new(line)
    }

    fn build(text: &str) -> BaselineOf {
        BaselineOf::Build(text.parse().unwrap())
    }

    #[test]
    fn the_latest_earlier_release_that_passed_is_chosen() {
        let lines = [
            line(1, "p", "e@0.9", Verdict::Pass),
            line(2, "p", "e@0.10", Verdict::Pass),
            line(3, "p", "e@0.11", Verdict::Fail),
            line(4, "other", "e@0.11", Verdict::Pass),
            line(5, "p", "f@0.11", Verdict::Pass),
            // An old release that is soaked again later is still an earlier one; a later one that was soaked before is not.
            line(9, "p", "e@0.8", Verdict::Pass),
            line(6, "p", "e@0.13", Verdict::Pass),
            line(7, "p", "e@0.12", Verdict::Pass),
        ];
        let run = line(8, "p", "e@0.12", Verdict::Pass);
        let chosen = choose(&run, &lines, &[]).unwrap();
        assert_eq!((chosen.of, chosen.plan.as_str()), (build("e@0.10"), "p"));
        assert!(is_needed(&run));
        let oldest = line(8, "p", "e@0.1", Verdict::Pass);
        assert_eq!(choose(&oldest, &lines, &[]), None);
    }

    #[test]
    fn what_somebody_set_counts_first() {
        let lines = [line(1, "p", "e@1", Verdict::Pass), line(2, "p", "e@2", Verdict::Pass)];
        let run = line(3, "p", "e@3", Verdict::Fail);
        let set = |plan: &str, of: BaselineOf| Baseline {
            plan: plan.to_owned(),
            of,
            reason: "long known".to_owned(),
            set_at: UnixUs(0),
        };
        let sets = [set("", build("e@1")), set("p", BaselineOf::Run(lines[0].record.run))];
        let chosen = choose(&run, &lines, &sets).unwrap();
        assert_eq!(chosen.of, BaselineOf::Run(lines[0].record.run));
        assert!(chosen.why.contains("long known"));
        let other = line(3, "q", "e@3", Verdict::Fail);
        assert_eq!(choose(&other, &lines, &sets).unwrap().of, build("e@1"));
        // Nothing is compared with itself.
        assert_eq!(choose(&line(4, "q", "e@1", Verdict::Pass), &lines, &sets), None);
        assert_eq!(choose(&lines[0], &lines, &sets), None);
    }

    #[test]
    fn builds_without_a_release_have_the_run_before() {
        let lines = [
            line(1, "p", "system", Verdict::Pass),
            line(2, "p", "system", Verdict::Fail),
            line(9, "p", "system", Verdict::Pass),
            line(2, "p", "dir:/x", Verdict::Pass),
        ];
        let run = line(3, "p", "system", Verdict::Fail);
        let chosen = choose(&run, &lines, &[]).unwrap();
        assert_eq!(chosen.of, BaselineOf::Run(lines[0].record.run));
        let mut with_arm = (*run).clone();
        with_arm.facts.builds.insert((Arm::Baseline, "e@1".to_owned()));
        assert!(!is_needed(&with_arm));
    }
}
