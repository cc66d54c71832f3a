//! Where a run stands, and which steps it may take from there.

use crate::domain::time::UnixUs;
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::id::RunId;
use serde::{Deserialize, Serialize};

/// The state of a run. Data lives in the variant that needs it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted; no agent has been told yet.
    Queued,
    /// At least one job was given to an agent.
    Running {
        /// When the first was.
        started_at: UnixUs,
    },
    /// Somebody wants it stopped; jobs are still ending.
    Cancelling {
        /// When its first job was given away; `None`: none was.
        started_at: Option<UnixUs>,
        /// When the cancel was asked for.
        since: UnixUs,
        /// By whom or why.
        reason: String,
    },
    /// All jobs are over; the stored evidence is being judged.
    Judging {
        /// When its first job was given away; `None`: none was.
        started_at: Option<UnixUs>,
        /// When the last job was over.
        since: UnixUs,
        /// Why it was cancelled; `None`: it was not.
        cancelled: Option<String>,
    },
    /// Over. Never left again.
    Finished {
        /// When its first job was given away; `None`: none was.
        started_at: Option<UnixUs>,
        /// When it was judged.
        finished_at: UnixUs,
        /// Why it was cancelled; `None`: it was not.
        cancelled: Option<String>,
        /// What it came to.
        verdict: Verdict,
        /// One line for people.
        sentence: String,
    },
}

/// Something that happened to a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEvent {
    /// A job of it was given to an agent.
    JobAssigned,
    /// Somebody wants it stopped.
    CancelRequested {
        /// By whom or why.
        reason: String,
    },
    /// The last of its jobs is over.
    AllOver,
    /// The evidence was judged.
    Judged {
        /// What it came to.
        verdict: Verdict,
        /// One line for people.
        sentence: String,
    },
}

/// An event that the run's present state does not allow.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("run {run} is {state} and cannot take {event:?}")]
pub struct IllegalRunEvent {
    /// Which.
    pub run: RunId,
    /// Its state's label.
    pub state: &'static str,
    /// What was refused.
    pub event: RunEvent,
}

// === impl RunState ===

impl RunState {
    /// The state after `event`, at `now`. Pure.
    ///
    /// # Errors
    ///
    /// Refuses every pair that is not listed.
    pub fn after(&self, run: RunId, event: RunEvent, now: UnixUs) -> Result<Self, IllegalRunEvent> {
        use RunEvent as E;
        use RunState as S;
        Ok(match (self, event) {
            (S::Queued, E::JobAssigned) => S::Running { started_at: now },
            (S::Running { .. }, E::JobAssigned) => self.clone(),

            (S::Queued, E::CancelRequested { reason }) => {
                S::Cancelling { started_at: None, since: now, reason }
            }
            (S::Running { started_at }, E::CancelRequested { reason }) => {
                S::Cancelling { started_at: Some(*started_at), since: now, reason }
            }
            // Asked twice is asked once; what is over, or is being judged, is not stopped any more.
            (
                S::Cancelling { .. } | S::Judging { .. } | S::Finished { .. },
                E::CancelRequested { .. },
            ) => self.clone(),

            (S::Queued, E::AllOver) => S::Judging { started_at: None, since: now, cancelled: None },
            (S::Running { started_at }, E::AllOver) => {
                S::Judging { started_at: Some(*started_at), since: now, cancelled: None }
            }
            (S::Cancelling { started_at, reason, .. }, E::AllOver) => {
                S::Judging { started_at: *started_at, since: now, cancelled: Some(reason.clone()) }
            }
            (S::Judging { started_at, cancelled, .. }, E::Judged { verdict, sentence }) => {
                S::Finished {
                    started_at: *started_at,
                    finished_at: now,
                    cancelled: cancelled.clone(),
                    verdict,
                    sentence,
                }
            }
            (state, event) => {
                return Err(IllegalRunEvent { run, state: state.label(), event });
            }
        })
    }

    /// Stable label for logs, stores and sentences.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Cancelling { .. } => "cancelling",
            Self::Judging { .. } => "judging",
            Self::Finished { .. } => "finished",
        }
    }

    /// When its first job was given to an agent.
    pub const fn started_at(&self) -> Option<UnixUs> {
        match self {
            Self::Queued => None,
            Self::Running { started_at } => Some(*started_at),
            Self::Cancelling { started_at, .. }
            | Self::Judging { started_at, .. }
            | Self::Finished { started_at, .. } => *started_at,
        }
    }

    /// Why it was cancelled; `None`: it was not.
    pub fn cancelled(&self) -> Option<&str> {
        match self {
            Self::Queued | Self::Running { .. } => None,
            Self::Cancelling { reason, .. } => Some(reason),
            Self::Judging { cancelled, .. } | Self::Finished { cancelled, .. } => {
                cancelled.as_deref()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged() -> RunEvent {
        RunEvent::Judged { verdict: Verdict::Pass, sentence: "fine".to_owned() }
    }

    fn cancel() -> RunEvent {
        RunEvent::CancelRequested { reason: "enough".to_owned() }
    }

    /// The whole table: from each state, the label after each event; `-` is a refusal.
    #[test]
    fn every_pair_is_decided() {
        let at = UnixUs(1);
        let states = [
            RunState::Queued,
            RunState::Running { started_at: at },
            RunState::Cancelling { started_at: None, since: at, reason: String::new() },
            RunState::Judging { started_at: None, since: at, cancelled: None },
            RunState::Finished {
                started_at: None,
                finished_at: at,
                cancelled: None,
                verdict: Verdict::Pass,
                sentence: String::new(),
            },
        ];
        let expected = [
            ["running", "cancelling", "judging", "-"],
            ["running", "cancelling", "judging", "-"],
            ["-", "cancelling", "judging", "-"],
            ["-", "judging", "-", "finished"],
            ["-", "finished", "-", "-"],
        ];
        for (state, expected) in states.iter().zip(expected) {
            let events = [RunEvent::JobAssigned, cancel(), RunEvent::AllOver, judged()];
            for (event, expected) in events.into_iter().zip(expected) {
                let run = RunId::issue();
                let got = state.after(run, event.clone(), UnixUs(2));
                let label = got.as_ref().map_or("-", RunState::label);
                assert_eq!(label, expected, "{} + {event:?}", state.label());
                if let Ok(next) = got {
                    let text = serde_json::to_string(&next).unwrap();
                    assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), next);
                }
            }
        }
    }

    #[test]
    fn a_cancelled_run_stays_cancelled_through_its_judgement() {
        let run = RunId::issue();
        let finished = RunState::Queued
            .after(run, cancel(), UnixUs(1))
            .and_then(|state| state.after(run, RunEvent::AllOver, UnixUs(2)))
            .and_then(|state| state.after(run, judged(), UnixUs(3)))
            .unwrap();
        assert_eq!(finished.cancelled(), Some("enough"));
        assert_eq!(finished.started_at(), None);
    }
}
