//! Findings of what processes lose by their end.

use crate::exits::{ExitLoss, Where};
use crate::facts::Facts;
use crate::figures::{bytes_text, count_text, rate_text};
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::stats::{bytes, count};
use crate::verdict::findings::{Found, blank};
use pgsoak_proto::job::Tool;

/// One for each stack: all of them fail, since what is listed grows with the work or with the backends.
pub(crate) fn of_exits(facts: &Facts<'_>, found: &mut Vec<Found>) {
    found.extend(facts.exits.iter().map(|loss| finding(facts, loss).into()));
}

fn finding(facts: &Facts<'_>, loss: &ExitLoss) -> Finding {
    let evidence = match facts.job.spec.tool {
        Tool::Heaptrack => EvidenceKind::Site,
        _ => EvidenceKind::LeakRecord,
    };
    let mut finding = blank(facts, evidence, Verdict::Fail);
    finding.subject.clone_from(&loss.function);
    finding.owner = Owner::Extension;
    finding.stack.clone_from(&loss.stack);
    finding.fingerprint.clone_from(&loss.fingerprint);
    finding.bytes_per_operation = Some(loss.bytes_per_operation);
    let place = if loss.place.is_empty() { String::new() } else { format!(" ({})", loss.place) };
    let rate = rate_text(loss.bytes_per_operation);
    let at_least = if loss.is_lower_bound { "at least " } else { "" };
    let all = bytes_text(bytes(loss.bytes));
    let processes = count_text(count(loss.processes));
    finding.message = match &loss.place_of_loss {
        Where::WayOut => format!(
            "{}{place} loses {rate} on the way out of each of {processes} backends that left ({all} in all).",
            loss.function
        ),
        Where::Process(kind) => format!(
            "{}{place} loses {at_least}{rate} per operation in processes that serve no session: {all} in {} blocks, in {}.",
            loss.function,
            count_text(bytes(loss.blocks)),
            match (kind.as_str(), loss.processes) {
                // Neither a parallel worker nor a background worker without a database stands in pg_stat_activity long enough.
                ("unknown", 1) => "one background or parallel worker".to_owned(),
                ("unknown", _) => format!("{processes} background or parallel workers"),
                (kind, _) => format!("{processes} of type '{kind}'"),
            },
        ),
    };
    finding
}
