//! The coordinator's side of the streams, as its sessions and its engine's task do it, with a place to die around every write.

use crate::engine::fleet::Join;
use crate::engine::handle::{EvidenceStored, SESSION_QUEUE, SessionId};
use crate::engine::simulation::world::{HEARTBEAT, LEASE_TTL, World};
use crate::engine::state::Effects;
use crate::store::evidence::Append;
use pgsoak_proto::evidence::Body;
use pgsoak_proto::session::{
    AgentMessage, CoordinatorMessage, EvidenceBatch, HeartbeatAnswer, Hello, HighWater, Refusal,
    Welcome,
};
use pgsoak_proto::wire;
use prost::Message as _;
use tokio::sync::mpsc;

impl World {
    pub(super) fn step_coordinator(&mut self) {
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
        self.look_for_growth();
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
                state.heartbeat(session, heartbeat.jobs, heartbeat.busy);
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
                state.insert_run(record, input, jobs);
            }
        }
        let greeting = state.hello(hello, Join::Open, sender).expect("names are unique");
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
    pub(super) fn carry_out(&mut self) -> bool {
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
}
