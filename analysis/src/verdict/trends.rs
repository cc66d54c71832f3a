//! Growth over time → findings, joined with what the rounds say of the same workers.
//!
//! Where both grow, and the rounds' growth at the pace of the operations comes to what the processes grew by (within a factor of two), it is
//! one cause: the finding of the rounds, which names it, with the trend agreeing. Where they do not, that is said.

use crate::facts::{Control, Facts};
use crate::figures::capital;
use crate::figures::{bytes_text, rate_text};
use crate::over_time::{OverTime, Whose};
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::stats::count;
use crate::verdict::findings::blank;
use pgsoak_proto::job::{Arm, BuildRef};

/// Rounds explain a trend whose growth is theirs within this factor.
const EXPLAINS: f64 = 2.0;

/// Adds the findings of all groups.
pub(crate) fn add(found: &mut Vec<Finding>, grown: &[OverTime], all: &[Facts<'_>]) {
    for group in grown {
        let Some(facts) = group.first(all) else { continue };
        let finding = finding(group, facts, all);
        if finding.verdict != Verdict::Fail || !joined(found, &finding, group) {
            found.push(finding);
        }
    }
}

fn finding(group: &OverTime, facts: &Facts<'_>, all: &[Facts<'_>]) -> Finding {
    let trend = &group.trend;
    let verdict = match (trend.verdict, facts.control) {
        (Verdict::Fail, Control::Unusable) => Verdict::Inconclusive,
        (verdict, _) => verdict,
    };
    let mut finding = blank(facts, EvidenceKind::Trend, verdict);
    finding.phase.clone_from(&group.phase);
    finding.hosts =
        group.jobs.iter().filter_map(|at| Some(all.get(*at)?.job.agent.clone())).collect();
    finding.hosts.sort();
    finding.hosts.dedup();
    let whose = match group.whose {
        Whose::Workers => "worker backends",
        Whose::Server => "server processes",
    };
    finding.subject = match &trend.guilty[..] {
        [one] if trend.verdict == Verdict::Fail && trend.slots.len() > 1 => one.slot.clone(),
        _ => whose.to_owned(),
    };
    finding.bytes_per_second = trend.bytes_per_second;
    (finding.low, finding.high) = (trend.low, trend.high);
    if trend.verdict == Verdict::Fail && !trend.guilty.is_empty() {
        // Those that grow, not the mean over those that do and those that do not.
        let mean = |of: fn(&crate::trend::SlotTrend) -> Option<f64>| {
            let figures: Vec<f64> = trend.guilty.iter().filter_map(of).collect();
            (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / count(figures.len()))
        };
        finding.bytes_per_second = mean(|slot| slot.bytes_per_second);
        finding.low = mean(|slot| slot.low);
        finding.high = mean(|slot| slot.high);
    }
    if trend.verdict == Verdict::Fail {
        let is_vanilla =
            facts.job.spec.build == BuildRef::Vanilla || facts.job.spec.arm == Arm::Control;
        finding.owner = match (is_vanilla, facts.control) {
            (true, _) => Owner::Postgres,
            (false, Control::Used) => Owner::Extension,
            _ => Owner::Unknown,
        };
    }
    finding.message = message(group, facts, &finding, whose);
    finding
}

fn message(group: &OverTime, facts: &Facts<'_>, finding: &Finding, whose: &str) -> String {
    let trend = &group.trend;
    let mut message = match trend.verdict {
        Verdict::Pass => format!("No leak over time, {whose}: {}.", trend.reason),
        Verdict::Fail => format!("Growth over time, {whose}: {}.", trend.reason),
        _ => format!("Growth over time of the {whose} is not decided: {}.", trend.reason),
    };
    if let (Verdict::Fail, Some(slope)) = (trend.verdict, finding.bytes_per_second) {
        message.push_str(&format!(
            " That is {:.1} MiB per day and process",
            slope * 86_400.0 / 1_048_576.0
        ));
        match group.operations_per_second.filter(|_| group.whose == Whose::Workers) {
            Some(pace) => {
                message.push_str(&format!(", {} per operation.", rate_text(slope / pace)));
            }
            None => message.push('.'),
        }
        if let Some(between) = &trend.between {
            message.push_str(&format!(
                " Mean over {} {}: {} per second (95 % interval {} to {}).",
                between.units,
                if between.by_host { "hosts" } else { "processes" },
                rate_text(between.mean),
                rate_text(between.low),
                rate_text(between.high)
            ));
        }
    }
    if group.taken_off > 0.0 {
        message.push_str(&format!(
            " The control arm's {} per second is taken off.",
            bytes_text(group.taken_off)
        ));
    }
    if trend.verdict == Verdict::Fail && facts.control == Control::Unusable {
        message.push_str(
            " The plan has a control arm and it cannot be used, so this may be PostgreSQL's own growth: no failure is proven.",
        );
    }
    message
}

/// Joins a growth of workers with the rounds' findings of its phase; true: they explain it.
fn joined(found: &mut [Finding], trend: &Finding, group: &OverTime) -> bool {
    let (Some(slope), Some(pace), Whose::Workers) =
        (trend.bytes_per_second, group.operations_per_second, group.whose)
    else {
        return false;
    };
    let mut same: Vec<&mut Finding> = found
        .iter_mut()
        .filter(|known| {
            known.verdict == Verdict::Fail
                && (known.evidence == EvidenceKind::Rounds
                    || known.agreeing.contains(&EvidenceKind::Rounds))
                && known.workload == trend.workload
                && known.phase == trend.phase
                && known.build == trend.build
                && known.arm == trend.arm
        })
        .collect();
    let explained: f64 =
        same.iter().filter_map(|known| known.bytes_per_operation).sum::<f64>() * pace;
    if explained * EXPLAINS < slope || explained > EXPLAINS * slope {
        if explained > 0.0 {
            same.iter_mut().for_each(|known| {
                known.message.push_str(&format!(
                    " The sampled processes grow by {} per second, where these operations make {}: not one cause alone.",
                    rate_text(slope),
                    rate_text(explained)
                ));
            });
        }
        return false;
    }
    same.sort_by(|a, b| {
        let size = |known: &Finding| known.bytes_per_operation.unwrap_or(0.0);
        size(b).total_cmp(&size(a)).then(a.subject.cmp(&b.subject))
    });
    let Some(largest) = same.into_iter().next() else { return false };
    largest.agreeing.push(EvidenceKind::Trend);
    largest.bytes_per_second = Some(slope);
    for host in &trend.hosts {
        if !largest.hosts.contains(host) {
            largest.hosts.push(host.clone());
        }
    }
    largest.hosts.sort();
    largest.message = format!("{} {}", largest.message, capital(&trend.message));
    true
}
