//! What people ask for: submit, cancel, look.

use crate::domain::history::RunFacts;
use crate::domain::job::{JobEvent, JobState};
use crate::domain::record::{JobRecord, RunRecord};
use crate::domain::run::{RunEvent, RunState};
use crate::engine::handle::{Submission, Submitted};
use crate::engine::judging::Judgement;
use crate::engine::state::State;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use pgsoak_proto::session::{CoordinatorMessage, Refusal};
use tracing::info;

impl State {
    /// Takes a run into the queue. The same client key gives the same run.
    pub(crate) fn submit(&mut self, submission: Submission) -> Submitted {
        let Submission { run, plan, mut input, specs, client_key, labels, priority } = submission;
        if let Some(known) = self.client_keys.get(&client_key) {
            return Submitted { run: *known, is_new: false };
        }
        if input.packages.is_empty() {
            input.packages = self.shelf.packages(&specs);
        }
        for spec in &specs {
            input
                .workloads
                .entry(spec.workload_name.clone())
                .or_insert_with(|| spec.workload_toml.clone());
        }
        let record = RunRecord {
            run,
            plan,
            submitted_at: self.now(),
            state: RunState::Queued,
            jobs: specs.iter().map(|spec| spec.job).collect(),
            jobs_over: 0,
            notes: Vec::new(),
            escalations: Vec::new(),
            labels,
            priority,
        };
        let jobs: Vec<(JobSpec, JobRecord)> = specs
            .into_iter()
            .map(|spec| {
                let job = JobRecord::waiting(run, spec.job);
                (JobSpec { workload_toml: String::new(), ..spec }, job)
            })
            .collect();
        let batch = &mut self.effects.batch;
        batch.run(&record);
        batch.input(run, &input);
        for (spec, job) in &jobs {
            batch.spec(spec);
            batch.job(job);
        }
        if !client_key.is_empty() {
            batch.client_key(&client_key, run);
            self.client_keys.insert(client_key, run);
        }
        info!(%run, plan = record.plan, jobs = jobs.len(), "a run was submitted");
        self.insert_run(record, input, jobs);
        self.effects.is_visible = true;
        Submitted { run, is_new: true }
    }

    /// Stops a run. Asked twice is asked once.
    pub(crate) fn cancel(&mut self, run: RunId, reason: &str) {
        if !self.step_run(run, RunEvent::CancelRequested { reason: reason.to_owned() }) {
            return;
        }
        let Some(entry) = self.runs.get(&run) else { return };
        if !matches!(entry.record.state, RunState::Cancelling { .. }) {
            return;
        }
        let jobs: Vec<JobId> = entry
            .jobs
            .values()
            .filter(|job| {
                !matches!(job.record.state, JobState::Over { .. } | JobState::Cancelling { .. })
            })
            .map(|job| job.record.job)
            .collect();
        for job in jobs {
            self.step(job, JobEvent::CancelRequested { reason: reason.to_owned() });
            self.send_cancel(job);
        }
    }

    /// Tells the agent of a job that is being cancelled; one that is away hears it when it is back.
    pub(crate) fn send_cancel(&mut self, job: JobId) {
        let now = self.now();
        let Some(entry) = self.job_mut(job) else { return };
        let JobState::Cancelling { tenure, reason, .. } = &entry.record.state else { return };
        let (agent, lease, reason) = (tenure.agent, tenure.lease, reason.clone());
        entry.cancel_sent_at = now;
        self.send(agent, CoordinatorMessage::Cancel(Refusal { lease, reason }));
    }

    /// The evidence of a run was judged.
    pub(crate) fn judged(&mut self, judgement: Judgement) {
        let Judgement { run, verdict, sentence, json, figures, signatures, against } = judgement;
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.is_being_judged = false;
        }
        self.effects.batch.result(run, &json);
        self.tell_of_run(&json);
        if let Some(view) = self.view(run) {
            let jobs = view.jobs.iter().map(|job| (&job.spec, job.agent.as_str()));
            self.effects.batch.facts(run, &RunFacts::of(jobs));
            self.effects.batch.figures(run, view.record.submitted_at.0, &figures);
        }
        self.effects.batch.signatures(signatures);
        if let Some(against) = &against {
            self.effects.batch.against(run, against);
        }
        info!(%run, ?verdict, sentence, "a run was judged");
        self.health_checked(run, verdict, &sentence);
        self.step_run(run, RunEvent::Judged { verdict, sentence });
    }
}
