//! The runner's side of the spool: frames are numbered and queued by whoever has one, and written and synced by one thread.
//!
//! Appending never waits for the disk, so the sampler never does. A disk that is full or fails holds frames in memory up
//! to a bound and is tried again. When the spool reaches its size, its oldest samples are thinned; when these are thin, or the bound
//! in memory is reached, further *samples* are left out and counted in a [`Gap`], while all other frames have a reserve of their own.

mod thread;

use crate::spool::SpoolIoError;
use crate::spool::fit;
use crate::spool::segment;
use pgsoak_proto::evidence::{Body, Gap};
use pgsoak_proto::wire;
use prost::Message;
use std::{
    borrow::Borrow,
    fs::{self, OpenOptions},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// How much a spool may take.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// On the disk: above it the oldest samples are thinned, and when none can be thinned any more new ones are left out. A tick
    /// of a small server takes some hundred bytes, so the default is weeks of a coordinator that cannot be reached.
    pub disk_bytes: u64,
    /// In memory, while the disk takes nothing: above it samples are left out.
    pub memory_bytes: usize,
    /// For frames other than samples, above each of the two.
    pub reserve_bytes: usize,
    /// A segment that reaches this is followed by a new one.
    pub segment_bytes: u64,
    /// Between two syncs to the disk.
    pub sync_every: Duration,
}

/// Appends to one spool. Cheap to clone; every clone appends to the same stream.
#[derive(Clone, Debug)]
pub struct SpoolWriter {
    owner: Arc<Owner>,
}

/// Why a frame was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The spool's reserve is used up: nothing more can be kept, and the attempt cannot go on.
    #[error("the spool is full: {0}")]
    Full(String),
    /// The body does not fit into a frame.
    #[error("a frame of {0} bytes is larger than a spool takes")]
    TooLarge(usize),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
}

/// What a spool holds that a dead runner left.
#[derive(Debug)]
pub struct Recovered {
    /// Goes on at the next sequence.
    pub writer: SpoolWriter,
    /// The last whole frame; `None`: there is none.
    pub last: Option<wire::Frame>,
    /// Bytes after it that were cut off.
    pub cut_bytes: u64,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The thread waits here for work, and those who sync for the thread.
    changed: Condvar,
    limits: SpoolLimits,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last frame that was numbered.
    last: u64,
    /// Encoded entries with their sequences' first, not yet taken by the thread.
    queue: Queue,
    /// Bytes that the thread has taken and could not write yet.
    unwritten_bytes: usize,
    /// On the disk, as last counted.
    disk_bytes: u64,
    /// The disk's share is used up, and nothing can be thinned any more.
    is_full: bool,
    /// Up to and with this frame all are synced.
    durable: u64,
    /// How many callers wait in [`SpoolWriter::sync`].
    waiting: usize,
    /// What the last try to write or sync said, until one succeeds.
    trouble: Option<String>,
    /// How many tries failed since then.
    failures: u32,
    /// Samples that were left out since the last frame.
    left_out: Vec<Gap>,
    is_closed: bool,
}

/// Encoded entries, one after the other.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Length of each entry.
    lengths: Vec<usize>,
}

// === impl SpoolLimits ===

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            disk_bytes: 512 << 20,
            memory_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            segment_bytes: 4 << 20,
            sync_every: Duration::from_secs(1),
        }
    }
}

// === impl SpoolWriter ===

impl SpoolWriter {
    /// Starts a spool in a folder, which is made where it is not there. The first frame is number 1.
    ///
    /// # Errors
    /// When the folder holds segments, or cannot be written to.
    pub fn create(dir: &Path, limits: SpoolLimits) -> Result<Self, SpoolIoError> {
        fs::create_dir_all(dir).map_err(SpoolIoError::new("make the spool folder", dir))?;
        if !segment::list(dir)?.is_empty() {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(SpoolIoError::new("start a spool where there is one,", dir)(source));
        }
        Self::start(thread::Files::fresh(dir, 1)?, 0, limits)
    }

