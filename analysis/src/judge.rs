//! Series from anywhere: folders of `host<k>.csv` with `meta.json`, or the single CSV of a shell script, judged for growth over time.
//!
//! Reads files, which nothing else of this crate does. Rows may be as wrong as they like: what is no table is an error that names file and
//! line, what is a table but no evidence is `inconclusive`.

mod columns;
mod single;

use crate::result::Verdict;
use crate::trend::Covariates;
use crate::trend::Series;
use crate::trend::Settings;
use crate::trend::SlotTrend;
use crate::trend::Trend;
use crate::trend::judge;
use columns::Host;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One judged folder or file, as `pgsoak judge --json` prints it: one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedSeries {
    /// Name of the folder, or of the file without its ending.
    pub run: String,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: Verdict,
    /// Slope of all processes together, per process.
    pub bytes_per_second: Option<f64>,
    /// Its lower bound.
    pub low: Option<f64>,
    /// Its upper bound.
    pub high: Option<f64>,
    /// `host/slot` of every process that fails by itself.
    pub guilty: Vec<String>,
    /// Smallest growth of one process that would have failed.
    pub detects_bytes_per_second: Option<f64>,
    /// One sentence for people.
    pub reason: String,
}

/// A folder or file that holds no series.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder holds no file of a host.
    #[error(
        "{path} holds no host*.csv; a folder of series has one for each host, a single file has \
         the columns timestamp,rss_kb,vsz_kb,heap_mb"
    )]
    NoHost {
        /// The folder.
        path: PathBuf,
    },
    /// A table is malformed.
    #[error("{path}:{line}: {problem}")]
    Table {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: u64,
        /// What is wrong and what to do about it.
        problem: String,
    },
    /// `meta.json` is malformed.
    #[error("{path}: {problem}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What the tester declares about a run; all of it may be absent.
#[derive(Debug, Default, Deserialize)]
struct Meta {
    #[serde(default)]
    allow_bytes_per_row: f64,
    #[serde(default)]
    mem_limit_bytes: Option<f64>,
}

/// Judges one folder, or one CSV file.
///
/// # Errors
///
/// Names the file and line that are no series, and what was expected.
pub fn judge_path(path: &Path) -> Result<JudgedSeries, JudgeError> {
    let (trend, note) = if path.is_dir() { folder(path)? } else { single::judge_file(path)? };
    let labels = trend.guilty.iter().map(SlotTrend::label).collect();
    Ok(JudgedSeries {
        run: name(path),
        verdict: trend.verdict,
        bytes_per_second: trend.bytes_per_second,
        low: trend.low,
        high: trend.high,
        guilty: labels,
        detects_bytes_per_second: trend.detects_bytes_per_second,
        reason: if note.is_empty() { trend.reason } else { format!("{}; {note}", trend.reason) },
    })
}

fn folder(path: &Path) -> Result<(Trend, String), JudgeError> {
    let failed = |source| JudgeError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("host")
            && let Some(host) = name.strip_suffix(".csv")
        {
            files.push((host.to_owned(), path.join(name)));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(JudgeError::NoHost { path: path.to_owned() });
    }
    let meta = meta(&path.join("meta.json"))?;
    let mut hosts = Vec::with_capacity(files.len());
    for (host, file) in files {
        hosts.push((host, Host::read(&file)?));
    }
    let settings = Settings {
        allow_bytes_per_row: meta.allow_bytes_per_row,
        mem_limit_bytes: meta.mem_limit_bytes,
        ..Settings::default()
    };
    Ok((judge(&series(&hosts), &settings), String::new()))
}

fn series(hosts: &[(String, Host)]) -> Vec<Series<'_>> {
    hosts
        .iter()
        .flat_map(|(name, host)| {
            let covariates: &Covariates = &host.covariates;
            host.slots.iter().map(move |slot| Series {
                host: name,
                slot: &slot.name,
                t_s: &covariates.t_s,
                bytes: &slot.bytes,
                pid: &slot.pid,
                covariates: Some(covariates),
            })
        })
        .collect()
}

fn meta(path: &Path) -> Result<Meta, JudgeError> {
    let wrong = |problem: String| JudgeError::Meta { path: path.to_owned(), problem };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Meta::default()),
        Err(source) => return Err(JudgeError::Read { path: path.to_owned(), source }),
    };
    let meta: Meta = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if !(meta.allow_bytes_per_row >= 0.0 && meta.allow_bytes_per_row.is_finite()) {
        return Err(wrong("allow_bytes_per_row must be a number of at least 0".to_owned()));
    }
    if meta.mem_limit_bytes.is_some_and(|limit| limit.is_nan() || limit <= 0.0) {
        return Err(wrong("mem_limit_bytes must be above 0, or absent".to_owned()));
    }
    Ok(meta)
}

fn name(path: &Path) -> String {
    let own = |path: &Path| {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        name.map(|name| name.to_string_lossy().into_owned())
    };
    own(path)
        .or_else(|| own(&path.canonicalize().ok()?))
        .unwrap_or_else(|| path.display().to_string())
}
