//! heaptrack's files, raw and interpreted, become small digests: totals, exact peak, a time series, and what each site did.
//!
//! One pass, streaming: memory grows with sites (and, in raw files, with live blocks), not with events. Floors, lowest first:
//! `digest` · `source` (plain, gzip, zstd) · `lines` · `tally` (counters and the peak) · `symbols` · `interpreted`, `raw`.
//!
//! A file that stops in the middle (a killed process) gives what is there, and `truncated` says so.

pub mod diff;
pub mod digest;
pub mod flame;
mod interpreted;
mod lines;
mod raw;
mod series;
mod source;
mod symbols;
mod tally;

use crate::heap::digest::HeapDigest;
use std::{io, path::Path};

/// Why a heaptrack file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadHeapError {
    /// The file cannot be opened or read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no heaptrack file.
    #[error("{path} is no heaptrack file: {problem}")]
    NotHeaptrack {
        /// The file.
        path: String,
        /// What was found instead.
        problem: String,
    },
    /// It is a heaptrack file with something that cannot be.
    #[error("{path}, line {line}: {problem}")]
    Malformed {
        /// The file.
        path: String,
        /// 1-based.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a file of `heaptrack`, `heaptrack_interpret` (versions 1 to 3) or `heaptrack_inject` (raw), plain, `.gz` or `.zst`.
///
/// # Errors
///
/// When the file cannot be opened, or is none of these. What is cut short is no error.
pub fn read(path: &Path) -> Result<HeapDigest, ReadHeapError> {
    let shown = path.display().to_string();
    let opened =
        source::open(path).map_err(|source| ReadHeapError::Read { path: shown.clone(), source })?;
    let mut lines = lines::Lines::new(opened);
    interpreted::digest(&mut lines).map_err(|error| match error {
        lines::Problem::Io(source) => ReadHeapError::Read { path: shown, source },
        lines::Problem::NotHeaptrack(problem) => {
            ReadHeapError::NotHeaptrack { path: shown, problem }
        }
        lines::Problem::Malformed { line, problem } => {
            ReadHeapError::Malformed { path: shown, line, problem }
        }
    })
}
