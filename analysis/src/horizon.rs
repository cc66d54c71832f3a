//! Memory ahead: what the growth of a run comes to over a day, per process and for a whole server, and when the host's memory is full.
//!
//! From growth over time where that was judged, else from the rounds at the pace that they had. Extrapolations in a straight line: they are
//! shown beside the findings and are none. A growth that is not proven is shown as it was measured, and marked.

use crate::facts::Facts;
use crate::over_time::{OverTime, Whose};
use crate::result::{EvidenceKind, Horizon, Verdict};
use crate::rounds::{Leak, named};
use crate::stats::{bytes, count};
use pgsoak_proto::evidence::PhaseKind;
use pgsoak_proto::job::{Arm, Tool};

const DAY_S: f64 = 86_400.0;
const MIB: f64 = 1_048_576.0;

/// Farther ahead than this nothing is said, seconds.
const FARTHEST_S: f64 = 365.0 * DAY_S;

/// The lines of a run, in the order of the plan; control arms are left out, what they grow by is taken off the others.
pub fn horizon(all: &[Facts<'_>], grown: &[OverTime]) -> Vec<Horizon> {
    let mut lines = Vec::new();
    for (at, facts) in all.iter().enumerate() {
        let is_judged = matches!(facts.job.spec.arm, Arm::Candidate | Arm::Baseline);
        if !is_judged || facts.job.spec.tool != Tool::Plain {
            continue;
        }
        let groups: Vec<&OverTime> =
            grown.iter().filter(|group| group.jobs.first() == Some(&at)).collect();
        let is_replica = grown.iter().any(|group| group.jobs.contains(&at)) && groups.is_empty();
        if is_replica {
            continue;
        }
        let of_groups: Vec<Horizon> =
            groups.iter().filter_map(|group| of_trend(group, facts)).collect();
        if of_groups.is_empty() {
            lines.extend(of_rounds(facts));
        } else {
            lines.extend(whole(&of_groups, &groups, all, facts));
            lines.extend(of_groups);
        }
    }
    lines
}

fn blank(facts: &Facts<'_>, evidence: EvidenceKind) -> Horizon {
    Horizon {
        workload: facts.job.workload.name.clone(),
        phase: String::new(),
        build: facts.job.spec.build.to_string(),
        arm: facts.job.spec.arm,
        of: "whole server".to_owned(),
        processes: 0,
        evidence,
        is_proven: false,
        bytes_per_second: 0.0,
        mib_per_day: 0.0,
        bytes_per_operation: None,
        limit_in_s: None,
    }
}

/// The mean growth of the processes that were judged together.
fn of_trend(group: &OverTime, facts: &Facts<'_>) -> Option<Horizon> {
    let slopes: Vec<f64> =
        group.trend.slots.iter().filter_map(|slot| slot.bytes_per_second).collect();
    // Replaced processes have no slope of their own.
    let slope = match slopes.is_empty() {
        true => group.trend.bytes_per_second?,
        false => slopes.iter().sum::<f64>() / count(slopes.len()),
    };
    let is_workers = group.whose == Whose::Workers;
    Some(Horizon {
        phase: group.phase.clone(),
        of: if is_workers { "worker backends" } else { "server processes" }.to_owned(),
        processes: u32::try_from(group.trend.slots.len()).unwrap_or(u32::MAX),
        is_proven: group.trend.verdict == Verdict::Fail,
        bytes_per_second: slope,
        mib_per_day: slope * DAY_S / MIB,
        bytes_per_operation: group
            .operations_per_second
            .filter(|pace| is_workers && *pace > 0.0)
            .map(|pace| slope / pace),
        ..blank(facts, EvidenceKind::Trend)
    })
}

/// All processes of one host together.
fn whole(
    lines: &[Horizon],
    groups: &[&OverTime],
    all: &[Facts<'_>],
    facts: &Facts<'_>,
) -> Option<Horizon> {
    let hosts = groups.iter().map(|group| group.jobs.len()).max().filter(|hosts| *hosts > 0)?;
    let sum: f64 = lines.iter().map(|line| line.bytes_per_second * f64::from(line.processes)).sum();
    let slope = sum / count(hosts);
    let jobs = groups.iter().flat_map(|group| &group.jobs).filter_map(|at| all.get(*at));
    let limit = jobs.filter_map(|facts| limit_in(facts, slope)).fold(f64::INFINITY, f64::min);
    Some(Horizon {
        processes: lines.iter().fold(0, |sum: u32, line| sum.saturating_add(line.processes)),
        is_proven: lines.iter().any(|line| line.is_proven),
        bytes_per_second: slope,
        mib_per_day: slope * DAY_S / MIB,
        limit_in_s: limit.is_finite().then_some(limit),
        ..blank(facts, EvidenceKind::Trend)
    })
}

/// Where the loops were too short for growth over time: what the rounds found, at the pace that the loop had.
fn of_rounds(facts: &Facts<'_>) -> Vec<Horizon> {
    let mut lines = Vec::new();
    for rounds in &facts.rounds {
        let leaks: Vec<Leak> = named(rounds);
        let slope: f64 = leaks.iter().map(|leak| leak.growth.slope).sum();
        let span =
            facts.job.attempt.phases.iter().find(|span| {
                span.started.kind == PhaseKind::Loop && span.started.name == rounds.phase
            });
        let (Some(span), false) = (span, leaks.is_empty()) else { continue };
        let (Some(ended), Some(end_us)) = (&span.ended, span.ended_elapsed_us) else { continue };
        let time = bytes(end_us.saturating_sub(span.started_elapsed_us)) / 1e6;
        if time <= 0.0 || ended.operations == 0 {
            continue;
        }
        // Of all workers together, and of one.
        let pace = bytes(ended.operations) / time;
        let workers = span.started.workers.max(1);
        let own = slope * pace / f64::from(workers);
        let alone = leaks.iter().all(|leak| leak.session.is_some());
        let all_of_them = if alone { own } else { own * f64::from(workers) };
        let line = |of: &str, processes: u32, slope_s: f64| Horizon {
            phase: rounds.phase.clone(),
            of: of.to_owned(),
            processes,
            is_proven: true,
            bytes_per_second: slope_s,
            mib_per_day: slope_s * DAY_S / MIB,
            ..blank(facts, EvidenceKind::Rounds)
        };
        lines.push(Horizon {
            limit_in_s: limit_in(facts, all_of_them),
            ..line("whole server", workers, all_of_them)
        });
        lines.push(Horizon {
            bytes_per_operation: Some(slope),
            ..line("worker backends", workers, own)
        });
    }
    lines
}

/// Seconds from the end of the job until the host has no memory left, where that is within a year.
fn limit_in(facts: &Facts<'_>, slope: f64) -> Option<f64> {
    let left = facts.job.attempt.available_kib.last()?.saturating_mul(1024);
    let seconds = bytes(left) / slope;
    (slope > 0.0 && seconds <= FARTHEST_S).then_some(seconds)
}
