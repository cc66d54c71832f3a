//! One attempt, from its folder to its release: watches the runner, sends evidence and artifacts, ends what is to end.
//!
//! A task of its own. Everything it does survives the daemon: what a later daemon must know is in the folder.

mod artifacts;
mod evidence;
mod session;
mod wind_up;

use crate::blocking;
use crate::folder::{JobFolder, ProcessKey};
use crate::link::connect::Outbox;
use crate::link::job::artifacts::Artifacts;
use crate::link::job::evidence::Uplink;
pub(super) use crate::link::job::session::SessionTeller;
use crate::link::job::session::{SessionView, Standing};
use crate::link::runners::{Runners, Started};
use crate::link::surroundings::Surroundings;
use pgsoak_proto::chain::chain;
use pgsoak_proto::job::{Lease, Tool};
use pgsoak_proto::session::{JobProgress, JobStage};
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body;
use rustix::process::Signal;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// From a cancel to SIGKILL: a server stops within seconds, one under valgrind within a minute.
const CANCEL_GRACE: Duration = Duration::from_secs(20);
const CANCEL_GRACE_UNDER_TOOL: Duration = Duration::from_secs(90);
/// The same for a lease that does not stand: its evidence is of no use.
const REFUSED_GRACE: Duration = Duration::from_secs(5);
/// How long a process in the folder may take to say that it is the runner.
const RUNNER_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries to end or remove what would not go.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// What the daemon tells a job.
#[derive(Debug)]
pub(super) enum Order {
    ArtifactReceived {
        name: String,
        received_bytes: u64,
    },
    Cancel(String),
    /// Loops end after the round they are in; the job goes on to its end.
    Conclude(String),
    /// As a cancel of which nobody waits to hear: the daemon itself is to end.
    Stop(String),
    Release,
    Refused(String),
}

/// Where a job stands, for heartbeats and the daemon's own decisions.
#[derive(Clone, Debug)]
pub(super) struct JobStatus {
    pub progress: JobProgress,
    /// The runner may live.
    pub is_running: bool,
    /// Everything was acknowledged in this session.
    pub is_delivered: bool,
}

/// How a job's task ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum JobEnd {
    /// The folder is removed.
    Released,
    /// The lease did not stand: the folder is in `refused/`.
    SetAside,
    /// The daemon ends: folder and runner are left to the next one.
    Left,
}

/// The runner, as this daemon knows it.
#[derive(Debug)]
pub(super) enum Runner {
    /// Started by this daemon.
    Child(Started),
    /// Started by an earlier one.
    Adopted(ProcessKey),
    /// Something lives in the folder that has not said that it is the runner.
    Unknown(Instant),
    /// Not there (any more); says what is known.
    Gone(String),
}

/// Talks to a job's task.
#[derive(Debug)]
pub(super) struct JobHandle {
    pub session: SessionTeller,
    pub orders: mpsc::Sender<Order>,
    pub status: watch::Receiver<JobStatus>,
    pub folder: JobFolder,
}

pub(super) struct JobTask {
    lease: Lease,
    folder: JobFolder,
    data_dir: PathBuf,
    tool: Tool,
    runner: Runner,
    runners: Arc<dyn Runners>,
    look_every: Duration,
    stage: Stage,
    session: watch::Receiver<SessionView>,
    /// Of the session that was seen last.
    session_number: u64,
    orders: mpsc::Receiver<Order>,
    status: watch::Sender<JobStatus>,
    /// Ends the task, not the job.
    leave: CancellationToken,
    outbox: Option<Outbox>,
    /// The lease stands in this session.
    may_send: bool,
    uplink: Uplink,
    artifacts: Artifacts,
    /// When what lives is killed.
    kill_at: Option<Instant>,
    owes_cancel: bool,
    fate: Fate,
}

enum Stage {
    /// The runner may live.
    Running,
    /// Kills what is left, and sees to the last frame; gives its sequence.
    WindingUp(JoinHandle<Result<u64, String>>),
    /// Winding up did not work out: tried again then.
    Stuck(Instant),
    /// No process is left, and the last frame has this sequence.
    Over(u64),
}

