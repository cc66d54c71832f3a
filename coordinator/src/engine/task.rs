//! The engine's task: requests in, one durable write a round, messages and answers out.

use crate::config::CoordinatorConfig;
use crate::domain::alert::{Alert, AlertKind};
use crate::domain::limits::Limits;
use crate::engine::clock::Clock;
use crate::engine::escalation::Grown;
use crate::engine::handle::{EngineHandle, QUEUE, Request};
use crate::engine::judging::{self, Judgement};
use crate::engine::looking::{self, Looked};
use crate::engine::state::{Effects, State};
use crate::metrics::{AlertLabel, Metrics, VerdictLabel};
use crate::store::{Store, StoreError};
use pgsoak_proto::id::{AgentId, JobId};
use pgsoak_proto::session::CoordinatorMessage;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, Semaphore, broadcast, mpsc, mpsc::error::TrySendError, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

/// Requests that share one write.
const ROUND: usize = 128;
/// How often a write that failed is tried before the engine ends. Agents and their jobs go on without it.
const WRITE_TRIES: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(500);
/// Judgements at once: each holds the series of a run in memory.
const JUDGES: usize = 1;

struct Task {
    requests: mpsc::Receiver<Request>,
    changes: watch::Sender<u64>,
    alerts: broadcast::Sender<Alert>,
    state: State,
    store: Store,
    judging: JoinSet<Judgement>,
    looking: JoinSet<Looked>,
    judges: Arc<Semaphore>,
    metrics: Metrics,
    has_notices: Arc<Notify>,
    escalating: JoinSet<Grown>,
}

/// Restores the state and starts the task. It ends when `shutdown` fires, or when the store cannot be written.
///
/// # Errors
///
/// When the catalogue cannot be read.
pub async fn spawn(
    config: &CoordinatorConfig,
    limits: Limits,
    clock: Clock,
    store: Store,
    shutdown: CancellationToken,
) -> Result<(EngineHandle, JoinHandle<()>), StoreError> {
    let mut state = State::new(config, limits, clock);
    state.shelf = store.shelf();
    state.restore(store.load().await?);
    state.restore_ends(store.ends(state.live_attempts()).await?);
    let (requests_in, requests) = mpsc::channel(QUEUE);
    let (changes, changes_out) = watch::channel(0);
    let metrics = Metrics::default();
    // From the start, at 0, as all counters are.
    for kind in AlertKind::ALL {
        drop(metrics.alerts.get_or_create(&AlertLabel { kind: kind.label() }));
    }
    let handle = EngineHandle::new(config, requests_in, changes_out, clock, metrics.clone());
    let task = Task {
        requests,
        changes,
        alerts: handle.alerts.clone(),
        state,
        store,
        judging: JoinSet::new(),
        looking: JoinSet::new(),
        judges: Arc::new(Semaphore::new(JUDGES)),
        metrics,
        has_notices: Arc::clone(&handle.has_notices),
        escalating: JoinSet::new(),
    };
    let join = tokio::spawn(task.run(shutdown).instrument(info_span!("engine")));
    Ok((handle, join))
}

// === impl Task ===

