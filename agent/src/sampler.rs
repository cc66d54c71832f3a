//! Samples the processes of a server on a clock: the tree below its postmaster, the host, and the work done meanwhile.
//!
//! An OS thread of its own owns everything: probe, roster of processes, the batch under way. Others hold a [`SamplerHandle`]
//! and ask. Readings go into preallocated columns; a batch is sealed and handed on at least once a second. A tick
//! that is not taken stands in the evidence as a gap. The sampler does not know the spool: it is given a function to hand frames to.

mod batch;
mod desk;
mod grid;
mod outbox;
mod pss;
mod roster;
mod thread;

pub use roster::{POSTMASTER, UNKNOWN};

use crate::probe::{KernelProbe, Probe};
use pgsoak_proto::evidence::Body;
use std::{
    io,
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Requests that may wait for the thread before a caller is held back. Only a reading of smaps_rollup (tens of milliseconds)
/// lets any wait at all.
const QUEUE: usize = 256;

/// How the sampler reads.
#[derive(Clone, Debug)]
pub struct SamplerConfig {
    /// Pid of the server's first process; becomes process 0.
    pub postmaster: u32,
    /// When the attempt started: frames count their time from here.
    pub origin: Instant,
    /// Between two ticks; below [`Self::MIN_EVERY`] it is raised to that.
    pub every: Duration,
    /// Share of a core that readings of smaps_rollup may take; 0: none are made. Above 0.01 it is lowered to that.
    pub pss_share: f64,
    /// No row waits longer than this for its batch to be handed on.
    pub seal_every: Duration,
}

/// Takes a frame's time since the attempt started and what it says. An `Err` means that it was not kept: samples then become a
/// gap, anything else is offered again.
pub trait Append: FnMut(Duration, &Body) -> Result<(), AppendError> + Send + 'static {}

impl<F: FnMut(Duration, &Body) -> Result<(), AppendError> + Send + 'static> Append for F {}

/// Why a frame was not kept.
pub type AppendError = Box<dyn std::error::Error + Send + Sync>;

/// What sampling came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SamplerStats {
    /// Ticks that were due.
    pub ticks: u64,
    /// Of these, taken and handed on. The others stand in gaps.
    pub ticks_sampled: u64,
    /// Readings of one process once, in all.
    pub process_samples: u64,
    /// Readings of a process that failed although it lived.
    pub failed_readings: u64,
    /// CPU of the sampler's thread, microseconds, encoding and spool included.
    pub cpu_us: u64,
    /// Readings of smaps_rollup.
    pub pss_readings: u64,
    /// Of `cpu_us`, what these took.
    pub pss_cpu_us: u64,
}

/// A process as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProcessUse {
    /// Its number within the attempt.
    pub process: u32,
    /// RssAnon plus swap at the last tick.
    pub anonymous_bytes: u64,
    /// The largest `anonymous_bytes` of any tick since it appeared or since [`SamplerHandle::reset_peaks`].
    pub peak_anonymous_bytes: u64,
    /// As learnt; "unknown" until then.
    pub backend_type: String,
    /// The workload's session that it serves.
    pub session: Option<u32>,
}

/// Owns the thread. [`Self::stop`] ends it and says what it came to; dropped, it ends when the last handle is gone.
#[derive(Debug)]
pub struct Sampler {
    handle: SamplerHandle,
    thread: JoinHandle<SamplerStats>,
}

/// Asks the sampler. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SamplerHandle {
    requests: mpsc::SyncSender<Request>,
}

/// The sampler's thread has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the sampler has ended")]
pub struct SamplerGone;

