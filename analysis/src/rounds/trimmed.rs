//! What `malloc_trim` at a loop's end says: whether growth outside contexts is slack of the allocator or blocks that are still allocated.
//!
//! The runner trims the first workers' backends once, after their last reading. A backend that falls back to where it stood before the
//! first round had nothing more allocated than then; the verdict stays what it is, since users do not trim.

use crate::evidence::AttemptEvidence;
use crate::stats::bytes;
use pgsoak_proto::evidence::AtRest;
use std::collections::BTreeMap;

/// Closer than this to the level before the first round is back there: what a page or two and a few caches make.
const NEAR_BYTES: f64 = 65_536.0;

/// Or closer than this share of that level.
const NEAR_SHARE: f64 = 0.1;

/// RssAnon of the backend that falls back least, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trimmed {
    /// Before the first round.
    pub before: f64,
    /// After the last one.
    pub after: f64,
    /// After `malloc_trim`.
    pub trimmed: f64,
    /// By so much the blocks of memory contexts grew meanwhile; 0: they are not known.
    pub contexts: f64,
}

impl Trimmed {
    /// Whether it is back at the level before the first round, but for what contexts hold more. If not, nothing is known: blocks may be
    /// allocated, or lie so that no whole page between them is free.
    pub fn is_slack(&self) -> bool {
        self.outside() <= NEAR_BYTES.max(NEAR_SHARE * self.before)
    }

    fn outside(&self) -> f64 {
        self.trimmed - self.before - self.contexts.max(0.0)
    }
}

fn total(reading: &AtRest) -> u64 {
    reading.contexts.iter().fold(0, |sum, context| sum.saturating_add(context.total_bytes))
}

/// Of the workers of a phase, or of one of them; `None`: none was trimmed.
pub fn trimmed(attempt: &AttemptEvidence, phase: &str, session: Option<u32>) -> Option<Trimmed> {
    let span = attempt.phases.iter().find(|span| span.started.name == phase)?;
    let mut ends: BTreeMap<u32, (&AtRest, &AtRest)> = BTreeMap::new();
    for reading in attempt.at_rest.iter().filter(|reading| {
        reading.phase == span.started.phase
            && reading.session > 0
            && session.is_none_or(|session| reading.session == session)
    }) {
        let (first, last) = ends.entry(reading.session).or_insert((reading, reading));
        if reading.round < first.round {
            *first = reading;
        }
        if reading.round >= last.round {
            *last = reading;
        }
    }
    ends.values()
        .filter(|(first, last)| {
            last.trimmed_rss_anon_bytes > 0
                && last.round > first.round
                && first.process == last.process
        })
        .map(|(first, last)| Trimmed {
            before: bytes(first.rss_anon_bytes),
            after: bytes(last.rss_anon_bytes),
            trimmed: bytes(last.trimmed_rss_anon_bytes),
            contexts: bytes(total(last)) - bytes(total(first)),
        })
        .max_by(|a, b| a.outside().total_cmp(&b.outside()))
}
