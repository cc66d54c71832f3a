//! Finds the run that people mean by a few characters of its id.
//!
//! Ids of version 7 begin with the time, so runs of one afternoon share their first characters; the last ones differ.
//! Both the beginning and the end of an id are taken, as long as they fit one run.

use pgsoak_proto::id::RunId;

/// Fewer characters than this fit too much.
const LEAST: usize = 4;
/// Candidates that an error names.
const NAMED: usize = 5;

/// Why no run was found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FindRunError {
    /// Cannot be part of an id.
    #[error("'{0}' is not a run id, nor 4 or more characters of the beginning or the end of one")]
    Malformed(String),
    /// Nothing fits.
    #[error("there is no run '{0}'; `pgsoak runs` lists those there are")]
    Unknown(String),
    /// Several fit.
    #[error("'{text}' is ambiguous: {} fit ({})", candidates.len(), listed(candidates))]
    Ambiguous {
        /// As given.
        text: String,
        /// What it fits.
        candidates: Vec<RunId>,
    },
}

fn listed(candidates: &[RunId]) -> String {
    let mut text: Vec<String> =
        candidates.iter().take(NAMED).map(std::string::ToString::to_string).collect();
    if candidates.len() > NAMED {
        text.push("…".to_owned());
    }
    text.join(", ")
}

/// The one run among `runs` that `text` names: a whole id, or the beginning or end of one.
///
/// # Errors
///
/// When none or several fit.
pub fn find(text: &str, runs: impl Iterator<Item = RunId>) -> Result<RunId, FindRunError> {
    let shown = || text.chars().take(64).collect::<String>();
    let wanted = text.trim().to_ascii_lowercase();
    let is_part = wanted.len() >= LEAST
        && wanted.len() <= 36
        && wanted.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !is_part {
        return Err(FindRunError::Malformed(shown()));
    }
    let mut candidates: Vec<RunId> = runs
        .filter(|run| {
            let id = run.to_string();
            id.starts_with(&wanted) || id.ends_with(&wanted)
        })
        .collect();
    candidates.sort_unstable();
    candidates.dedup();
    match candidates.as_slice() {
        [] => Err(FindRunError::Unknown(shown())),
        [run] => Ok(*run),
        _ => Err(FindRunError::Ambiguous { text: shown(), candidates }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn beginnings_and_ends_are_taken_while_they_fit_one_run() {
        let a = run("0192aaaa-0000-7000-8000-00000000beef");
        let b = run("0192aaaa-1111-7000-8000-00000000cafe");
        let runs = || [a, b].into_iter();
        assert_eq!(find("beef", runs()), Ok(a));
        assert_eq!(find("CAFE", runs()), Ok(b));
        assert_eq!(find("0192aaaa-1", runs()), Ok(b));
        assert_eq!(find(&a.to_string(), runs()), Ok(a));
        let error = find("0192aaaa", runs()).unwrap_err().to_string();
        assert!(error.contains("ambiguous") && error.contains(&b.to_string()), "{error}");
        assert!(matches!(find("dead", runs()), Err(FindRunError::Unknown(_))));
        for bad in ["", "abc", "not hex!", "ααααα"] {
            assert!(matches!(find(bad, runs()), Err(FindRunError::Malformed(_))), "{bad}");
        }
    }
}
