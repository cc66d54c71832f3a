//! How far an attempt's evidence is stored.

use pgsoak_proto::id::JobId;

/// An attempt's high-water mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    /// The job.
    pub(crate) job: JobId,
    /// Its attempt.
    pub(crate) attempt: u32,
    /// Everything up to and with this frame is stored; 0: nothing.
    pub(crate) sequence: u64,
}
