//! The evidence of the attempt on its way into the spool: one numbered stream with two writers.
//!
//! The attempt's task and the sampler's thread share it behind a lock that is held for one append. It also remembers which
//! processes came and went, since the end of an attempt speaks of all of them. Before the first frame nothing but
//! `Started` is taken.

use crate::runner::fault::Fault;
use crate::spool::AppendError;
use crate::spool::SpoolWriter;
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{Body, ProcessAppeared};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Takes frames. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Record {
    origin: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    spool: SpoolWriter,
    has_started: bool,
    lives: BTreeMap<u32, Life>,
}

/// A process of the server over the attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Who it is: the last word.
    pub who: ProcessAppeared,
    /// When it was first seen, since the attempt started.
    pub appeared_at: Duration,
    /// When it was seen to be gone.
    pub ended_at: Option<Duration>,
}

impl Record {
    /// Into this spool; frames count their time from `origin`.
    pub fn new(spool: SpoolWriter, origin: Instant) -> Self {
        let inner = Inner { spool, has_started: false, lives: BTreeMap::new() };
        Self { origin, inner: Arc::new(Mutex::new(inner)) }
    }

    /// When the attempt started.
    pub const fn origin(&self) -> Instant {
        self.origin
    }

    /// Whether the first frame is there.
    pub fn has_started(&self) -> bool {
        self.lock().has_started
    }

    /// Appends a frame, now.
    ///
    /// # Errors
    /// The spool does not take it: a full disk, most often. No evidence, no attempt.
    pub fn write(&self, body: &Body) -> Result<(), Fault> {
        self.append(self.origin.elapsed(), body).map_err(|error| {
            Fault::Infrastructure(format!("the spool takes no evidence: {}", chain(&error)))
        })
    }

    /// Appends a frame of another clock reading since [`Self::origin`].
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn append(&self, elapsed: Duration, body: &Body) -> Result<(), AppendError> {
        let mut inner = self.lock();
        inner.spool.append(elapsed, body)?;
        inner.note(elapsed, body);
        Ok(())
    }

    /// Puts everything on disk and takes nothing more.
    ///
    /// # Errors
    /// The disk does not take the last frames.
    pub async fn close(&self) -> Result<(), String> {
        let spool = self.lock().spool.clone();
        tokio::task::spawn_blocking(move || spool.close())
            .await
            .unwrap_or_else(|error| Err(format!("closing the spool ended: {error}")))
    }

    /// All processes that were ever seen, by number.
    pub fn lives(&self) -> BTreeMap<u32, Life> {
        self.lock().lives.clone()
    }

    /// A panic elsewhere leaves the stream whole: a frame is appended or it is not.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, elapsed: Duration, body: &Body) {
        match body {
            Body::Started(_) => self.has_started = true,
            Body::ProcessAppeared(who) => {
                self.lives
                    .entry(who.process)
                    .and_modify(|life| life.who = who.clone())
                    .or_insert_with(|| Life {
                        who: who.clone(),
                        appeared_at: elapsed,
                        ended_at: None,
                    });
            }
            Body::ProcessEnded(process) => {
                if let Some(life) = self.lives.get_mut(process) {
                    life.ended_at = Some(elapsed);
                }
            }
            _ => {}
        }
    }
}
