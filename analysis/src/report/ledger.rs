//! The tables of memory ahead and of the ledger, as text cells.

use super::Table;
use crate::figures::{bytes_text, number_text, rate_text};
use crate::result::{EvidenceKind, Horizon, JobLedger, JobResult, RunResult};
use crate::stats::bytes;
use pgsoak_proto::job::Arm;

/// Memory ahead: per process, for the whole server, and when the memory is full. The candidate first.
pub fn horizon(result: &RunResult) -> Table {
    let mut ordered: Vec<&Horizon> = result.horizon.iter().collect();
    ordered.sort_by_key(|line| line.arm);
    Table {
        columns: vec![
            "Where",
            "Of",
            "MiB per day",
            "Per operation",
            "Memory full in",
            "Growth",
            "Build",
        ],
        rows: ordered.into_iter().map(row).collect(),
    }
}

fn row(line: &Horizon) -> Vec<String> {
    let place = match line.phase.as_str() {
        "" => line.workload.clone(),
        phase => format!("{}/{phase}", line.workload),
    };
    let of = match (line.of.as_str(), line.processes) {
        ("whole server", n) => format!("whole server ({n} processes)"),
        (of, 1) => format!("one of {of}"),
        (of, n) => format!("each of {n} {of}"),
    };
    let by = match line.evidence {
        EvidenceKind::Rounds => "rounds, at their pace",
        _ => "over time",
    };
    let build = match line.arm {
        Arm::Candidate => line.build.clone(),
        arm => format!("{} ({arm})", line.build),
    };
    vec![
        place,
        of,
        if line.mib_per_day.abs() < 0.05 {
            "0".to_owned()
        } else {
            format!("{:.1}", line.mib_per_day)
        },
        line.bytes_per_operation.map_or_else(|| "–".to_owned(), rate_text),
        line.limit_in_s.map_or_else(|| "–".to_owned(), time_left),
        format!("{} ({by})", if line.is_proven { "proven" } else { "as measured, not proven" }),
        build,
    ]
}

fn time_left(seconds: f64) -> String {
    match seconds {
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The ledger of every job: what is missing and why, and what the host went through.
pub fn ledgers(result: &RunResult) -> Table {
    let rows = result.jobs.iter().filter_map(|job| Some(ledger_row(job, job.ledger.as_ref()?)));
    Table {
        columns: vec![
            "Job",
            "Readings of processes",
            "Longest gap",
            "Gaps by cause",
            "Memory pressure",
            "Swapped",
            "Load per core (server)",
            "Clock",
        ],
        rows: rows.collect(),
    }
}

fn ledger_row(job: &JobResult, ledger: &JobLedger) -> Vec<String> {
    let none = || "–".to_owned();
    let sum = |of: fn(&crate::result::ProcessLedger) -> u64| {
        ledger.processes.iter().map(of).fold(0, u64::saturating_add)
    };
    let thinnest = ledger
        .processes
        .iter()
        .filter(|one| one.stored < one.expected)
        .max_by_key(|one| (one.expected - one.stored, std::cmp::Reverse(one.process)));
    let readings = format!(
        "{} of {}, {} processes{}",
        number_text(sum(|one| one.stored)),
        number_text(sum(|one| one.expected)),
        ledger.processes.len().saturating_add(usize::try_from(ledger.more_processes).unwrap_or(0)),
        thinnest
            .map(|one| format!("; {}: {} of {}", one.who, one.stored, one.expected))
            .unwrap_or_default()
    );
    let longest =
        ledger.processes.iter().max_by(|a, b| a.longest_gap_s.total_cmp(&b.longest_gap_s));
    let gaps: Vec<String> = ledger
        .gaps
        .iter()
        .map(|gap| format!("{}: {}", gap.cause, number_text(gap.ticks)))
        .collect();
    let host = &ledger.host;
    let clock = match (host.clock_jumps.as_slice(), host.clock_drift_s) {
        ([], None) => none(),
        ([], Some(drift)) if drift.abs() < 1.0 => "steady".to_owned(),
        ([], Some(drift)) => format!("drifted {drift:+.1} s"),
        // Monotonic time stands still while a machine sleeps.
        ([(at, by)], _) if *by > 0.0 => {
            format!("jumped {by:+.0} s after {at:.0} s: set, or the machine was suspended")
        }
        ([(at, by)], _) => format!("jumped {by:+.0} s after {at:.0} s"),
        (jumps, _) => format!("{} jumps", jumps.len()),
    };
    // What the comparison cannot tell from nothing is not worth a word.
    let apart = host.clock_ahead_s.zip(host.clock_ahead_within_s);
    let clock = match apart.filter(|(ahead, within)| ahead.abs() > within.max(0.1)) {
        Some((ahead, within)) => {
            format!("{clock}; {ahead:+.1} s (± {within:.1}) against the coordinator's")
        }
        None => clock,
    };
    vec![
        format!("{} ({}), {} ({})", job.workload, job.tool, job.build, job.arm),
        readings,
        longest.map_or_else(none, |one| format!("{:.1} s, {}", one.longest_gap_s, one.who)),
        if gaps.is_empty() { "none".to_owned() } else { gaps.join("; ") },
        host.memory_pressure
            .map_or_else(none, |share| format!("{:.1} % of the time", 100.0 * share)),
        match host.swapped_bytes {
            0 => "none".to_owned(),
            swapped => bytes_text(bytes(swapped)),
        },
        match (host.highest_load_per_core, host.server_cores) {
            (Some(load), Some(cores)) => format!("{load:.1} at most ({cores:.2} cores)"),
            (Some(load), None) => format!("{load:.1} at most"),
            _ => none(),
        },
        clock,
    ]
}
