//! Thirty nights of a fleet of three in virtual time: a nightly schedule, new builds, a host that is lost for days, one that fails
//! and is quarantined, a coordinator that is away for three nights. What the history holds afterwards is what happened.
//!
//! Real: the engine's state with all its decisions, the catalogue, the index of the history. Scripted: agents, the verdict, the clock.

use crate::config::CoordinatorConfig;
use crate::decide::find::{Filter, Sort, page};
use crate::domain::alert::AlertKind;
use crate::domain::history::RunLine;
use crate::domain::job::JobState;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::domain::schedule::{Missed, Overlap, ScheduleSpec, TickOutcome};
use crate::domain::time::UnixUs;
use crate::engine::clock::Clock;
use crate::engine::fleet::{AgentOrder, FleetRequest, Join};
use crate::engine::handle::{EvidenceStored, SESSION_QUEUE, SessionId};
use crate::engine::judging::Judgement;
use crate::engine::schedules::{NewSchedule, ScheduleRequest};
use crate::engine::state::{Effects, State};
use crate::store::catalogue::Catalogue;
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::{BuildRef, Lease, Outcome};
use pgsoak_proto::session::{
    BuildFound, Capabilities, CoordinatorMessage, Hello, JobProgress, JobStage, PostgresFound,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// 2026-03-16 noon, Berlin: the clocks go forward in the 13th night.
const BEGIN: UnixUs = UnixUs(1_773_658_800_000_000);
/// Longer than the agents' step.
const LEASE_TTL: Duration = Duration::from_secs(900);
const STEP: Duration = Duration::from_secs(300);
const BUILDS: [&str; 3] = ["pg_tviews@1.0", "pg_tviews@1.1", "pg_tviews@1.2"];

struct Agent {
    id: AgentId,
    name: &'static str,
    session: Option<(SessionId, mpsc::Receiver<CoordinatorMessage>)>,
    /// Attempts, and when each will be over.
    held: BTreeMap<Lease, UnixUs>,
    is_up: bool,
    is_broken: bool,
}

struct Nights {
    clock: &'static AtomicU64,
    catalogue: Catalogue,
    state: Option<State>,
    agents: Vec<Agent>,
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
    }
}

impl Nights {
    fn new() -> Self {
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
    fn start(&mut self) {
        let mut state = State::new(&self.config, Limits::default(), Clock::simulated(self.clock));
        state.restore(self.catalogue.load().unwrap());
        self.state = Some(state);
        self.carry_out();
    }

    /// `kill -9`.
    fn kill(&mut self) {
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
            let is_sound = view.jobs.iter().all(|job| {
                matches!(job.record.state, JobState::Over { outcome: Outcome::Finished, .. })
            });
            let leaks = view.jobs[0].spec.build.to_string() == BUILDS[1];
            let verdict = match (is_sound, leaks) {
                (false, _) => Verdict::Invalid,
                (true, true) => Verdict::Fail,
                (true, false) => Verdict::Pass,
            };
            state.judged(Judgement {
                run,
                verdict,
                sentence: format!("{verdict:?}"),
                json: "{}".to_owned(),
                figures: Vec::new(),
                against: None,
            });
        }
        self.carry_out();
    }

