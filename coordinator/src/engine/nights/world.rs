//! The fleet of the nights: a coordinator's state on its catalogue, three scripted agents, a clock that leaps.

use crate::config::CoordinatorConfig;
use crate::decide::find::{Filter, Sort, page};
use crate::domain::history::RunLine;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::domain::schedule::{Missed, Overlap, ScheduleSpec};
use crate::domain::time::UnixUs;
use crate::engine::clock::Clock;
use crate::engine::fleet::{AgentOrder, FleetRequest, Join};
use crate::engine::handle::{EvidenceStored, SESSION_QUEUE, SessionId};
use crate::engine::judging::Judgement;
use crate::engine::nights::evidence;
use crate::engine::schedules::{NewSchedule, ScheduleRequest};
use crate::engine::state::{Effects, State};
use crate::store::catalogue::Catalogue;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::{BuildRef, Lease, Outcome};
use pgsoak_proto::session::{
    BuildFound, Capabilities, CoordinatorMessage, Hello, JobProgress, JobStage, PostgresFound,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// 2026-03-16 noon, Berlin: the clocks go forward in the 13th night.
const BEGIN: UnixUs = UnixUs(1_773_658_800_000_000);
/// Longer than the agents' step.
const LEASE_TTL: Duration = Duration::from_secs(900);
const STEP: Duration = Duration::from_secs(300);
pub(super) const BUILDS: [&str; 3] = ["pg_tviews@1.0", "pg_tviews@1.1", "pg_tviews@1.2"];

pub(super) struct Agent {
    id: AgentId,
    name: &'static str,
    pub(super) session: Option<(SessionId, mpsc::Receiver<CoordinatorMessage>)>,
    /// Attempts, and when each will be over.
    held: BTreeMap<Lease, UnixUs>,
    pub(super) is_up: bool,
    pub(super) is_broken: bool,
}

pub(super) struct Nights {
    clock: &'static AtomicU64,
    pub(super) catalogue: Catalogue,
    pub(super) state: Option<State>,
    pub(super) agents: Vec<Agent>,
    config: CoordinatorConfig,
    _folder: tempfile::TempDir,
}

fn input(build: &str) -> RunInput {
    RunInput {
        plan_toml: format!(
            "name = \"nightly\"\n[[job]]\nworkload = \"w\"\nbuild = \"{build}\"\nreplicas = 3\nfor = \"6h\"\n"
        ),
        workloads: BTreeMap::from([(
            "w".to_owned(),
            "name = \"w\"\nabout = \"steady\"\n[[phase]]\nname = \"a\"\nkind = \"loop\"\nfor = \"1h\"\noperations = 1\nsql = \"SELECT 1\"\n".to_owned(),
        )]),
        ..RunInput::default()
    }
}

impl Nights {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&folder.path().join("catalogue")).unwrap();
        let mut config = CoordinatorConfig::new(folder.path());
        config.lease_ttl = LEASE_TTL;
        let agents = ["a", "b", "c"].map(|name| Agent {
            id: AgentId::issue(),
            name,
            session: None,
            held: BTreeMap::new(),
            is_up: true,
            is_broken: false,
        });
        let clock = Box::leak(Box::new(AtomicU64::new(BEGIN.0)));
        let mut nights =
            Self { clock, catalogue, state: None, agents: agents.into(), config, _folder: folder };
        nights.start();
        nights
    }

    fn now(&self) -> UnixUs {
        UnixUs(self.clock.load(Ordering::SeqCst))
    }

    fn state(&mut self) -> &mut State {
        self.state.as_mut().expect("the coordinator is up")
    }

    /// A coordinator on what is stored.
    pub(super) fn start(&mut self) {
        let mut state = State::new(&self.config, Limits::default(), Clock::simulated(self.clock));
        state.restore(self.catalogue.load().unwrap());
        self.state = Some(state);
        self.carry_out();
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.state = None;
        for agent in &mut self.agents {
            agent.session = None;
        }
    }

    fn carry_out(&mut self) {
        let Some(state) = &mut self.state else { return };
        let Effects { batch, sends, replies, .. } = std::mem::take(&mut state.effects);
        if !batch.is_empty() {
            self.catalogue.commit_unsynced(batch).unwrap();
        }
        for (agent, message) in sends {
            let session = state.agents.get_mut(&agent).and_then(|agent| agent.session.as_ref());
            if let Some(session) = session {
                let _ = session.outbound.try_send(message);
            }
        }
        for reply in replies {
            reply();
        }
    }

    fn hello(&mut self, number: usize) {
        let agent = &self.agents[number];
        let hello = Hello {
            agent: agent.id,
            name: agent.name.to_owned(),
            protocol: pgsoak_proto::PROTOCOL,
            version: "0".to_owned(),
            capabilities: Capabilities {
                slots: 1,
                cores: 2,
                memory_bytes: 1 << 30,
                kernel: "6.1".to_owned(),
                tools: Vec::new(),
                postgres: vec![PostgresFound {
                    major: 18,
                    version: "PostgreSQL 18.4".to_owned(),
                    pg_config: "/pg18/bin/pg_config".into(),
                }],
                builds: BUILDS
                    .iter()
                    .map(|build| BuildFound {
                        build: build.parse::<BuildRef>().unwrap(),
                        postgres_major: 18,
                    })
                    .collect(),
                labels: BTreeMap::new(),
                host: agent.name.to_owned(),
            },
            held: agent
                .held
                .keys()
                .map(|lease| pgsoak_proto::session::HeldJob {
                    lease: *lease,
                    last_sequence: 0,
                    is_running: true,
                })
                .collect(),
        };
        let (sender, receiver) = mpsc::channel(SESSION_QUEUE);
        let greeting = self.state().hello(hello, Join::Open, sender).unwrap();
        self.agents[number].session = Some((greeting.session, receiver));
        self.carry_out();
    }

    fn step_agent(&mut self, number: usize) {
        let now = self.now();
        if self.state.is_none() || !self.agents[number].is_up {
            return;
        }
        if self.agents[number].session.is_none() {
            self.hello(number);
        }
        let agent = &mut self.agents[number];
        let Some((session, messages)) = &mut agent.session else { return };
        let session = *session;
        let lasts = if agent.is_broken { MINUTE } else { HOUR * 6 };
        while let Ok(message) = messages.try_recv() {
            match message {
                CoordinatorMessage::Assignment(assignment) => {
                    agent.held.entry(assignment.lease).or_insert(now.plus(lasts));
                }
                CoordinatorMessage::LeaseRefused(refusal) => {
                    agent.held.remove(&refusal.lease);
                }
                CoordinatorMessage::Cancel(refusal) => panic!("nobody cancels: {refusal:?}"),
                _ => {}
            }
        }
        let is_broken = agent.is_broken;
        let over: Vec<Lease> =
            agent.held.iter().filter(|(_, end)| **end <= now).map(|(lease, _)| *lease).collect();
        agent.held.retain(|lease, _| !over.contains(lease));
        let progress = agent.held.keys().map(|lease| JobProgress {
            lease: *lease,
            stage: JobStage::Running,
            phase: "a".to_owned(),
            round: 1,
            rounds: 0,
            operations: 1,
            done: 0.5,
            left_ms: 0,
            rss_anon_bytes: 1,
        });
        let jobs: Vec<JobProgress> = progress.collect();
        let state = self.state();
        for lease in over {
            let ended = match is_broken {
                true => (Outcome::Infrastructure, "the data disk is read-only".to_owned()),
                false => (Outcome::Finished, String::new()),
            };
            let stored = EvidenceStored { lease, high_water: 2, skipped: 0, ended: Some(ended) };
            state.stored(session, stored);
            state.delivered(session, lease);
        }
        // Only now: what is in no heartbeat any more, and did not end, counts as lost.
        state.heartbeat(session, jobs, String::new());
        self.carry_out();
    }

    /// A run is worth what its jobs are; the second release leaks.
    fn judge(&mut self) {
        let Some(state) = &mut self.state else { return };
        for run in std::mem::take(&mut state.to_judge) {
            let view = state.view(run).unwrap();
            let verdict = evidence::verdict(&view);
            state.judged(Judgement {
                run,
                verdict,
                sentence: format!("{verdict:?}"),
                json: "{}".to_owned(),
                figures: view.jobs.iter().map(evidence::figures).collect(),
                signatures: evidence::signatures(&view),
                against: None,
            });
        }
        self.carry_out();
    }

    pub(super) fn pass(&mut self, length: Duration) {
        let end = self.now().plus(length);
        while self.now() < end {
            self.clock.fetch_add(u64::try_from(STEP.as_micros()).unwrap(), Ordering::SeqCst);
            for number in 0..self.agents.len() {
                self.step_agent(number);
            }
            if let Some(state) = &mut self.state {
                state.look();
            }
            self.carry_out();
            self.judge();
        }
    }

    pub(super) fn schedule(&mut self, build: &str) {
        let spec = ScheduleSpec {
            cron: "0 22 * * *".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            windows: Vec::new(),
            blackouts: Vec::new(),
            jitter: Duration::ZERO,
            missed: Missed::Once,
            overlap: Overlap::Forbid,
            end_before: None,
            only_new_builds: false,
            start_within: MINUTE * 10,
            priority: None,
            labels: BTreeMap::new(),
        };
        let new =
            NewSchedule { name: String::new(), input: input(build), spec, is_replacing: true };
        let (reply, mut answer) = oneshot::channel();
        self.state().serve_schedule(ScheduleRequest::Add(Box::new(new), reply));
        self.carry_out();
        answer.try_recv().unwrap().unwrap();
    }

    pub(super) fn resume(&mut self, name: &str) {
        let (reply, mut answer) = oneshot::channel();
        let order = FleetRequest::Order(name.to_owned(), AgentOrder::Resume, reply);
        self.state().serve_fleet(order);
        self.carry_out();
        answer.try_recv().unwrap().unwrap();
    }

    /// What the history finds, oldest first.
    pub(super) fn found(&self, filter: &Filter) -> Vec<Arc<RunLine>> {
        let lines = self.catalogue.lines();
        page(lines.iter(), filter, Sort::Submitted, false, None, 1_000).unwrap().runs
    }
}
