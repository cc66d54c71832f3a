//! heaptrack's files, raw and interpreted, become small digests: totals, exact peak, a time series, and what each site did.
//!
//! One pass, streaming: memory grows with sites (and, in raw files, with live blocks), not with events. Floors, lowest first:
//! `digest` · `source` (plain, gzip, zstd) · `lines` · `tally` (counters and the peak) · `symbols` · `interpreted`, `raw` · `gathered` (traces to
//! sites) · `condensed` (what goes into the evidence).
//!
//! A file that stops in the middle (a killed process) gives what is there, and `truncated` says so.

mod condensed;
pub mod diff;
pub mod digest;
pub mod flame;
mod gathered;
mod interpreted;
mod lines;
mod raw;
mod series;
mod source;
mod symbols;
mod tally;

pub(crate) use condensed::cut_to;
pub use condensed::{MAX_DIGEST_BYTES, condensed};
pub use symbols::SymbolCache;

use crate::heap::digest::HeapDigest;
use crate::heap::interpreted::Wanted;
use std::{
    io::{self, Read},
    path::Path,
};

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

/// Largest digest that is read from JSON, bytes.
const LONGEST_JSON: u64 = 1 << 30;

/// Reads a file of `heaptrack`, `heaptrack_interpret` (versions 1 to 3) or `heaptrack_inject` (raw), plain, `.gz` or `.zst`; or a digest of
/// one that was stored as JSON.
///
/// # Errors
///
/// When the file cannot be opened, or is none of these. What is cut short is no error.
pub fn read(path: &Path) -> Result<HeapDigest, ReadHeapError> {
    read_with_marks(path, &[], &mut SymbolCache::default())
}

/// As [`read`], and notes what every site has live at each mark: an offset into the file's uncompressed text. Marks must rise. Symbols are
/// looked up in `symbols`, which other files of the same server can share.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_marks(
    path: &Path,
    marks: &[u64],
    symbols: &mut SymbolCache,
) -> Result<HeapDigest, ReadHeapError> {
    read_wanted(path, Wanted { marks, sites: true }, symbols)
}

/// As [`read`], without sites: no symbol is looked up.
///
/// # Errors
///
/// As [`read`].
pub fn read_totals(path: &Path) -> Result<HeapDigest, ReadHeapError> {
    read_wanted(path, Wanted { marks: &[], sites: false }, &mut SymbolCache::default())
}

fn read_wanted(
    path: &Path,
    wanted: Wanted<'_>,
    symbols: &mut SymbolCache,
) -> Result<HeapDigest, ReadHeapError> {
    let shown = path.display().to_string();
    let unread = |source| ReadHeapError::Read { path: shown.clone(), source };
    let opened = source::open(path).map_err(unread)?;
    if opened.starts_with_brace {
        return serde_json::from_reader(io::BufReader::new(opened.text.take(LONGEST_JSON)))
            .map_err(|error| ReadHeapError::NotHeaptrack {
                path: shown.clone(),
                problem: format!("it begins with '{{' and is no stored digest: {error}"),
            });
    }
    let mut lines = lines::Lines::new(opened.text);
    interpreted::digest(&mut lines, wanted, symbols).map_err(|error| match error {
        lines::Problem::Io(source) => unread(source),
        lines::Problem::NotHeaptrack(problem) => {
            ReadHeapError::NotHeaptrack { path: shown.clone(), problem }
        }
        lines::Problem::Malformed { line, problem } => {
            ReadHeapError::Malformed { path: shown.clone(), line, problem }
        }
    })
}
