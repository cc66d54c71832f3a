//! What is wrong with a file that somebody wrote: file, line, key, and the way out.

use std::fmt;

/// A workload or plan file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The file as the reader was told it is called.
    pub file: String,
    /// 1-based; 0: the whole file.
    pub line: usize,
    /// What is wrong and what to do about it; names the key.
    pub problem: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.problem),
            line => write!(f, "{}:{line}: {}", self.file, self.problem),
        }
    }
}
