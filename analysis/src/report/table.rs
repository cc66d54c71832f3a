//! The tables of a report, as text cells.

use crate::evidence::RunEvidence;
use crate::figures::{bytes_text, number_text, rate_text, time_text};
use crate::report::word;
use crate::result::{
    BudgetResult, Compared, Comparison, EvidenceKind, Finding, Holders, JobResult, RunResult,
};
use pgsoak_proto::job::Arm;
use pgsoak_workloads::workload::{Kind, Length};

/// A table for people. Every row has as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What stands above the cells.
    pub columns: Vec<&'static str>,
    /// Text, without markup.
    pub rows: Vec<Vec<String>>,
}

/// `Operation | Budget | Measured | Status` and what is worth knowing beside it. The candidate first; a baseline's lines say so.
pub fn budgets(result: &RunResult) -> Table {
    let mut ordered: Vec<&BudgetResult> = result.budgets.iter().collect();
    ordered.sort_by_key(|budget| budget.arm);
    Table {
        columns: vec!["Operation", "Budget", "Measured", "Status", "Vanilla", "Build"],
        rows: ordered
            .into_iter()
            .map(|budget| {
                let amount = |figure: f64| match budget.what.as_str() {
                    "growth_per_operation" => format!("{}/op", rate_text(figure)),
                    _ => bytes_text(figure),
                };
                let what = match budget.what.as_str() {
                    "growth" => "growth at rest",
                    "growth_per_operation" => "growth per operation",
                    "residual" => "left after the drop",
                    other => other,
                };
                let mut status = match budget.verdict {
                    crate::result::Verdict::Pass => "within".to_owned(),
                    crate::result::Verdict::Fail => "OVER".to_owned(),
                    _ => "not decided".to_owned(),
                };
                if let Some(held) = budget.held_by_contexts_bytes
                    && budget.message.is_empty()
                {
                    status.push_str(&format!(" ({} held by contexts)", bytes_text(held)));
                }
                if !budget.message.is_empty() {
                    status.push_str(&format!(": {}", budget.message));
                }
                vec![
                    format!("{}/{}: {what}", budget.workload, budget.phase),
                    amount(budget.budget_bytes),
                    budget.measured_bytes.map_or_else(|| "–".to_owned(), amount),
                    status,
                    budget.control_bytes.map_or_else(|| "–".to_owned(), amount),
                    build(&budget.build, budget.arm),
                ]
            })
            .collect(),
    }
}

/// All findings, one line each; the sentences are left to the report.
pub fn findings(result: &RunResult) -> Table {
    Table {
        columns: vec!["Verdict", "Where", "Subject", "Growth", "Owner", "Evidence", "Build"],
        rows: result.findings.iter().map(finding_row).collect(),
    }
}

fn finding_row(finding: &Finding) -> Vec<String> {
    let place = match (finding.workload.as_str(), finding.phase.as_str()) {
        ("", _) => "run".to_owned(),
        (workload, "") => workload.to_owned(),
        (workload, phase) => format!("{workload}/{phase}"),
    };
    let evidence: Vec<&str> = std::iter::once(&finding.evidence)
        .chain(&finding.agreeing)
        .map(|kind| evidence_text(*kind))
        .collect();
    vec![
        word(finding.verdict).to_owned(),
        format!("{place} ({})", finding.tool),
        finding.subject.clone(),
        growth_text(finding),
        format!("{:?}", finding.owner).to_lowercase(),
        evidence.join(" + "),
        build(&finding.build, finding.arm),
    ]
}

