//! What schedules do by themselves: once a second each is decided upon, and what is decided is carried out. The schedule's
//! new state and its run are in one batch, so a crash loses both or neither.

use crate::decide::schedule::{self, Decision, Snapshot, Start};
use crate::domain::alert::{Alert, AlertKind};
use crate::domain::record::RunInput;
use crate::domain::run::RunState;
use crate::domain::schedule::{TickOutcome, TickRecord};
use crate::domain::time::UnixUs;
use crate::engine::expansion::{self, PlanRefused};
use crate::engine::handle::Submission;
use crate::engine::schedules::ScheduleEntry;
use crate::engine::state::State;
use pgsoak_proto::id::{RunId, ScheduleId};
use pgsoak_proto::job::BuildRef;
use std::time::Duration;
use tracing::error;

/// Between two looks at the calendars.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Label of the runs of a schedule.
const LABEL: &str = "schedule";

impl State {
    /// Decides upon every schedule, at most once a second.
    pub(crate) fn keep_schedules(&mut self) {
        let now = self.clock.wall();
        let is_fresh = |looked: UnixUs| looked <= now && now.since(looked) < LOOK_EVERY;
        if self.schedules.entries.is_empty() || self.schedules.looked_at.is_some_and(is_fresh) {
            return;
        }
        self.schedules.looked_at = Some(now);
        let ids: Vec<ScheduleId> = self.schedules.entries.keys().copied().collect();
        for id in ids {
            self.settle_runs(id);
            self.keep_schedule(id, now);
        }
    }

    /// Runs of it that are over.
    fn settle_runs(&mut self, id: ScheduleId) {
        let Some(entry) = self.schedules.entries.get_mut(&id) else { return };
        let progress = &mut entry.record.progress;
        let unfinished: Vec<RunId> = progress.unfinished.keys().copied().collect();
        let mut is_changed = false;
        for run in unfinished {
            let took = match self.runs.get(&run).map(|entry| &entry.record.state) {
                Some(RunState::Finished { started_at, finished_at, cancelled, .. }) => {
                    let took = started_at.map(|started| finished_at.since(started));
                    took.filter(|_| cancelled.is_none())
                }
                Some(_) => continue,
                // Memory forgets only what is finished.
                None => None,
            };
            progress.finished(run, took);
            is_changed = true;
        }
        if is_changed {
            self.effects.batch.schedule(&entry.record);
        }
    }

    fn keep_schedule(&mut self, id: ScheduleId, now: UnixUs) {
        let builds = self.builds_of(id);
        let Some(entry) = self.schedules.entries.get(&id) else { return };
        let Some(calendar) = &entry.calendar else { return };
        let progress = &entry.record.progress;
        let queued: Vec<RunId> = progress
            .unfinished
            .keys()
            .filter(|run| {
                self.runs.get(run).is_some_and(|run| run.record.state == RunState::Queued)
            })
            .copied()
            .collect();
        let decision = schedule::decide(&Snapshot {
            now,
            schedule: id,
            spec: &entry.record.spec,
            calendar,
            is_paused: entry.record.paused.is_some(),
            progress,
            queued: &queued,
            takes: Some(progress.took.iter().max().copied().unwrap_or(entry.expected)),
            builds: builds.as_deref(),
        });
        if decision.is_news(progress) {
            self.carry_out_schedule(id, decision, now);
        }
    }

    fn carry_out_schedule(&mut self, id: ScheduleId, decision: Decision, now: UnixUs) {
        let Decision { progress, start, cancel, records: _, mut alerts } = decision;
        let Some(entry) = self.schedules.entries.get_mut(&id) else { return };
        entry.record.progress = progress;
        let name = entry.record.name.clone();
        for run in cancel {
            self.cancel(run, &format!("the next run of the schedule {name} takes its place"));
        }
        if let Some(Start { tick, is_made_up }) = start {
            let what = match self.begin_run(id, now, &tick.0.to_string()) {
                Ok(run) if is_made_up => TickOutcome::MadeUp(run),
                Ok(run) => TickOutcome::Started(run),
                Err(problem) => {
                    let text = format!("the run of {tick} cannot be made: {problem}");
                    alerts.push((AlertKind::RunFailedToStart, text));
                    TickOutcome::Failed(problem.to_string())
                }
            };
            if let Some(entry) = self.schedules.entries.get_mut(&id) {
                let record = TickRecord { tick, last_tick: tick, count: 1, at: now, what };
                entry.record.progress.remember(record);
            }
        }
        for (kind, text) in alerts {
            if let Some(entry) = self.schedules.entries.get_mut(&id) {
                entry.record.alert(now, text.clone());
            }
            self.alert(kind, &name, text);
        }
        if let Some(entry) = self.schedules.entries.get(&id) {
            self.effects.batch.schedule(&entry.record);
        }
        self.effects.is_visible = true;
    }

    /// A run of a schedule; `what_for` makes its key.
    pub(super) fn begin_run(
        &mut self,
        id: ScheduleId,
        now: UnixUs,
        what_for: &str,
    ) -> Result<RunId, PlanRefused> {
        let Some(ScheduleEntry { record, input, .. }) = self.schedules.entries.get(&id) else {
            return Err(PlanRefused::Empty);
        };
        let mut labels = record.spec.labels.clone();
        labels.insert(LABEL.to_owned(), record.name.clone());
        let input: RunInput = (**input).clone();
        let key = format!("schedule:{id}:{what_for}");
        let made = expansion::submission(input, key, self.limits.max_jobs, self.connected())?;
        let priority = record.spec.priority.unwrap_or(made.priority);
        let submission = Submission { labels, priority, ..made };
        let run = self.submit(submission).run;
        if let Some(entry) = self.schedules.entries.get_mut(&id) {
            entry.record.progress.unfinished.insert(run, now);
        }
        Ok(run)
    }

    /// The builds that a run of it would have, in one text; `None`: they cannot be told.
    pub(super) fn builds_of(&self, id: ScheduleId) -> Option<String> {
        let entry = self.schedules.entries.get(&id)?;
        let parts: Option<Vec<String>> =
            entry.builds.iter().map(|build| self.build_identity(build)).collect();
        parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join(";"))
    }

    /// What tells one state of a build from another; `None`: only its host knows (a folder, what is installed).
    fn build_identity(&self, build: &BuildRef) -> Option<String> {
        match build {
            BuildRef::Release { .. } => Some(self.shelf.identity(build)),
            BuildRef::Dir(_) | BuildRef::System => None,
            BuildRef::Vanilla => Some("vanilla".to_owned()),
        }
    }

    /// Something that somebody should look at: kept, logged, told.
    pub(crate) fn alert(&mut self, kind: AlertKind, subject: &str, text: String) {
        error!(kind = kind.label(), subject, text, "alert");
        let alert = Alert { at: self.clock.wall(), kind, subject: subject.to_owned(), text };
        self.alerts_made = self.alerts_made.wrapping_add(1);
        self.effects.batch.alert(&alert, self.alerts_made);
        self.tell_of_alert(&alert);
        self.effects.alerts.push(alert);
        self.effects.is_visible = true;
    }
}
