//! Where a job stands, and which steps it may take from there.

use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, JobId};
use pgsoak_proto::job::{Lease, Outcome};
use serde::{Deserialize, Serialize};

/// Who may run the attempt, and since when.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tenure {
    /// The right to it.
    pub lease: Lease,
    /// Who has it.
    pub agent: AgentId,
    /// When it was given.
    pub assigned_at: UnixUs,
}

/// The state of a job. A job has a live attempt in exactly those variants that carry a [`Tenure`] and are not `Over`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// In the queue.
    Waiting {
        /// Attempts that were lost or refused so far.
        attempts: u32,
        /// Why the last one was; empty before the first.
        lost: String,
        /// Not before this moment.
        not_before: UnixUs,
    },
    /// The lease is durable and the agent is (about to be) told.
    Assigned {
        /// Who, and since when.
        tenure: Tenure,
    },
    /// The agent has shown that it runs it.
    Running {
        /// Who, and since when.
        tenure: Tenure,
        /// When that was first heard.
        started_at: UnixUs,
    },
    /// Its agent is silent. The job goes on by itself until its hard end.
    Unreachable {
        /// Who, and since when.
        tenure: Tenure,
        /// When it was first heard to run; `None`: never.
        started_at: Option<UnixUs>,
        /// When its agent was last heard.
        silent_since: UnixUs,
    },
    /// The agent was told to stop (or will be, when it is heard again).
    Cancelling {
        /// Who, and since when.
        tenure: Tenure,
        /// When the cancel was asked for.
        since: UnixUs,
        /// By whom or why.
        reason: String,
    },
    /// Over. Never left again.
    Over {
        /// How.
        outcome: Outcome,
        /// Why; empty for finished.
        reason: String,
        /// The last attempt; `None`: there was none.
        tenure: Option<Tenure>,
        /// How many attempts there were.
        attempts: u32,
        /// When.
        over_at: UnixUs,
    },
}

/// Something that happened to a job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JobEvent {
    /// An agent gets it.
    Assign(Tenure),
    /// Its agent shows that it runs.
    Started,
    /// Its agent was last heard then, too long ago.
    AgentSilent(UnixUs),
    /// Its agent was heard again, and holds it.
    AgentBack,
    /// The attempt is gone without an end: the agent refused it, or no longer holds it.
    Lost {
        /// One sentence.
        reason: String,
        /// More attempts are allowed while fewer than this many were made.
        max_attempts: u32,
        /// Not tried again before this moment.
        not_before: UnixUs,
    },
    /// Somebody wants it stopped.
    CancelRequested {
        /// By whom or why.
        reason: String,
    },
    /// The agent says that no process of it is left.
    CancelAcknowledged,
    /// Its last frame is stored.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why.
        reason: String,
    },
    /// It cannot come to an end any more: its agent stayed silent past its hard end, its evidence is unusable …
    GivenUp {
        /// One sentence.
        reason: String,
    },
}

/// An event that the job's present state does not allow.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("job {job} is {state} and cannot take {event:?}")]
pub struct IllegalJobEvent {
    /// Which.
    pub job: JobId,
    /// Its state's label.
    pub state: &'static str,
    /// What was refused.
    pub event: JobEvent,
}

// === impl JobState ===

impl JobState {
    /// Where a job begins.
    pub fn new() -> Self {
        Self::Waiting { attempts: 0, lost: String::new(), not_before: UnixUs(0) }
    }

    /// As it is for somebody whose clock shows `now`: what lies ahead of it, since the clock was set back meanwhile, counts as now.
    #[must_use]
    pub fn by_clock(mut self, now: UnixUs) -> Self {
        let back = |at: &mut UnixUs| *at = (*at).min(now);
        match &mut self {
            Self::Waiting { not_before, .. } => back(not_before),
            Self::Assigned { tenure } => back(&mut tenure.assigned_at),
            Self::Running { tenure, started_at } => {
                back(&mut tenure.assigned_at);
                back(started_at);
            }
            Self::Unreachable { tenure, started_at, silent_since } => {
                back(&mut tenure.assigned_at);
                started_at.iter_mut().for_each(back);
                back(silent_since);
            }
            Self::Cancelling { tenure, since, .. } => {
                back(&mut tenure.assigned_at);
                back(since);
            }
            Self::Over { over_at, .. } => back(over_at),
        }
        self
    }

