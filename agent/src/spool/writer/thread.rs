//! The thread that writes a spool: takes what is queued, appends it to the segment, syncs, starts the next segment.

use crate::spool::SpoolIoError;
use crate::spool::segment;
use crate::spool::thin;
use crate::spool::writer::{Queue, Shared};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two tries of a disk that takes nothing.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    file: File,
    path: PathBuf,
    /// Where the next entry begins; what is behind it is a write that failed.
    end: u64,
    /// Segments that begin before this sequence are as thin as they get.
    thinned_before: u64,
}

pub(super) fn spawn(shared: Arc<Shared>, files: Files) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("spool".to_owned()).spawn(move || run(&shared, files))
}

fn run(shared: &Shared, mut files: Files) {
    let mut pending = Queue::default();
    // Of the first entry of `pending`.
    let mut next = shared.lock().durable.saturating_add(1);
    let mut synced_at = Instant::now();
    let mut is_dirty = false;
    loop {
        let mut state = shared.lock();
        let must_sync = loop {
            let is_retry = state.trouble.is_some();
            let since = synced_at.elapsed();
            let every = if is_retry { RETRY_EVERY } else { shared.limits.sync_every };
            let is_due = (is_dirty || is_retry) && since >= every;
            let is_asked = state.waiting > 0 && state.durable < state.last;
            if is_due || state.is_closed || (is_asked && !is_retry) {
                break true;
            }
            if !is_retry && !state.queue.bytes.is_empty() {
                break false;
            }
            let wait =
                if is_dirty || is_retry { every.saturating_sub(since) } else { Duration::MAX };
            // A day: `wait_timeout` takes no endless time.
            let wait = wait.min(Duration::from_secs(86_400));
            state =
                shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        };
        let is_last = state.is_closed;
        pending.take(&mut state.queue);
        state.unwritten_bytes = pending.bytes.len();
        drop(state);

        let written = files.write(&mut pending, &mut next, shared.limits.segment_bytes);
        is_dirty = true;
        let result = written.and_then(|()| if must_sync { files.sync() } else { Ok(()) });
        let disk_bytes = must_sync.then(|| files.total_bytes());
        let room = match disk_bytes {
            Some(Ok(bytes)) => Some(files.make_room(bytes, shared.limits.disk_bytes)),
            _ => None,
        };

        let mut state = shared.lock();
        state.unwritten_bytes = pending.bytes.len();
        if let Some(bytes) = room {
            state.disk_bytes = bytes;
            state.is_full = bytes >= shared.limits.disk_bytes;
        }
        match result {
            Ok(()) => {
                if let Some(trouble) = state.trouble.take() {
                    tracing::warn!(%trouble, "the spool is written again");
                }
                state.failures = 0;
                if must_sync {
                    state.durable = next.saturating_sub(1);
                    is_dirty = false;
                }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let trouble = cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"));
                if state.trouble.is_none() {
                    tracing::warn!(%trouble, "the spool cannot be written; frames wait in memory");
                }
                state.trouble = Some(trouble);
                state.failures = state.failures.saturating_add(1);
            }
        }
        if must_sync || state.trouble.is_some() {
            synced_at = Instant::now();
        }
        drop(state);
        shared.changed.notify_all();
        if is_last {
            return;
        }
    }
}

// === impl Queue ===

impl Queue {
    fn take(&mut self, other: &mut Self) {
        self.bytes.append(&mut other.bytes);
        self.lengths.append(&mut other.lengths);
    }

    /// Drops the first entries.
    fn remove(&mut self, entries: usize, bytes: usize) {
        self.lengths.drain(..entries.min(self.lengths.len()));
        self.bytes.drain(..bytes.min(self.bytes.len()));
    }
}

// === impl Files ===

impl Files {
    /// A new segment that begins with this sequence. An empty one that a failed try left is taken.
    pub(super) fn fresh(dir: &Path, first: u64) -> Result<Self, SpoolIoError> {
        let path = segment::path(dir, first);
        let failed = || SpoolIoError::new("start the spool segment", &path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(failed())?;
        // The folder's entry for it.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())?;
        Ok(Self { dir: dir.to_owned(), file, path, end: 0, thinned_before: 0 })
    }

    /// An old segment, to be gone on with at `end`.
    pub(super) fn at(dir: &Path, file: File, path: PathBuf, end: u64) -> Self {
        Self { dir: dir.to_owned(), file, path, end, thinned_before: 0 }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn total_bytes(&self) -> Result<u64, SpoolIoError> {
        segment::total_bytes(&self.dir)
    }

    /// Thins the oldest segments of a spool of `bytes` until there is room again below `limit`, or none is left to be thinned; gives
    /// what it takes then. The segment that is written is left alone.
    fn make_room(&mut self, mut bytes: u64, limit: u64) -> u64 {
        if bytes < limit {
            return bytes;
        }
        // Some room, so that this is not done at every sync.
        let enough = limit / 10 * 9;
        let firsts = segment::list(&self.dir).unwrap_or_default();
        let old = firsts.split_last().map_or(&[][..], |(_, old)| old);
        let done_before = self.thinned_before;
        for first in old.iter().copied().filter(|first| *first >= done_before) {
            if bytes < enough {
                break;
            }
            match thin::thin(&self.dir, first) {
                Ok(freed) => {
                    tracing::warn!(
                        segment = first,
                        freed,
                        "the spool is full: its oldest samples are thinned"
                    );
                    bytes = bytes.saturating_sub(freed);
                }
                Err(error) => {
                    tracing::warn!(%error, "the spool is full and this segment stays as it is");
                }
            }
            self.thinned_before = first.saturating_add(1);
        }
        bytes
    }

    fn sync(&self) -> Result<(), SpoolIoError> {
        self.file.sync_data().map_err(SpoolIoError::new("sync the spool segment", &self.path))
    }

    /// Writes whole entries as far as the disk takes them, and takes those off the queue.
    fn write(
        &mut self,
        pending: &mut Queue,
        next: &mut u64,
        segment_bytes: u64,
    ) -> Result<(), SpoolIoError> {
        while !pending.bytes.is_empty() {
            if self.end >= segment_bytes {
                self.sync()?;
                let thinned_before = self.thinned_before;
                *self = Self { thinned_before, ..Self::fresh(&self.dir, *next)? };
            }
            let room = segment_bytes.saturating_sub(self.end);
            let (entries, bytes) = pending.up_to(room);
            let chunk = pending.bytes.get(..bytes).unwrap_or_default();
            let written = self.file.write_all_at(chunk, self.end);
            if let Err(source) = written {
                // Best effort: the next try writes over it in any case.
                let _ = self.file.set_len(self.end);
                return Err(SpoolIoError::new("write the spool segment", &self.path)(source));
            }
            self.end = self.end.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            *next = next.saturating_add(u64::try_from(entries).unwrap_or(u64::MAX));
            pending.remove(entries, bytes);
        }
        Ok(())
    }
}

impl Queue {
    /// The first entries up to and with the one that fills `room`: how many, and their bytes.
    fn up_to(&self, room: u64) -> (usize, usize) {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let (mut entries, mut bytes) = (0, 0_usize);
        for length in &self.lengths {
            if bytes >= room {
                break;
            }
            entries += 1;
            bytes = bytes.saturating_add(*length);
        }
        (entries, bytes)
    }
}
