//! What people decide about agents, and what health checks do.

use crate::config::CanaryPlan;
use crate::decide::standing::{self, Health, Seen, Standing};
use crate::domain::alert::AlertKind;
use crate::domain::fleet::{Admission, Canary, Decided, FleetRecord};
use crate::domain::record::RunInput;
use crate::domain::time::UnixUs;
use crate::engine::expansion;
use crate::engine::handle::{AgentStatus, EngineGone, EngineHandle, Request, Submission};
use crate::engine::state::State;
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::id::{AgentId, RunId};
use pgsoak_proto::job::Outcome;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// The coordinator's version; agents of another one are marked.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Label that every agent carries: its name. A job of a health check asks for it.
pub const NAME_LABEL: &str = "agent";
/// Label of the runs of health checks.
const CANARY_LABEL: &str = "canary";
/// Health checks are short, and everything else rests on them.
const MOST_PRIORITY: u32 = 100;

/// How an agent that is seen for the first time comes in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Join {
    /// No tokens are asked for, or it came over the Unix socket.
    #[default]
    Open,
    /// Its token says at once.
    AtOnce,
    /// Its token says after `agents approve`.
    Ask,
}

/// What to do with an agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentOrder {
    /// It is part of the fleet.
    Approve,
    /// No further jobs, and why.
    Drain(String),
    /// Jobs again: ends a drain and a quarantine.
    Resume,
    /// It is forgotten.
    Remove,
    /// A note for people.
    Note(String),
}

/// What cannot be done with an agent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AgentRefused {
    /// Nobody has that name.
    #[error("there is no agent '{0}'; `pgsoak agents` lists those there are")]
    Unknown(String),
    /// It would come back at once.
    #[error(
        "agent '{0}' is connected; stop its daemon first, or drain it with `pgsoak agents drain {0}`"
    )]
    Connected(String),
    /// Its jobs are not over.
    #[error(
        "agent '{name}' holds {jobs} job(s) that are not over; wait for them, or cancel their runs: {runs}"
    )]
    Holds {
        /// Its name.
        name: String,
        /// How many.
        jobs: usize,
        /// Their runs.
        runs: String,
    },
}

/// An agent with where it stands.
#[derive(Clone, Debug)]
pub struct FleetMember {
    /// As it introduced itself, and what it does.
    pub status: AgentStatus,
    /// What was decided about it.
    pub fleet: FleetRecord,
    /// One word.
    pub standing: Standing,
    /// Apart from that.
    pub health: Health,
    /// Why it gets no jobs; empty: it does, or is not there.
    pub closed: String,
}

type Reply<T> = oneshot::Sender<Result<T, AgentRefused>>;

#[derive(Debug)]
pub(crate) enum FleetRequest {
    List(oneshot::Sender<Vec<FleetMember>>),
    Order(String, AgentOrder, Reply<()>),
}

// === impl FleetMember ===

impl FleetMember {
    /// Of another version than this coordinator: it works as long as the protocol is the same.
    pub fn is_skewed(&self) -> bool {
        self.status.record.version != VERSION
    }
}

// === impl EngineHandle ===

impl EngineHandle {
    /// All agents, by name.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn fleet(&self) -> Result<Vec<FleetMember>, EngineGone> {
        self.ask(|reply| Request::Fleet(FleetRequest::List(reply))).await
    }

    /// Decides something about an agent; answered when it is durable.
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one says why it cannot be done.
    pub async fn order_agent(
        &self,
        name: String,
        order: AgentOrder,
    ) -> Result<Result<(), AgentRefused>, EngineGone> {
        self.ask(|reply| Request::Fleet(FleetRequest::Order(name, order, reply))).await
    }
}

// === impl State ===

impl State {
    pub(crate) fn serve_fleet(&mut self, request: FleetRequest) {
        match request {
            FleetRequest::List(reply) => {
                let mut members = self.members();
                members.sort_by(|a, b| a.status.record.name.cmp(&b.status.record.name));
                self.reply(reply, members);
            }
            FleetRequest::Order(name, order, reply) => {
                let done = self.order_agent(&name, order);
                self.reply(reply, done);
                self.effects.is_visible = true;
                self.is_dirty = true;
            }
        }
    }

    /// An agent's part in the fleet, at its hello.
    pub(crate) fn admit(&mut self, agent: AgentId, name: &str, join: Join, is_known: bool) {
        let now = self.now();
        let approved = |by: &str| Admission::Approved { at: now, by: by.to_owned() };
        let known = self.fleet.get(&agent).map(|record| &record.admission);
        let admission = match (known, join) {
            (Some(Admission::Approved { .. }), _)
            | (Some(Admission::Waiting { .. }), Join::Ask) => {
                return;
            }
            // Was here before anybody asked for tokens.
            (None, Join::Ask) if is_known => approved("it was part of the fleet"),
            (None, Join::Ask) => {
                warn!(%agent, name, "an agent waits for `pgsoak agents approve`");
                Admission::Waiting { since: now }
            }
            (_, Join::AtOnce) => approved("its token"),
            (_, Join::Open) => approved("no token is asked for"),
        };
        let record =
            self.fleet.entry(agent).or_insert_with(|| FleetRecord::new(agent, admission.clone()));
        record.admission = admission;
        self.effects.batch.fleet(record);
    }