    /// The state after `event`, at `now`. Pure.
    ///
    /// # Errors
    ///
    /// Refuses every pair that is not listed, so a new state or event fails loudly until somebody has decided what it means.
    pub fn after(&self, job: JobId, event: JobEvent, now: UnixUs) -> Result<Self, IllegalJobEvent> {
        use JobEvent as E;
        use JobState as S;
        let over = |outcome, reason: String, tenure: Option<Tenure>, attempts| S::Over {
            outcome,
            reason,
            tenure,
            attempts,
            over_at: now,
        };
        let ended = |outcome, reason: String, tenure: Tenure| {
            over(outcome, reason, Some(tenure), tenure.lease.attempt)
        };
        Ok(match (self, event) {
            (S::Waiting { .. }, E::Assign(tenure)) => S::Assigned { tenure },
            (S::Waiting { attempts, .. }, E::CancelRequested { reason }) => {
                over(Outcome::Cancelled, reason, None, *attempts)
            }
            (S::Waiting { attempts, .. }, E::GivenUp { reason }) => {
                over(Outcome::Infrastructure, reason, None, *attempts)
            }

            (S::Assigned { tenure }, E::Started) => {
                S::Running { tenure: *tenure, started_at: now }
            }
            (S::Running { .. } | S::Cancelling { .. }, E::Started | E::AgentBack)
            | (S::Assigned { .. }, E::AgentBack)
            // A cancelled job whose agent is silent waits for it in the same state.
            | (S::Cancelling { .. }, E::AgentSilent(_) | E::CancelRequested { .. }) => self.clone(),

            (S::Assigned { tenure }, E::AgentSilent(silent_since)) => {
                S::Unreachable { tenure: *tenure, started_at: None, silent_since }
            }
            (S::Running { tenure, started_at }, E::AgentSilent(silent_since)) => {
                S::Unreachable { tenure: *tenure, started_at: Some(*started_at), silent_since }
            }
            (S::Unreachable { .. }, E::AgentSilent(_)) => self.clone(),
            // Its assignment may still be on its way: it is not lost by not being held.
            (S::Unreachable { tenure, started_at: None, .. }, E::AgentBack) => {
                S::Assigned { tenure: *tenure }
            }
            (S::Unreachable { tenure, started_at, .. }, E::AgentBack | E::Started) => {
                S::Running { tenure: *tenure, started_at: started_at.unwrap_or(now) }
            }

            (
                S::Assigned { tenure } | S::Running { tenure, .. } | S::Unreachable { tenure, .. },
                E::CancelRequested { reason },
            ) => S::Cancelling { tenure: *tenure, since: now, reason },
            (S::Cancelling { tenure, reason, .. }, E::CancelAcknowledged | E::Lost { .. }) => {
                ended(Outcome::Cancelled, reason.clone(), *tenure)
            }

            (
                S::Assigned { tenure } | S::Running { tenure, .. } | S::Unreachable { tenure, .. },
                E::Lost { reason, max_attempts, not_before },
            ) => {
                let attempts = tenure.lease.attempt;
                if attempts < max_attempts {
                    S::Waiting { attempts, lost: reason, not_before }
                } else {
                    ended(Outcome::Infrastructure, reason, *tenure)
                }
            }

            (
                S::Assigned { tenure } | S::Running { tenure, .. } | S::Unreachable { tenure, .. },
                E::Ended { outcome, reason },
            ) => ended(outcome, reason, *tenure),
            (S::Cancelling { tenure, reason: asked, .. }, E::Ended { outcome, reason }) => {
                // A job that came to its own end before the cancel reached it keeps that end.
                let reason = match outcome {
                    Outcome::Cancelled => asked.clone(),
                    _ => reason,
                };
                ended(outcome, reason, *tenure)
            }

            (
                S::Assigned { tenure } | S::Running { tenure, .. } | S::Unreachable { tenure, .. },
                E::GivenUp { reason },
            ) => ended(Outcome::Infrastructure, reason, *tenure),
            (S::Cancelling { tenure, reason: asked, .. }, E::GivenUp { reason }) => {
                ended(Outcome::Cancelled, format!("{asked}; {reason}"), *tenure)
            }

            (state, event) => {
                return Err(IllegalJobEvent { job, state: state.label(), event });
            }
        })
    }

