//! Makes a body fit into a frame without losing what it adds up to.
//!
//! A leak check of a large backend can name thousands of stacks. The smallest records of each kind are folded into one
//! record without a stack, so that sums by kind stay exact.

use pgsoak_proto::MAX_FRAME_BYTES;
use pgsoak_proto::wire::{LeakRecord, MemcheckError, frame::Body};
use std::collections::BTreeMap;

/// Room for a frame's sequence, time and tags.
const ENVELOPE_BYTES: usize = 64;

/// What the folded errors of memcheck are called.
pub(super) const OTHERS: &str = "(errors of smaller count, together)";

/// Folds the smallest parts of a body until it fits. False: it cannot be made to.
pub(super) fn fit(body: &mut Body) -> bool {
    if fits(body) {
        return true;
    }
    // Halving: about ten encodings at most.
    let mut keep = match body {
        Body::LeakCheck(check) => check.records.len(),
        Body::MemcheckErrors(errors) => errors.errors.len(),
        Body::SiteDigest(digest) => digest.sites.len(),
        _ => return false,
    };
    while keep > 0 {
        keep /= 2;
        match body {
            Body::LeakCheck(check) => fold_leaks(&mut check.records, keep),
            Body::MemcheckErrors(errors) => fold_errors(&mut errors.errors, keep),
            // The largest come first; frames that nobody names any more go with the last site.
            Body::SiteDigest(digest) => {
                digest.sites.truncate(keep);
                let named = digest.sites.iter().flat_map(|site| &site.stack).max();
                let frames =
                    named.and_then(|last| usize::try_from(*last).ok()).map_or(0, |n| n + 1);
                digest.frames.truncate(frames);
            }
            _ => return false,
        }
        if fits(body) {
            return true;
        }
    }
    false
}

fn fits(body: &Body) -> bool {
    body.encoded_len() + ENVELOPE_BYTES <= MAX_FRAME_BYTES
}

/// Keeps the records that grew or weigh the most, and one more of each kind for the rest and what has no stack anyway.
fn fold_leaks(records: &mut Vec<LeakRecord>, keep: usize) {
    records.sort_by_key(|r| {
        (r.stack.is_empty(), std::cmp::Reverse((r.bytes_delta.unsigned_abs(), r.bytes)))
    });
    let keep = keep.min(records.partition_point(|r| !r.stack.is_empty()));
    let mut rest: BTreeMap<i32, LeakRecord> = BTreeMap::new();
    for record in records.drain(keep.min(records.len())..) {
        let sum = rest
            .entry(record.kind)
            .or_insert_with(|| LeakRecord { kind: record.kind, ..LeakRecord::default() });
        sum.bytes = sum.bytes.saturating_add(record.bytes);
        sum.blocks = sum.blocks.saturating_add(record.blocks);
        sum.bytes_delta = sum.bytes_delta.saturating_add(record.bytes_delta);
        sum.blocks_delta = sum.blocks_delta.saturating_add(record.blocks_delta);
    }
    records.extend(rest.into_values());
}

/// Keeps the most frequent errors, and one more for the rest.
fn fold_errors(errors: &mut Vec<MemcheckError>, keep: usize) {
    errors.sort_by_key(|error| (error.stack.is_empty(), std::cmp::Reverse(error.count)));
    let keep = keep.min(errors.partition_point(|error| !error.stack.is_empty()));
    let rest = errors.drain(keep.min(errors.len())..);
    let count = rest.fold(0_u64, |sum, error| sum.saturating_add(error.count));
    if count > 0 {
        errors.push(MemcheckError { what: OTHERS.to_owned(), count, stack: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::wire::{LeakCheck, LeakKind, MemcheckErrors, StackFrame};

    fn deep(number: usize) -> Vec<StackFrame> {
        let function = format!("function_number_{number}_of_a_long_name_that_takes_its_room");
        vec![StackFrame { function, ..StackFrame::default() }; 60]
    }

    #[test]
    fn a_leak_check_that_is_too_large_keeps_its_sums() {
        let records: Vec<LeakRecord> = (0..5000_u32)
            .map(|n| LeakRecord {
                kind: if n % 2 == 0 { LeakKind::Definite } else { LeakKind::Possible }.into(),
                bytes: u64::from(n) + 1,
                blocks: 1,
                bytes_delta: i64::from(n),
                blocks_delta: 1,
                stack: deep(n as usize),
            })
            .collect();
        let sum = |records: &[LeakRecord], kind: LeakKind| {
            let of_kind = records.iter().filter(|r| r.kind == i32::from(kind));
            of_kind.fold((0, 0, 0), |s, r| (s.0 + r.bytes, s.1 + r.blocks, s.2 + r.bytes_delta))
        };
        let before = [LeakKind::Definite, LeakKind::Possible].map(|kind| sum(&records, kind));
        let mut body = Body::LeakCheck(LeakCheck { records, ..LeakCheck::default() });
        assert!(fit(&mut body));
        assert!(body.encoded_len() < MAX_FRAME_BYTES);
        let Body::LeakCheck(check) = body else { unreachable!() };
        let after = [LeakKind::Definite, LeakKind::Possible].map(|kind| sum(&check.records, kind));
        assert_eq!(after, before);
        assert!(check.records.len() > 50, "the largest keep their stacks");
        assert_eq!(check.records[0].bytes, 5000, "the largest first");
    }

    #[test]
    fn memchecks_errors_keep_their_count() {
        let error = |n: usize| MemcheckError {
            what: "Invalid read of size 8".into(),
            count: n as u64 + 1,
            stack: deep(n),
        };
        let errors = (0..3000).map(error).collect();
        let mut body = Body::MemcheckErrors(MemcheckErrors { process: 1, errors });
        assert!(fit(&mut body));
        let Body::MemcheckErrors(errors) = body else { unreachable!() };
        let count: u64 = errors.errors.iter().map(|e| e.count).sum();
        assert_eq!(count, 3000 * 3001 / 2);
        assert!(errors.errors.iter().any(|e| e.what == OTHERS));
    }
}