    /// Goes on with the spool of a runner that is gone: what follows its last whole frame is cut off.
    ///
    /// # Errors
    /// When the folder cannot be made, read or written to.
    pub fn recover(dir: &Path, limits: SpoolLimits) -> Result<Recovered, SpoolIoError> {
        fs::create_dir_all(dir).map_err(SpoolIoError::new("make the spool folder", dir))?;
        let Some(first) = segment::list(dir)?.last().copied() else {
            let writer = Self::start(thread::Files::fresh(dir, 1)?, 0, limits)?;
            return Ok(Recovered { writer, last: None, cut_bytes: 0 });
        };
        let path = segment::path(dir, first);
        let failed = || SpoolIoError::new("recover the spool segment", &path);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed())?;
        let good = segment::good_part(&file).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        file.set_len(good.bytes).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        let last = first.saturating_sub(1).saturating_add(good.entries);
        let frame = good.last.and_then(|content| wire::Frame::decode(content.as_slice()).ok());
        let files = thread::Files::at(dir, file, path, good.bytes);
        let writer = Self::start(files, last, limits)?;
        let cut_bytes = length.saturating_sub(good.bytes);
        Ok(Recovered { writer, last: frame, cut_bytes })
    }

    fn start(files: thread::Files, last: u64, limits: SpoolLimits) -> Result<Self, SpoolIoError> {
        let disk_bytes = files.total_bytes()?;
        let state = State { last, durable: last, disk_bytes, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), limits });
        let dir = files.dir().to_owned();
        let thread = thread::spawn(Arc::clone(&shared), files)
            .map_err(SpoolIoError::new("start the thread that writes the spool", dir))?;
        Ok(Self { owner: Arc::new(Owner { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Numbers a frame and queues it for the disk; gives its sequence. Never waits for the disk.
    ///
    /// Samples for which there is no room are left out: a [`Gap`] with their ticks follows as soon as there is room
    /// again, and the sequence of the last frame is given. A leak check that does not fit is folded (sums by kind stay).
    ///
    /// # Errors
    /// When the spool is closed, or full beyond its reserve, or the body does not fit into a frame.
    pub fn append(&self, elapsed: Duration, body: impl Borrow<Body>) -> Result<u64, AppendError> {
        let body = body.borrow();
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let mut encoded = wire::frame::Body::from(body);
        let fits = fit::fit(&mut encoded);
        let mut state = self.owner.shared.lock();
        if state.is_closed {
            return Err(AppendError::Closed);
        }
        let limits = &self.owner.shared.limits;
        if let Body::Samples(samples) = body {
            let cause = if fits { state.no_room_for_samples(limits) } else { Some(TOO_LARGE) };
            if let Some(cause) = cause {
                state.leave_out(&samples.ticks, cause);
                return Ok(state.last);
            }
        } else if !fits {
            return Err(AppendError::TooLarge(encoded.encoded_len()));
        } else if let Some(why) = state.no_room(limits) {
            return Err(AppendError::Full(why));
        }
        for gap in std::mem::take(&mut state.left_out) {
            state.push(elapsed_us, wire::frame::Body::Gap((&gap).into()))?;
        }
        let sequence = state.push(elapsed_us, encoded)?;
        drop(state);
        self.owner.shared.changed.notify_all();
        Ok(sequence)
    }

    /// The sequence of the last frame; 0: none yet.
    pub fn last_sequence(&self) -> u64 {
        self.owner.shared.lock().last
    }

    /// What keeps frames from the disk right now, if anything does.
    pub fn trouble(&self) -> Option<String> {
        self.owner.shared.lock().trouble.clone()
    }

    /// Waits until every frame so far is on the disk. Blocks: not for an async task.
    ///
    /// # Errors
    /// When the disk does not take them; they stay in memory and are tried again.
    pub fn sync(&self) -> Result<(), String> {
        self.owner.shared.sync()
    }

    /// Syncs and ends the thread. Later appends are refused. Blocks: not for an async task.
    ///
    /// # Errors
    /// When the disk does not take the last frames: they are lost.
    pub fn close(&self) -> Result<(), String> {
        self.owner.close()
    }
}

/// Why samples are left out.
const TOO_LARGE: &str = "samples too large for a frame";
const DISK_FULL: &str = "spool full";
const MEMORY_FULL: &str = "spool cannot be written";

// === impl Owner ===

impl Owner {
    fn close(&self) -> Result<(), String> {
        let result = self.shared.sync();
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().map_err(|_| "the thread that writes the spool panicked".to_owned())?;
        }
        result
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Whoever wants to know whether it worked calls `close`.
        let _ = self.close();
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> Result<(), String> {
        let mut state = self.lock();
        let target = state.last;
        let failures = state.failures;
        state.waiting += 1;
        self.changed.notify_all();
        let result = loop {
            if state.durable >= target {
                break Ok(());
            }
            if state.is_closed {
                break Err("the spool is closed".to_owned());
            }
            // A try that began before the call may fail; the one after it counts.
            if let Some(trouble) = &state.trouble
                && state.failures > failures.saturating_add(1)
            {
                break Err(trouble.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting -= 1;
        result
    }
}

// === impl State ===

impl State {
    fn push(&mut self, elapsed_us: u64, body: wire::frame::Body) -> Result<u64, AppendError> {
        let sequence = self.last.saturating_add(1);
        let frame = wire::Frame { sequence, elapsed_us, body: Some(body) };
        let before = self.queue.bytes.len();
        let content = frame.encode_to_vec();
        segment::encode(&content, &mut self.queue.bytes)
            .map_err(|_| AppendError::TooLarge(content.len()))?;
        self.queue.lengths.push(self.queue.bytes.len().saturating_sub(before));
        self.last = sequence;
        Ok(sequence)
    }

    fn memory_bytes(&self) -> usize {
        self.queue.bytes.len().saturating_add(self.unwritten_bytes)
    }

    fn no_room_for_samples(&self, limits: &SpoolLimits) -> Option<&'static str> {
        if self.memory_bytes() >= limits.memory_bytes {
            return Some(MEMORY_FULL);
        }
        (self.is_full && self.disk_bytes >= limits.disk_bytes).then_some(DISK_FULL)
    }

    fn no_room(&self, limits: &SpoolLimits) -> Option<String> {
        let reserve = u64::try_from(limits.reserve_bytes).unwrap_or(u64::MAX);
        if self.memory_bytes() >= limits.memory_bytes.saturating_add(limits.reserve_bytes) {
            let why = self.trouble.as_deref().unwrap_or("the disk is too slow");
            return Some(format!("{} bytes wait for the disk ({why})", self.memory_bytes()));
        }
        (self.disk_bytes >= limits.disk_bytes.saturating_add(reserve))
            .then(|| format!("{} bytes wait for the coordinator", self.disk_bytes))
    }

    /// Counts ticks as left out, as few gaps as they allow.
    fn leave_out(&mut self, ticks: &[u64], cause: &str) {
        for tick in ticks {
            match self.left_out.last_mut() {
                Some(gap)
                    if gap.cause == cause
                        && gap.first_tick.checked_add(gap.ticks) == Some(*tick) =>
                {
                    gap.ticks = gap.ticks.saturating_add(1);
                }
                _ => {
                    self.left_out.push(Gap {
                        first_tick: *tick,
                        ticks: 1,
                        cause: cause.to_owned(),
                    });
                }
            }
        }
    }
}