    /// Stable label for logs and stores.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Assigned { .. } => "assigned",
            Self::Running { .. } => "running",
            Self::Unreachable { .. } => "unreachable",
            Self::Cancelling { .. } => "cancelling",
            Self::Over { .. } => "over",
        }
    }

    /// The attempt that is (or was the last to be) at work.
    pub const fn tenure(&self) -> Option<&Tenure> {
        match self {
            Self::Waiting { .. } => None,
            Self::Assigned { tenure }
            | Self::Running { tenure, .. }
            | Self::Unreachable { tenure, .. }
            | Self::Cancelling { tenure, .. } => Some(tenure),
            Self::Over { tenure, .. } => tenure.as_ref(),
        }
    }

    /// The attempt that may be at work now.
    pub const fn live(&self) -> Option<&Tenure> {
        match self {
            Self::Over { .. } => None,
            other => other.tenure(),
        }
    }

    /// Whether it is over.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Over { .. })
    }

    /// How many attempts there were, the present one included.
    pub const fn attempts(&self) -> u32 {
        match self {
            Self::Waiting { attempts, .. } | Self::Over { attempts, .. } => *attempts,
            Self::Assigned { tenure }
            | Self::Running { tenure, .. }
            | Self::Unreachable { tenure, .. }
            | Self::Cancelling { tenure, .. } => tenure.lease.attempt,
        }
    }
}

