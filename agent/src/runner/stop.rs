//! What can end an attempt from outside: a cancel, a signal, the hard end.
//!
//! One task watches all three and fires one token; the first cause stands. A thread beside the runtime is the last
//! resort: when the runner has not ended well after its hard end, it kills what the job left and the runner itself.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

/// How often the `cancel` file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Time since the host came up, with the time that it was suspended: the coordinator counts on the hard end by the clock on the
/// wall, and gives a lost job to another host after it.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// Why an attempt was stopped from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// Somebody asked for it; holds the reason.
    Cancelled(String),
    /// The hard end; holds the time that was allowed.
    HardEnd(Duration),
}

/// Fires once, with its cause.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    cause: Arc<OnceLock<StopCause>>,
}

impl Stop {
    /// Fires; only the first cause stands.
    pub fn fire(&self, cause: StopCause) {
        let _ = self.cause.set(cause);
        self.token.cancel();
    }

    /// Waits until it fires.
    pub async fn fired(&self) -> StopCause {
        self.token.cancelled().await;
        self.cause.get().cloned().unwrap_or_else(|| StopCause::Cancelled(String::new()))
    }
}

/// Watches SIGTERM, SIGINT, the `cancel` file and the hard end. Ends when one of them has fired `stop`.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn watch(
    stop: Stop,
    cancel_file: PathBuf,
    hard_end: Duration,
) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = since_boot().saturating_add(hard_end);
    Ok(tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                _ = terminate.recv() => Some(told(&cancel_file, "SIGTERM").await),
                _ = interrupt.recv() => Some(told(&cancel_file, "SIGINT").await),
                _ = look.tick() => match tokio::fs::try_exists(&cancel_file).await {
                    Ok(true) => Some(told(&cancel_file, "the cancel file").await),
                    _ => (since_boot() >= end).then_some(StopCause::HardEnd(hard_end)),
                },
            };
            if let Some(cause) = cause {
                stop.fire(cause);
                return;
            }
        }
    }))
}

/// A cancel with the reason that the daemon left, or else how it came.
async fn told(cancel_file: &PathBuf, how: &str) -> StopCause {
    let reason = tokio::fs::read_to_string(cancel_file).await.unwrap_or_default();
    let reason = reason.trim();
    StopCause::Cancelled(if reason.is_empty() {
        format!("stopped by {how}")
    } else {
        reason.chars().take(500).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stands() {
        let stop = Stop::default();
        stop.fire(StopCause::HardEnd(Duration::from_secs(1)));
        stop.fire(StopCause::Cancelled("late".into()));
        assert_eq!(stop.fired().await, StopCause::HardEnd(Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_cancel_file_fires_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cancel");
        let stop = Stop::default();
        let watch = watch(stop.clone(), file.clone(), Duration::from_secs(3600)).unwrap();
        std::fs::write(&file, "host is needed\n").unwrap();
        assert_eq!(stop.fired().await, StopCause::Cancelled("host is needed".into()));
        watch.await.unwrap();
    }

    #[tokio::test]
    async fn the_hard_end_fires_by_itself() {
        let stop = Stop::default();
        let end = Duration::from_millis(1);
        let watch = watch(stop.clone(), "/nonexistent/cancel".into(), end).unwrap();
        assert_eq!(stop.fired().await, StopCause::HardEnd(end));
        watch.await.unwrap();
    }
}
