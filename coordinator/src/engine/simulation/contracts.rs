//! What must hold after every step, at every judgement and at the end.

use crate::domain::job::JobState;
use crate::domain::run::RunState;
use crate::engine::escalation::Grown;
use crate::engine::judging::Judgement;
use crate::engine::simulation::agent::frame;
use crate::engine::simulation::world::World;
use crate::store::run_db::StoredFrame;
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Lease, Outcome, Tool};
use pgsoak_proto::wire;
use std::collections::BTreeMap;

impl World {
    /// Looks are made from jobs that are over, and what follows them is added once.
    pub(super) fn look_for_growth(&mut self) {
        let Some(state) = &mut self.state else { return };
        for look in std::mem::take(&mut state.to_escalate) {
            let Some(entry) = self.state.as_ref().and_then(|state| state.runs.get(&look.run))
            else {
                continue;
            };
            for job in &look.jobs {
                assert!(entry.jobs[job].record.state.is_over(), "{job} is looked at, and goes on");
            }
            let growth = if self.growing.contains(&look.run) { "it grows" } else { "" }.to_owned();
            let grown = Grown { run: look.run, subject: look.subject, growth };
            let mut ids = vec![self.job_id(), self.job_id()];
            if let Some(state) = &mut self.state {
                // A look that was made twice adds nothing more.
                state.grown(grown.clone(), || ids.pop().expect("two tools at most"));
                state.grown(grown, || panic!("decided twice"));
            }
            if !self.carry_out() {
                return;
            }
        }
    }

    /// What follows growth stands in the run once, whatever died in between.
    fn check_escalations(&self) {
        for run in &self.submitted {
            let record = self.catalogue.run(*run).unwrap().unwrap();
            let jobs = self.catalogue.jobs(&record).unwrap();
            let added = jobs.iter().filter(|(spec, _)| spec.tool != Tool::Plain).count();
            let is_done = |state: &JobState| {
                matches!(state, JobState::Over { outcome: Outcome::Finished, .. })
            };
            let plain = jobs.iter().filter(|(spec, _)| spec.tool == Tool::Plain);
            let has_finished = plain.clone().any(|(_, job)| is_done(&job.state));
            assert!(record.escalations.len() <= 1, "{:?}", record.escalations);
            let listed: usize = record.escalations.iter().map(|known| known.jobs.len()).sum();
            assert_eq!(added, listed, "run {run}: {:?}", record.escalations);
            assert_eq!(record.jobs.len(), plain.count() + added);
            if self.growing.contains(run) && has_finished && !self.cancelled.contains(run) {
                assert_eq!(added, 2, "run {run} grows, and nothing follows");
            }
            if !self.growing.contains(run) {
                assert_eq!(added, 0, "run {run} does not grow");
            }
        }
    }

    /// The evidence is complete whenever a run is judged.
    pub(super) fn judge(&mut self) {
        let Some(state) = &mut self.state else { return };
        for run in std::mem::take(&mut state.to_judge) {
            let Some(entry) = self.state.as_ref().and_then(|state| state.runs.get(&run)) else {
                continue;
            };
            for job in entry.jobs.values() {
                let JobState::Over { outcome, tenure, reason, .. } = &job.record.state else {
                    panic!("run {run} is judged, and job {} goes on", job.record.job)
                };
                let Some(tenure) = tenure else { continue };
                let Lease { job: id, attempt, .. } = tenure.lease;
                let made = self.agents.iter().find_map(|agent| agent.made.get(&(id, attempt)));
                let (last, ended_as) = made.copied().unwrap_or((0, Outcome::Cancelled));
                if *outcome != Outcome::Cancelled {
                    assert_eq!(*outcome, ended_as, "job {id}: {reason}");
                    let db = self.runs.open(run).unwrap();
                    let mark = db.high_water(id, attempt).unwrap();
                    assert_eq!(mark, last, "job {id} is judged without all of its evidence");
                }
            }
            if let Some(state) = &mut self.state {
                state.judged(Judgement {
                    run,
                    verdict: Verdict::Pass,
                    sentence: "pass".to_owned(),
                    json: "{}".to_owned(),
                    figures: Vec::new(),
                    signatures: Vec::new(),
                    against: None,
                });
                if !self.carry_out() {
                    return;
                }
            }
        }
    }

