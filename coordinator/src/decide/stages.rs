//! A run's canaries come before its jobs and after them: whose turn it is.
//!
//! The jobs of a run stand in the order of its plan: canaries, the plan's jobs, canaries. Nothing of a later stage begins while something of an
//! earlier one waits or lives. Runs without canaries have one stage.

use crate::decide::place::Snapshot;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, JobSpec};
use std::collections::BTreeMap;

/// What is known of the waiting jobs that were looked at so far, run by run.
#[derive(Debug, Default)]
pub struct Stages {
    by_run: BTreeMap<RunId, Stage>,
}

#[derive(Debug)]
struct Stage {
    /// Of the run's first waiting job.
    is_canary: bool,
    /// A job of the next stage was met.
    is_over: bool,
}

impl Stages {
    /// Whether the job's stage has come; else why it waits. The jobs of a run must be asked about in their order.
    pub fn turn(&mut self, snapshot: &Snapshot<'_>, spec: &JobSpec) -> Result<(), &'static str> {
        let is_canary = spec.arm == Arm::Canary;
        let stage = self.by_run.entry(spec.run).or_insert(Stage { is_canary, is_over: false });
        stage.is_over |= stage.is_canary != is_canary;
        let live = snapshot.live_jobs.get(&spec.run).copied().unwrap_or(0);
        let canaries = snapshot.live_canaries.get(&spec.run).copied().unwrap_or(0);
        let others_live = if is_canary { live > canaries } else { canaries > 0 };
        match (stage.is_over || others_live, is_canary) {
            (false, _) => Ok(()),
            (true, true) => Err("the canary after the run waits for the run's jobs"),
            (true, false) => Err("waits for the canary of its run"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fitness::tests::spec;
    use crate::domain::time::UnixUs;

    fn snapshot(run: RunId, live: usize, canaries: usize) -> Snapshot<'static> {
        Snapshot {
            now: UnixUs(1),
            agents: BTreeMap::new(),
            waiting: Vec::new(),
            live_jobs: BTreeMap::from([(run, live)]),
            live_canaries: BTreeMap::from([(run, canaries)]),
        }
    }

    /// Who may go, of a run's waiting jobs: `c` a canary, `j` a job.
    fn may_go(waiting: &str, live: usize, canaries: usize) -> String {
        let run = RunId::issue();
        let snapshot = snapshot(run, live, canaries);
        let mut stages = Stages::default();
        let turn = |letter: char| {
            let mut spec = spec(run);
            if letter == 'c' {
                spec.arm = Arm::Canary;
            }
            if stages.turn(&snapshot, &spec).is_ok() { letter } else { '-' }
        };
        waiting.chars().map(turn).collect()
    }

    #[test]
    fn canaries_go_first_and_last_and_alone() {
        assert_eq!(may_go("ccjjcc", 0, 0), "cc----");
        assert_eq!(may_go("cjjcc", 1, 1), "c----");
        assert_eq!(may_go("jjcc", 1, 1), "----", "the last canary before the run still lives");
        assert_eq!(may_go("jjcc", 0, 0), "jj--");
        assert_eq!(may_go("jcc", 2, 0), "j--");
        assert_eq!(may_go("cc", 1, 0), "--");
        assert_eq!(may_go("cc", 0, 0), "cc");
        assert_eq!(may_go("jj", 3, 0), "jj", "a run without canaries knows no stages");
    }
}