/// What becomes of the folder once the attempt is over.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Fate {
    Kept,
    Removed,
    SetAside,
}

/// Orders that may wait for a job.
const ORDERS: usize = 64;

// === impl JobTask ===

impl JobTask {
    /// A job with this folder. The caller spawns [`Self::run`].
    pub fn new(
        lease: Lease,
        tool: Tool,
        folder: JobFolder,
        data_dir: PathBuf,
        runner: Runner,
        surroundings: &Surroundings,
        leave: CancellationToken,
    ) -> (Self, JobHandle) {
        let session = SessionTeller::default();
        let (orders, orders_rx) = mpsc::channel(ORDERS);
        let (status, status_rx) = watch::channel(JobStatus {
            progress: no_progress(lease),
            is_running: true,
            is_delivered: false,
        });
        let kill_at = folder.cancel_reason().map(|_| Instant::now() + grace(tool));
        let task = Self {
            lease,
            data_dir,
            tool,
            runner,
            runners: Arc::clone(&surroundings.runners),
            look_every: surroundings.look_every,
            stage: Stage::Running,
            session: session.listen(),
            session_number: 0,
            orders: orders_rx,
            status,
            leave,
            outbox: None,
            may_send: false,
            uplink: Uplink::new(&folder),
            artifacts: Artifacts::default(),
            kill_at,
            owes_cancel: false,
            fate: Fate::Kept,
            folder: folder.clone(),
        };
        (task, JobHandle { session, orders, status: status_rx, folder })
    }