    fn pass(&mut self, length: Duration) {
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

    fn schedule(&mut self, build: &str) {
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

    fn resume(&mut self, name: &str) {
        let (reply, mut answer) = oneshot::channel();
        let order = FleetRequest::Order(name.to_owned(), AgentOrder::Resume, reply);
        self.state().serve_fleet(order);
        self.carry_out();
        answer.try_recv().unwrap().unwrap();
    }

    /// What the history finds, oldest first.
    fn found(&self, filter: &Filter) -> Vec<Arc<RunLine>> {
        let lines = self.catalogue.lines();
        page(lines.iter(), filter, Sort::Submitted, false, None, 1_000).unwrap().runs
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn thirty_nights_leave_the_history_that_happened() {
    let mut nights = Nights::new();
    // Noon to noon: a night each.
    for night in 0..30 {
        match night {
            0 => nights.schedule(BUILDS[0]),
            10 => nights.schedule(BUILDS[1]),
            20 => nights.schedule(BUILDS[2]),
            // Fails each job that it gets, and is mended four days later.
            13 => nights.agents[1].is_broken = true,
            17 => {
                nights.agents[1].is_broken = false;
                nights.resume("b");
            }
            _ => {}
        }
        match night {
            // A host is lost in the middle of the night, and is back three days later.
            4 => {
                nights.pass(HOUR * 12);
                nights.agents[2].is_up = false;
                nights.agents[2].session = None;
                nights.pass(HOUR * 12);
            }
            7 => {
                nights.agents[2].is_up = true;
                nights.pass(DAY);
            }
            // The coordinator is away for three nights.
            23 => {
                nights.kill();
                nights.pass(DAY);
            }
            26 => {
                nights.start();
                nights.pass(DAY);
            }
            _ => nights.pass(DAY),
        }
    }

    let all = nights.found(&Filter {
        labels: BTreeMap::from([("schedule".to_owned(), "nightly".to_owned())]),
        ..Filter::default()
    });
    // Thirty, less three that were missed, and one that makes up for them.
    assert_eq!(all.len(), 28);
    assert_eq!(all.len(), nights.catalogue.lines().len(), "and nothing else");
    let runs: BTreeSet<_> = all.iter().map(|line| line.record.run).collect();
    assert_eq!(runs.len(), 28);

    // Each at 22:00 in Berlin, on both sides of the night that loses an hour; the one that makes up at the return.
    let locals: Vec<String> = all
        .iter()
        .map(|line| {
            let at = i64::try_from(line.record.submitted_at.0).unwrap();
            let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
            let at = jiff::Timestamp::from_microsecond(at).unwrap().to_zoned(zone);
            at.strftime("%H:%M").to_string()
        })
        .collect();
    let off = locals.iter().filter(|local| *local != "22:00").count();
    assert_eq!(off, 1, "{locals:?}");

    // Verdicts: a lost host and a broken one make a run invalid, a leak makes it fail.
    let of = |filter: Filter| nights.found(&filter).len();
    let verdict = |word: &str| Filter { verdicts: words(&[word]), ..Filter::default() };
    let release = |release: &str, filter: Filter| Filter { releases: words(&[release]), ..filter };
    assert_eq!(of(verdict("invalid")), 1 + 3, "night 4; nights 13 to 15");
    assert_eq!(of(release("1.0", verdict("pass"))), 9);
    assert_eq!(of(release("1.1", verdict("fail"))), 7);
    assert_eq!(of(release("1.1", verdict("pass"))), 0);
    assert_eq!(of(release("1.2", verdict("pass"))), 8);
    assert_eq!(of(release("1.2", verdict("fail"))), 0);

    // Agents: who was away has no part in those nights.
    let agents = |index: usize| -> Vec<&str> {
        all[index].facts.agents.iter().map(String::as_str).collect()
    };
    assert_eq!(agents(3), ["a", "b", "c"]);
    assert_eq!(agents(4), ["a", "b", "c"], "it had its job when it was lost");
    assert_eq!(agents(5), ["a", "b"], "two hosts run all three replicas");
    assert_eq!(agents(6), ["a", "b"]);
    assert_eq!(agents(7), ["a", "b", "c"]);
    assert_eq!(agents(16), ["a", "c"], "quarantined after three nights");
    assert_eq!(agents(17), ["a", "b", "c"], "mended");
    assert!(all.iter().all(|line| line.record.jobs.len() == 3));

    // What the schedule says of itself.
    let state = nights.state.as_ref().unwrap();
    let record = &state.schedules.entries.values().next().unwrap().record;
    let past = |wanted: fn(&TickOutcome) -> bool| -> u32 {
        record.progress.past.iter().filter(|p| wanted(&p.what)).map(|p| p.count).sum()
    };
    assert_eq!(past(|what| matches!(what, TickOutcome::Started(_))), 27);
    assert_eq!(past(|what| matches!(what, TickOutcome::MadeUp(_))), 1);
    assert_eq!(past(|what| matches!(what, TickOutcome::Owed(_))), 3);
    assert_eq!(past(|what| matches!(what, TickOutcome::Missed(_))), 2);
    assert!(record.progress.owed.is_empty() && record.progress.unfinished.is_empty());

    // What somebody was told.
    let kinds: Vec<AlertKind> =
        nights.catalogue.alerts(100).unwrap().into_iter().rev().map(|alert| alert.kind).collect();
    assert_eq!(kinds, [AlertKind::AgentQuarantined, AlertKind::RunMissed]);
    // A lost host, whose one attempt was given up, is no reason for a quarantine.
    let quarantined = state.fleet.values().filter(|agent| agent.quarantine.is_some()).count();
    assert_eq!((state.fleet.len(), quarantined), (3, 0));
}
