//! What memcheck found.

use crate::convert::{InvalidMessage, each, in_range, invalid, same_words, word};
use crate::evidence::{
    LeakCheck, LeakKind, LeakRecord, MemcheckError, MemcheckErrors, MemcheckExit, StackFrame,
    SuppressionUse,
};
use crate::wire;

/// Frames of a stack, innermost first; deeper ones are left out.
pub const MAX_STACK_DEPTH: usize = 64;

same_words!(LeakKind, wire::LeakKind: Definite, Indirect, Possible, Reachable);

fn stack_from(stack: Vec<wire::StackFrame>) -> Result<Vec<StackFrame>, InvalidMessage> {
    if stack.len() > MAX_STACK_DEPTH {
        let problem = format_args!("has {} frames, more than {MAX_STACK_DEPTH}", stack.len());
        return Err(invalid("stack", problem));
    }
    each(stack, "stack")
}

fn stack_to(stack: &[StackFrame]) -> Vec<wire::StackFrame> {
    stack.iter().take(MAX_STACK_DEPTH).map(Into::into).collect()
}

impl TryFrom<wire::StackFrame> for StackFrame {
    type Error = InvalidMessage;

    fn try_from(wire: wire::StackFrame) -> Result<Self, Self::Error> {
        let wire::StackFrame { function, module, file, line } = wire;
        Ok(Self { function, module, file, line })
    }
}

impl From<&StackFrame> for wire::StackFrame {
    fn from(frame: &StackFrame) -> Self {
        let StackFrame { function, module, file, line } = frame;
        Self { function: function.clone(), module: module.clone(), file: file.clone(), line: *line }
    }
}

impl TryFrom<wire::LeakRecord> for LeakRecord {
    type Error = InvalidMessage;

    fn try_from(wire: wire::LeakRecord) -> Result<Self, Self::Error> {
        let wire::LeakRecord { kind, bytes, blocks, bytes_delta, blocks_delta, stack } = wire;
        Ok(Self {
            kind: word::<wire::LeakKind, _>(kind, "kind")?,
            bytes,
            blocks,
            bytes_delta,
            blocks_delta,
            stack: stack_from(stack)?,
        })
    }
}

impl From<&LeakRecord> for wire::LeakRecord {
    fn from(record: &LeakRecord) -> Self {
        let LeakRecord { kind, bytes, blocks, bytes_delta, blocks_delta, stack } = record;
        Self {
            kind: wire::LeakKind::from(*kind).into(),
            bytes: *bytes,
            blocks: *blocks,
            bytes_delta: *bytes_delta,
            blocks_delta: *blocks_delta,
            stack: stack_to(stack),
        }
    }
}

impl TryFrom<wire::LeakCheck> for LeakCheck {
    type Error = InvalidMessage;

    fn try_from(wire: wire::LeakCheck) -> Result<Self, Self::Error> {
        let wire::LeakCheck {
            session,
            process,
            phase,
            round,
            operations,
            records,
            at_exit,
            took_us,
        } = wire;
        let records = each(records, "records")?;
        Ok(Self { session, process, phase, round, operations, records, at_exit, took_us })
    }
}

impl From<&LeakCheck> for wire::LeakCheck {
    fn from(check: &LeakCheck) -> Self {
        let LeakCheck { session, process, phase, round, operations, records, at_exit, took_us } =
            check;
        Self {
            session: *session,
            process: *process,
            phase: *phase,
            round: *round,
            operations: *operations,
            records: records.iter().map(Into::into).collect(),
            at_exit: *at_exit,
            took_us: *took_us,
        }
    }
}

impl TryFrom<wire::MemcheckError> for MemcheckError {
    type Error = InvalidMessage;

    fn try_from(wire: wire::MemcheckError) -> Result<Self, Self::Error> {
        let wire::MemcheckError { what, count, stack } = wire;
        Ok(Self { what, count: in_range(count, 1..=u64::MAX, "count")?, stack: stack_from(stack)? })
    }
}

impl From<&MemcheckError> for wire::MemcheckError {
    fn from(error: &MemcheckError) -> Self {
        let MemcheckError { what, count, stack } = error;
        Self { what: what.clone(), count: (*count).max(1), stack: stack_to(stack) }
    }
}

impl TryFrom<wire::MemcheckErrors> for MemcheckErrors {
    type Error = InvalidMessage;

    fn try_from(wire: wire::MemcheckErrors) -> Result<Self, Self::Error> {
        let wire::MemcheckErrors { process, errors } = wire;
        Ok(Self { process, errors: each(errors, "errors")? })
    }
}

impl From<&MemcheckErrors> for wire::MemcheckErrors {
    fn from(errors: &MemcheckErrors) -> Self {
        let MemcheckErrors { process, errors } = errors;
        Self { process: *process, errors: errors.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::SuppressionUse> for SuppressionUse {
    type Error = InvalidMessage;

    fn try_from(wire: wire::SuppressionUse) -> Result<Self, Self::Error> {
        let wire::SuppressionUse { name, source, count, bytes, blocks } = wire;
        Ok(Self { name, source, count: in_range(count, 1..=u64::MAX, "count")?, bytes, blocks })
    }
}

impl From<&SuppressionUse> for wire::SuppressionUse {
    fn from(used: &SuppressionUse) -> Self {
        let SuppressionUse { name, source, count, bytes, blocks } = used;
        Self {
            name: name.clone(),
            source: source.clone(),
            count: (*count).max(1),
            bytes: *bytes,
            blocks: *blocks,
        }
    }
}

impl TryFrom<wire::MemcheckExit> for MemcheckExit {
    type Error = InvalidMessage;

    fn try_from(wire: wire::MemcheckExit) -> Result<Self, Self::Error> {
        let wire::MemcheckExit { process, records, suppressions } = wire;
        let suppressions = each(suppressions, "suppressions")?;
        Ok(Self { process, records: each(records, "records")?, suppressions })
    }
}

impl From<&MemcheckExit> for wire::MemcheckExit {
    fn from(exit: &MemcheckExit) -> Self {
        let MemcheckExit { process, records, suppressions } = exit;
        Self {
            process: *process,
            records: records.iter().map(Into::into).collect(),
            suppressions: suppressions.iter().map(Into::into).collect(),
        }
    }
}
