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

/// The known name that comes closest to what somebody wrote, if any is close enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            let whole = strsim::jaro_winkler(&lower, &name.to_lowercase());
            let edits = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
            (name, whole, edits)
        })
        .filter(|(name, whole, edits)| {
            *edits <= 1 + name.chars().count().min(written.chars().count()) / 4 || *whole > 0.85
        })
        .min_by(|a, b| a.2.cmp(&b.2).then(b.1.total_cmp(&a.1)))
        .map(|(name, ..)| name)
}

/// `; did you mean 'name'?`, or a list of what is known.
pub fn hint<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(written, known.clone()) {
        return format!("; did you mean '{near}'?");
    }
    let known: Vec<_> = known.into_iter().collect();
    if known.is_empty() { String::new() } else { format!("; known: {}", known.join(", ")) }
}
