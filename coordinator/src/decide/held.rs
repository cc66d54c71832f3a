//! What to do with the attempts of an agent that (re)connects, and with those it should hold and does not.

use crate::domain::job::JobState;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::Lease;

/// What the coordinator knows about the job of an attempt that an agent holds.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Where the job stands.
    pub state: &'a JobState,
    /// Nothing more is wanted of its last attempt.
    pub is_released: bool,
    /// Its run is judged, and the last frame of this attempt was not there when it was.
    pub is_too_late: bool,
}

/// What becomes of a held attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HeldAnswer {
    /// The lease stands: go on, and send from the high-water mark.
    Continue,
    /// The lease stands, and the attempt is to stop.
    ContinueAndCancel {
        /// Why.
        reason: String,
    },
    /// Everything of it is stored: forget it.
    Release,
    /// The lease does not stand.
    Refuse {
        /// Why.
        reason: String,
    },
}

/// The answer for one held attempt; `known` is `None` when there is no such job.
pub fn answer(agent: AgentId, lease: Lease, known: Option<Known<'_>>) -> HeldAnswer {
    let Some(known) = known else {
        return HeldAnswer::Refuse {
            reason: "this coordinator knows no such job (was its data folder replaced?)".to_owned(),
        };
    };
    let Some(tenure) = known.state.tenure() else {
        return HeldAnswer::Refuse {
            reason: format!("attempt {} was given up; the job waits for a new one", lease.attempt),
        };
    };
    if tenure.lease != lease || tenure.agent != agent {
        return HeldAnswer::Refuse {
            reason: format!(
                "attempt {} (fence {}) was replaced by attempt {} (fence {})",
                lease.attempt, lease.fence, tenure.lease.attempt, tenure.lease.fence
            ),
        };
    }
    if known.is_released {
        return HeldAnswer::Release;
    }
    match known.state {
        JobState::Over { reason, .. } if known.is_too_late => HeldAnswer::Refuse {
            reason: format!("the run was judged without the rest of this attempt ({reason})"),
        },
        JobState::Cancelling { reason, .. } => {
            HeldAnswer::ContinueAndCancel { reason: reason.clone() }
        }
        _ => HeldAnswer::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::{JobEvent, Tenure};
    use crate::domain::time::UnixUs;
    use pgsoak_proto::id::JobId;

    fn lease(attempt: u32) -> Lease {
        Lease { job: JobId::from_bytes([1; 16]), attempt, fence: 40 + u64::from(attempt) }
    }

    fn known(state: &JobState) -> Known<'_> {
        Known { state, is_released: false, is_too_late: false }
    }

    #[test]
    fn only_the_last_lease_of_the_same_agent_stands() {
        let agent = AgentId::issue();
        let tenure = Tenure { lease: lease(2), agent, assigned_at: UnixUs(0) };
        let state = JobState::Assigned { tenure };
        assert_eq!(answer(agent, lease(2), Some(known(&state))), HeldAnswer::Continue);
        for (who, held) in [
            (agent, lease(1)),
            (AgentId::issue(), lease(2)),
            (agent, Lease { fence: 9, ..lease(2) }),
        ] {
            let HeldAnswer::Refuse { reason } = answer(who, held, Some(known(&state))) else {
                panic!("an old lease stands: {held:?}")
            };
            assert!(reason.contains("replaced by attempt 2"), "{reason}");
        }
        assert!(matches!(answer(agent, lease(2), None), HeldAnswer::Refuse { .. }));
        let waiting = JobState::new();
        assert!(matches!(
            answer(agent, lease(2), Some(known(&waiting))),
            HeldAnswer::Refuse { .. }
        ));
    }

    #[test]
    fn what_is_stored_is_released_and_what_is_cancelled_is_stopped() {
        let agent = AgentId::issue();
        let tenure = Tenure { lease: lease(1), agent, assigned_at: UnixUs(0) };
        let job = tenure.lease.job;
        let running = JobState::Running { tenure, started_at: UnixUs(0) };
        let asked = JobEvent::CancelRequested { reason: "enough".to_owned() };
        let cancelling = running.after(job, asked, UnixUs(1)).unwrap();
        assert_eq!(
            answer(agent, lease(1), Some(known(&cancelling))),
            HeldAnswer::ContinueAndCancel { reason: "enough".to_owned() }
        );
        let over = cancelling.after(job, JobEvent::CancelAcknowledged, UnixUs(2)).unwrap();
        assert_eq!(answer(agent, lease(1), Some(known(&over))), HeldAnswer::Continue);
        let late = Known { is_too_late: true, ..known(&over) };
        assert!(matches!(answer(agent, lease(1), Some(late)), HeldAnswer::Refuse { .. }));
        let released = Known { is_released: true, ..known(&over) };
        assert_eq!(answer(agent, lease(1), Some(released)), HeldAnswer::Release);
    }
}
