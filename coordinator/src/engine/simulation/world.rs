//! The world of a seed: coordinator, agents, what is on its way between them, faults, and the contracts after every step.

use crate::config::CoordinatorConfig;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::engine::clock::Clock;
use crate::engine::handle::{SessionId, Submission};
use crate::engine::simulation::agent::Agent;
use crate::engine::simulation::dice::Dice;
use crate::engine::state::State;
use crate::store::catalogue::Catalogue;
use crate::store::evidence::Unsynced;
use crate::store::run_dbs::RunDbs;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Outcome, PostgresRef, Tool};
use pgsoak_proto::session::{AgentMessage, CoordinatorMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two heartbeats, and between two steps.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(20);
pub(super) const LEASE_TTL: Duration = Duration::from_secs(90);
/// After the last fault everything must come to its end within this.
const PATIENCE: Duration = Duration::from_secs(5 * 3_600);
/// Microseconds since 1970 when a world begins.
const WALL: u64 = 1_800_000_000_000_000;

/// What every job runs.
const WORKLOAD: &str = "[[phase]]\nkind = 'loop'\nsql = 'SELECT 1'\n";

fn wall(now: Duration) -> u64 {
    WALL + u64::try_from(now.as_micros()).unwrap()
}

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) agents: u64,
    pub(super) runs: u64,
    pub(super) faults_for: Duration,
}

/// A session's stream, both ways. What an agent has left behind still arrives.
pub(super) struct Pipe {
    pub(super) agent: usize,
    pub(super) up: VecDeque<(Duration, AgentMessage)>,
    pub(super) down: VecDeque<(Duration, CoordinatorMessage)>,
    pub(super) from_engine: Option<mpsc::Receiver<CoordinatorMessage>>,
    pub(super) session: Option<SessionId>,
    pub(super) is_left: bool,
    pub(super) is_broken: bool,
}

