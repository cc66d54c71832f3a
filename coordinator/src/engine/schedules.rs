//! Schedules in memory: what people ask of them. What they do by themselves is in `keeping`.

mod keeping;

use crate::decide::calendar::{Calendar, InvalidCalendar};
use crate::decide::estimate::expected;
use crate::domain::record::RunInput;
use crate::domain::schedule::{Progress, ScheduleRecord, ScheduleSpec, TickOutcome, TickRecord};
use crate::domain::time::UnixUs;
use crate::engine::expansion::{self, PlanRefused};
use crate::engine::handle::{EngineGone, EngineHandle, Request};
use crate::engine::state::State;
use pgsoak_proto::id::{RunId, ScheduleId};
use pgsoak_proto::job::BuildRef;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use tracing::{error, info};

/// Schedules of one coordinator.
const MAX_SCHEDULES: usize = 1_000;

/// All schedules in memory.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    pub(crate) entries: std::collections::BTreeMap<ScheduleId, ScheduleEntry>,
    /// When they were last looked at, by the wall clock; `None`: look at once.
    looked_at: Option<UnixUs>,
}

/// A schedule in memory.
#[derive(Debug)]
pub(crate) struct ScheduleEntry {
    pub(crate) record: ScheduleRecord,
    input: Arc<RunInput>,
    /// `None`: it cannot be read any more (its time zone is gone); nothing starts.
    calendar: Option<Calendar>,
    /// What its plan's longest job is likely to take.
    expected: Duration,
    /// Candidates and baselines of its plan.
    builds: BTreeSet<BuildRef>,
}

/// A schedule to add.
#[derive(Debug)]
pub struct NewSchedule {
    /// Its name; empty: the plan's.
    pub name: String,
    /// Its plan and workloads.
    pub input: RunInput,
    /// When.
    pub spec: ScheduleSpec,
    /// One of that name is replaced; its id and past stay.
    pub is_replacing: bool,
}

/// What cannot be done with a schedule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ScheduleRefused {
    /// Nobody has that name.
    #[error("there is no schedule '{0}'; `pgsoak schedule list` shows those there are")]
    Unknown(String),
    /// Somebody has it.
    #[error(
        "there is a schedule '{0}' already; --replace changes it, --name gives this one another name"
    )]
    Taken(String),
    /// Not a name.
    #[error("'{0}' is no name: 1 to 100 of letters, digits, '.', '_' and '-'")]
    Name(String),
    /// Too many.
    #[error("there are {0} schedules; no more are taken")]
    TooMany(usize),
    /// Its calendar.
    #[error(transparent)]
    Calendar(#[from] InvalidCalendar),
    /// Its plan.
    #[error(transparent)]
    Plan(#[from] PlanRefused),
}

type Reply<T> = oneshot::Sender<Result<T, ScheduleRefused>>;

#[derive(Debug)]
pub(crate) enum ScheduleRequest {
    Add(Box<NewSchedule>, Reply<ScheduleRecord>),
    List(oneshot::Sender<Vec<ScheduleRecord>>),
    /// `None`: it goes on.
    Pause(String, Option<String>, Reply<ScheduleRecord>),
    Remove(String, Reply<()>),
    RunNow(String, Reply<RunId>),
}

// === impl EngineHandle ===

impl EngineHandle {
    async fn schedule<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> ScheduleRequest,
    ) -> Result<T, EngineGone> {
        self.ask(|reply| Request::Schedule(request(reply))).await
    }

    /// Adds a schedule; answered when it is durable.
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one says what is wrong with the schedule.
    pub async fn add_schedule(
        &self,
        new: NewSchedule,
    ) -> Result<Result<ScheduleRecord, ScheduleRefused>, EngineGone> {
        self.schedule(|reply| ScheduleRequest::Add(Box::new(new), reply)).await
    }

    /// All schedules, by name.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRecord>, EngineGone> {
        self.schedule(ScheduleRequest::List).await
    }

    /// Pauses a schedule, with a reason, or lets it go on (`None`).
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one when there is none.
    pub async fn pause_schedule(
        &self,
        name: String,
        paused: Option<String>,
    ) -> Result<Result<ScheduleRecord, ScheduleRefused>, EngineGone> {
        self.schedule(|reply| ScheduleRequest::Pause(name, paused, reply)).await
    }

    /// Removes a schedule. Its runs stay.
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one when there is none.
    pub async fn remove_schedule(
        &self,
        name: String,
    ) -> Result<Result<(), ScheduleRefused>, EngineGone> {
        self.schedule(|reply| ScheduleRequest::Remove(name, reply)).await
    }

    /// Starts a run of a schedule now.
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one when there is none, or its plan is not taken any more.
    pub async fn run_schedule(
        &self,
        name: String,
    ) -> Result<Result<RunId, ScheduleRefused>, EngineGone> {
        self.schedule(|reply| ScheduleRequest::RunNow(name, reply)).await
    }
}

// === impl ScheduleEntry ===

impl ScheduleEntry {
    /// From what is stored; what does not fit any more is said, and its schedule stands still.
    fn restored(record: ScheduleRecord, input: RunInput, now: UnixUs, max_jobs: usize) -> Self {
        let calendar = Calendar::parse(&record.spec, now);
        if let Err(problem) = &calendar {
            error!(schedule = record.name, %problem, "its calendar cannot be read any more: nothing starts");
        }
        let (expected, builds) = plan_facts(&input, max_jobs).unwrap_or_default();
        Self { record, input: Arc::new(input), calendar: calendar.ok(), expected, builds }
    }
}

