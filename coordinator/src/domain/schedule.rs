//! Schedules: what somebody asked for, and what became of every time that was due. The durable shapes.

use crate::domain::time::UnixUs;
use pgsoak_proto::id::{RunId, ScheduleId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Times of a schedule that are kept with what became of them.
pub const MOST_PAST: usize = 400;
/// Alerts of a schedule that are kept with it.
pub const MOST_ALERTS: usize = 20;
/// Times with a run that are remembered, so that none ever gets a second one, even when the clock goes back.
pub const MOST_STARTED: usize = 512;
/// Times that one schedule may owe.
pub const MOST_OWED: usize = 7;
/// Lengths of runs that are remembered.
const MOST_TOOK: usize = 5;

/// What becomes of a time that passed while nobody was there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Left out.
    #[default]
    Skip,
    /// One run makes up for all that were missed.
    Once,
    /// Each is made up for, one after the other, at most [`MOST_OWED`].
    Shift,
}

/// What becomes of a time at which an earlier run of the schedule goes on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// The later one is left out.
    #[default]
    Forbid,
    /// The earlier one is cancelled.
    Replace,
}

/// When, and under which conditions. Texts as people write them; `decide::calendar` reads them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// Five fields.
    pub cron: String,
    /// An IANA name.
    pub time_zone: String,
    /// Only then; empty: always.
    #[serde(default)]
    pub windows: Vec<String>,
    /// Never then.
    #[serde(default)]
    pub blackouts: Vec<String>,
    /// Most that a run starts after its time.
    #[serde(default)]
    pub jitter: Duration,
    /// For times that were missed.
    #[serde(default)]
    pub missed: Missed,
    /// For times at which an earlier run goes on.
    #[serde(default)]
    pub overlap: Overlap,
    /// A time of day by which a run must be over; it is not started when it could not.
    #[serde(default)]
    pub end_before: Option<String>,
    /// Only when a build of the plan is another one than in the last run.
    #[serde(default)]
    pub only_new_builds: bool,
    /// Later than this after its time, a time counts as missed.
    pub start_within: Duration,
    /// Of its runs, instead of the plan's.
    #[serde(default)]
    pub priority: Option<u32>,
    /// Of its runs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A schedule. Its plan and workloads are kept beside it, since they are written once.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Its id; what jitter comes from.
    pub schedule: ScheduleId,
    /// Unique.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// What was asked for.
    pub spec: ScheduleSpec,
    /// When.
    pub added_at: UnixUs,
    /// Nothing starts, and why.
    #[serde(default)]
    pub paused: Option<String>,
    /// How far it got.
    pub progress: Progress,
    /// The last ones, oldest first.
    #[serde(default)]
    pub alerts: VecDeque<(UnixUs, String)>,
}

/// How far a schedule got.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Every time up to and with this one was decided.
    pub decided_until: UnixUs,
    /// Times that have a run; see [`MOST_STARTED`].
    pub started: BTreeSet<UnixUs>,
    /// All times up to this may have a run: they are no longer in `started`.
    pub started_forgotten: UnixUs,
    /// Times that are to be made up for, oldest first.
    pub owed: VecDeque<UnixUs>,
    /// Runs of it that are not finished, with when they were begun.
    pub unfinished: BTreeMap<RunId, UnixUs>,
    /// Those of them that wait for an agent for so long that it was said.
    pub stuck: BTreeSet<RunId>,
    /// The builds of the last run (see `decide::schedule`); `None`: there was none, or they could not be told.
    pub last_builds: Option<String>,
    /// How long the last runs took, oldest first.
    pub took: VecDeque<Duration>,
    /// What became of the last times, oldest first.
    pub past: VecDeque<TickRecord>,
}

/// What became of one time, or of several in a row that came to the same.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TickRecord {
    /// The (first) time, as the calendar says.
    pub tick: UnixUs,
    /// The last one.
    pub last_tick: UnixUs,
    /// How many; at least 1.
    pub count: u32,
    /// When (the last of) this was decided.
    pub at: UnixUs,
    /// What.
    pub what: TickOutcome,
}

/// What became of a time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickOutcome {
    /// A run began on time.
    Started(RunId),
    /// A run began later than the time it stands for.
    MadeUp(RunId),
    /// Somebody began a run; the time is that of the call.
    ByHand(RunId),
    /// It passed while nobody was there, and stays without a run.
    Missed(String),
    /// It was not to be run.
    Skipped(String),
    /// It is to be made up for.
    Owed(String),
    /// The run could not be made.
    Failed(String),
}

// === impl TickOutcome ===

impl TickOutcome {
    /// Word for people and programs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::MadeUp(_) => "made up",
            Self::ByHand(_) => "by hand",
            Self::Missed(_) => "missed",
            Self::Skipped(_) => "skipped",
            Self::Owed(_) => "owed",
            Self::Failed(_) => "failed",
        }
    }

    /// Its run.
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Started(run) | Self::MadeUp(run) | Self::ByHand(run) => Some(*run),
            _ => None,
        }
    }

    /// Why there is none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Missed(why) | Self::Skipped(why) | Self::Owed(why) | Self::Failed(why) => why,
            _ => "",
        }
    }
}

// === impl Progress ===

impl Progress {
    /// Adds to the past; the same again is counted, not repeated.
    pub fn remember(&mut self, record: TickRecord) {
        if let Some(last) = self.past.back_mut()
            && last.what == record.what
            && last.what.run().is_none()
            && last.last_tick < record.tick
        {
            last.last_tick = record.last_tick;
            last.count = last.count.saturating_add(record.count);
            last.at = record.at;
            return;
        }
        self.past.push_back(record);
        while self.past.len() > MOST_PAST {
            self.past.pop_front();
        }
    }

    /// A time has its run: it never gets another.
    pub fn mark_started(&mut self, tick: UnixUs) {
        self.started.insert(tick);
        while self.started.len() > MOST_STARTED {
            if let Some(forgotten) = self.started.pop_first() {
                self.started_forgotten = self.started_forgotten.max(forgotten);
            }
        }
    }

    /// Whether a time has, or may have, a run.
    pub fn has_started(&self, tick: UnixUs) -> bool {
        tick <= self.started_forgotten || self.started.contains(&tick)
    }

    /// A run of it is over. `None`: nobody knows how long it took, or it was cancelled.
    pub fn finished(&mut self, run: RunId, took: Option<Duration>) {
        self.unfinished.remove(&run);
        self.stuck.remove(&run);
        if let Some(took) = took {
            self.took.push_back(took);
            while self.took.len() > MOST_TOOK {
                self.took.pop_front();
            }
        }
    }
}

// === impl ScheduleRecord ===

impl ScheduleRecord {
    /// Adds an alert.
    pub fn alert(&mut self, at: UnixUs, text: String) {
        self.alerts.push_back((at, text));
        while self.alerts.len() > MOST_ALERTS {
            self.alerts.pop_front();
        }
    }
}
