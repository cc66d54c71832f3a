//! All runs in memory, a line each, so that lists and filters need no disk: 10,000 runs take about 20 MB.
//!
//! The catalogue's thread brings it up to date after each batch is durable; nobody else writes. Readers get what was
//! durable at one moment.

use crate::domain::history::{Annotations, RunFacts, RunLine};
use crate::domain::record::{AgentRecord, JobRecord, RunRecord};
use pgsoak_proto::id::{AgentId, RunId};
use pgsoak_proto::job::JobSpec;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

/// What a batch changes here.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Run(Box<RunRecord>),
    Spec(Box<JobSpec>),
    Job(Box<JobRecord>),
    Agent(Box<AgentRecord>),
    Facts(RunId, RunFacts),
    Annotations(RunId, Annotations),
    Removed(RunId),
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct RunIndex {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: BTreeMap<RunId, Arc<RunLine>>,
    agents: HashMap<AgentId, String>,
}

// === impl RunIndex ===

impl RunIndex {
    /// Applies changes in order.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            inner.apply(change);
        }
    }

    /// All lines, oldest run first.
    pub(crate) fn lines(&self) -> Vec<Arc<RunLine>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.runs.values().cloned().collect()
    }

    /// One line.
    pub(crate) fn line(&self, run: RunId) -> Option<Arc<RunLine>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.runs.get(&run).cloned()
    }
}

// === impl Inner ===

impl Inner {
    fn line(&mut self, run: RunId) -> Option<&mut RunLine> {
        self.runs.get_mut(&run).map(Arc::make_mut)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Run(record) => match self.line(record.run) {
                Some(line) => line.record = *record,
                None => {
                    self.runs.insert(record.run, Arc::new(RunLine::new(*record)));
                }
            },
            Change::Spec(spec) => {
                if let Some(line) = self.line(spec.run) {
                    line.facts.add(&spec);
                }
            }
            Change::Job(job) => {
                let name = job.state.tenure().and_then(|tenure| self.agents.get(&tenure.agent));
                if let Some(name) = name.cloned()
                    && let Some(line) = self.line(job.run)
                {
                    line.facts.agents.insert(name);
                }
            }
            Change::Agent(agent) => {
                self.agents.insert(agent.agent, agent.name);
            }
            Change::Facts(run, facts) => {
                if let Some(line) = self.line(run) {
                    line.facts = facts;
                }
            }
            Change::Annotations(run, annotations) => {
                if let Some(line) = self.line(run) {
                    line.annotations = annotations;
                }
            }
            Change::Removed(run) => drop(self.runs.remove(&run)),
        }
    }
}