pub(super) struct World {
    dice: Dice,
    shape: Shape,
    pub(super) now: Duration,
    clock: &'static AtomicU64,
    pub(super) catalogue: Catalogue,
    pub(super) runs: Arc<RunDbs>,
    pub(super) evidence: Unsynced,
    pub(super) state: Option<State>,
    pub(super) back_at: Duration,
    /// How many more writes until the coordinator dies.
    dies_in: Option<u64>,
    pub(super) agents: Vec<Agent>,
    pub(super) pipes: BTreeMap<u64, Pipe>,
    pipes_made: u64,
    pub(super) submitted: Vec<RunId>,
    pub(super) cancelled: BTreeSet<RunId>,
    /// Runs whose plain jobs grow, where somebody looks.
    pub(super) growing: BTreeSet<RunId>,
    crashes: u64,
    _folder: tempfile::TempDir,
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, shape: Shape) -> Self {
        let mut dice = Dice::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(&folder.path().join("catalogue")).unwrap();
        let runs = Arc::new(RunDbs::new(folder.path().join("runs")).unwrap());
        let agents = (0..shape.agents)
            .map(|number| {
                let id = AgentId::from_bytes(dice.id());
                Agent::new(id, number as usize, 1 + u32::try_from(dice.below(2)).unwrap())
            })
            .collect();
        let mut world = Self {
            dice,
            shape,
            now: Duration::ZERO,
            // A few bytes for each seed, for as long as the test lasts.
            clock: Box::leak(Box::new(AtomicU64::new(WALL))),
            evidence: Unsynced::new(Arc::clone(&runs)),
            catalogue,
            runs,
            state: None,
            back_at: Duration::ZERO,
            dies_in: None,
            agents,
            pipes: BTreeMap::new(),
            pipes_made: 0,
            submitted: Vec::new(),
            cancelled: BTreeSet::new(),
            growing: BTreeSet::new(),
            crashes: 0,
            _folder: folder,
        };
        world.start();
        world
    }

    /// Until every run is over; how many frames are stored.
    pub(super) fn live(mut self) -> u64 {
        loop {
            self.now += HEARTBEAT;
            self.clock.store(wall(self.now), Ordering::SeqCst);
            let is_troubled = self.now < self.shape.faults_for;
            if is_troubled {
                self.trouble();
            } else {
                self.dies_in = None;
            }
            self.step_agents();
            self.step_coordinator();
            self.check();
            if !is_troubled && self.is_over() {
                return self.check_end();
            }
            assert!(
                self.now < self.shape.faults_for + PATIENCE,
                "runs do not come to their end: {:?}",
                self.state.as_ref().map(|state| state
                    .runs
                    .values()
                    .map(|run| (
                        run.record.state.label(),
                        run.jobs.values().map(|job| job.record.state.clone()).collect::<Vec<_>>()
                    ))
                    .collect::<Vec<_>>())
            );
        }
    }

    // --- faults ---

    fn trouble(&mut self) {
        let (now, dice) = (self.now, &mut self.dice);
        let rate = 120;
        for agent in &mut self.agents {
            if dice.one_in(rate) {
                let until = now + dice.between(10, 2_400);
                match dice.below(3) {
                    0 => agent.cut_to = until,
                    1 => agent.cut_from = until,
                    _ => (agent.cut_to, agent.cut_from) = (until, until),
                }
            }
            if dice.one_in(rate) {
                agent.down_until = now + dice.between(1, 1_200);
                agent.lose_session(now, Duration::ZERO);
            }
        }
        if self.dies_in.is_none() && dice.one_in(rate / 2) {
            self.dies_in = Some(dice.below(12));
        }
        let left = self.shape.runs.saturating_sub(self.submitted.len() as u64);
        let often = self.shape.faults_for.as_secs() / 40 / self.shape.runs.max(1);
        if left > 0 && self.state.is_some() && dice.one_in(often.max(1)) {
            self.submit();
        }
        if let Some(run) = self.submitted.last().copied()
            && self.state.is_some()
            && self.dice.one_in(400)
            && let Some(state) = &mut self.state
        {
            state.cancel(run, "by hand");
            // It counts even when the coordinator dies before it answers: it may have been written.
            self.cancelled.insert(run);
            self.carry_out();
        }
    }

    fn submit(&mut self) {
        let run = RunId::from_bytes(self.dice.id());
        let jobs = 1 + self.dice.below(self.shape.agents * 2);
        let specs = (0..jobs)
            .map(|replica| JobSpec {
                job: JobId::from_bytes(self.dice.id()),
                run,
                workload_name: "w".to_owned(),
                workload_toml: WORKLOAD.to_owned(),
                tool: Tool::Plain,
                arm: Arm::Candidate,
                build: BuildRef::Vanilla,
                postgres: PostgresRef::Major(18),
                loop_for: None,
                scale: 1.0,
                sample_every: Duration::from_secs(1),
                hard_end: Duration::from_secs(4 * 3_600),
                seed: 1,
                replica: u32::try_from(replica).unwrap(),
                exclusive: false,
                agents: BTreeMap::new(),
                on_lost: pgsoak_proto::job::OnLost::Retry,
                options: Default::default(),
            })
            .collect();
        // Half of the runs ask for more where they grow, and half of those do.
        let escalate = self.dice.one_in(2);
        if escalate && self.dice.one_in(2) {
            self.growing.insert(run);
        }
        let plan_toml = format!(
            "[[job]]\nworkload = 'w'\nbuild = 'vanilla'\nreplicas = {jobs}\nescalate = {escalate}\n"
        );
        let input = RunInput { plan_toml, ..RunInput::default() };
        let submission = Submission {
            run,
            plan: "p".to_owned(),
            input,
            specs,
            client_key: String::new(),
            labels: BTreeMap::new(),
            priority: 50,
        };
        let Some(state) = &mut self.state else { return };
        state.submit(submission);
        // Answered only when it is durable.
        if self.carry_out() {
            self.submitted.push(run);
        }
    }

    pub(super) fn start(&mut self) {
        let config = CoordinatorConfig {
            heartbeat_every: HEARTBEAT,
            lease_ttl: LEASE_TTL,
            ..CoordinatorConfig::new("/")
        };
        let clock = Clock::simulated(self.clock);
        let mut state = State::new(&config, Limits::default(), clock);
        let loaded = self.catalogue.load().unwrap();
        assert_eq!(loaded.damage, Vec::<String>::new());
        state.restore(loaded);
        let ends = crate::store::ends(&self.runs, &state.live_attempts()).unwrap();
        state.restore_ends(ends);
        for run in &self.submitted {
            let is_there =
                state.runs.contains_key(run) || self.catalogue.run(*run).unwrap().is_some();
            assert!(is_there, "run {run} was taken and is not there");
        }
        self.state = Some(state);
        self.evidence = Unsynced::new(Arc::clone(&self.runs));
        self.dies_in = None;
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.state = None;
        self.dies_in = None;
        self.back_at = self.now + self.dice.between(1, 1_800);
        for pipe in self.pipes.values_mut() {
            pipe.is_broken = true;
            pipe.up.clear();
        }
    }

    /// Whether the coordinator dies right here.
    pub(super) fn dies_here(&mut self) -> bool {
        match &mut self.dies_in {
            Some(0) => {
                self.crash();
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// An id for a job, drawn like everything.
    pub(super) fn job_id(&mut self) -> JobId {
        JobId::from_bytes(self.dice.id())
    }

    // --- agents ---

    fn step_agents(&mut self) {
        let now = self.now;
        for index in 0..self.agents.len() {
            self.agents[index].work(now);
            if now < self.agents[index].down_until {
                if let Some(pipe) =
                    self.pipes.values_mut().find(|pipe| pipe.agent == index && !pipe.is_left)
                {
                    pipe.is_left = true;
                }
                continue;
            }
            self.listen(index);
            let agent = &mut self.agents[index];
            if let Some(pipe) = agent.pipe
                && now.saturating_sub(agent.heard_at) > LEASE_TTL
            {
                agent.lose_session(now, self.dice.between(0, 15));
                self.leave(pipe);
            }
            self.speak(index);
        }
    }

    fn leave(&mut self, pipe: u64) {
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            pipe.is_left = true;
        }
    }

    fn listen(&mut self, index: usize) {
        let now = self.now;
        let Some(number) = self.agents[index].pipe else { return };
        if now < self.agents[index].cut_from {
            return;
        }
        while let Some(pipe) = self.pipes.get_mut(&number) {
            let Some((due, _)) = pipe.down.front() else { break };
            if *due > now {
                break;
            }
            let Some((_, message)) = pipe.down.pop_front() else { break };
            let dice = &mut self.dice;
            let answer = self.agents[index].obey(now, message, || {
                let outcome = match dice.below(10) {
                    0 => Outcome::Failed,
                    1 => Outcome::Infrastructure,
                    _ => Outcome::Finished,
                };
                (dice.between(60, 3_600), outcome)
            });
            if let Some(answer) = answer {
                self.up(number, answer);
            }
        }
        // A reset reaches an agent that can be reached.
        let is_reset =
            self.pipes.get(&number).is_none_or(|pipe| pipe.is_broken && pipe.down.is_empty());
        if is_reset {
            let pause = self.dice.between(0, 15);
            self.agents[index].lose_session(now, pause);
            self.leave(number);
        }
    }

    fn speak(&mut self, index: usize) {
        let now = self.now;
        let agent = &mut self.agents[index];
        match agent.pipe {
            None if now >= agent.retry_at => {
                let is_open = now >= agent.cut_to && now >= agent.cut_from && self.state.is_some();
                if !is_open {
                    agent.retry_at = now + self.dice.between(1, 15);
                    return;
                }
                let hello = agent.hello();
                self.pipes_made += 1;
                let number = self.pipes_made;
                agent.pipe = Some(number);
                agent.heard_at = now;
                let pipe = Pipe {
                    agent: index,
                    up: VecDeque::new(),
                    down: VecDeque::new(),
                    from_engine: None,
                    session: None,
                    is_left: false,
                    is_broken: false,
                };
                self.pipes.insert(number, pipe);
                self.up(number, AgentMessage::Hello(hello));
            }
            Some(number) if agent.is_welcome => {
                for message in agent.say() {
                    self.up(number, message);
                }
            }
            _ => {}
        }
    }

    fn up(&mut self, number: u64, message: AgentMessage) {
        let due = self.now + self.delay();
        if let Some(pipe) = self.pipes.get_mut(&number)
            && !pipe.is_broken
        {
            // In order: what follows never overtakes.
            let after = pipe.up.back().map_or(due, |(last, _)| due.max(*last));
            pipe.up.push_back((after, message));
        }
    }

    pub(super) fn down(&mut self, number: u64, message: CoordinatorMessage) {
        let due = self.now + self.delay();
        if let Some(pipe) = self.pipes.get_mut(&number) {
            let after = pipe.down.back().map_or(due, |(last, _)| due.max(*last));
            pipe.down.push_back((after, message));
        }
    }

    fn delay(&mut self) -> Duration {
        if self.dice.one_in(20) { self.dice.between(0, 60) } else { Duration::ZERO }
    }
}
