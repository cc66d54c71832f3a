//! Frames → [`AttemptEvidence`], in one pass.
//!
//! The store hands frames over in the order of their sequences. Where nobody promises that, they are put in order first; of frames with
//! one sequence the first counts (a repeat has the same bytes). Holes are counted, not filled.

use crate::evidence::{AttemptEvidence, PhaseSpan, ProcessSeries};
use pgsoak_proto::evidence::{
    Body, Frame, Gap, PhaseEnded, PhaseStarted, ProcessAppeared, ProcessSamples, Samples,
};
use std::collections::BTreeMap;

/// Folds frames while they are being read: nothing of a frame stays in memory beside the series.
#[derive(Debug, Default)]
pub struct Fold {
    folded: AttemptEvidence,
    frames: u64,
}

// === impl Fold ===

impl Fold {
    /// Takes the next frame. Sequences rise; one that does not is a repeat, and its bytes have been seen. They begin at 1: a 0 is none
    /// of the contract's.
    pub fn push(&mut self, frame: Frame) {
        if frame.sequence <= self.folded.last_sequence {
            return;
        }
        self.folded.last_sequence = frame.sequence;
        self.frames += 1;
        let elapsed_us = u64::try_from(frame.elapsed.as_micros()).unwrap_or(u64::MAX);
        self.folded.take(elapsed_us, frame.body);
    }

    /// The evidence, with its holes counted.
    pub fn finish(mut self) -> AttemptEvidence {
        self.folded.missing_frames = self.folded.last_sequence.saturating_sub(self.frames);
        self.folded
    }
}

// === impl AttemptEvidence ===

impl AttemptEvidence {
    /// Folds the frames of one attempt, whatever their order.
    pub fn from_frames(frames: impl IntoIterator<Item = Frame>) -> Self {
        let mut ordered: BTreeMap<u64, Frame> = BTreeMap::new();
        for frame in frames {
            ordered.entry(frame.sequence).or_insert(frame);
        }
        let mut fold = Fold::default();
        ordered.into_values().for_each(|frame| fold.push(frame));
        fold.finish()
    }

    fn take(&mut self, elapsed_us: u64, body: Body) {
        match body {
            Body::Started(started) => self.started = Some(started),
            Body::ProcessAppeared(who) => self.process_appeared(who),
            Body::ProcessEnded(process) => {
                self.process(process).ended_elapsed_us = Some(elapsed_us);
            }
            Body::Samples(samples) => self.samples(&samples),
            Body::PhaseStarted(started) => self.phase_started(elapsed_us, started),
            Body::PhaseEnded(ended) => self.phase_ended(elapsed_us, ended),
            Body::AtRest(reading) => {
                self.at_rest.push(reading);
                self.at_rest_elapsed_us.push(elapsed_us);
            }
            Body::Check(check) => self.checks.push(check),
            Body::LeakCheck(check) => self.leak_checks.push(check),
            Body::MemcheckErrors(errors) => self.memcheck_errors.push(errors),
            Body::MemcheckExit(exit) => self.memcheck_exits.push(exit),
            Body::Capture(capture) => self.captures.push((elapsed_us, capture)),
            Body::SiteDigest(digest) => self.site_digests.push(digest),
            Body::Coverage(coverage) => self.coverage = Some(coverage),
            Body::Gap(gap) => self.gaps.push(gap),
            Body::Ended(ended) => self.ended = Some(ended),
        }
    }

    /// The series of a process; one whose first frame is missing is "unknown".
    fn process(&mut self, process: u32) -> &mut ProcessSeries {
        self.processes.entry(process).or_insert_with(|| ProcessSeries {
            who: ProcessAppeared {
                process,
                pid: 0,
                start_time_ticks: 0,
                backend_type: "unknown".to_owned(),
                session: None,
            },
            elapsed_us: Vec::new(),
            rss_anon_bytes: Vec::new(),
            cpu_us: Vec::new(),
            ended_elapsed_us: None,
        })
    }

    fn process_appeared(&mut self, who: ProcessAppeared) {
        let series = self.process(who.process);
        let session = who.session.or(series.who.session);
        let is_news = who.backend_type != "unknown" || series.who.pid == 0;
        if is_news {
            series.who = ProcessAppeared { session, ..who };
        } else {
            series.who.session = session;
        }
    }

    fn samples(&mut self, samples: &Samples) {
        if samples.left_out > 0 {
            self.gaps.push(Gap {
                first_tick: samples.ticks.first().copied().unwrap_or(0),
                ticks: samples.left_out,
                cause: "thinned in a full spool".to_owned(),
            });
        }
        for (row, elapsed_us) in samples.elapsed_us.iter().enumerate() {
            // Time that does not rise is no new tick: a batch sent twice under two numbers, or a clock that stood.
            if self.ticks_elapsed_us.last().is_some_and(|last| last >= elapsed_us) {
                continue;
            }
            self.ticks_elapsed_us.push(*elapsed_us);
            let operations = samples.host.operations.get(row).copied();
            let known = self.operations.last().copied().unwrap_or(0);
            self.operations.push(operations.unwrap_or(known));
            if let Some(available) = samples.host.available_kib.get(row) {
                self.available_kib.push(*available);
            }
            let host = &mut self.host;
            for (kept, read) in [
                (&mut host.pressure_some_us, &samples.host.pressure_some_us),
                (&mut host.load_centi, &samples.host.load_centi),
                (&mut host.clock_ms, &samples.host.clock_ms),
            ] {
                kept.extend(read.get(row).map(|value| (*elapsed_us, *value)));
            }
        }
        for process in &samples.processes {
            self.process_samples(process, &samples.elapsed_us);
        }
    }