impl Default for JobState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenure(job: JobId, attempt: u32) -> Tenure {
        Tenure {
            lease: Lease { job, attempt, fence: u64::from(attempt) },
            agent: AgentId::issue(),
            assigned_at: UnixUs(1),
        }
    }

    fn lost(max_attempts: u32) -> JobEvent {
        JobEvent::Lost { reason: "gone".to_owned(), max_attempts, not_before: UnixUs(7) }
    }

    #[test]
    fn what_lies_ahead_of_the_clock_counts_as_now() {
        let waiting =
            |at| JobState::Waiting { attempts: 1, lost: "gone".to_owned(), not_before: UnixUs(at) };
        assert_eq!(waiting(90).by_clock(UnixUs(20)), waiting(20));
        assert_eq!(waiting(10).by_clock(UnixUs(20)), waiting(10));
        // A run waits for the raw files of what is over: by its own clock, not by the one that was.
        let over = |at| JobState::Over {
            outcome: Outcome::Finished,
            reason: String::new(),
            tenure: None,
            attempts: 1,
            over_at: UnixUs(at),
        };
        assert_eq!(over(90).by_clock(UnixUs(20)), over(20));
        assert_eq!(over(10).by_clock(UnixUs(20)), over(10));
    }

    #[test]
    fn a_lost_attempt_waits_again_until_there_were_enough() {
        let job = JobId::issue();
        let assigned = JobState::Assigned { tenure: tenure(job, 1) };
        let waiting = assigned.after(job, lost(2), UnixUs(5)).unwrap();
        assert_eq!(waiting.attempts(), 1);
        assert!(waiting.live().is_none());
        let again = waiting.after(job, JobEvent::Assign(tenure(job, 2)), UnixUs(9)).unwrap();
        let over = again.after(job, lost(2), UnixUs(10)).unwrap();
        assert!(matches!(
            over,
            JobState::Over { outcome: Outcome::Infrastructure, attempts: 2, .. }
        ));
    }

    #[test]
    fn a_cancelled_job_that_is_lost_is_cancelled() {
        let job = JobId::issue();
        let cancelling = JobState::Running { tenure: tenure(job, 1), started_at: UnixUs(2) }
            .after(job, JobEvent::CancelRequested { reason: "enough".to_owned() }, UnixUs(3))
            .unwrap();
        let over = cancelling.after(job, lost(3), UnixUs(4)).unwrap();
        assert!(
            matches!(over, JobState::Over { outcome: Outcome::Cancelled, ref reason, .. } if reason == "enough")
        );
    }

    #[test]
    fn a_silent_agent_does_not_end_its_job() {
        let job = JobId::issue();
        let running = JobState::Running { tenure: tenure(job, 1), started_at: UnixUs(2) };
        let silent = running.after(job, JobEvent::AgentSilent(UnixUs(3)), UnixUs(9)).unwrap();
        assert_eq!(silent.label(), "unreachable");
        assert_eq!(silent.after(job, JobEvent::AgentBack, UnixUs(12)).unwrap(), running);
    }

    #[test]
    fn an_assignment_that_was_never_heard_of_stays_one_over_a_silence() {
        let job = JobId::issue();
        let assigned = JobState::Assigned { tenure: tenure(job, 1) };
        let silent = assigned.after(job, JobEvent::AgentSilent(UnixUs(3)), UnixUs(9)).unwrap();
        assert_eq!(silent.after(job, JobEvent::AgentBack, UnixUs(12)).unwrap(), assigned);
        assert_eq!(silent.after(job, JobEvent::Started, UnixUs(12)).unwrap().label(), "running");
    }

    #[test]
    fn what_is_not_listed_is_refused_with_job_state_and_event() {
        let job = JobId::issue();
        let refused = JobState::new().after(job, JobEvent::Started, UnixUs(1)).unwrap_err();
        assert_eq!(refused.state, "waiting");
        assert!(refused.to_string().contains(&job.to_string()));
    }

    fn any_event(job: JobId) -> impl Strategy<Value = JobEvent> {
        let outcome = prop_oneof![
            Just(Outcome::Finished),
            Just(Outcome::Failed),
            Just(Outcome::Infrastructure),
            Just(Outcome::Cancelled),
            Just(Outcome::TimedOut)
        ];
        prop_oneof![
            (1u32..5).prop_map(move |attempt| JobEvent::Assign(tenure(job, attempt))),
            Just(JobEvent::Started),
            Just(JobEvent::AgentSilent(UnixUs(1))),
            Just(JobEvent::AgentBack),
            Just(lost(3)),
            Just(JobEvent::CancelRequested { reason: "r".to_owned() }),
            Just(JobEvent::CancelAcknowledged),
            outcome.prop_map(|outcome| JobEvent::Ended { outcome, reason: String::new() }),
            Just(JobEvent::GivenUp { reason: "g".to_owned() }),
        ]
    }

    proptest! {
        /// Over stays over; a live attempt is only ever replaced after it was let go of; nothing panics.
        #[test]
        fn no_sequence_of_events_breaks_the_rules(seed in any::<u8>(), events in prop::collection::vec(any_event(JobId::from_bytes([7; 16])), 0..40)) {
            let job = JobId::from_bytes([7; 16]);
            let mut state = JobState::new();
            for event in events {
                let before = state.clone();
                let is_assign = matches!(event, JobEvent::Assign(_));
                match state.after(job, event, UnixUs(u64::from(seed))) {
                    Ok(next) => {
                        prop_assert!(!before.is_over());
                        if is_assign {
                            prop_assert!(before.live().is_none());
                        } else if let (Some(was), Some(is)) = (before.live(), next.live()) {
                            prop_assert_eq!(was, is);
                        }
                        // Every state is durable: it comes back as it was.
                        let text = serde_json::to_string(&next).unwrap();
                        prop_assert_eq!(&serde_json::from_str::<JobState>(&text).unwrap(), &next);
                        state = next;
                    }
                    Err(refused) => prop_assert_eq!(refused.state, before.label()),
                }
            }
        }
    }
}
