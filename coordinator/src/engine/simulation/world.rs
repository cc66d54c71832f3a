//! The world of a seed: coordinator, agents, what is on its way between them, faults, and the contracts after every step.

use crate::config::CoordinatorConfig;
use crate::domain::job::JobState;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::domain::run::RunState;
use crate::engine::clock::Clock;
use crate::engine::handle::{EvidenceStored, SESSION_QUEUE, SessionId, Submission};
use crate::engine::simulation::agent::{Agent, frame};
use crate::engine::simulation::dice::Dice;
use crate::engine::state::{Effects, State};
use crate::store::catalogue::{Catalogue, OpenRun};
use crate::store::evidence::{Append, Unsynced};
use crate::store::run_db::{RunDbs, StoredFrame};
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::evidence::Body;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Lease, Outcome, PostgresRef, Tool};
use pgsoak_proto::session::{
    AgentMessage, CoordinatorMessage, EvidenceBatch, HeartbeatAnswer, Hello, HighWater, Refusal,
    Welcome,
};
use pgsoak_proto::wire;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two heartbeats, and between two steps.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(20);
const LEASE_TTL: Duration = Duration::from_secs(90);
/// After the last fault everything must come to its end within this.
const PATIENCE: Duration = Duration::from_secs(5 * 3_600);
/// Microseconds since 1970 when a world begins.
const WALL: u64 = 1_800_000_000_000_000;

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
struct Pipe {
    agent: usize,
    up: VecDeque<(Duration, AgentMessage)>,
    down: VecDeque<(Duration, CoordinatorMessage)>,
    from_engine: Option<mpsc::Receiver<CoordinatorMessage>>,
    session: Option<SessionId>,
    is_left: bool,
    is_broken: bool,
}