/// Why sampling did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartSamplerError {
    /// Nothing to sample.
    #[error("the server's first process, pid {0}, has gone")]
    PostmasterGone(u32),
    /// It is there and cannot be read.
    #[error("read the server's first process, pid {pid}")]
    Postmaster {
        /// Its pid.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("start the sampler's thread")]
    Thread(#[source] io::Error),
}

#[derive(Debug)]
enum Request {
    Identify { pid: u32, backend_type: String, session: Option<u32> },
    Every(Duration),
    ReadNow(oneshot::Sender<u64>),
    NumberOf { pid: u32, reply: oneshot::Sender<Option<u32>> },
    UseOf { pid: u32, reply: oneshot::Sender<Option<ProcessUse>> },
    Processes(oneshot::Sender<Vec<(u32, ProcessUse)>>),
    ResetPeaks,
    Stop,
}

// === impl SamplerConfig ===

impl SamplerConfig {
    /// More often than this disturbs what is measured.
    pub const MIN_EVERY: Duration = Duration::from_millis(10);

    /// Of a core; leaves half of the 1 % that an agent may cost to everything else.
    pub const DEFAULT_PSS_SHARE: f64 = 0.005;

    /// With the defaults that suit a job.
    pub fn new(postmaster: u32, origin: Instant, every: Duration) -> Self {
        Self {
            postmaster,
            origin,
            every,
            pss_share: Self::DEFAULT_PSS_SHARE,
            seal_every: Duration::from_secs(1),
        }
    }
}

// === impl Sampler ===

impl Sampler {
    /// Starts sampling; the first tick is taken at once. `operations` is read at every tick.
    ///
    /// # Errors
    ///
    /// When the postmaster cannot be read, or there is no thread to be had.
    pub fn start(
        config: SamplerConfig,
        append: impl Append,
        operations: Arc<AtomicU64>,
    ) -> Result<Self, StartSamplerError> {
        let probe = KernelProbe::new(config.postmaster);
        Self::start_with(probe, config, append, operations)
    }

    /// As [`Self::start`], with readings from `probe`.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with<P: Probe>(
        probe: P,
        config: SamplerConfig,
        append: impl Append,
        operations: Arc<AtomicU64>,
    ) -> Result<Self, StartSamplerError> {
        let (requests, inbox) = mpsc::sync_channel(QUEUE);
        let desk = desk::Desk::open(probe, &config, append, operations)?;
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || thread::run(desk, &config, &inbox))
            .map_err(StartSamplerError::Thread)?;
        Ok(Self { handle: SamplerHandle { requests }, thread })
    }

    /// For whoever has questions.
    pub fn handle(&self) -> &SamplerHandle {
        &self.handle
    }

    /// Seals what is there, ends the thread, and says what sampling came to.
    ///
    /// # Errors
    ///
    /// When the thread had died.
    pub async fn stop(self) -> Result<SamplerStats, SamplerGone> {
        // A thread that is gone already is told apart by joining it.
        let _ = self.handle.requests.send(Request::Stop);
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join())
            .await
            .map_err(|_| SamplerGone)?
            .map_err(|_| SamplerGone)
    }
}

// === impl SamplerHandle ===

impl SamplerHandle {
    /// Says what a pid is, as learnt from pg_stat_activity. An unknown pid is adopted; one that has gone is ignored.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub fn set_identity(
        &self,
        pid: u32,
        backend_type: impl Into<String>,
        session: Option<u32>,
    ) -> Result<(), SamplerGone> {
        self.send(Request::Identify { pid, backend_type: backend_type.into(), session })
    }

    /// Changes the time between ticks, from now on.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub fn set_every(&self, every: Duration) -> Result<(), SamplerGone> {
        self.send(Request::Every(every))
    }

    /// Forgets the peaks so far: each process's peak is what it uses at the last tick.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub fn reset_peaks(&self) -> Result<(), SamplerGone> {
        self.send(Request::ResetPeaks)
    }

    /// Takes a tick beside the grid, now, and gives its number.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub async fn read_now(&self) -> Result<u64, SamplerGone> {
        self.ask(Request::ReadNow).await
    }

    /// The number of the process with this pid, assigned now if it has none yet; its `ProcessAppeared` is handed on before this
    /// returns. `None`: it has gone.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub async fn number_of(&self, pid: u32) -> Result<Option<u32>, SamplerGone> {
        self.ask(|reply| Request::NumberOf { pid, reply }).await
    }

    /// What the process with this pid used, as the ticks saw it; of one that has gone a while ago, what it used last. `None`: it is
    /// not known.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub async fn use_of(&self, pid: u32) -> Result<Option<ProcessUse>, SamplerGone> {
        self.ask(|reply| Request::UseOf { pid, reply }).await
    }

    /// Every process that lives, by pid.
    ///
    /// # Errors
    ///
    /// When the sampler has ended.
    pub async fn processes(&self) -> Result<Vec<(u32, ProcessUse)>, SamplerGone> {
        self.ask(Request::Processes).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, SamplerGone> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply))?;
        answer.await.map_err(|_| SamplerGone)
    }

    fn send(&self, request: Request) -> Result<(), SamplerGone> {
        self.requests.send(request).map_err(|_| SamplerGone)
    }
}
