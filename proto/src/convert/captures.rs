//! Captures, malloc's books and proofs of life, to the wire and back.

use crate::convert::{InvalidMessage, cut, each, invalid, same_words, text, word};
use crate::evidence::{AllocatorUse, Capture, CaptureCause, ContextUse, ProofOfLife};
use crate::wire;

/// Of a capture's reason, of each of its statements, and of why it has no contexts.
pub const MAX_CAPTURE_TEXT_BYTES: usize = 1 << 10;

/// Statements of a capture.
pub const MAX_CAPTURE_STATEMENTS: usize = 8;

same_words!(CaptureCause, wire::CaptureCause: Periodic, Suspect, Later);

impl From<wire::AllocatorUse> for AllocatorUse {
    fn from(wire: wire::AllocatorUse) -> Self {
        let wire::AllocatorUse { in_use_bytes, free_bytes, took_us } = wire;
        Self { in_use_bytes, free_bytes, took_us }
    }
}

impl From<AllocatorUse> for wire::AllocatorUse {
    fn from(known: AllocatorUse) -> Self {
        let AllocatorUse { in_use_bytes, free_bytes, took_us } = known;
        Self { in_use_bytes, free_bytes, took_us }
    }
}

impl TryFrom<wire::ProofOfLife> for ProofOfLife {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ProofOfLife) -> Result<Self, Self::Error> {
        let wire::ProofOfLife { sessions, shown } = wire;
        if shown > sessions {
            return Err(invalid("shown", "is more than there are sessions"));
        }
        Ok(Self { sessions, shown })
    }
}

impl From<ProofOfLife> for wire::ProofOfLife {
    fn from(proof: ProofOfLife) -> Self {
        let ProofOfLife { sessions, shown } = proof;
        Self { sessions, shown: shown.min(sessions) }
    }
}

impl TryFrom<wire::Capture> for Capture {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Capture) -> Result<Self, Self::Error> {
        let wire::Capture {
            process,
            session,
            cause,
            reason,
            operations,
            rss_anon_bytes,
            contexts,
            statements,
            missing,
            took_us,
        } = wire;
        let contexts: Vec<ContextUse> = each(contexts, "contexts")?;
        if !contexts.is_sorted_by(|a, b| a.name < b.name) {
            return Err(invalid("contexts", "are not in the order of their names, each once"));
        }
        if statements.len() > MAX_CAPTURE_STATEMENTS {
            return Err(invalid("statements", "are too many"));
        }
        let short =
            |value: String, field: &'static str| text(value, 0..=MAX_CAPTURE_TEXT_BYTES, field);
        Ok(Self {
            process,
            session,
            cause: word::<wire::CaptureCause, _>(cause, "cause")?,
            reason: short(reason, "reason")?,
            operations,
            rss_anon_bytes,
            contexts,
            statements: statements
                .into_iter()
                .map(|statement| short(statement, "statements"))
                .collect::<Result<_, _>>()?,
            missing: short(missing, "missing")?,
            took_us,
        })
    }
}

impl From<&Capture> for wire::Capture {
    fn from(capture: &Capture) -> Self {
        let Capture {
            process,
            session,
            cause,
            reason,
            operations,
            rss_anon_bytes,
            contexts,
            statements,
            missing,
            took_us,
        } = capture;
        Self {
            process: *process,
            session: *session,
            cause: wire::CaptureCause::from(*cause).into(),
            reason: cut(reason, MAX_CAPTURE_TEXT_BYTES),
            operations: *operations,
            rss_anon_bytes: *rss_anon_bytes,
            contexts: super::evidence::by_name(contexts),
            statements: statements
                .iter()
                .take(MAX_CAPTURE_STATEMENTS)
                .map(|statement| cut(statement, MAX_CAPTURE_TEXT_BYTES))
                .collect(),
            missing: cut(missing, MAX_CAPTURE_TEXT_BYTES),
            took_us: *took_us,
        }
    }
}