impl Task {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(self.state.limits.tick_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(judged) = self.judging.join_next() => match judged {
                    Ok(judgement) => {
                        let label = VerdictLabel { verdict: judgement.verdict.label() };
                        self.metrics.finished.get_or_create(&label).inc();
                        self.state.judged(judgement);
                    }
                    Err(error) => error!(%error, "a judgement did not come to an end"),
                },
                Some(looked) = self.looking.join_next() => match looked {
                    Ok(looked) => self.state.looked(looked),
                    Err(error) => error!(%error, "a look did not come to an end"),
                },
                Some(grown) = self.escalating.join_next() => match grown {
                    Ok(grown) => self.state.grown(grown, JobId::issue),
                    Err(error) => error!(%error, "a look for growth did not come to an end"),
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.serve_round(request).await,
                    None => break,
                },
                _ = tick.tick() => self.state.is_dirty = true,
            }
            if self.state.is_dirty {
                self.state.look();
            }
            if let Err(error) = self.carry_out().await {
                error!(%error, "the catalogue cannot be written; the coordinator gives up (jobs go on without it)");
                break;
            }
            self.start_escalating();
            self.start_judging();
            self.start_looking();
        }
        self.escalating.shutdown().await;
        self.judging.shutdown().await;
        self.looking.shutdown().await;
        self.last_words().await;
    }

    async fn serve_round(&mut self, first: Request) {
        self.serve(first).await;
        for _ in 1..ROUND {
            match self.requests.try_recv() {
                Ok(request) => self.serve(request).await,
                Err(_) => return,
            }
        }
    }

    /// Changes memory and notes effects. Awaits only to look up what memory does not have.
    async fn serve(&mut self, request: Request) {
        let state = &mut self.state;
        match request {
            Request::Submit(submission, reply) => {
                let submitted = state.submit(*submission);
                state.reply(reply, submitted);
            }
            Request::Cancel { run, reason, reply } => {
                state.cancel(run, &reason);
                let view = state.view(run);
                state.reply(reply, view);
            }
            Request::View(run, reply) => {
                let view = state.view_with_forecast(run);
                state.reply(reply, view);
            }
            Request::Input(run, reply) => {
                let input = state.runs.get(&run).map(|entry| Arc::clone(&entry.input));
                state.reply(reply, input);
            }
            Request::Agents(reply) => {
                let agents = state.agents();
                state.reply(reply, agents);
            }
            Request::Census(reply) => {
                let census = state.census();
                state.reply(reply, census);
            }
            Request::Audience(audience) => state.notices.audience = audience,
            Request::Check(specs, packages, priority, reply) => {
                let places = state.check(&specs, &packages, priority);
                state.reply(reply, places);
            }
            Request::Hello(hello, join, outbound, reply) => {
                let held = hello.held.iter().map(|held| held.lease.job).collect();
                state.recall(&self.store, held).await;
                let greeting = state.hello(*hello, join, outbound);
                state.reply(reply, greeting);
            }
            Request::Gone(session) => state.gone(session),
            Request::Heartbeat(session, jobs, busy) => state.heartbeat(session, jobs, busy),
            Request::CheckLease(session, lease, reply) => {
                let answer = state.check_lease(session, lease);
                state.reply(reply, answer);
            }
            Request::Stored(session, stored) => state.stored(session, stored),
            Request::Unusable(session, lease, problem) => {
                state.unusable(session, lease, &problem);
            }
            Request::Artifact(session, run, lease, record) => {
                state.artifact(session, run, lease, &record);
            }
            Request::Heard(session, lease) => state.job_heard(session, lease),
            Request::Note(run, note) => state.note(run, note),
            Request::Delivered(session, lease) => state.delivered(session, lease),
            Request::CancelAcknowledged(session, lease) => {
                state.cancel_acknowledged(session, lease);
            }
            Request::Schedule(request) => state.serve_schedule(request),
            Request::Fleet(request) => state.serve_fleet(request),
            Request::AssignmentRefused(session, refusal) => {
                state.assignment_refused(session, &refusal);
            }
        }
    }

    /// Writes what was noted, then says it.
    async fn carry_out(&mut self) -> Result<(), StoreError> {
        let Effects { batch, sends, replies, alerts, close, is_visible, has_notices } =
            std::mem::take(&mut self.state.effects);
        if !batch.is_empty() {
            let mut tries = 0;
            while let Err(error) = self.store.commit(batch.clone()).await {
                tries += 1;
                if tries >= WRITE_TRIES {
                    return Err(error);
                }
                warn!(%error, tries, "the catalogue was not written; once more");
                tokio::time::sleep(WRITE_PAUSE).await;
            }
        }
        if has_notices {
            self.has_notices.notify_one();
        }
        for (agent, message) in sends {
            self.say(agent, message);
        }
        for reply in replies {
            reply();
        }
        for alert in alerts {
            // Nobody may listen; it is kept and logged all the same.
            self.metrics.alerts.get_or_create(&AlertLabel { kind: alert.kind.label() }).inc();
            let _ = self.alerts.send(alert);
        }
        for run in close {
            self.store.close_run(run).await;
        }
        if is_visible {
            self.changes.send_modify(|version| *version = version.wrapping_add(1));
        }
        Ok(())
    }

    /// Never waits: a session that takes nothing is cut, and its agent comes back to a fresh one.
    fn say(&mut self, agent: AgentId, message: CoordinatorMessage) {
        let Some(entry) = self.state.agents.get_mut(&agent) else { return };
        let Some(session) = &entry.session else { return };
        match session.outbound.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                warn!(%agent, "the session takes no messages; it is cut");
                entry.session = None;
            }
        }
    }

    fn start_escalating(&mut self) {
        for look in std::mem::take(&mut self.state.to_escalate) {
            let Some(view) = self.state.view(look.run) else { continue };
            let Some(input) = self.state.runs.get(&look.run).map(|entry| Arc::clone(&entry.input))
            else {
                continue;
            };
            let (store, judges) = (self.store.clone(), Arc::clone(&self.judges));
            let span = info_span!("escalate", run = %look.run);
            let looking = async move {
                // Never closed.
                let _permit = judges.acquire_owned().await;
                let growth = judging::growth_of(&store, &view, &input, &look).await;
                Grown { run: look.run, subject: look.subject, growth }
            };
            self.escalating.spawn(looking.instrument(span));
        }
    }

    fn start_judging(&mut self) {
        for run in std::mem::take(&mut self.state.to_judge) {
            let Some(view) = self.state.view(run) else { continue };
            let Some(input) = self.state.runs.get(&run).map(|entry| Arc::clone(&entry.input))
            else {
                continue;
            };
            let (store, judges) = (self.store.clone(), Arc::clone(&self.judges));
            let metrics = self.metrics.clone();
            let judge = async move {
                // Never closed.
                let _permit = judges.acquire_owned().await;
                let began = Instant::now();
                let judged = judging::judge_run(&store, &view, &input).await;
                metrics.judging.observe(began.elapsed().as_secs_f64());
                judged
            };
            self.judging.spawn(judge.instrument(info_span!("judge", %run)));
        }
    }

    /// Looks at jobs that go on, one after the other with the judgements: each holds the series of some jobs in memory.
    fn start_looking(&mut self) {
        let now = self.state.now();
        self.state.conclude_again(now);
        for (run, job) in self.state.looks_due(now) {
            let Some(view) = self.state.view(run) else { continue };
            let Some(input) = self.state.runs.get(&run).map(|entry| Arc::clone(&entry.input))
            else {
                continue;
            };
            let (store, judges) = (self.store.clone(), Arc::clone(&self.judges));
            let look = async move {
                // Never closed.
                let _permit = judges.acquire_owned().await;
                looking::look_at(&store, view, &input, job).await
            };
            self.looking.spawn(look.instrument(info_span!("look", %run, %job)));
        }
    }

    /// When agents were last heard, for the next start.
    async fn last_words(&mut self) {
        for entry in self.state.agents.values_mut() {
            entry.session = None;
            entry.record.last_seen_at = entry.seen_at;
            self.state.effects.batch.agent(&entry.record);
        }
        if let Err(error) = self.carry_out().await {
            warn!(%error, "the last state of the agents was not written");
        }
    }
}
