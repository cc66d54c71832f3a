//! The daemon's side of the spool: reads frames in order while the runner goes on, and removes what is acknowledged.
//!
//! Blocking file access in small pieces; the daemon calls it off its event loop.

use crate::spool::SpoolIoError;
use crate::spool::segment::{self, Entry};
use pgsoak_proto::wire;
use prost::Message;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Frames in the order of their sequences, without a hole.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each sequence is one more than the one before; empty: nothing new.
    pub frames: Vec<wire::Frame>,
    /// Encoded bytes of the frames, with what a batch adds to each.
    pub bytes: usize,
    /// The reader stands before an entry that is not whole: a write that is not over, or will never be.
    pub is_torn: bool,
}

/// Why a spool could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadSpoolError {
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] SpoolIoError),
    /// The bytes at an offset are not what the runner wrote. [`SpoolReader::skip_damage`] goes on behind them.
    #[error(
        "the spool segment {} is damaged at byte {offset}, at frame {sequence}: the disk or another program changed it",
        path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Of the entry that is damaged.
        offset: u64,
        /// Of the frame that should be there.
        sequence: u64,
    },
}

/// Reads one spool.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    /// The sequence that is read next.
    next: u64,
    lost_up_to: u64,
    open: Option<OpenSegment>,
    /// Segments that are acknowledged, and since when.
    releasable: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct OpenSegment {
    first: u64,
    file: File,
    /// Of the entry with sequence `next`.
    offset: u64,
}

enum Step {
    Frame(Box<wire::Frame>, usize),
    NextSegment,
    Full,
    End,
    Torn,
}

/// Tag and length of a frame within its batch.
const FRAME_OVERHEAD_BYTES: usize = 6;

// === impl SpoolReader ===

impl SpoolReader {
    /// How long a segment is kept after it was acknowledged while its job runs, so that a store that is found damaged can
    /// be filled again.
    pub const GRACE: Duration = Duration::from_secs(600);

    /// A spool larger than this keeps nothing beyond its acknowledgement.
    pub const LARGE_BYTES: u64 = 256 << 20;

