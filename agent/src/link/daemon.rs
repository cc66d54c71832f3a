//! The daemon's task: owns the session and the list of attempts, and passes between them.
//!
//! Decides nothing about evidence: each job's task does. A coordinator that cannot be reached stops nothing here.

use crate::blocking;
use crate::config::AgentConfig;
use crate::folder::{self, JobFolder};
use crate::link::clocks::{Clocks, wall_us};
use crate::link::connect::{Link, LinkEvent, Outbox};
use crate::link::guard::LoadGuard;
use crate::link::job::{JobEnd, JobHandle, JobTask, Order, Runner, no_progress};
use crate::link::launch::LaunchError;
use crate::link::packages::Packages;
use crate::link::runners::Started;
use crate::link::surroundings::Surroundings;
use crate::spool;
use pgsoak_proto::PROTOCOL;
use pgsoak_proto::chain::chain;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::{BuildRef, Lease, Tool};
use pgsoak_proto::session::{
    Assignment, Capabilities, CoordinatorMessage, Heartbeat, HeldJob, Hello, HighWater, Refusal,
    Welcome,
};
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

/// Capabilities older than this are found again before they are told.
const CAPABILITIES_LAST: Duration = Duration::from_secs(60);
/// Until the coordinator says otherwise.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Heartbeats without any answer after which a session counts as dead; at least the lease's time.
const SILENT_HEARTBEATS: u32 = 3;
/// How long jobs that were stopped with the daemon may take to deliver their last evidence.
const LAST_DELIVERY: Duration = Duration::from_secs(15);
/// How often a daemon that ends looks whether it may.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Launched = Result<(JobFolder, Started), LaunchError>;

/// The daemon's state. [`Self::run`] is its task.
pub struct Daemon {
    config: Arc<AgentConfig>,
    agent: AgentId,
    surroundings: Surroundings,
    packages: Arc<Packages>,
    capabilities: Option<(Arc<Capabilities>, Instant)>,
    link: Link,
    /// Of the session that is open or being opened.
    outbox: Option<Outbox>,
    is_welcome: bool,
    heartbeat: Interval,
    /// Silence after which the session is given up.
    patience: Duration,
    heard_at: Instant,
    clocks: Clocks,
    jobs: BTreeMap<Lease, JobHandle>,
    tasks: JoinSet<(Lease, JobEnd)>,
    /// Orders for attempts whose runner is being started.
    launching: BTreeMap<Lease, Vec<Order>>,
    launches: JoinSet<(Lease, Tool, Launched)>,
    hellos: JoinSet<(Arc<Capabilities>, Instant, Hello)>,
    /// Ends every job's task and leaves the jobs alone.
    leave: CancellationToken,
    guard: LoadGuard,
}

// === impl Daemon ===

impl Daemon {
    /// A daemon that holds the attempts whose folders are there: runners that live are adopted. Call on the runtime.
    ///
    /// # Errors
    /// When the jobs' folders cannot be read.
    pub fn adopt(
        config: AgentConfig,
        agent: AgentId,
        surroundings: Surroundings,
    ) -> Result<Self, folder::FolderError> {
        folder::remove_half_made(&config.data_dir)?;
        let mut daemon = Self {
            packages: Arc::new(Packages::new(&config.data_dir, config.token.as_ref())),
            link: Link::new(
                agent,
                config.coordinator.clone(),
                surroundings.dial.clone(),
                config.token.as_ref(),
            ),
            guard: LoadGuard { max_load_percent: config.max_load_percent },
            config: Arc::new(config),
            agent,
            surroundings,
            capabilities: None,
            outbox: None,
            is_welcome: false,
            heartbeat: every(HEARTBEAT_EVERY),
            patience: HEARTBEAT_EVERY.saturating_mul(SILENT_HEARTBEATS),
            heard_at: Instant::now(),
            clocks: Clocks::default(),
            jobs: BTreeMap::new(),
            tasks: JoinSet::new(),
            launching: BTreeMap::new(),
            launches: JoinSet::new(),
            hellos: JoinSet::new(),
            leave: CancellationToken::new(),
        };
        let mut folders = folder::list(&daemon.config.data_dir)?;
        // As they were given: their names tell nothing of that.
        folders.sort_by_cached_key(|folder| folder.assignment().ok().map(|given| given.lease));
        for folder in folders {
            daemon.adopt_job(folder);
        }
        Ok(daemon)
    }