/// "112.0 B/op", "812.0 B/s", or both.
fn growth_text(finding: &Finding) -> String {
    let parts: Vec<String> = [
        finding.bytes_per_operation.map(|figure| format!("{}/op", rate_text(figure))),
        finding.bytes_per_second.map(|figure| format!("{}/s", rate_text(figure))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// Title of the table of [`holders`].
pub(crate) const HOLDERS: &str = "Allocation sites that hold most at the peak";

/// Jobs under heaptrack and massif, a few sites each: the extension's first. The candidate's jobs come before the others.
pub fn holders(result: &RunResult) -> Table {
    let mut ordered: Vec<&Holders> = result.holders.iter().collect();
    ordered.sort_by_key(|holders| holders.arm);
    let rows = ordered.into_iter().flat_map(|holders| {
        let session = match holders.session {
            0 => "main".to_owned(),
            worker => format!("worker {worker}"),
        };
        let whole = bytes_text(crate::stats::bytes(holders.peak_bytes));
        holders.sites.iter().enumerate().map(move |(number, site)| {
            let first = |text: String| if number == 0 { text } else { String::new() };
            let place =
                if site.place.is_empty() { String::new() } else { format!(" ({})", site.place) };
            let calls = match site.allocations {
                0 => "–".to_owned(),
                calls => number_text(calls),
            };
            vec![
                first(format!("{} ({})", holders.workload, holders.tool)),
                first(format!("{session}, {whole}")),
                bytes_text(crate::stats::bytes(site.peak_bytes)),
                format!("{}{place}", site.function),
                format!("{:?}", site.owner).to_lowercase(),
                calls,
                first(build(&holders.build, holders.arm)),
            ]
        })
    });
    Table {
        columns: vec![
            "Workload",
            "Session at its peak",
            "Holds",
            "Site",
            "Owner",
            "Calls",
            "Build",
        ],
        rows: rows.collect(),
    }
}

/// The word for a line of evidence.
pub(crate) fn evidence_text(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::Rounds => "rounds",
        EvidenceKind::Trend => "trend",
        EvidenceKind::LeakRecord => "memcheck",
        EvidenceKind::Site => "allocation site",
        EvidenceKind::Budget => "budget",
        EvidenceKind::Check => "check",
        EvidenceKind::Ledger => "ledger",
    }
}

/// Candidate against baseline.
pub fn comparisons(result: &RunResult) -> Table {
    Table {
        columns: vec!["Where", "Figure", "Baseline", "Candidate", "Difference", "Answer"],
        rows: result.comparisons.iter().map(comparison_row).collect(),
    }
}

fn comparison_row(row: &Comparison) -> Vec<String> {
    let is_rate = row.what.ends_with("per_operation");
    let amount = |figure: f64| if is_rate { rate_text(figure) } else { bytes_text(figure) };
    let figure = match row.what.as_str() {
        "context_bytes_per_operation" => "contexts, per operation",
        "bytes_per_operation" => "RssAnon, per operation",
        "lost_bytes_per_operation" => "lost, per operation",
        "kept_bytes_per_operation" => "kept, per operation",
        "growth" => "growth at rest",
        other => other,
    };
    let difference = match (row.low, row.high) {
        (Some(low), Some(high)) if (high - low).abs() < 0.05 => amount(low),
        (Some(low), Some(high)) => format!("{} to {}", amount(low), amount(high)),
        _ => "–".to_owned(),
    };
    let answer = match row.answer {
        Compared::Worse => "WORSE",
        other => other.label(),
    };
    let answer = match row.message.is_empty() {
        true => answer.to_owned(),
        false => format!("{answer} ({})", row.message),
    };
    let place = match row.phase.as_str() {
        "" => format!("{} ({})", row.workload, row.tool),
        phase => format!("{}/{phase} ({})", row.workload, row.tool),
    };
    vec![
        place,
        figure.to_owned(),
        row.baseline.map_or_else(|| "–".to_owned(), amount),
        row.candidate.map_or_else(|| "–".to_owned(), amount),
        difference,
        answer,
    ]
}

/// Jobs with their ledgers and what the harness cost.
pub fn jobs(result: &RunResult) -> Table {
    Table {
        columns: vec![
            "Workload",
            "Tool",
            "Build",
            "Agent",
            "Outcome",
            "Samples",
            "Coverage",
            "Sampler/tick",
            "Runner peak",
        ],
        rows: result.jobs.iter().map(job_row).collect(),
    }
}

fn job_row(job: &JobResult) -> Vec<String> {
    let samples = match job.samples.gaps {
        0 => format!("{}/{}", number_text(job.samples.stored), number_text(job.samples.expected)),
        gaps => format!(
            "{}/{} ({} in gaps)",
            number_text(job.samples.stored),
            number_text(job.samples.expected),
            number_text(gaps)
        ),
    };
    let outcome = match job.attempts {
        0 | 1 => job.outcome.to_string(),
        n => format!("{} (attempt {n})", job.outcome),
    };
    let none = || "–".to_owned();
    vec![
        job.workload.clone(),
        job.tool.to_string(),
        build(&job.build, job.arm),
        if job.agent.is_empty() { none() } else { job.agent.clone() },
        outcome,
        samples,
        covered(job),
        job.harness.sampler_us_per_tick.map_or_else(none, |us| format!("{us:.0} µs")),
        job.harness
            .runner_peak_rss_bytes
            .map_or_else(none, |peak| bytes_text(crate::stats::bytes(peak))),
    ]
}

/// "99.9 %, 12 of 12 processes, alive in 3 of 3 sessions"
fn covered(job: &JobResult) -> String {
    let mut text =
        job.coverage.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    if let Some((seen, expected)) = job.processes_seen {
        text.push_str(&format!(", {seen} of {expected} processes"));
    }
    if let Some((shown, sessions)) = job.proof_of_life {
        text.push_str(&format!(", alive in {shown} of {sessions} sessions"));
    }
    text
}

/// Hosts, servers, tools and packages; equal lines once.
pub fn environment(result: &RunResult) -> Table {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for job in &result.jobs {
        let Some(known) = &job.environment else { continue };
        let host = match job.agent.is_empty() || job.agent == known.host {
            true => known.host.clone(),
            false => format!("{} ({})", job.agent, known.host),
        };
        let tool = match known.tool_version.as_str() {
            "" => job.tool.to_string(),
            version => version.to_owned(),
        };
        let package = match (known.extension_version.as_str(), known.build_digest.get(..12)) {
            ("", None) => build(&job.build, job.arm),
            (version, digest) => format!(
                "{}{}{}",
                build(&job.build, job.arm),
                if version.is_empty() { String::new() } else { format!(", version {version}") },
                digest.map(|digest| format!(", {digest}…")).unwrap_or_default(),
            ),
        };
        let row = vec![
            host,
            format!(
                "{} cores, {}{}",
                known.cores,
                bytes_text(crate::stats::bytes(known.memory_bytes)),
                if known.cpu_model.is_empty() {
                    String::new()
                } else {
                    format!(", {}", known.cpu_model)
                },
            ),
            known.kernel.clone(),
            known.postgres_version.clone(),
            tool,
            package,
            time_text(known.started_at_unix_us),
        ];
        let is_known = rows.iter().any(|line| line.iter().zip(&row).take(6).all(|(a, b)| a == b));
        if !is_known {
            rows.push(row);
        }
    }
    Table {
        columns: vec!["Host", "Machine", "Kernel", "Server", "Tool", "Build", "First started"],
        rows,
    }
}

/// What each job was asked.
pub fn parameters(evidence: &RunEvidence) -> Table {
    let seconds = |time: std::time::Duration| match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s if s % 3_600 == 0 => format!("{} h", s / 3_600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    };
    let rows = evidence.jobs.iter().map(|job| {
        let spec = &job.spec;
        let loops: Vec<String> = job
            .workload
            .phases
            .iter()
            .filter_map(|phase| match &phase.kind {
                Kind::Loop(shape) => Some((phase, shape)),
                Kind::Once => None,
            })
            .map(|(phase, shape)| {
                let length = match (spec.loop_for, shape.length) {
                    (Some(time), _) | (None, Length::For(time)) => seconds(time),
                    (None, Length::Rounds(rounds)) => format!("{rounds} rounds"),
                };
                let rate =
                    shape.rate.map_or_else(String::new, |rate| format!(" at {rate} per second"));
                format!(
                    "{}: {} × {} operations{rate}, {length}",
                    phase.name,
                    shape.workers,
                    number_text(shape.scaled_operations(spec.scale))
                )
            })
            .collect();
        vec![
            job.workload.name.clone(),
            spec.tool.to_string(),
            build(&spec.build.to_string(), spec.arm),
            spec.postgres.to_string(),
            loops.join("; "),
            spec.scale.to_string(),
            seconds(spec.sample_every),
            spec.seed.to_string(),
            seconds(spec.hard_end),
        ]
    });
    Table {
        columns: vec![
            "Workload",
            "Tool",
            "Build",
            "Server",
            "Loops (workers × operations of a round)",
            "Scale",
            "Reading every",
            "Seed",
            "Hard end",
        ],
        rows: rows.collect(),
    }
}

fn build(build: &str, arm: Arm) -> String {
    match arm {
        Arm::Candidate => build.to_owned(),
        arm => format!("{build} ({arm})"),
    }
}