    pub(super) fn check(&self) {
        // At most one attempt of a job runs, anywhere.
        let mut running: BTreeMap<JobId, Lease> = BTreeMap::new();
        for agent in &self.agents {
            let busy = agent.held.values().filter(|held| held.is_running).count();
            assert!(busy <= agent.slots as usize, "{} holds {busy} jobs", agent.name);
            for (lease, held) in &agent.held {
                if held.is_running
                    && let Some(other) = running.insert(lease.job, *lease)
                {
                    panic!("{other:?} and {lease:?} run at once");
                }
            }
        }
        let Some(state) = &self.state else { return };
        for job in state.runs.values().flat_map(|run| run.jobs.values()) {
            // A cancel that was acknowledged means that nothing of it runs.
            if let (JobState::Over { outcome, .. }, Some(lease)) =
                (&job.record.state, running.get(&job.record.job))
            {
                panic!("job {} is over ({outcome}), and {lease:?} runs", job.record.job);
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let is_finished = |run: &RunId| {
            let record = self.catalogue.run(*run).unwrap();
            record.is_some_and(|record| matches!(record.state, RunState::Finished { .. }))
        };
        self.state.is_some()
            && self.submitted.iter().all(is_finished)
            && self.agents.iter().all(|agent| agent.held.is_empty())
    }

    /// Every frame that was made is stored exactly once, as it was made.
    pub(super) fn check_end(&self) -> u64 {
        self.check_escalations();
        let mut frames = 0;
        let mut ran: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        let made = self.agents.iter().flat_map(|agent| &agent.made);
        for ((job, attempt), (last, outcome)) in made {
            ran.entry(*job).or_default().push(*attempt);
            let run = self.catalogue.run_of_job(*job).unwrap().unwrap();
            let record = self.catalogue.run(run).unwrap().unwrap();
            let jobs = self.catalogue.jobs(&record).unwrap();
            let state = jobs.iter().find(|(_, known)| known.job == *job).unwrap();
            let is_cancelled =
                matches!(state.1.state, JobState::Over { outcome: Outcome::Cancelled, .. });
            if self.cancelled.contains(&run) && is_cancelled {
                // Its run need not wait for the rest of what it left behind.
                continue;
            }
            let tenure = state.1.state.tenure().unwrap();
            assert_eq!(
                tenure.lease.attempt, *attempt,
                "attempt {attempt} of {job} ran for nothing: {:?}, {:?}",
                record.notes, state.1.state
            );
            let mut next = 1;
            let db = self.runs.open(run).unwrap();
            db.frames(*job, *attempt, &mut |stored| {
                let StoredFrame::Whole(stored) = stored else { panic!("a frame is damaged") };
                let end = (next == *last).then_some((*outcome, ""));
                assert_eq!(*stored, wire::Frame::from(&frame(tenure.lease, next, end)));
                next += 1;
                true
            })
            .unwrap();
            assert_eq!(
                next - 1,
                *last,
                "frames of {job} are missing: {:?}, {:?}",
                state.1.state,
                record.notes
            );
            frames += last;
        }
        for (job, attempts) in ran {
            assert_eq!(attempts.len(), 1, "job {job} ran as attempts {attempts:?}");
        }
        for agent in &self.agents {
            for (lease, reason) in &agent.refused {
                let run = self.catalogue.run_of_job(lease.job).unwrap().unwrap();
                assert!(self.cancelled.contains(&run), "{lease:?} was refused: {reason}");
            }
        }
        frames
    }
}
