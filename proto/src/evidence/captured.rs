//! Evidence that is taken beside the workload: malloc's own books, captures of a process at work, proofs of life.

use crate::evidence::ContextUse;
use serde::{Deserialize, Serialize};

/// What the allocator of a process says of itself, over all arenas.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct AllocatorUse {
    /// Handed out and not given back, with headers; large blocks that mmap serves included.
    pub in_use_bytes: u64,
    /// Taken from the kernel and handed out to nobody.
    pub free_bytes: u64,
    /// Microseconds that the question took.
    pub took_us: u64,
}

/// Why a process was captured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureCause {
    /// Early, then ever more rarely.
    Periodic,
    /// The process was found to grow.
    Suspect,
    /// A suspect again, some time after.
    Later,
}

/// What one process held while it worked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Its number.
    pub process: u32,
    /// The session of the workload that it serves.
    pub session: Option<u32>,
    /// Why it was taken.
    pub cause: CaptureCause,
    /// One sentence: what made the runner look.
    pub reason: String,
    /// Done by all loop workers so far.
    pub operations: u64,
    /// RssAnon plus swap just before.
    pub rss_anon_bytes: u64,
    /// By name, sorted; empty: the server gave none.
    pub contexts: Vec<ContextUse>,
    /// What the process ran then, newest first.
    pub statements: Vec<String>,
    /// Why there are no contexts; empty: there are.
    pub missing: String,
    /// Microseconds.
    pub took_us: u64,
}

/// Whether the tool shows, of each session's backend, an allocation that every backend makes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ProofOfLife {
    /// Backends of the workload's sessions that the tool was to see.
    pub sessions: u32,
    /// Of these, such an allocation is in the tool's report.
    pub shown: u32,
}