    /// What was decided about the agent whose place another one takes is about the host, and goes on; only who it is was asked anew.
    pub(crate) fn inherit(&mut self, agent: AgentId, before: FleetRecord) {
        let Some(record) = self.fleet.get_mut(&agent) else { return };
        let admission = record.admission.clone();
        *record = FleetRecord { agent, admission, ..before };
        self.effects.batch.fleet(record);
    }

    pub(crate) fn seen(&self, agent: AgentId, jobs: usize) -> Option<Seen<'_>> {
        let entry = self.agents.get(&agent)?;
        Some(Seen {
            name: &entry.record.name,
            fleet: self.fleet.get(&agent)?,
            is_connected: entry.session.is_some(),
            is_heard: self.now().since(entry.seen_at) <= self.lease_ttl,
            jobs,
            busy: &entry.busy,
        })
    }

    pub(crate) fn members(&self) -> Vec<FleetMember> {
        self.agents()
            .into_iter()
            .filter_map(|status| {
                let seen = self.seen(status.record.agent, status.jobs)?;
                Some(FleetMember {
                    fleet: seen.fleet.clone(),
                    standing: standing::standing(&seen),
                    health: standing::health(seen.fleet),
                    closed: standing::closed(&seen, false).unwrap_or_default(),
                    status,
                })
            })
            .collect()
    }

    fn order_agent(&mut self, name: &str, order: AgentOrder) -> Result<(), AgentRefused> {
        let unknown = || AgentRefused::Unknown(name.chars().take(100).collect());
        // An id tells two of one name apart.
        let found = self
            .agents
            .iter()
            .find(|(id, entry)| entry.record.name == name || id.to_string() == name)
            .map(|(id, _)| *id);
        let agent = found.ok_or_else(unknown)?;
        let now = self.now();
        if order == AgentOrder::Remove {
            return self.remove_agent(agent, name);
        }
        let record = self.fleet.get_mut(&agent).ok_or_else(unknown)?;
        info!(%agent, name, ?order, "decided about an agent");
        match order {
            AgentOrder::Approve => {
                if let Admission::Waiting { .. } = record.admission {
                    record.admission = Admission::Approved { at: now, by: "hand".to_owned() };
                }
            }
            AgentOrder::Drain(why) => record.drained = Some(Decided { at: now, why }),
            AgentOrder::Resume => {
                record.drained = None;
                record.quarantine = None;
                record.failures.clear();
            }
            AgentOrder::Note(note) => record.note = note,
            AgentOrder::Remove => {}
        }
        self.effects.batch.fleet(record);
        Ok(())
    }

    fn remove_agent(&mut self, agent: AgentId, name: &str) -> Result<(), AgentRefused> {
        if self.agents.get(&agent).is_some_and(|entry| entry.session.is_some()) {
            return Err(AgentRefused::Connected(name.to_owned()));
        }
        let held: Vec<RunId> = self.live_jobs_of(agent).map(|job| job.record.run).collect();
        if !held.is_empty() {
            let mut runs: Vec<String> = held.iter().map(ToString::to_string).collect();
            runs.dedup();
            return Err(AgentRefused::Holds {
                name: name.to_owned(),
                jobs: held.len(),
                runs: runs.join(", "),
            });
        }
        self.forget_agent(agent);
        Ok(())
    }

    /// It is no part of the fleet any more. What it ran stays.
    pub(crate) fn forget_agent(&mut self, agent: AgentId) {
        if let Some(entry) = self.agents.remove(&agent) {
            info!(%agent, name = entry.record.name, "an agent was removed");
        }
        self.fleet.remove(&agent);
        self.refusals.retain(|(_, refused_by), _| *refused_by != agent);
        self.effects.batch.no_agent(agent);
    }

    /// An attempt ended by its own word. Infrastructure again and again is the host's fault, not the product's.
    pub(crate) fn count_end(&mut self, agent: AgentId, run: RunId, outcome: Outcome, reason: &str) {
        let Some(record) = self.fleet.get_mut(&agent) else { return };
        match outcome {
            Outcome::Infrastructure => {
                let too_many = record.failed(run, reason);
                self.effects.batch.fleet(record);
                if let Some(why) = too_many {
                    self.quarantine(agent, &why);
                }
            }
            Outcome::Finished | Outcome::Failed | Outcome::TimedOut => {
                if !record.failures.is_empty() {
                    record.failures.clear();
                    self.effects.batch.fleet(record);
                }
            }
            Outcome::Cancelled => {}
        }
    }

    fn quarantine(&mut self, agent: AgentId, why: &str) {
        let now = self.now();
        let name = self.name_of(agent);
        let Some(record) = self.fleet.get_mut(&agent) else { return };
        if record.quarantine.is_some() {
            return;
        }
        record.quarantine = Some(Decided { at: now, why: why.to_owned() });
        self.effects.batch.fleet(record);
        self.is_dirty = true;
        self.alert(
            AlertKind::AgentQuarantined,
            &name,
            format!("agent {name} gets no jobs until `pgsoak agents resume {name}` or a sound health check: {why}"),
        );
        // Whatever it runs now is to be read with that in mind.
        let runs: std::collections::BTreeSet<RunId> =
            self.live_jobs_of(agent).map(|job| job.record.run).collect();
        for run in runs {
            self.note(
                run,
                format!("agent {name} was quarantined while it ran a job of this run: {why}"),
            );
        }
    }

    /// Begins health checks that are due.
    pub(crate) fn check_health(&mut self) {
        let Some(CanaryPlan { every, plan_toml, workloads }) = self.canary.clone() else { return };
        let input = RunInput { plan_toml, workloads, ..RunInput::default() };
        let now = self.now();
        let due: Vec<(AgentId, String)> = self
            .agents
            .iter()
            .filter(|(_, entry)| entry.session.is_some())
            .filter_map(|(id, entry)| Some((*id, entry, self.fleet.get(id)?)))
            .filter(|(_, _, fleet)| {
                matches!(fleet.admission, Admission::Approved { .. }) && fleet.drained.is_none()
            })
            .filter(|(_, _, fleet)| match &fleet.canary {
                None => true,
                Some(Canary { ended: None, run, .. }) => !self.runs.contains_key(run),
                Some(Canary { begun_at, .. }) => now.since(*begun_at) >= every,
            })
            .map(|(id, entry, _)| (id, entry.record.name.clone()))
            .collect();
        for (agent, name) in due {
            let key = format!("canary:{agent}:{}", now.0);
            let made = expansion::submission(input.clone(), key, self.limits.max_jobs, 1);
            let mut submission = match made {
                Ok(submission) => submission,
                Err(problem) => {
                    warn!(%problem, "the plan of the health check makes no run; no agent is checked");
                    self.canary = None;
                    return;
                }
            };
            for spec in &mut submission.specs {
                spec.agents.insert(NAME_LABEL.to_owned(), name.clone());
            }
            let labels = [(CANARY_LABEL.to_owned(), name)].into();
            let run = self.submit(Submission { labels, priority: MOST_PRIORITY, ..submission }).run;
            if let Some(record) = self.fleet.get_mut(&agent) {
                record.canary = Some(Canary { run, begun_at: now, ended: None });
                self.effects.batch.fleet(record);
            }
        }
    }

    /// Whether a run is a health check of an agent.
    pub(crate) fn is_health_check(&self, run: RunId) -> bool {
        let is_of = |record: &FleetRecord| record.canary.as_ref().is_some_and(|c| c.run == run);
        self.fleet.values().any(is_of)
    }

    /// A run was judged: when it is a health check, its agent is sound or is not.
    pub(crate) fn health_checked(&mut self, run: RunId, verdict: Verdict, sentence: &str) {
        let now: UnixUs = self.now();
        let is_cancelled =
            self.runs.get(&run).is_some_and(|entry| entry.record.state.cancelled().is_some());
        let found = self.fleet.values_mut().find_map(|record| match &mut record.canary {
            Some(canary) if canary.run == run => Some((record.agent, canary)),
            _ => None,
        });
        let Some((agent, canary)) = found else { return };
        let has_run = self.runs.get(&run).is_some_and(|entry| {
            entry.jobs.values().all(|job| job.record.state.tenure().is_some())
        });
        // What is inconclusive, was stopped or never ran (the agent lacks a build) says nothing about the host.
        let is_sound = match verdict {
            Verdict::Pass => Some(true),
            Verdict::Fail | Verdict::Invalid if !is_cancelled && has_run => Some(false),
            _ => None,
        };
        canary.ended = Some((now, is_sound, sentence.to_owned()));
        let Some(record) = self.fleet.get_mut(&agent) else { return };
        match is_sound {
            Some(true) => {
                record.failures.clear();
                if record.quarantine.take().is_some() {
                    info!(%agent, "a sound health check ended a quarantine");
                }
                self.effects.batch.fleet(record);
            }
            Some(false) => {
                self.effects.batch.fleet(record);
                self.quarantine(agent, &format!("health check {run}: {sentence}"));
            }
            None => self.effects.batch.fleet(record),
        }
        self.is_dirty = true;
    }
}
