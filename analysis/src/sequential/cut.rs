//! A job's evidence as if it had ended at a moment of its loop, read no faster than every ten seconds.

use crate::evidence::JobEvidence;
use crate::stats::bytes;
use pgsoak_proto::evidence::{AttemptEnded, PhaseEnded, PhaseKind};
use pgsoak_proto::job::Outcome;
use std::time::Duration;

/// Readings are no closer than this: what proves was measured so.
pub(super) const SPACING_US: u64 = 10_000_000;

/// When the first loop began, microseconds since the attempt started; `None`: it has not.
pub(super) fn loop_began(job: &JobEvidence) -> Option<u64> {
    let loops = job.attempt.phases.iter().filter(|span| span.started.kind == PhaseKind::Loop);
    loops.map(|span| span.started_elapsed_us).min()
}

/// Seconds from the loop's beginning to the last reading.
pub(super) fn elapsed_s(job: &JobEvidence, begun_us: u64) -> f64 {
    let last = job.attempt.ticks_elapsed_us.last().copied().unwrap_or(0);
    bytes(last.saturating_sub(begun_us)) / 1e6
}

/// Leaves what was there `at_s` seconds into the loop, all phases ended, and the job finished if it goes on. A job of which nothing goes wrong is
/// sound so; one that is over in another way stays so.
pub(super) fn until(job: &mut JobEvidence, at_s: f64) {
    let Some(begun_us) = loop_began(job) else { return };
    let limit_us = begun_us.saturating_add(
        u64::try_from(Duration::from_secs_f64(at_s.clamp(0.0, 1e9)).as_micros())
            .unwrap_or(u64::MAX),
    );
    let attempt = &mut job.attempt;
    let ticks = attempt.ticks_elapsed_us.partition_point(|at| *at <= limit_us);
    attempt.ticks_elapsed_us.truncate(ticks);
    attempt.operations.truncate(ticks);
    attempt.available_kib.truncate(ticks);
    let end_us = attempt.ticks_elapsed_us.last().copied().unwrap_or(limit_us);
    for series in attempt.processes.values_mut() {
        spaced(series, limit_us);
        series.ended_elapsed_us = series.ended_elapsed_us.filter(|ended| *ended <= limit_us);
    }
    attempt.processes.retain(|_, series| !series.elapsed_us.is_empty());
    attempt.phases.retain(|span| span.started_elapsed_us <= limit_us);
    for span in &mut attempt.phases {
        if span.ended_elapsed_us.is_none_or(|ended| ended > limit_us) {
            span.ended = Some(PhaseEnded {
                phase: span.started.phase,
                operations: attempt.operations.last().copied().unwrap_or(0),
                late_operations: 0,
                max_lateness_us: 0,
                concluded: false,
            });
            span.ended_elapsed_us = Some(end_us);
        }
    }
    let rests = attempt.at_rest_elapsed_us.partition_point(|at| *at <= limit_us);
    attempt.at_rest.truncate(rests);
    attempt.at_rest_elapsed_us.truncate(rests);
    // Whether the evidence is whole is for the end to say.
    attempt.missing_frames = 0;
    attempt.gaps.clear();
    job.spec.sample_every = job.spec.sample_every.max(Duration::from_micros(SPACING_US));
    // What has not begun yet is not missing.
    let begun = &job.attempt.phases;
    job.workload.phases.retain(|phase| begun.iter().any(|span| span.started.name == phase.name));
    if job.outcome != Outcome::Failed {
        job.outcome = Outcome::Finished;
        job.attempt.ended = Some(AttemptEnded {
            ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
            ticks_sampled: u64::try_from(ticks).unwrap_or(u64::MAX),
            ..AttemptEnded::bare(Outcome::Finished, String::new())
        });
    }
}

fn spaced(series: &mut crate::evidence::ProcessSeries, limit_us: u64) {
    let mut kept = 0;
    let mut next_us = 0;
    for at in 0..series.elapsed_us.len() {
        let Some(elapsed) = series.elapsed_us.get(at).copied() else { break };
        if elapsed > limit_us {
            break;
        }
        if elapsed < next_us {
            continue;
        }
        // From one reading to the next, with room for jitter.
        next_us = elapsed.saturating_add(SPACING_US - SPACING_US / 50);
        series.elapsed_us.swap(kept, at);
        series.rss_anon_bytes.swap(kept, at);
        if at < series.cpu_us.len() {
            series.cpu_us.swap(kept, at);
        }
        kept += 1;
    }
    series.elapsed_us.truncate(kept);
    series.rss_anon_bytes.truncate(kept);
    series.cpu_us.truncate(kept);
}
