//! Exit codes: a contract with scripts and CI.

use pgsoak_analysis::result::Verdict;
use std::fmt;

/// Pass, or the verb did what was asked.
pub const PASS: u8 = 0;
/// The product failed.
pub const FAIL: u8 = 1;
/// Too little evidence.
pub const INCONCLUSIVE: u8 = 2;
/// The harness or the host failed; also every error that has no code of its own.
pub const INVALID: u8 = 3;
/// Wrong usage: an argument, or a file that somebody wrote.
pub const USAGE: u8 = 64;
/// The coordinator cannot be reached.
pub const UNREACHABLE: u8 = 69;

/// The code of a verdict.
pub const fn of_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => PASS,
        Verdict::Fail => FAIL,
        Verdict::Inconclusive => INCONCLUSIVE,
        Verdict::Invalid => INVALID,
    }
}

/// An error that has an exit code of its own. Put in the chain of an `anyhow::Error`; the outermost one counts.
#[derive(Debug)]
pub struct Coded {
    code: u8,
    message: String,
}

impl Coded {
    /// Something that the user wrote is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// The coordinator cannot be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, message: message.into() }
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

/// The exit code of an error.
pub fn of_error(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Coded>().map_or(INVALID, |coded| coded.code)
}
