//! Arguments that several verbs share; each verb's own stand in its file.

use clap::Args;
use std::path::PathBuf;

/// Where the coordinator is.
#[derive(Clone, Debug, Args)]
pub struct Where {
    /// The coordinator: http://HOST:PORT or unix:PATH.
    #[arg(
        long,
        env = "PGSOAK_COORDINATOR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// Read the data folder of `pgsoak run` instead of asking a coordinator.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// A run by its id.
#[derive(Debug, Args)]
pub struct OneRun {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// For programs: one line of JSON for each change.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// What a run leaves for CI, beside its exit code.
#[derive(Clone, Debug, Default, Args)]
pub struct ForCi {
    /// Write the result as JUnit XML as well.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Append the summary of the run to this file, as GitHub's steps do.
    #[arg(long, value_name = "FILE", env = "GITHUB_STEP_SUMMARY")]
    pub step_summary: Option<PathBuf>,
}

/// A list.
#[derive(Debug, Args)]
pub struct Listing {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `KEY=VALUE`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("a label is written KEY=VALUE".to_owned()),
    }
}

/// A moment, in microseconds since 1970: so long ago (`36h`, `7d`), a date, or a date and time in the local time zone.
pub fn moment(text: &str) -> Result<u64, String> {
    let us = |stamp: jiff::Timestamp| {
        u64::try_from(stamp.as_microsecond()).map_err(|_| "it lies before 1970".to_owned())
    };
    if let Ok(ago) = humantime::parse_duration(text) {
        let then = jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())?;
        return us(then);
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return us(stamp);
    }
    let civil = text.parse::<jiff::civil::DateTime>().map_err(|_| {
        "a time is a duration ago (36h, 7d), a date (2026-11-20) or a date and time (2026-11-20T06:00)".to_owned()
    })?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::system()).map_err(|error| error.to_string())?;
    us(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_taken_as_people_write_them() {
        let now = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap();
        let day = moment("1d").unwrap();
        // A day before a moment that came after `now`.
        assert!((86_300_000_000..=86_400_000_000).contains(&(now - day)));
        assert_eq!(moment("2026-11-20T06:00:00Z").unwrap(), 1_795_154_400_000_000);
        assert!(moment("2026-11-20").unwrap() < moment("2026-11-20T06:00").unwrap());
        assert!(moment("yesterday").unwrap_err().contains("36h"));
        assert_eq!(label("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(label("a").is_err());
    }
}