    fn process_samples(&mut self, columns: &ProcessSamples, elapsed_us: &[u64]) {
        let first = usize::try_from(columns.first_row).unwrap_or(usize::MAX);
        if let Some(swapped) = columns.swap_kib.iter().max().filter(|swapped| **swapped > 0) {
            let most = self.swapped_bytes.entry(columns.process).or_default();
            *most = (*most).max(swapped.saturating_mul(1024));
        }
        let series = self.process(columns.process);
        for (at, rss_anon_kib) in columns.rss_anon_kib.iter().enumerate() {
            let Some(elapsed) = first.checked_add(at).and_then(|row| elapsed_us.get(row)) else {
                break;
            };
            if series.elapsed_us.last().is_some_and(|last| last >= elapsed) {
                continue;
            }
            let swap_kib = columns.swap_kib.get(at).copied().unwrap_or(0);
            series.elapsed_us.push(*elapsed);
            series.rss_anon_bytes.push(rss_anon_kib.saturating_add(swap_kib).saturating_mul(1024));
            let known = series.cpu_us.last().copied().unwrap_or(0);
            series.cpu_us.push(columns.cpu_us.get(at).copied().unwrap_or(known));
        }
    }

    fn phase_started(&mut self, elapsed_us: u64, started: PhaseStarted) {
        self.phases.push(PhaseSpan {
            started,
            started_elapsed_us: elapsed_us,
            ended: None,
            ended_elapsed_us: None,
        });
    }

    fn phase_ended(&mut self, elapsed_us: u64, ended: PhaseEnded) {
        let open = self
            .phases
            .iter_mut()
            .rev()
            .find(|span| span.started.phase == ended.phase && span.ended.is_none());
        if let Some(span) = open {
            span.ended = Some(ended);
            span.ended_elapsed_us = Some(elapsed_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::evidence::{AtRest, HostSamples};
    use std::time::Duration;

    fn frame(sequence: u64, body: Body) -> Frame {
        Frame { sequence, elapsed: Duration::from_micros(sequence * 10), body }
    }

    fn samples(elapsed_us: &[u64], rss_anon_kib: &[u64]) -> Body {
        Body::Samples(Samples {
            ticks: (0..elapsed_us.len()).filter_map(|tick| u64::try_from(tick).ok()).collect(),
            elapsed_us: elapsed_us.to_vec(),
            processes: vec![ProcessSamples {
                process: 7,
                first_row: 1,
                rss_anon_kib: rss_anon_kib.to_vec(),
                swap_kib: vec![3; rss_anon_kib.len()],
                ..ProcessSamples::default()
            }],
            host: HostSamples { operations: vec![5; elapsed_us.len()], ..HostSamples::default() },
            left_out: 0,
        })
    }

    #[test]
    fn swap_counts_as_memory_and_rows_find_their_times() {
        let folded = AttemptEvidence::from_frames([frame(1, samples(&[1, 2, 3], &[10, 20, 30]))]);
        let series = &folded.processes[&7];
        assert_eq!(series.elapsed_us, [2, 3]);
        assert_eq!(series.rss_anon_bytes, [13 * 1024, 23 * 1024]);
        assert_eq!(series.cpu_us.len(), 2);
        assert_eq!(folded.operations, [5, 5, 5]);
    }

    #[test]
    fn missing_repeated_and_shuffled_frames_are_counted_and_change_nothing_else() {
        let rest = |round| Body::AtRest(AtRest { round, ..AtRest::default() });
        let in_order =
            AttemptEvidence::from_frames([frame(1, rest(0)), frame(2, rest(1)), frame(5, rest(2))]);
        assert_eq!((in_order.last_sequence, in_order.missing_frames), (5, 2));
        assert_eq!(in_order.at_rest_elapsed_us, [10, 20, 50]);
        let shuffled = AttemptEvidence::from_frames([
            frame(5, rest(2)),
            frame(2, rest(1)),
            frame(1, rest(0)),
            frame(2, rest(9)),
        ]);
        assert_eq!(format!("{in_order:?}"), format!("{shuffled:?}"));
    }

    #[test]
    fn a_later_word_on_a_process_does_not_forget_its_session() {
        let who = |backend_type: &str, session| {
            Body::ProcessAppeared(ProcessAppeared {
                process: 1,
                pid: 9,
                start_time_ticks: 1,
                backend_type: backend_type.into(),
                session,
            })
        };
        let folded = AttemptEvidence::from_frames([
            frame(1, who("unknown", None)),
            frame(2, who("client backend", Some(2))),
            frame(3, who("unknown", None)),
        ]);
        let who = &folded.processes[&1].who;
        assert_eq!((who.backend_type.as_str(), who.session), ("client backend", Some(2)));
    }
}