    fn adopt_job(&mut self, folder: JobFolder) {
        let assignment = match folder.assignment() {
            Ok(assignment) => assignment,
            Err(error) => {
                let path = folder.path().display();
                tracing::error!(error = chain(&error), %path, "not a job's folder: set aside");
                self.surroundings.runners.kill_left(folder.path());
                if let Err(error) = folder.set_aside(&self.config.data_dir) {
                    tracing::error!(error = chain(&error), %path, "it is still there");
                }
                return;
            }
        };
        let runner = match folder.runner() {
            Ok(Some(key)) if self.surroundings.runners.is_alive(&key) => Runner::Adopted(key),
            Ok(Some(_)) => Runner::Gone("the runner ended while no agent was there".to_owned()),
            Ok(None) | Err(_) => Runner::Unknown(Instant::now()),
        };
        tracing::info!(job = %assignment.lease.job, ?runner, "adopted a job");
        self.start_task(assignment.lease, assignment.spec.tool, folder, runner);
    }

    fn start_task(&mut self, lease: Lease, tool: Tool, folder: JobFolder, runner: Runner) {
        let data_dir = self.config.data_dir.clone();
        let (task, handle) = JobTask::new(
            lease,
            tool,
            folder,
            data_dir,
            runner,
            &self.surroundings,
            self.leave.child_token(),
        );
        let span = info_span!("job", job = %lease.job, attempt = lease.attempt);
        self.tasks.spawn(async move { (lease, task.run().await) }.instrument(span));
        self.jobs.insert(lease, handle);
    }

