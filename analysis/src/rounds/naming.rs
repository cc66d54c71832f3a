//! What grew: a context by name, malloc outside contexts, or blocks that a context keeps.

use crate::rounds::{Growth, PhaseRounds, Subject};

/// A leak that the rounds prove, with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Leak {
    /// "context CachedPlanSource", "malloc outside contexts", "memory contexts", "RssAnon".
    pub subject: String,
    /// What was judged.
    pub of: Subject,
    /// How much.
    pub growth: Growth,
    /// The one worker whose backend grows, where the others do not.
    pub session: Option<u32>,
    /// Further contexts that grow, largest first: name and bytes per operation.
    pub others: Vec<(String, f64)>,
}

/// Share of the contexts' blocks that malloc's headers, rounding and holes come to at most. Measured: 11 % with the three small contexts of each kept
/// SPI plan.
const SLACK: f64 = 0.25;

/// Name of the subject that only RssAnon shows.
pub const OUTSIDE_CONTEXTS: &str = "malloc outside contexts";

/// Name of the subject of all contexts together.
pub const MEMORY_CONTEXTS: &str = "memory contexts";

/// The leaks of a phase: at most one of contexts and one outside them.
pub fn named(rounds: &PhaseRounds) -> Vec<Leak> {
    let mut leaks = Vec::new();
    leaks.extend(of_contexts(rounds));
    leaks.extend(outside(rounds, !leaks.is_empty()));
    if leaks.is_empty() {
        leaks.extend(unplaced(rounds));
    }
    leaks
}

/// A subject's leak, pooled or of one session.
fn leak_of<'a>(rounds: &'a PhaseRounds, subject: &Subject) -> Option<(Option<u32>, &'a Growth)> {
    let pooled = rounds.pooled.get(subject).filter(|growth| growth.is_leak());
    pooled
        .map(|growth| (None, growth))
        .or_else(|| rounds.alone.get(subject).map(|(session, growth)| (Some(*session), growth)))
}

fn of_contexts(rounds: &PhaseRounds) -> Option<Leak> {
    let mut growing: Vec<(&str, Option<u32>, &Growth, &Subject)> = rounds
        .pooled
        .keys()
        .filter_map(|subject| match subject {
            Subject::Context(name) => leak_of(rounds, subject)
                .map(|(session, growth)| (name.as_str(), session, growth, subject)),
            _ => None,
        })
        .collect();
    growing.sort_by(|a, b| b.2.slope.total_cmp(&a.2.slope).then(a.0.cmp(b.0)));
    let Some((name, session, growth, subject)) = growing.first() else {
        let (session, growth) = leak_of(rounds, &Subject::Used)?;
        return Some(Leak {
            subject: MEMORY_CONTEXTS.to_owned(),
            of: Subject::Used,
            growth: *growth,
            session,
            others: largest_contexts(rounds),
        });
    };
    Some(Leak {
        subject: format!("context {name}"),
        of: (*subject).clone(),
        growth: **growth,
        session: *session,
        others: growing
            .iter()
            .skip(1)
            .map(|(name, _, growth, _)| ((*name).to_owned(), growth.slope))
            .collect(),
    })
}

/// Contexts by growth, whatever their shape.
fn largest_contexts(rounds: &PhaseRounds) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = rounds
        .pooled
        .iter()
        .filter_map(|(subject, growth)| match subject {
            Subject::Context(name) if growth.slope > 0.0 => Some((name.clone(), growth.slope)),
            _ => None,
        })
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(5);
    all
}

/// RssAnon grows, and what contexts took does not explain it.
///
/// Blocks have malloc's headers and slack, so beside contexts that grow only what goes beyond a quarter of their growth is a cause of its own.
/// Contexts that take doubled blocks make the difference fall in steps; a leak of contexts alone therefore never comes out steady in both differences.
fn outside(rounds: &PhaseRounds, contexts_leak: bool) -> Option<Leak> {
    let (_, anonymous) = leak_of(rounds, &Subject::Anonymous)?;
    let (session, over_total) = leak_of(rounds, &Subject::OverTotal)?;
    let total = rounds.pooled.get(&Subject::Total).map_or(0.0, |growth| growth.slope.max(0.0));
    if over_total.low <= over_total.threshold + SLACK * total {
        return None;
    }
    if contexts_leak {
        leak_of(rounds, &Subject::OverUsed)?;
        // More than all of RssAnon's growth outside contexts, while contexts grow: steps of blocks, no cause.
        if over_total.slope > anonymous.slope {
            return None;
        }
    }
    Some(Leak {
        subject: OUTSIDE_CONTEXTS.to_owned(),
        of: Subject::OverTotal,
        growth: *over_total,
        session,
        others: Vec::new(),
    })
}

/// RssAnon grows, and neither used bytes nor the difference does so steadily: blocks that contexts keep, or no contexts to look at.
fn unplaced(rounds: &PhaseRounds) -> Option<Leak> {
    let (session, anonymous) = leak_of(rounds, &Subject::Anonymous)?;
    let blocks = rounds
        .pooled
        .iter()
        .filter_map(|(subject, growth)| match subject {
            Subject::ContextTotal(name) => Some((name, growth.slope)),
            _ => None,
        })
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(a.0)))
        .filter(|(_, slope)| *slope >= 0.5 * anonymous.slope);
    let (subject, of) = match blocks {
        Some((name, _)) => (format!("context {name}"), Subject::ContextTotal(name.clone())),
        None => ("RssAnon".to_owned(), Subject::Anonymous),
    };
    Some(Leak { subject, of, growth: *anonymous, session, others: Vec::new() })
}
