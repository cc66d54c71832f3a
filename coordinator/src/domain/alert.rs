//! What somebody should look at beside verdicts: a run that did not happen, an agent that is not trusted any more.

use crate::domain::time::UnixUs;
use serde::{Deserialize, Serialize};

/// An alert: kept, logged as an error, and told to whoever listens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// When.
    pub at: UnixUs,
    /// What kind of thing.
    pub kind: AlertKind,
    /// The name of the schedule or of the agent.
    pub subject: String,
    /// One sentence for people.
    pub text: String,
}

/// Kinds of alerts. Product failures are verdicts, not alerts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A time of a schedule passed while nobody was there to start its run.
    RunMissed,
    /// A run of a schedule was due and was not started: an earlier one goes on, or it could not be over in time.
    RunSkipped,
    /// A run of a schedule waits for an agent for too long.
    RunStuck,
    /// A run of a schedule cannot be made: its plan is not taken any more.
    RunFailedToStart,
    /// The wall clock stepped back.
    ClockJumped,
    /// An agent fails its health check: it gets no jobs.
    AgentQuarantined,
}

// === impl AlertKind ===

impl AlertKind {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::RunMissed,
        Self::RunSkipped,
        Self::RunStuck,
        Self::RunFailedToStart,
        Self::ClockJumped,
        Self::AgentQuarantined,
    ];

    /// Stable word for logs, the wire and messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RunMissed => "run_missed",
            Self::RunSkipped => "run_skipped",
            Self::RunStuck => "run_stuck",
            Self::RunFailedToStart => "run_failed_to_start",
            Self::ClockJumped => "clock_jumped",
            Self::AgentQuarantined => "agent_quarantined",
        }
    }
}