/// What the plan's longest job takes, and its builds.
fn plan_facts(
    input: &RunInput,
    max_jobs: usize,
) -> Result<(Duration, BTreeSet<BuildRef>), PlanRefused> {
    let specs = expansion::submission(input.clone(), String::new(), max_jobs, 1)?.specs;
    let longest = specs.iter().map(expected).max().unwrap_or_default();
    let builds = specs.into_iter().map(|spec| spec.build).filter(|b| *b != BuildRef::Vanilla);
    Ok((longest, builds.collect()))
}

// === impl State ===

impl State {
    pub(crate) fn serve_schedule(&mut self, request: ScheduleRequest) {
        match request {
            ScheduleRequest::Add(new, reply) => {
                let added = self.add_schedule(*new);
                self.reply(reply, added);
            }
            ScheduleRequest::List(reply) => {
                let mut all: Vec<ScheduleRecord> =
                    self.schedules.entries.values().map(|entry| entry.record.clone()).collect();
                all.sort_by(|a, b| a.name.cmp(&b.name));
                self.reply(reply, all);
            }
            ScheduleRequest::Pause(name, paused, reply) => {
                let paused = self.pause_schedule(&name, paused);
                self.reply(reply, paused);
            }
            ScheduleRequest::Remove(name, reply) => {
                let removed = self.schedule_named(&name).map(|id| {
                    info!(schedule = name, "a schedule was removed");
                    self.schedules.entries.remove(&id);
                    self.effects.batch.no_schedule(id);
                });
                self.reply(reply, removed);
            }
            ScheduleRequest::RunNow(name, reply) => {
                let run = self.run_schedule_now(&name);
                self.reply(reply, run);
            }
        }
        self.schedules.looked_at = None;
        self.effects.is_visible = true;
        self.is_dirty = true;
    }

    pub(crate) fn restore_schedules(&mut self, stored: Vec<(ScheduleRecord, RunInput)>) {
        let now = self.clock.wall();
        for (record, input) in stored {
            let id = record.schedule;
            let entry = ScheduleEntry::restored(record, input, now, self.limits.max_jobs);
            self.schedules.entries.insert(id, entry);
        }
    }

    fn schedule_named(&self, name: &str) -> Result<ScheduleId, ScheduleRefused> {
        let mut entries = self.schedules.entries.iter();
        entries
            .find(|(_, entry)| entry.record.name == name)
            .map(|(id, _)| *id)
            .ok_or_else(|| ScheduleRefused::Unknown(name.chars().take(100).collect()))
    }

    fn add_schedule(&mut self, new: NewSchedule) -> Result<ScheduleRecord, ScheduleRefused> {
        let NewSchedule { name, input, spec, is_replacing } = new;
        let now = self.clock.wall();
        let calendar = Calendar::parse(&spec, now)?;
        let plan =
            expansion::submission(input.clone(), String::new(), self.limits.max_jobs, 1)?.plan;
        let (expected, builds) = plan_facts(&input, self.limits.max_jobs)?;
        let name = if name.is_empty() { plan.clone() } else { name };
        let is_word = (1..=100).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !is_word {
            return Err(ScheduleRefused::Name(name.chars().take(120).collect()));
        }
        let known = self.schedule_named(&name).ok();
        if known.is_some() && !is_replacing {
            return Err(ScheduleRefused::Taken(name));
        }
        if known.is_none() && self.schedules.entries.len() >= MAX_SCHEDULES {
            return Err(ScheduleRefused::TooMany(MAX_SCHEDULES));
        }
        let mut record = match known.and_then(|id| self.schedules.entries.get(&id)) {
            Some(entry) => ScheduleRecord { plan, spec, ..entry.record.clone() },
            None => ScheduleRecord {
                schedule: ScheduleId::issue(),
                name,
                plan,
                spec,
                added_at: now,
                paused: None,
                progress: Progress::default(),
                alerts: std::collections::VecDeque::new(),
            },
        };
        // The past of a new calendar begins now.
        record.progress.decided_until = now;
        record.progress.owed.clear();
        info!(schedule = record.name, cron = record.spec.cron, "a schedule was added");
        self.effects.batch.schedule(&record);
        self.effects.batch.schedule_files(record.schedule, &input);
        let entry = ScheduleEntry {
            record: record.clone(),
            input: Arc::new(input),
            calendar: Some(calendar),
            expected,
            builds,
        };
        self.schedules.entries.insert(record.schedule, entry);
        Ok(record)
    }

    fn pause_schedule(
        &mut self,
        name: &str,
        paused: Option<String>,
    ) -> Result<ScheduleRecord, ScheduleRefused> {
        // Times until now are decided as they were to be.
        self.schedules.looked_at = None;
        self.keep_schedules();
        let id = self.schedule_named(name)?;
        let entry = self.schedules.entries.get_mut(&id);
        let entry = entry.ok_or_else(|| ScheduleRefused::Unknown(name.to_owned()))?;
        info!(schedule = name, ?paused, "a schedule was paused or goes on");
        entry.record.paused = paused;
        self.effects.batch.schedule(&entry.record);
        Ok(entry.record.clone())
    }

    fn run_schedule_now(&mut self, name: &str) -> Result<RunId, ScheduleRefused> {
        let id = self.schedule_named(name)?;
        let now = self.clock.wall();
        let run = self.begin_run(id, now, &format!("by-hand:{}", RunId::issue()))?;
        let builds = self.builds_of(id);
        if let Some(entry) = self.schedules.entries.get_mut(&id) {
            let progress = &mut entry.record.progress;
            progress.last_builds = builds;
            let what = TickOutcome::ByHand(run);
            progress.remember(TickRecord { tick: now, last_tick: now, count: 1, at: now, what });
            self.effects.batch.schedule(&entry.record);
        }
        Ok(run)
    }
}
