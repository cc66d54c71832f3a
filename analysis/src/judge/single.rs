//! The single CSV that a shell script writes: `timestamp,rss_kb,vsz_kb,heap_mb`, one process, seconds since the epoch.
//!
//! RSS counts shared buffers as they are touched, so the answer carries a warning. `heap_mb` helps where it has values that change (on Linux
//! `/proc/PID/status` has no such line, and a script's column stays empty): a heap that grows fails, and an RSS that grows beside a level heap is no proof.

use super::JudgeError;
use super::columns::cut;
use super::columns::number;
use super::columns::trimmed;
use crate::result::Verdict;
use crate::trend::Series;
use crate::trend::Settings;
use crate::trend::Trend;
use crate::trend::judge;
use std::{fs, path::Path};

const COLUMNS: [&str; 4] = ["timestamp", "rss_kb", "vsz_kb", "heap_mb"];

/// The readings of the file.
#[derive(Default)]
struct Readings {
    t_s: Vec<f64>,
    rss_bytes: Vec<f64>,
    heap_bytes: Vec<f64>,
}

/// The trend, and a note for the reader.
pub(super) fn judge_file(path: &Path) -> Result<(Trend, String), JudgeError> {
    let text =
        fs::read(path).map_err(|source| JudgeError::Read { path: path.to_owned(), source })?;
    let readings = parse(&text).map_err(|(line, problem)| JudgeError::Table {
        path: path.to_owned(),
        line,
        problem,
    })?;
    let judged = |slot, bytes: &[f64]| {
        let series =
            Series { host: "host0", slot, t_s: &readings.t_s, bytes, pid: &[], covariates: None };
        judge(&[series], &Settings::default())
    };
    let mut rss = judged("rss_kb", &readings.rss_bytes);
    let mut note =
        "judged by RSS, which also counts shared buffers as they are touched: RssAnon tells more";
    let mut values = readings.heap_bytes.iter().filter(|bytes| !bytes.is_nan());
    let first = values.next();
    if values.any(|bytes| Some(bytes) != first) {
        let heap = judged("heap_mb", &readings.heap_bytes);
        if heap.verdict == Verdict::Fail {
            return Ok((heap, String::new()));
        }
        if heap.verdict == Verdict::Pass && rss.verdict == Verdict::Fail {
            rss.verdict = Verdict::Inconclusive;
            note = "RSS counts shared buffers as they are touched, and the heap is level: RssAnon would tell";
        }
    }
    Ok((rss, note.to_owned()))
}

fn parse(text: &[u8]) -> Result<Readings, (u64, String)> {
    let mut lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    let header = lines.next().map_or(&[][..], |(_, line)| trimmed(line));
    let names: Vec<_> = header.split(|byte| *byte == b',').map(trimmed).collect();
    let place = |name: &str| names.iter().position(|other| *other == name.as_bytes());
    let (Some(time), Some(rss)) = (place("timestamp"), place("rss_kb")) else {
        return Err((1, format!("the header must be {}", COLUMNS.join(","))));
    };
    let heap = place("heap_mb");
    let mut readings = Readings::default();
    for (line, row) in lines {
        let row = trimmed(row);
        if row.is_empty() {
            continue;
        }
        let cells: Vec<_> = row.split(|byte| *byte == b',').map(trimmed).collect();
        let value = |column: Option<usize>| {
            let cell = column.and_then(|column| cells.get(column)).copied().unwrap_or(&[]);
            number(cell).filter(|value| !(*value < 0.0 || value.is_infinite())).ok_or_else(|| {
                (line, format!("'{}' is no number", cut(&String::from_utf8_lossy(cell))))
            })
        };
        let seconds = value(Some(time))?;
        if seconds.is_nan() {
            return Err((line, "the timestamp is missing".to_owned()));
        }
        readings.t_s.push(seconds);
        readings.rss_bytes.push(1_024.0 * value(Some(rss))?);
        readings.heap_bytes.push(1_048_576.0 * value(heap)?);
    }
    Ok(readings)
}