    /// Until the folder is gone, or the daemon leaves.
    pub async fn run(mut self) -> JobEnd {
        let mut look = tokio::time::interval(self.look_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.leave.cancelled() => return JobEnd::Left,
                Ok(()) = self.session.changed() => self.look_at_session(),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return JobEnd::Left,
                },
                how = gone(&mut self.runner), if matches!(self.stage, Stage::Running) => {
                    self.runner = Runner::Gone(how);
                    self.wind_up();
                }
                over = wound_up(&mut self.stage) => self.is_over(over),
                () = self.artifacts.prepared() => {}
                _ = look.tick() => self.look().await,
            }
            if let Stage::Over(last) = self.stage {
                match self.settle().await {
                    Some(end) => return end,
                    None => self.deliver(last).await,
                }
            } else {
                self.send_evidence().await;
            }
        }
    }

    fn look_at_session(&mut self) {
        let view = self.session.borrow_and_update().clone();
        if view.number != self.session_number {
            self.session_number = view.number;
            self.enter(view.outbox, view.standing);
        }
        self.uplink.acknowledge(view.acknowledged);
    }

    /// Another session, or none, or the lease stands otherwise in it.
    fn enter(&mut self, outbox: Option<Outbox>, standing: Standing) {
        self.outbox = outbox;
        match standing {
            Standing::Unknown => self.may_send = false,
            Standing::From(high_water) => {
                if high_water < self.uplink.acknowledged() {
                    tracing::warn!(
                        high_water,
                        acknowledged = self.uplink.acknowledged(),
                        "the coordinator has less than it had: sending again"
                    );
                    self.artifacts = Artifacts::default();
                }
                self.uplink.restart(high_water);
                self.artifacts.restart();
                self.may_send = true;
            }
            Standing::Confirmed => {
                self.uplink.restart(self.uplink.acknowledged());
                self.artifacts.restart();
                self.may_send = true;
            }
        }
        self.set_delivered(false);
        self.acknowledge_cancel();
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::ArtifactReceived { name, received_bytes } => {
                self.artifacts.received(&name, received_bytes);
            }
            Order::Cancel(reason) => {
                self.owes_cancel = true;
                self.end(&reason, grace(self.tool));
                self.acknowledge_cancel();
            }
            Order::Conclude(reason) => {
                tracing::info!(reason, "the job's loops are asked to end early");
                if let Err(error) = self.folder.ask_conclude(&reason) {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot say so; the job goes on to its end"
                    );
                }
            }
            Order::Stop(reason) => self.end(&reason, grace(self.tool)),
            Order::Release => {
                self.fate = Fate::Removed;
                self.end("the coordinator released the job", grace(self.tool));
            }
            Order::Refused(reason) => {
                if self.fate != Fate::SetAside {
                    tracing::warn!(reason, "the lease does not stand: the attempt ends");
                }
                self.fate = Fate::SetAside;
                self.may_send = false;
                self.end(&format!("the lease does not stand: {reason}"), REFUSED_GRACE);
            }
        }
    }

    /// Asks the runner to end, and sees to it that it does.
    fn end(&mut self, reason: &str, grace: Duration) {
        if !matches!(self.stage, Stage::Running) {
            return;
        }
        let at = Instant::now() + grace;
        let is_first = self.kill_at.is_none();
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        if let Err(error) = self.folder.ask_cancel(reason) {
            tracing::warn!(
                error = chain(&error),
                "cannot write the cancel; the signal says it too"
            );
        }
        if is_first {
            tracing::info!(reason, "the job is asked to end");
            self.signal(Signal::TERM);
        }
    }

    fn signal(&self, signal: Signal) {
        let reached = match &self.runner {
            Runner::Child(Started { key: Some(key), .. }) | Runner::Adopted(key) => {
                self.runners.signal(key, signal)
            }
            Runner::Child(_) | Runner::Unknown(_) | Runner::Gone(_) => false,
        };
        tracing::debug!(?signal, reached, "signalled the runner");
    }

    /// The regular look: at the runner's progress, at one that is not our child, at times that are up.
    async fn look(&mut self) {
        let now = Instant::now();
        self.uplink.look_again();
        if let Stage::Stuck(at) = self.stage
            && now >= at
        {
            self.wind_up();
            return;
        }
        if !matches!(self.stage, Stage::Running) {
            return;
        }
        let folder = self.folder.clone();
        // Looking through /proc costs: only for a runner that is not known.
        let is_unknown = matches!(self.runner, Runner::Unknown(_));
        let runners = Arc::clone(&self.runners);
        let seen = blocking::spawn(move || {
            let is_empty = is_unknown && runners.left_in(folder.path()).is_empty();
            (folder.progress(), folder.runner().ok().flatten(), is_empty)
        });
        let Ok((progress, said, is_empty)) = seen.await else { return };
        self.status.send_if_modified(|status| {
            let lease = status.progress.lease;
            let progress = progress.filter(|progress| progress.lease == lease);
            progress.is_some_and(|progress| {
                let is_new = status.progress != progress;
                status.progress = progress;
                is_new
            })
        });
        match &self.runner {
            Runner::Adopted(key) if !self.runners.is_alive(key) => {
                self.runner = Runner::Gone(format!("the runner (process {}) is gone", key.pid));
                self.wind_up();
            }
            Runner::Unknown(since) => match said {
                Some(key) if self.runners.is_alive(&key) => self.runner = Runner::Adopted(key),
                _ if is_empty || now.duration_since(*since) >= RUNNER_PATIENCE => {
                    self.runner = Runner::Gone("the runner did not begin, or is gone".to_owned());
                    self.wind_up();
                }
                _ => {}
            },
            _ if self.kill_at.is_some_and(|at| now >= at) => {
                tracing::warn!("the job did not end in time: it is killed");
                self.signal(Signal::KILL);
                if matches!(self.runner, Runner::Child(Started { key: None, .. })) {
                    self.runner = Runner::Gone("the runner was killed".to_owned());
                    self.wind_up();
                }
            }
            _ => {}
        }
    }

    fn wind_up(&mut self) {
        let how = match &self.runner {
            Runner::Gone(how) => how.clone(),
            _ => "the runner is gone".to_owned(),
        };
        let folder = self.folder.clone();
        let runners = Arc::clone(&self.runners);
        let work = blocking::spawn(move || wind_up::wind_up(&folder, runners.as_ref(), &how));
        self.stage = Stage::WindingUp(work);
    }

    fn is_over(&mut self, over: Result<u64, String>) {
        match over {
            Ok(last) => {
                tracing::info!(last_sequence = last, "no process of the job is left");
                self.stage = Stage::Over(last);
                self.kill_at = None;
                self.uplink.look_again();
                self.status.send_modify(|status| {
                    status.is_running = false;
                    status.progress.stage = JobStage::Ended;
                });
                self.acknowledge_cancel();
            }
            Err(problem) => {
                tracing::error!(problem, "the job cannot be wound up yet");
                self.stage = Stage::Stuck(Instant::now() + RETRY_EVERY);
            }
        }
    }

    fn acknowledge_cancel(&mut self) {
        if !self.owes_cancel || !matches!(self.stage, Stage::Over(_)) {
            return;
        }
        let lease = Some(self.lease.into());
        let body = Body::CancelAcknowledged(wire::CancelAcknowledged { lease });
        // In a later session the coordinator asks again.
        self.owes_cancel = !self.outbox.as_ref().is_some_and(|outbox| outbox.control(body));
    }

    async fn send_evidence(&mut self) {
        if let (Some(outbox), true) = (&self.outbox, self.may_send) {
            self.uplink.pump(outbox, self.lease).await;
        }
    }

    /// Once the attempt is over: the rest of its evidence, then its artifacts, then that this was all.
    async fn deliver(&mut self, last: u64) {
        self.send_evidence().await;
        let (Some(outbox), true) = (&self.outbox, self.may_send) else { return };
        if self.uplink.acknowledged() < last {
            return;
        }
        if !self.artifacts.pump(outbox, self.lease, &self.folder).await {
            return;
        }
        if !self.status.borrow().is_delivered {
            let body = Body::Delivered(wire::Delivered { lease: Some(self.lease.into()) });
            if outbox.control(body) {
                self.set_delivered(true);
            }
        }
    }

    fn set_delivered(&self, is_delivered: bool) {
        self.status.send_modify(|status| status.is_delivered = is_delivered);
    }

    /// Once the attempt is over: what is to become of the folder.
    async fn settle(&mut self) -> Option<JobEnd> {
        let (folder, data_dir) = (self.folder.clone(), self.data_dir.clone());
        let fate = self.fate;
        if fate == Fate::Kept {
            return None;
        }
        let work = blocking::spawn(move || match fate {
            Fate::Kept => Ok(None),
            Fate::Removed => folder.remove().map(|()| Some(JobEnd::Released)),
            Fate::SetAside => folder.set_aside(&data_dir).map(|path| {
                tracing::warn!(path = %path.display(), "the attempt's folder is kept aside");
                Some(JobEnd::SetAside)
            }),
        });
        match work.await {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "the job's folder is still there");
                tokio::time::sleep(RETRY_EVERY).await;
                None
            }
            Err(_) => None,
        }
    }
}

fn grace(tool: Tool) -> Duration {
    match tool {
        Tool::Plain => CANCEL_GRACE,
        Tool::Memcheck | Tool::Massif | Tool::Heaptrack => CANCEL_GRACE_UNDER_TOOL,
    }
}

/// Of a job that has not said anything yet.
pub(super) fn no_progress(lease: Lease) -> JobProgress {
    JobProgress {
        lease,
        stage: JobStage::Preparing,
        phase: String::new(),
        round: 0,
        rounds: 0,
        operations: 0,
        done: 0.0,
        left_ms: 0,
        rss_anon_bytes: 0,
    }
}

/// Waits for a runner that is our child, and is done at once for one that is gone; others are looked at.
async fn gone(runner: &mut Runner) -> String {
    match runner {
        Runner::Child(started) => (&mut started.ended).await,
        Runner::Gone(how) => how.clone(),
        Runner::Adopted(_) | Runner::Unknown(_) => std::future::pending().await,
    }
}

async fn wound_up(stage: &mut Stage) -> Result<u64, String> {
    match stage {
        Stage::WindingUp(work) => match work.await {
            Ok(over) => over,
            Err(error) => Err(format!("winding up failed: {error}")),
        },
        _ => std::future::pending().await,
    }
}
