//! A phase's budgets, read and checked against its kind and the phases before it.

use super::Budget;
use super::EXTENSION_PHASE;
use super::Phase;
use super::Residual;
use crate::file_error::hint;
use crate::table::Table;

const BUDGET_KEYS: [&str; 5] = ["growth", "growth_per_operation", "peak", "residual", "since"];

/// The budgets of a phase; none where it has no table of them.
pub(super) fn budget(
    table: Table<'_, '_>,
    is_loop: bool,
    before: &[Phase],
    has_extension: bool,
) -> Budget {
    let Some(budget) = table.get("budget").and_then(|entry| entry.table()) else {
        return Budget::default();
    };
    budget.known("a budget", &BUDGET_KEYS);
    let per_operation = budget.get("growth_per_operation");
    if let Some(entry) = per_operation.as_ref().filter(|_| !is_loop) {
        entry.refuse("belongs to a loop: a phase that runs once has `growth`");
    }
    Budget {
        growth: budget.get("growth").and_then(|entry| entry.bytes()),
        growth_per_operation: per_operation.and_then(|entry| entry.fractional_bytes()),
        peak: budget.get("peak").and_then(|entry| entry.bytes()),
        residual: residual(budget, before, has_extension),
    }
}

fn residual(budget: Table<'_, '_>, before: &[Phase], has_extension: bool) -> Option<Residual> {
    let (residual, since) = match (budget.get("residual"), budget.get("since")) {
        (None, None) => return None,
        (Some(residual), Some(since)) => (residual, since),
        (Some(residual), None) => {
            residual.refuse("needs `since`, the earlier phase before which memory is compared");
            return None;
        }
        (None, Some(since)) => {
            since.refuse("belongs to `residual`, which is missing");
            return None;
        }
    };
    let bytes = residual.bytes();
    let name = since.text()?;
    let earlier = before.iter().map(|phase| phase.name.as_str());
    let earlier: Vec<_> =
        has_extension.then_some(EXTENSION_PHASE).into_iter().chain(earlier).collect();
    if !earlier.contains(&name) {
        let short: String = name.chars().take(63).collect();
        let hint = hint(name, earlier.iter().copied());
        since.refuse(format_args!("'{short}' is no earlier phase{hint}"));
        return None;
    }
    Some(Residual { bytes: bytes?, since: name.to_owned() })
}
