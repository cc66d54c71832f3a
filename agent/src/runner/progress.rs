//! Where the attempt stands, for people: told by the attempt's task, written to the folder at most twice a second.
//!
//! No verdict rests on it, so nothing waits for it and a write that fails is forgotten. The share done weighs phases by what is known
//! of their length before they run: a loop by its time, else a flat guess.

use crate::runner::course::Step;
use pgsoak_proto::job::Lease;
use pgsoak_proto::session::{JobProgress, JobStage};
use pgsoak_workloads::workload::Length;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// At most so often is it written.
pub const WRITE_EVERY: Duration = Duration::from_millis(500);

/// What a phase that runs once is taken for, in seconds.
const ONCE_WEIGHT: f64 = 2.0;

/// What a loop of rounds is taken for, in seconds.
const ROUNDS_WEIGHT: f64 = 30.0;

/// Below this share the time left is not guessed.
const GUESS_FROM: f64 = 0.02;

/// Tells of the attempt. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    told: Arc<watch::Sender<Told>>,
}

#[derive(Clone, Debug)]
struct Told {
    progress: JobProgress,
    /// When the first phase began.
    running_since: Option<Instant>,
    /// Weights of the phases: done, under way, all.
    done: f64,
    under_way: f64,
    all: f64,
}

impl Progress {
    /// Of a fresh attempt; the receiver sees every change.
    pub fn new(lease: Lease) -> (Self, ProgressReader) {
        let progress = JobProgress {
            lease,
            stage: JobStage::Preparing,
            phase: String::new(),
            round: 0,
            rounds: 0,
            operations: 0,
            done: 0.0,
            left_ms: 0,
            rss_anon_bytes: 0,
        };
        let told = Told { progress, running_since: None, done: 0.0, under_way: 0.0, all: 1.0 };
        let (told, reader) = watch::channel(told);
        (Self { told: Arc::new(told) }, ProgressReader { told: reader })
    }

    /// The phases are about to run.
    pub fn running(&self, steps: &[Step], loop_for: Option<Duration>) {
        let all: f64 = steps.iter().map(|step| weight(step, loop_for)).sum();
        self.told.send_modify(|told| {
            told.progress.stage = JobStage::Running;
            told.running_since = Some(Instant::now());
            told.all = all.max(ONCE_WEIGHT);
        });
    }

    /// A phase begins.
    pub fn phase(&self, step: &Step, loop_for: Option<Duration>) {
        self.told.send_modify(|told| {
            told.done += told.under_way;
            told.under_way = weight(step, loop_for);
            told.progress.phase.clone_from(&step.name);
            told.progress.round = 0;
            told.progress.rounds = 0;
            told.share(0.0);
        });
    }

    /// A once phase has done so many of its statements.
    pub fn statements(&self, done: u64, all: u64) {
        self.told.send_modify(|told| {
            told.progress.operations = told.progress.operations.saturating_add(1);
            told.share(done as f64 / all.max(1) as f64);
        });
    }

    /// A round is under way: `share` of the phase is done, and so many operations of all loops.
    pub fn round(&self, round: u32, rounds: u32, share: f64, operations: u64) {
        self.told.send_modify(|told| {
            told.progress.round = round;
            told.progress.rounds = rounds;
            told.progress.operations = operations;
            told.share(share);
        });
    }

    /// A session was read at rest.
    pub fn rss_anon(&self, bytes: u64) {
        self.told.send_modify(|told| {
            told.progress.rss_anon_bytes = told.progress.rss_anon_bytes.max(bytes);
        });
    }

    /// The phases are over.
    pub fn finishing(&self) {
        self.told.send_modify(|told| {
            told.progress.stage = JobStage::Finishing;
            told.progress.left_ms = 0;
        });
    }

    /// The last frame is written.
    pub fn ended(&self) {
        self.told.send_modify(|told| told.progress.stage = JobStage::Ended);
    }
}

/// Sees what is told.
#[derive(Debug)]
pub struct ProgressReader {
    told: watch::Receiver<Told>,
}

impl ProgressReader {
    /// What stands now.
    pub fn now(&mut self) -> JobProgress {
        self.told.borrow_and_update().progress.clone()
    }

    /// Waits for a change; `None`: nobody tells any more.
    pub async fn next(&mut self) -> Option<JobProgress> {
        self.told.changed().await.ok()?;
        Some(self.now())
    }
}

impl Told {
    /// `share` of the phase under way is done.
    fn share(&mut self, share: f64) {
        let done = (self.done + self.under_way * share.clamp(0.0, 1.0)) / self.all;
        let done = done.clamp(0.0, 1.0);
        self.progress.done = done;
        let ran = self.running_since.map_or(Duration::ZERO, |since| since.elapsed());
        let left =
            if done >= GUESS_FROM { ran.mul_f64((1.0 - done) / done) } else { Duration::ZERO };
        self.progress.left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    }
}

/// Seconds that a phase is taken for.
fn weight(step: &Step, loop_for: Option<Duration>) -> f64 {
    let Some(shape) = &step.looped else { return ONCE_WEIGHT };
    match loop_for.map_or(shape.length, Length::For) {
        Length::For(time) => time.as_secs_f64(),
        Length::Rounds(rounds) => match shape.rate {
            Some(rate) if rate > 0.0 => shape.operations as f64 * f64::from(rounds) / rate,
            _ => ROUNDS_WEIGHT,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::id::JobId;
    use pgsoak_workloads::workload::{Loop, Reconnect};

    fn step(length: Option<Length>) -> Step {
        Step {
            phase: 0,
            name: "p".into(),
            sql: "SELECT 1".into(),
            check: None,
            rows: None,
            looped: length.map(|length| Loop {
                workers: 1,
                operations: 10,
                length,
                rate: None,
                reconnect: Reconnect::Never,
            }),
            has_residual: false,
        }
    }

    #[tokio::test]
    async fn the_share_done_rises_with_the_phases_lengths() {
        let (progress, mut reader) =
            Progress::new(Lease { job: JobId::issue(), attempt: 1, fence: 1 });
        let hour = Length::For(Duration::from_secs(3600));
        let steps = [step(None), step(Some(hour)), step(None)];
        progress.running(&steps, None);
        progress.phase(&steps[0], None);
        progress.statements(1, 1);
        assert!(reader.next().await.unwrap().done < 0.001);
        progress.phase(&steps[1], None);
        progress.round(3, 0, 0.5, 1000);
        let half = reader.next().await.unwrap();
        assert!((half.done - 0.5).abs() < 0.01, "{half:?}");
        assert_eq!((half.stage, half.round, half.operations), (JobStage::Running, 3, 1000));
        progress.phase(&steps[2], None);
        progress.statements(9, 1);
        progress.ended();
        let end = reader.next().await.unwrap();
        assert!((end.done - 1.0).abs() < 1e-9);
        assert_eq!(end.stage, JobStage::Ended);
        drop(progress);
        assert!(reader.next().await.is_none());
    }
}