pub(super) struct World {
    dice: Dice,
    shape: Shape,
    now: Duration,
    clock: &'static AtomicU64,
    catalogue: Catalogue,
    runs: Arc<RunDbs>,
    evidence: Unsynced,
    state: Option<State>,
    back_at: Duration,
    /// How many more writes until the coordinator dies.
    dies_in: Option<u64>,
    agents: Vec<Agent>,
    pipes: BTreeMap<u64, Pipe>,
    pipes_made: u64,
    submitted: Vec<RunId>,
    cancelled: BTreeSet<RunId>,
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
            if self.carry_out() {
                self.cancelled.insert(run);
            }
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
                workload_toml: "w".to_owned(),
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
            })
            .collect();
        let input = RunInput { plan_toml: "p".to_owned(), workloads: BTreeMap::new() };
        let submission =
            Submission { run, plan: "p".to_owned(), input, specs, client_key: String::new() };
        let Some(state) = &mut self.state else { return };
        state.submit(submission);
        // Answered only when it is durable.
        if self.carry_out() {
            self.submitted.push(run);
        }
    }

    fn start(&mut self) {
        let config = CoordinatorConfig {
            data_dir: "/".into(),
            listen: None,
            socket: None,
            heartbeat_every: HEARTBEAT,
            lease_ttl: LEASE_TTL,
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
    fn dies_here(&mut self) -> bool {
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
        loop {
            let Some(pipe) = self.pipes.get_mut(&number) else { break };
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

    fn down(&mut self, number: u64, message: CoordinatorMessage) {
        let due = self.now + self.delay();
        if let Some(pipe) = self.pipes.get_mut(&number) {
            let after = pipe.down.back().map_or(due, |(last, _)| due.max(*last));
            pipe.down.push_back((after, message));
        }
    }

    fn delay(&mut self) -> Duration {
        if self.dice.one_in(20) { self.dice.between(0, 60) } else { Duration::ZERO }
    }

    // --- the coordinator ---

    fn step_coordinator(&mut self) {
        if self.state.is_none() {
            if self.now < self.back_at {
                return;
            }
            self.start();
        }
        let numbers: Vec<u64> = self.pipes.keys().copied().collect();
        for number in numbers {
            self.serve(number);
            if self.state.is_none() {
                return;
            }
        }
        let Some(state) = &mut self.state else { return };
        state.look();
        if !self.carry_out() {
            return;
        }
        self.judge();
        self.pipes.retain(|_, pipe| !(pipe.is_left && (pipe.is_broken || pipe.up.is_empty())));
    }

    fn serve(&mut self, number: u64) {
        loop {
            let Some(pipe) = self.pipes.get_mut(&number) else { return };
            if self.now < self.agents[pipe.agent].cut_to {
                return;
            }
            match pipe.up.front() {
                Some((due, _)) if *due <= self.now => {}
                _ => break,
            }
            let Some((_, message)) = pipe.up.pop_front() else { break };
            self.take(number, message);
            if self.state.is_none() {
                return;
            }
            self.pass_on(number);
        }
        self.pass_on(number);
        let Some(pipe) = self.pipes.get(&number) else { return };
        let is_gone = pipe.is_left && pipe.up.is_empty();
        if let (true, Some(session), Some(state)) = (is_gone, pipe.session, &mut self.state) {
            state.gone(session);
            self.carry_out();
        }
    }

    /// What the engine has said to a session goes on its way.
    fn pass_on(&mut self, number: u64) {
        loop {
            let Some(pipe) = self.pipes.get_mut(&number) else { return };
            let Some(from_engine) = &mut pipe.from_engine else { return };
            match from_engine.try_recv() {
                Ok(message) => self.down(number, message),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    // A newer session took over.
                    pipe.from_engine = None;
                    pipe.is_broken = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, number: u64, message: AgentMessage) {
        let session = self.pipes.get(&number).and_then(|pipe| pipe.session);
        let Some(state) = &mut self.state else { return };
        match (message, session) {
            (AgentMessage::Hello(hello), None) => return self.greet(number, hello),
            (AgentMessage::Heartbeat(heartbeat), Some(session)) => {
                let answer = HeartbeatAnswer {
                    sent_at_unix_us: heartbeat.sent_at_unix_us,
                    answered_at_unix_us: state.now().0,
                };
                state.heartbeat(session, heartbeat.jobs);
                self.down(number, CoordinatorMessage::HeartbeatAnswer(answer));
            }
            (AgentMessage::Evidence(batch), Some(session)) => {
                return self.store(number, session, batch);
            }
            (AgentMessage::Delivered(lease), Some(session)) => state.delivered(session, lease),
            (AgentMessage::CancelAcknowledged(lease), Some(session)) => {
                state.cancel_acknowledged(session, lease);
            }
            (AgentMessage::AssignmentRefused(refusal), Some(session)) => {
                state.assignment_refused(session, &refusal);
            }
            (other, _) => panic!("out of place: {other:?}"),
        }
        self.carry_out();
    }

    fn greet(&mut self, number: u64, hello: Hello) {
        let (sender, from_engine) = mpsc::channel(SESSION_QUEUE);
        let Some(state) = &mut self.state else { return };
        for held in &hello.held {
            if state.run_of_job.contains_key(&held.lease.job) {
                continue;
            }
            if let Some(run) = self.catalogue.run_of_job(held.lease.job).unwrap()
                && let Some(record) = self.catalogue.run(run).unwrap()
            {
                let jobs = self.catalogue.jobs(&record).unwrap();
                let input = self.catalogue.input(run).unwrap().unwrap_or_default();
                let OpenRun { record, input, jobs } = OpenRun { record, input, jobs };
                state.insert_run(record, input, jobs);
            }
        }
        let greeting = state.hello(hello, sender).expect("names are unique");
        if !self.carry_out() {
            return;
        }
        let high_water = greeting
            .continuing
            .iter()
            .map(|(run, lease)| {
                let db = self.runs.open(*run).unwrap();
                assert_eq!(db.damage(), None);
                let sequence = db.high_water(lease.job, lease.attempt).unwrap();
                HighWater { lease: *lease, sequence }
            })
            .collect();
        if let Some(pipe) = self.pipes.get_mut(&number) {
            pipe.session = Some(greeting.session);
            pipe.from_engine = Some(from_engine);
        }
        let welcome = Welcome {
            coordinator_version: "0".to_owned(),
            heartbeat_every: HEARTBEAT,
            lease_ttl: LEASE_TTL,
            high_water,
        };
        self.down(number, CoordinatorMessage::Welcome(welcome));
        for message in greeting.then {
            self.down(number, message);
        }
    }

    fn store(&mut self, number: u64, session: SessionId, batch: EvidenceBatch) {
        let EvidenceBatch { lease, frames, lost_up_to } = batch;
        let Some(state) = &self.state else { return };
        let run = match state.check_lease(session, lease) {
            Ok(run) => run,
            Err(reason) => {
                let refused = CoordinatorMessage::LeaseRefused(Refusal { lease, reason });
                return self.down(number, refused);
            }
        };
        let ended = frames.iter().find_map(|frame| match &frame.body {
            Body::Ended(end) => Some((end.outcome, end.reason.clone())),
            _ => None,
        });
        let frames = frames
            .iter()
            .map(|frame| (frame.sequence, wire::Frame::from(frame).encode_to_vec()))
            .collect();
        let append = Append { run, job: lease.job, attempt: lease.attempt, frames, lost_up_to };
        let Ok(appended) = self.evidence.append(&append) else {
            // A hole: the session ends, and the next welcome says where to go on.
            if let Some(pipe) = self.pipes.get_mut(&number) {
                pipe.is_broken = true;
                pipe.up.clear();
                if let (Some(session), Some(state)) = (pipe.session, &mut self.state) {
                    state.gone(session);
                }
            }
            return;
        };
        assert_eq!(appended.skipped, 0);
        // Durable, and nobody knows yet.
        if self.dies_here() {
            return;
        }
        let high_water = appended.high_water;
        let stored = EvidenceStored { lease, high_water, skipped: 0, ended };
        if let Some(state) = &mut self.state {
            state.stored(session, stored);
        }
        // The real session does not wait for the engine's write either.
        let mark = HighWater { lease, sequence: high_water };
        self.down(number, CoordinatorMessage::EvidenceAcknowledged(mark));
        self.carry_out();
    }

    /// As the engine's task does: written, then said. False: the coordinator died on the way.
    fn carry_out(&mut self) -> bool {
        let Some(state) = &mut self.state else { return false };
        let Effects { batch, sends, replies, close, .. } = std::mem::take(&mut state.effects);
        if !batch.is_empty() {
            if self.dies_here() {
                return false;
            }
            self.catalogue.commit_unsynced(batch).unwrap();
            if self.dies_here() {
                return false;
            }
        }
        let Some(state) = &mut self.state else { return false };
        for (agent, message) in sends {
            let Some(entry) = state.agents.get_mut(&agent) else { continue };
            let Some(session) = &entry.session else { continue };
            if session.outbound.try_send(message).is_err() {
                entry.session = None;
            }
        }
        for reply in replies {
            reply();
        }
        for run in close {
            self.evidence.close(run);
        }
        true
    }

    // --- contracts ---

    /// The evidence is complete whenever a run is judged.
    fn judge(&mut self) {
        let Some(state) = &mut self.state else { return };
        for run in std::mem::take(&mut state.to_judge) {
            let Some(entry) = self.state.as_ref().and_then(|state| state.runs.get(&run)) else {
                continue;
            };
            for job in entry.jobs.values() {
                let JobState::Over { outcome, tenure, reason, .. } = &job.record.state else {
                    panic!("run {run} is judged, and job {} goes on", job.record.job)
                };
                let Some(tenure) = tenure else { continue };
                let Lease { job: id, attempt, .. } = tenure.lease;
                let made = self.agents.iter().find_map(|agent| agent.made.get(&(id, attempt)));
                let (last, ended_as) = made.copied().unwrap_or((0, Outcome::Cancelled));
                if *outcome != Outcome::Cancelled {
                    assert_eq!(*outcome, ended_as, "job {id}: {reason}");
                    let db = self.runs.open(run).unwrap();
                    let mark = db.high_water(id, attempt).unwrap();
                    assert_eq!(mark, last, "job {id} is judged without all of its evidence");
                }
            }
            if let Some(state) = &mut self.state {
                state.judged(run, Verdict::Pass, "pass".to_owned(), "{}");
                if !self.carry_out() {
                    return;
                }
            }
        }
    }

    fn check(&self) {
        // At most one attempt of a job runs, anywhere.
        let mut running: BTreeMap<JobId, Lease> = BTreeMap::new();
        for agent in &self.agents {
            let busy = agent.held.values().filter(|held| held.is_running).count();
            assert!(busy <= agent.slots as usize, "{} holds {busy} jobs", agent.name);
            for (lease, held) in &agent.held {
                if held.is_running
                    && let Some(other) = running.insert(lease.job, *lease)
                {
                    panic!("{other:?} and {lease:?} run at once");
                }
            }
        }
        let Some(state) = &self.state else { return };
        for job in state.runs.values().flat_map(|run| run.jobs.values()) {
            // A cancel that was acknowledged means that nothing of it runs.
            if let (JobState::Over { outcome, .. }, Some(lease)) =
                (&job.record.state, running.get(&job.record.job))
            {
                panic!("job {} is over ({outcome}), and {lease:?} runs", job.record.job);
            }
        }
    }

    fn is_over(&self) -> bool {
        let is_finished = |run: &RunId| {
            let record = self.catalogue.run(*run).unwrap();
            record.is_some_and(|record| matches!(record.state, RunState::Finished { .. }))
        };
        self.state.is_some()
            && self.submitted.iter().all(is_finished)
            && self.agents.iter().all(|agent| agent.held.is_empty())
    }

    /// Every frame that was made is stored exactly once, as it was made.
    fn check_end(&self) -> u64 {
        let mut frames = 0;
        let mut ran: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        let made = self.agents.iter().flat_map(|agent| &agent.made);
        for ((job, attempt), (last, outcome)) in made {
            ran.entry(*job).or_default().push(*attempt);
            let run = self.catalogue.run_of_job(*job).unwrap().unwrap();
            if self.cancelled.contains(&run) && *outcome == Outcome::Cancelled {
                // Its run may have been judged without the rest.
                continue;
            }
            let record = self.catalogue.run(run).unwrap().unwrap();
            let jobs = self.catalogue.jobs(&record).unwrap();
            let state = jobs.iter().find(|(_, known)| known.job == *job).unwrap();
            let tenure = state.1.state.tenure().unwrap();
            assert_eq!(
                tenure.lease.attempt, *attempt,
                "attempt {attempt} of {job} ran for nothing: {:?}, {:?}",
                record.notes, state.1.state
            );
            let mut next = 1;
            let db = self.runs.open(run).unwrap();
            db.frames(*job, *attempt, &mut |stored| {
                let StoredFrame::Whole(stored) = stored else { panic!("a frame is damaged") };
                let end = (next == *last).then_some((*outcome, ""));
                assert_eq!(*stored, wire::Frame::from(&frame(tenure.lease, next, end)));
                next += 1;
                true
            })
            .unwrap();
            assert_eq!(next - 1, *last, "frames of {job} are missing");
            frames += last;
        }
        for (job, attempts) in ran {
            assert_eq!(attempts.len(), 1, "job {job} ran as attempts {attempts:?}");
        }
        for agent in &self.agents {
            for (lease, reason) in &agent.refused {
                let run = self.catalogue.run_of_job(lease.job).unwrap().unwrap();
                assert!(self.cancelled.contains(&run), "{lease:?} was refused: {reason}");
            }
        }
        frames
    }
}