    /// A reader whose first frame is the one after `after`, or the first that is still there: see [`Self::lost_up_to`].
    pub fn open(dir: &Path, after: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            next: after.saturating_add(1),
            lost_up_to: 0,
            open: None,
            releasable: BTreeMap::new(),
        }
    }

    /// Goes to the frame after `after`, back or forth.
    pub fn seek(&mut self, after: u64) {
        self.next = after.saturating_add(1);
        self.open = None;
    }

    /// The sequence that is read next.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Frames up to and with this one that were not read are gone for good; 0: none.
    pub fn lost_up_to(&self) -> u64 {
        self.lost_up_to
    }

    /// The next frames: as many as there are and fit into `max_bytes`, but at least one where there is one. They are synced
    /// to the disk before they are given out, so that nothing leaves the host that a power cut could take back.
    ///
    /// # Errors
    /// When a file cannot be read, or the next entry is damaged.
    pub fn next_batch(&mut self, max_bytes: usize) -> Result<Batch, ReadSpoolError> {
        let mut batch = Batch::default();
        loop {
            match self.step(max_bytes.saturating_sub(batch.bytes), batch.frames.is_empty()) {
                Ok(Step::Frame(frame, bytes)) => {
                    batch.bytes = batch.bytes.saturating_add(bytes);
                    batch.frames.push(*frame);
                }
                Ok(Step::NextSegment) => {}
                Ok(Step::Full | Step::End) => break,
                Ok(Step::Torn) => {
                    batch.is_torn = true;
                    break;
                }
                // What was read before it is good; the next call meets the error again.
                Err(_) if !batch.frames.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if !batch.frames.is_empty() {
            self.sync()?;
        }
        Ok(batch)
    }

    /// One step forward. `is_first`: a frame is taken even if it does not fit into `room`.
    fn step(&mut self, room: usize, is_first: bool) -> Result<Step, ReadSpoolError> {
        if self.open.is_none() {
            self.open = self.find()?;
        }
        let Some(OpenSegment { first, file, offset }) = &mut self.open else {
            return Ok(Step::End);
        };
        let path = segment::path(&self.dir, *first);
        let read = |file: &File, offset| {
            segment::entry_at(file, offset)
                .map_err(SpoolIoError::new("read the spool segment", &path))
        };
        let mut entry = read(file, *offset)?;
        let mut is_followed = false;
        if matches!(entry, Entry::End | Entry::Torn) {
            is_followed = segment::list(&self.dir)?.last().is_some_and(|last| last > first);
            if is_followed {
                // The writer may have finished this segment between the reading and the listing.
                entry = read(file, *offset)?;
            }
        }
        let damaged = ReadSpoolError::Damaged { path, offset: *offset, sequence: self.next };
        let content = match entry {
            Entry::Whole(content) => content,
            Entry::End if !is_followed => return Ok(Step::End),
            Entry::Torn if !is_followed => return Ok(Step::Torn),
            // An empty segment begins with `next` itself: the one that follows it is not the next.
            Entry::End
                if *first < self.next
                    && segment::list(&self.dir)?.binary_search(&self.next).is_ok() =>
            {
                self.sync()?;
                self.open = None;
                return Ok(Step::NextSegment);
            }
            Entry::End | Entry::Torn | Entry::Damaged => return Err(damaged),
        };
        let bytes = content.len().saturating_add(FRAME_OVERHEAD_BYTES);
        if bytes > room && !is_first {
            return Ok(Step::Full);
        }
        let frame = wire::Frame::decode(content.as_slice()).ok();
        let frame = frame.filter(|frame| frame.sequence == self.next).ok_or(damaged)?;
        *offset = offset.saturating_add(segment::entry_bytes(&content));
        self.next = self.next.saturating_add(1);
        Ok(Step::Frame(Box::new(frame), bytes))
    }

    fn sync(&self) -> Result<(), SpoolIoError> {
        let Some(OpenSegment { first, file, .. }) = &self.open else { return Ok(()) };
        file.sync_data()
            .map_err(SpoolIoError::new("sync the segment", segment::path(&self.dir, *first)))
    }

    /// Gives up the rest of a damaged segment and goes on at the next one. False: there is none yet.
    ///
    /// # Errors
    /// When the spool cannot be listed.
    pub fn skip_damage(&mut self) -> Result<bool, ReadSpoolError> {
        let first = segment::list(&self.dir)?.into_iter().find(|first| *first > self.next);
        let Some(first) = first else { return Ok(false) };
        self.lost_up_to = first.saturating_sub(1);
        self.next = first;
        self.open = None;
        Ok(true)
    }

    /// Removes the segments of which every frame is acknowledged for at least `grace`; the last segment always stays.
    /// Gives their number.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn release(
        &mut self,
        up_to: u64,
        grace: Duration,
        now: Instant,
    ) -> Result<usize, ReadSpoolError> {
        let firsts = segment::list(&self.dir)?;
        // What is acknowledged goes before anything that is not is thinned.
        let is_large = segment::total_bytes(&self.dir)? > Self::LARGE_BYTES;
        let grace = if is_large { Duration::ZERO } else { grace };
        // A segment ends before the next one begins.
        let is_whole = |next: &u64| *next <= up_to.saturating_add(1);
        let acknowledged: Vec<u64> = firsts
            .iter()
            .zip(firsts.iter().skip(1))
            .take_while(|(_, next)| is_whole(next))
            .map(|(first, _)| *first)
            .collect();
        self.releasable.retain(|first, _| acknowledged.contains(first));
        let mut removed = 0;
        for first in acknowledged {
            let since = *self.releasable.entry(first).or_insert(now);
            if now.saturating_duration_since(since) < grace {
                continue;
            }
            let path = segment::path(&self.dir, first);
            fs::remove_file(&path).map_err(SpoolIoError::new("remove the spool segment", &path))?;
            self.releasable.remove(&first);
            removed += 1;
        }
        Ok(removed)
    }

    /// The segment that holds `next`, positioned at it; `None`: it is not written yet.
    fn find(&mut self) -> Result<Option<OpenSegment>, ReadSpoolError> {
        let firsts = match segment::list(&self.dir) {
            // Not made yet, or the folder is gone: nothing to read.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let first = match firsts.iter().rev().find(|first| **first <= self.next) {
            Some(first) => *first,
            None => {
                let Some(first) = firsts.first().copied() else { return Ok(None) };
                self.lost_up_to = first.saturating_sub(1);
                self.next = first;
                first
            }
        };
        let path = segment::path(&self.dir, first);
        let file = File::open(&path).map_err(SpoolIoError::new("open the spool segment", &path))?;
        let mut offset = 0;
        for sequence in first..self.next {
            let entry = segment::entry_at(&file, offset)
                .map_err(SpoolIoError::new("read the spool segment", &path))?;
            match entry {
                Entry::Whole(content) => {
                    offset = offset.saturating_add(segment::entry_bytes(&content));
                }
                // Everything that is here was read before: what comes next is not written yet.
                Entry::End | Entry::Torn if firsts.last() == Some(&first) => return Ok(None),
                Entry::End | Entry::Torn | Entry::Damaged => {
                    return Err(ReadSpoolError::Damaged { path, offset, sequence });
                }
            }
        }
        Ok(Some(OpenSegment { first, file, offset }))
    }
}

/// The sequence of the last whole frame in a spool; 0: none, or there is no spool.
///
/// # Errors
/// When a file cannot be read.
pub fn last_sequence(dir: &Path) -> Result<u64, ReadSpoolError> {
    let firsts = match segment::list(dir) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let Some(first) = firsts.last() else { return Ok(0) };
    let path = segment::path(dir, *first);
    let good = File::open(&path)
        .and_then(|file| segment::good_part(&file))
        .map_err(SpoolIoError::new("read the spool segment", &path))?;
    Ok(first.saturating_sub(1).saturating_add(good.entries))
}
