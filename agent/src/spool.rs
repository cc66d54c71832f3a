//! The spool: an attempt's frames on disk, between the runner that writes them and the daemon that sends them on.
//!
//! Append-only segment files `<first sequence, 20 digits>.seg`. An entry is its length (u32, little endian), a CRC-32C of
//! length and content (u32, little endian), and the content: one encoded [`wire::Frame`](pgsoak_proto::wire::Frame).
//! A spool that reaches its size thins its oldest samples (`thin`), and counts what it takes out.
//! The runner alone appends; the daemon alone removes, whole segments, and appends only after the runner is gone.

mod fit;
mod reader;
mod segment;
mod thin;
mod writer;

pub use reader::{Batch, ReadSpoolError, SpoolReader, last_sequence};
pub use writer::{AppendError, Recovered, SpoolLimits, SpoolWriter};

use std::{io, path::PathBuf};

/// A file operation on a spool that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct SpoolIoError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl SpoolIoError {
    fn new(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { doing, path, source }
    }
}
