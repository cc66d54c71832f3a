//! Hands frames on, and sees to it that none is lost in silence when they are not taken.
//!
//! Samples that are not taken become gaps. Gaps, appearances and ends of processes wait here and are offered again, in
//! their order, before anything else.

use crate::sampler::{Append, AppendError};
use pgsoak_proto::evidence::{Body, Gap};
use std::{collections::VecDeque, time::Duration};

/// Why samples were taken and are not there.
pub(super) const NOT_KEPT: &str = "spool full";

/// Frames that wait at most. A spool that takes nothing while so many processes come and go is as good as gone; what
/// falls out then is counted.
const WAITING: usize = 4096;

/// The way out.
pub(super) struct Outbox<A> {
    append: A,
    waiting: VecDeque<(Duration, Body)>,
    lost_ticks: u64,
    lost_frames: u64,
    is_refused: bool,
}

// === impl Outbox ===

impl<A: Append> Outbox<A> {
    pub(super) fn new(append: A) -> Self {
        Self { append, waiting: VecDeque::new(), lost_ticks: 0, lost_frames: 0, is_refused: false }
    }

    /// Rows that were handed on in vain.
    pub(super) fn lost_ticks(&self) -> u64 {
        self.lost_ticks
    }

    /// Hands on anything but samples.
    pub(super) fn send(&mut self, elapsed: Duration, body: Body) {
        if self.flush() && self.offer(elapsed, &body) {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.lost_frames += 1;
            tracing::error!(
                lost = self.lost_frames,
                "evidence of processes is lost: the spool takes nothing"
            );
        }
        self.waiting.push_back((elapsed, body));
    }

    /// Hands on samples with these ticks.
    pub(super) fn send_samples(&mut self, elapsed: Duration, ticks: &[u64], body: &Body) {
        if self.flush() && self.offer(elapsed, body) {
            return;
        }
        for run in ticks.chunk_by(|&before, &after| before.checked_add(1) == Some(after)) {
            let Some(&first_tick) = run.first() else { continue };
            let ticks = u64::try_from(run.len()).unwrap_or(u64::MAX);
            self.lost_ticks += ticks;
            self.wait(elapsed, Gap { first_tick, ticks, cause: NOT_KEPT.to_owned() });
        }
    }

    /// Offers what waits; whether all of it was taken.
    pub(super) fn flush(&mut self) -> bool {
        while let Some((elapsed, body)) = self.waiting.pop_front() {
            if !self.offer(elapsed, &body) {
                self.waiting.push_front((elapsed, body));
                return false;
            }
        }
        true
    }

    /// A gap that continues the last one that waits is joined to it: hours without a spool are one frame.
    fn wait(&mut self, elapsed: Duration, gap: Gap) {
        if let Some((_, Body::Gap(last))) = self.waiting.back_mut()
            && last.cause == gap.cause
            && last.first_tick.checked_add(last.ticks) == Some(gap.first_tick)
        {
            last.ticks = last.ticks.saturating_add(gap.ticks);
            return;
        }
        self.waiting.push_back((elapsed, Body::Gap(gap)));
    }

    fn offer(&mut self, elapsed: Duration, body: &Body) -> bool {
        let answer: Result<(), AppendError> = (self.append)(elapsed, body);
        match answer {
            Ok(()) => {
                if std::mem::take(&mut self.is_refused) {
                    tracing::info!("the spool takes evidence again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_refused, true) {
                    tracing::warn!(
                        error,
                        "the spool does not take evidence; what was sampled meanwhile becomes a gap"
                    );
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::evidence::Samples;
    use std::sync::{Arc, Mutex};

    #[test]
    fn samples_that_are_not_taken_become_one_gap() {
        let taken = Arc::new(Mutex::new((false, Vec::new())));
        let shared = Arc::clone(&taken);
        let mut outbox = Outbox::new(move |_, body: &Body| {
            let mut taken = shared.lock().unwrap();
            if taken.0 {
                taken.1.push(body.clone());
                Ok(())
            } else {
                Err("no space".into())
            }
        });
        let samples =
            |ticks: &[u64]| Body::Samples(Samples { ticks: ticks.to_vec(), ..Samples::default() });
        for ticks in [[0, 1], [2, 3], [5, 6]] {
            outbox.send_samples(Duration::ZERO, &ticks, &samples(&ticks));
        }
        outbox.send(Duration::ZERO, Body::ProcessEnded(4));
        assert_eq!(outbox.lost_ticks(), 6);
        taken.lock().unwrap().0 = true;
        outbox.send_samples(Duration::ZERO, &[7], &samples(&[7]));
        let gap =
            |first_tick, ticks| Body::Gap(Gap { first_tick, ticks, cause: NOT_KEPT.to_owned() });
        let expected = [gap(0, 4), gap(5, 2), Body::ProcessEnded(4), samples(&[7])];
        assert_eq!(taken.lock().unwrap().1, expected);
    }
}
