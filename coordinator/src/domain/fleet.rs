//! What people and health checks decided about an agent, beside what it says of itself. The durable shape.

use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, RunId};
use serde::{Deserialize, Serialize};

/// Attempts in a row that end as infrastructure, over at least two runs, before an agent is quarantined.
pub const FAILURES: usize = 3;

/// Whether an agent is part of the fleet.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Somebody must say so.
    Waiting {
        /// Since when.
        since: UnixUs,
    },
    /// It is.
    Approved {
        /// Since when.
        at: UnixUs,
        /// By whom or what.
        by: String,
    },
}

/// Something decided at a time, with its reason.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// When.
    pub at: UnixUs,
    /// Why; may be empty.
    pub why: String,
}

/// A health check of an agent: a run of a plan whose verdict is known beforehand.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The run.
    pub run: RunId,
    /// When it was begun.
    pub begun_at: UnixUs,
    /// When it was over, whether it came to what it had to (`None`: it could not tell), and what it said; `None`: it is not
    /// over.
    pub ended: Option<(UnixUs, Option<bool>, String)>,
}

/// What was decided about an agent.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// Which.
    pub agent: AgentId,
    /// Whether it is part of the fleet.
    pub admission: Admission,
    /// It gets no further jobs, until somebody resumes it.
    #[serde(default)]
    pub drained: Option<Decided>,
    /// It fails its health check: it gets no jobs but further checks.
    #[serde(default)]
    pub quarantine: Option<Decided>,
    /// For people: maintenance, who to ask.
    #[serde(default)]
    pub note: String,
    /// Attempts in a row that ended as infrastructure: run and reason.
    #[serde(default)]
    pub failures: Vec<(RunId, String)>,
    /// The last health check.
    #[serde(default)]
    pub canary: Option<Canary>,
}

// === impl FleetRecord ===

impl FleetRecord {
    /// An agent that was just seen for the first time.
    pub fn new(agent: AgentId, admission: Admission) -> Self {
        Self {
            agent,
            admission,
            drained: None,
            quarantine: None,
            note: String::new(),
            failures: Vec::new(),
            canary: None,
        }
    }

    /// An attempt ended as infrastructure; the answer is why that is one too many.
    pub fn failed(&mut self, run: RunId, reason: &str) -> Option<String> {
        // The first clause says what happened; the rest is in the job's own reason.
        let reason = reason.split(';').next().unwrap_or(reason);
        self.failures.push((run, reason.to_owned()));
        let excess = self.failures.len().saturating_sub(FAILURES);
        self.failures.drain(..excess);
        let is_of_one_run = self.failures.iter().all(|(other, _)| *other == run);
        // One run may be wrong itself; two that fail alike are the host.
        (self.failures.len() >= FAILURES && !is_of_one_run).then(|| {
            format!("{FAILURES} attempts in a row ended as infrastructure, the last one: {reason}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_wrong_itself_condemns_no_host() {
        let agent = AgentId::issue();
        let mut record = FleetRecord::new(agent, Admission::Waiting { since: UnixUs(0) });
        let (a, b) = (RunId::issue(), RunId::issue());
        for _ in 0..10 {
            assert_eq!(record.failed(a, "no such build"), None);
        }
        assert!(record.failed(b, "disk full").unwrap().contains("disk full"));
        record.failures.clear();
        assert_eq!(record.failed(a, "x"), None);
        assert_eq!(record.failed(b, "x"), None);
        assert!(record.failed(b, "x").is_some());
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<FleetRecord>(&text).unwrap(), record);
    }
}