    /// Until `shutdown`; then ends the jobs first, where the settings say so. Every task is joined.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.step() => {}
            }
        }
        if self.config.stop_jobs_on_shutdown {
            self.stop_jobs().await;
        }
        self.leave.cancel();
        while self.launches.join_next().await.is_some() {}
        while let Some(ended) = self.tasks.join_next().await {
            log_panic(ended.map(|_| ()));
        }
        // A survey of the host under way is of no use to anybody.
        self.hellos.shutdown().await;
    }

    /// One event. May be dropped at its one `await`.
    async fn step(&mut self) {
        tokio::select! {
            // In the order in which they must not wait; what is rare comes first, so nothing starves.
            biased;
            Some(prepared) = self.hellos.join_next() => match prepared {
                Ok((capabilities, found_at, hello)) => {
                    self.capabilities = Some((capabilities, found_at));
                    self.outbox = Some(self.link.open((&hello).into()));
                }
                Err(error) => {
                    log_panic(Err(error));
                    let lost = self.link.lose("the host could not be surveyed".to_owned());
                    self.on_link(lost);
                }
            },
            Some(launched) = self.launches.join_next() => match launched {
                Ok((lease, tool, launched)) => self.on_launched(lease, tool, launched),
                Err(error) => log_panic(Err(error)),
            },
            Some(ended) = self.tasks.join_next() => match ended {
                Ok((lease, end)) => {
                    tracing::info!(job = %lease.job, attempt = lease.attempt, ?end, "done with the job");
                    self.jobs.remove(&lease);
                }
                Err(error) => {
                    log_panic(Err(error));
                    // Its folder, and its runner if it lives, are left to the next daemon.
                    self.jobs.retain(|_, handle| !handle.orders.is_closed());
                }
            },
            _ = self.heartbeat.tick(), if self.is_welcome => self.beat(),
            event = self.link.next() => self.on_link(event),
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Due => self.prepare_hello(),
            LinkEvent::Message(message) => {
                self.heard_at = Instant::now();
                self.on_message(*message);
            }
            LinkEvent::Lost(reason) => {
                if self.is_welcome {
                    tracing::warn!(reason, "lost the coordinator; jobs go on");
                } else {
                    tracing::warn!(reason, "no session with the coordinator yet");
                }
                self.is_welcome = false;
                self.outbox = None;
                for handle in self.jobs.values() {
                    handle.session.is_lost();
                }
            }
        }
    }

    /// What the agent says first takes looking at the host and at every spool: off the event loop.
    fn prepare_hello(&mut self) {
        let known = self
            .capabilities
            .clone()
            .filter(|(_, found_at)| found_at.elapsed() < CAPABILITIES_LAST);
        let find = Arc::clone(&self.surroundings.find);
        let (agent, name) = (self.agent, self.config.name.clone());
        let held: Vec<(Lease, JobFolder, bool)> = self
            .jobs
            .iter()
            .map(|(lease, handle)| {
                (*lease, handle.folder.clone(), handle.status.borrow().is_running)
            })
            .chain(
                self.launching
                    .keys()
                    .map(|lease| (*lease, JobFolder::of(&self.config.data_dir, lease), true)),
            )
            .collect();
        blocking::spawn_in(&mut self.hellos, move || {
            let (capabilities, found_at) =
                known.unwrap_or_else(|| (Arc::new(find()), Instant::now()));
            let held = held
                .into_iter()
                .map(|(lease, folder, is_running)| HeldJob {
                    lease,
                    // A spool that cannot be read holds nothing that could be told; sending says why.
                    last_sequence: spool::last_sequence(&folder.spool()).unwrap_or(0),
                    is_running,
                })
                .collect();
            let hello = Hello {
                agent,
                name,
                protocol: PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                capabilities: Capabilities::clone(&capabilities),
                held,
            };
            (capabilities, found_at, hello)
        });
    }

    fn on_message(&mut self, message: CoordinatorMessage) {
        match message {
            CoordinatorMessage::Welcome(welcome) => self.on_welcome(&welcome),
            CoordinatorMessage::HeartbeatAnswer(answer) => {
                self.clocks.compare(answer.sent_at_unix_us, answer.answered_at_unix_us, wall_us());
            }
            CoordinatorMessage::Assignment(assignment) => self.on_assignment(assignment),
            CoordinatorMessage::EvidenceAcknowledged(HighWater { lease, sequence }) => {
                if let Some(handle) = self.jobs.get(&lease) {
                    handle.session.acknowledges(sequence);
                }
            }
            CoordinatorMessage::ArtifactAcknowledged(received) => {
                let (name, received_bytes) = (received.name, received.received_bytes);
                self.tell(received.lease, Order::ArtifactReceived { name, received_bytes });
            }
            CoordinatorMessage::Cancel(Refusal { lease, reason }) => {
                if !self.tell(lease, Order::Cancel(reason)) {
                    // Nothing of it is here.
                    let lease = Some(lease.into());
                    self.say(Body::CancelAcknowledged(wire::CancelAcknowledged { lease }));
                }
            }
            CoordinatorMessage::Conclude(Refusal { lease, reason }) => {
                self.tell(lease, Order::Conclude(reason));
            }
            CoordinatorMessage::Release(lease) => {
                self.tell(lease, Order::Release);
            }
            CoordinatorMessage::LeaseRefused(Refusal { lease, reason }) => {
                self.tell(lease, Order::Refused(reason));
            }
        }
    }

    fn on_welcome(&mut self, welcome: &Welcome) {
        tracing::info!(
            version = welcome.coordinator_version,
            jobs = self.jobs.len(),
            "in session with the coordinator"
        );
        self.is_welcome = true;
        self.heartbeat = every(welcome.heartbeat_every);
        self.patience =
            welcome.lease_ttl.max(welcome.heartbeat_every.saturating_mul(SILENT_HEARTBEATS));
        let Some(outbox) = self.outbox.clone() else { return };
        for (lease, handle) in &self.jobs {
            let high_water = welcome.high_water.iter().find(|mark| mark.lease == *lease);
            handle.session.begins(outbox.clone(), high_water.map(|mark| mark.sequence));
        }
    }

    fn on_assignment(&mut self, assignment: Assignment) {
        let lease = assignment.lease;
        if self.launching.contains_key(&lease) {
            return;
        }
        if let (Some(handle), Some(outbox)) = (self.jobs.get(&lease), self.outbox.clone()) {
            // Started between the Hello and the Welcome of this session: neither named it.
            handle.session.confirms(outbox);
            return;
        }
        let is_other = |held: &&Lease| held.job == lease.job && held.attempt == lease.attempt;
        if self.jobs.keys().chain(self.launching.keys()).any(|held| is_other(&held)) {
            return self
                .refuse(lease, "the agent holds this attempt under another lease".to_owned());
        }
        let running = self.jobs.values().filter(|handle| handle.status.borrow().is_running).count();
        let taken = running.saturating_add(self.launching.len());
        let slots = self.config.slots;
        if taken >= usize::try_from(slots).unwrap_or(usize::MAX) {
            return self.refuse(lease, format!("all {slots} slots of the agent are taken"));
        }
        if self.leave.is_cancelled() {
            return self.refuse(lease, "the agent ends".to_owned());
        }
        let busy = self.busy();
        if !busy.is_empty() {
            return self.refuse(lease, format!("the host is busy: {busy}"));
        }
        let Some((capabilities, _)) = self.capabilities.clone() else {
            return self.refuse(lease, "the agent does not know its host yet".to_owned());
        };
        self.launching.insert(lease, Vec::new());
        let config = Arc::clone(&self.config);
        let tool = assignment.spec.tool;
        let runners = Arc::clone(&self.surroundings.runners);
        let clock = self.clocks.offset();
        if !matches!(assignment.spec.build, BuildRef::Release { .. }) {
            blocking::spawn_in(&mut self.launches, move || {
                (lease, tool, runners.launch(&config, &capabilities, assignment, clock))
            });
            return;
        }
        let (packages, dial) = (Arc::clone(&self.packages), self.surroundings.dial.clone());
        self.launches.spawn(async move {
            let endpoint = config.coordinator.clone();
            let placed = packages.place(&endpoint, dial, &capabilities, assignment.spec).await;
            let launched = match placed {
                Ok(spec) => {
                    let assignment = Assignment { lease, spec };
                    let launch = move || runners.launch(&config, &capabilities, assignment, clock);
                    blocking::spawn(launch).await.unwrap_or_else(|error| {
                        // As where it is not awaited here: a panic is the daemon's.
                        std::panic::resume_unwind(error.into_panic())
                    })
                }
                Err(error) => Err(error.into()),
            };
            (lease, tool, launched)
        });
    }

    fn on_launched(&mut self, lease: Lease, tool: Tool, launched: Launched) {
        let waiting = self.launching.remove(&lease).unwrap_or_default();
        match launched {
            Ok((folder, started)) => {
                let pid = started.key.as_ref().map(|key| key.pid);
                tracing::info!(job = %lease.job, attempt = lease.attempt, pid, "started a runner");
                self.start_task(lease, tool, folder, Runner::Child(started));
                if let (Some(outbox), Some(handle), true) =
                    (self.outbox.clone(), self.jobs.get(&lease), self.is_welcome)
                {
                    handle.session.begins(outbox, Some(0));
                }
                for order in waiting {
                    self.tell(lease, order);
                }
            }
            Err(error) => {
                let is_cancelled = waiting.iter().any(|order| matches!(order, Order::Cancel(_)));
                self.refuse(lease, chain(&error));
                if is_cancelled {
                    let lease = Some(lease.into());
                    self.say(Body::CancelAcknowledged(wire::CancelAcknowledged { lease }));
                }
            }
        }
    }

    fn refuse(&mut self, lease: Lease, reason: String) {
        tracing::warn!(job = %lease.job, attempt = lease.attempt, reason, "refused a job");
        let lease = Some(lease.into());
        self.say(Body::AssignmentRefused(wire::AssignmentRefused { lease, reason }));
    }

    /// Why the host takes no job now; empty: it does.
    fn busy(&self) -> String {
        let is_running = self.jobs.values().any(|handle| handle.status.borrow().is_running);
        self.guard.busy(!is_running && self.launching.is_empty())
    }

    fn beat(&mut self) {
        let silence = self.heard_at.elapsed();
        if silence > self.patience {
            let lost = self.link.lose(format!("the coordinator said nothing for {silence:?}"));
            return self.on_link(lost);
        }
        let heartbeat = Heartbeat {
            sent_at_unix_us: wall_us(),
            jobs: self
                .jobs
                .values()
                .map(|handle| handle.status.borrow().progress.clone())
                .chain(self.launching.keys().map(|lease| no_progress(*lease)))
                .collect(),
            busy: self.busy(),
        };
        self.say(Body::Heartbeat((&heartbeat).into()));
    }

    /// Queues a message that overtakes evidence. A queue that is full means a stream that is stuck: a new one is opened.
    fn say(&mut self, body: Body) {
        let is_queued = self.outbox.as_ref().is_some_and(|outbox| outbox.control(body));
        if !is_queued && self.is_welcome {
            let lost = self.link.lose("the stream takes nothing any more".to_owned());
            self.on_link(lost);
        }
    }

    /// Passes an order on. False: the agent does not hold the attempt.
    fn tell(&mut self, lease: Lease, order: Order) -> bool {
        if let Some(waiting) = self.launching.get_mut(&lease) {
            waiting.push(order);
            return true;
        }
        let Some(handle) = self.jobs.get(&lease) else { return false };
        if handle.orders.try_send(order).is_err() && self.is_welcome {
            // A new session says everything again that was lost here.
            let lost = self.link.lose(format!("job {} takes no orders", lease.job));
            self.on_link(lost);
        }
        true
    }

    /// Cancels every job, waits until no process of any is left, and gives their last evidence some time.
    async fn stop_jobs(&mut self) {
        let mut told: BTreeSet<Lease> = BTreeSet::new();
        let mut over_at = None;
        let mut look = every(LOOK_EVERY);
        loop {
            let new: Vec<Lease> =
                self.jobs.keys().copied().filter(|lease| !told.contains(lease)).collect();
            for lease in new {
                told.insert(lease);
                if self.jobs.get(&lease).is_some_and(|handle| handle.status.borrow().is_running) {
                    self.tell(lease, Order::Stop("the agent was stopped".to_owned()));
                }
            }
            let is_running = !self.launching.is_empty()
                || self.jobs.values().any(|handle| handle.status.borrow().is_running);
            if !is_running {
                let since = *over_at.get_or_insert_with(Instant::now);
                let is_waiting = self.is_welcome && !self.jobs.is_empty();
                if !is_waiting || since.elapsed() >= LAST_DELIVERY {
                    return;
                }
            }
            tokio::select! {
                () = self.step() => {}
                _ = look.tick() => {}
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the daemon panicked");
    }
}
