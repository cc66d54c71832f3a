//! Where a backend's memory is, and what was captured of processes while they worked.

use pgsoak_proto::job::Arm;
use serde::{Deserialize, Serialize};

/// Double entry of one backend at one moment, bytes. `None`: that part was not measured, and stands in no other part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// RssAnon plus swap.
    pub rss_anon_bytes: f64,
    /// Blocks of memory contexts, as PostgreSQL counts them.
    pub contexts_bytes: Option<f64>,
    /// What malloc handed out beyond that.
    pub malloc_outside_contexts_bytes: Option<f64>,
    /// What malloc took from the kernel and handed out to nobody.
    pub allocator_slack_bytes: Option<f64>,
    /// The rest: mmap, the program's own data and stack. Less than nothing: taken and not touched yet, so not resident.
    pub unexplained_bytes: Option<f64>,
}

/// Memory contexts of one name at two moments, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextShare {
    /// Its name.
    pub name: String,
    /// Before.
    pub first_bytes: u64,
    /// After.
    pub last_bytes: u64,
}

/// The ledger of one session's backend over a loop, from after the warm-up to its last reading at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// The workload.
    pub workload: String,
    /// The phase.
    pub phase: String,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// Name of the agent that ran it.
    pub agent: String,
    /// 1 and up: worker.
    pub session: u32,
    /// Between the two.
    pub operations: u64,
    /// After a third of the rounds, or the first reading that has all parts.
    pub first: Shares,
    /// The last reading that has as many parts.
    pub last: Shares,
    /// Contexts by what they took in between, largest first; at most eight that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<ContextShare>,
    /// What malloc_trim gave back at the loop's end; `None`: not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trimmed_bytes: Option<f64>,
    /// What heaptrack saw malloc grow by per operation in a job of the same workload and build; `None`: none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heaptrack_bytes_per_operation: Option<f64>,
    /// Readings at rest of the backend.
    pub readings: u32,
    /// Of these, with malloc's own books.
    pub readings_with_books: u32,
}

/// What a process held while it worked: one capture, or the first and the last of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// The workload.
    pub workload: String,
    /// The phase that ran; empty: none.
    pub phase: String,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// Name of the agent that ran it.
    pub agent: String,
    /// "worker 1", "main session", "autovacuum worker".
    pub who: String,
    /// Its pid.
    pub pid: u32,
    /// What made the runner look.
    pub reason: String,
    /// Seconds since the attempt started.
    pub first_s: f64,
    /// Of the last capture; equal to `first_s`: there is one.
    pub last_s: f64,
    /// Done by all loop workers in between.
    pub operations: u64,
    /// RssAnon at the first, bytes.
    pub first_rss_anon_bytes: u64,
    /// RssAnon at the last, bytes.
    pub last_rss_anon_bytes: u64,
    /// Used bytes of contexts by what they took in between (with one capture: by size), largest first; at most eight.
    pub contexts: Vec<ContextShare>,
    /// What it ran, newest first.
    pub statements: Vec<String>,
    /// Seconds between the last capture and the end of a server that died; `None`: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_end_s: Option<f64>,
    /// Why there are no contexts; empty: there are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
}

// === impl Shares ===

impl Shares {
    /// Part by part, what `later` has more; a part that one of them lacks is not known.
    pub fn growth_to(&self, later: &Self) -> Self {
        let part = |of: fn(&Self) -> Option<f64>| Some(of(later)? - of(self)?);
        Self {
            rss_anon_bytes: later.rss_anon_bytes - self.rss_anon_bytes,
            contexts_bytes: part(|shares| shares.contexts_bytes),
            malloc_outside_contexts_bytes: part(|shares| shares.malloc_outside_contexts_bytes),
            allocator_slack_bytes: part(|shares| shares.allocator_slack_bytes),
            unexplained_bytes: part(|shares| shares.unexplained_bytes),
        }
    }
}
