//! Who is silent, and which jobs cannot come to an end any more.
//!
//! Silent is not lost: a job goes on without anybody listening, until its hard end. Only when that and a grace time for
//! late evidence have passed is it given up.

use crate::domain::job::{JobEvent, JobState};
use crate::domain::time::UnixUs;
use pgsoak_proto::job::OnLost;
use std::time::Duration;

/// One job that an agent may be running.
#[derive(Clone, Debug)]
pub struct LiveJob<'a> {
    /// Where it stands; one with a live attempt.
    pub state: &'a JobState,
    /// After this, from its start, the runner ends by itself.
    pub hard_end: Duration,
    /// What the plan says of a lost attempt.
    pub on_lost: OnLost,
    /// Its agent's name.
    pub agent: &'a str,
    /// Its agent has a session.
    pub is_connected: bool,
    /// When its agent was last heard.
    pub agent_seen_at: UnixUs,
    /// When the job itself was last heard: evidence, progress, a piece of an artifact.
    pub job_heard_at: UnixUs,
    /// Since when this coordinator listens: it cannot blame an agent for what it missed itself.
    pub listening_since: UnixUs,
    /// How long it was away before that is known. Else the wall clock may be hours off what it was, and what is past by it may not be.
    pub is_time_known: bool,
}

/// How long after a job's hard end its evidence may still come: a cut of the network near the end of a long job costs
/// nothing, and a short job does not hold its run up for hours.
pub fn grace(hard_end: Duration, least: Duration) -> Duration {
    least.max(hard_end / 4)
}

/// An attempt that was at work is lost for certain: tried again where the plan says so, or over.
pub fn lost(on_lost: OnLost, reason: String, max_attempts: u32, now: UnixUs) -> JobEvent {
    match on_lost {
        OnLost::Retry => JobEvent::Lost { reason, max_attempts, not_before: now },
        OnLost::Wait => JobEvent::GivenUp {
            reason: format!("{reason} (on_lost = \"retry\" in the plan makes another attempt)"),
        },
    }
}

/// What has become of the job by `now`, if anything.
pub fn step(
    job: &LiveJob<'_>,
    now: UnixUs,
    lease_ttl: Duration,
    least_grace: Duration,
    max_attempts: u32,
) -> Option<JobEvent> {
    let tenure = job.state.live()?;
    let is_silent = now.since(job.agent_seen_at) > lease_ttl;
    let grace = grace(job.hard_end, least_grace);
    let given_up_at = tenure
        .assigned_at
        .plus(job.hard_end)
        .plus(grace)
        .max(job.listening_since.plus(least_grace));
    // Counted from here on its runner has ended by itself in any case.
    let given_up_at = if job.is_time_known || tenure.assigned_at >= job.listening_since {
        given_up_at
    } else {
        given_up_at.max(job.listening_since.plus(job.hard_end).plus(grace))
    };
    if now > given_up_at {
        if is_silent {
            let reason = format!(
                "agent {} was not heard of since {}, and the job's hard end is past",
                job.agent, job.agent_seen_at
            );
            // Its runner has ended by itself, wherever it is: another attempt is the only live one.
            return Some(lost(job.on_lost, reason, max_attempts, now));
        }
        // The agent is there, and brings nothing of this job any more.
        if job.is_connected && now.since(job.job_heard_at) > grace {
            return Some(JobEvent::GivenUp {
                reason: format!(
                    "agent {} lives, but nothing of this job was heard since {}, and its hard end is past",
                    job.agent, job.job_heard_at
                ),
            });
        }
    }
    match job.state {
        JobState::Assigned { .. } | JobState::Running { .. } if is_silent => {
            Some(JobEvent::AgentSilent(job.agent_seen_at))
        }
        JobState::Unreachable { .. } if !is_silent && job.is_connected => Some(JobEvent::AgentBack),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::Tenure;
    use pgsoak_proto::id::{AgentId, JobId};
    use pgsoak_proto::job::Lease;

    const TTL: Duration = Duration::from_secs(30);
    const GRACE: Duration = Duration::from_secs(600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(s: u64) -> UnixUs {
        UnixUs(s * 1_000_000)
    }

    fn running() -> JobState {
        let job = JobId::issue();
        let lease = Lease { job, attempt: 1, fence: 1 };
        let tenure = Tenure { lease, agent: AgentId::issue(), assigned_at: seconds(0) };
        JobState::Running { tenure, started_at: seconds(1) }
    }

    fn live(state: &JobState, heard: u64) -> LiveJob<'_> {
        LiveJob {
            state,
            hard_end: DAY,
            on_lost: OnLost::Wait,
            agent: "a",
            is_connected: true,
            agent_seen_at: seconds(heard),
            job_heard_at: seconds(heard),
            listening_since: seconds(0),
            is_time_known: true,
        }
    }

    #[test]
    fn a_silent_agent_is_unreachable_and_its_job_goes_on() {
        let state = running();
        assert_eq!(step(&live(&state, 100), seconds(130), TTL, GRACE, 3), None);
        assert_eq!(
            step(&live(&state, 100), seconds(131), TTL, GRACE, 3),
            Some(JobEvent::AgentSilent(seconds(100)))
        );
        // A cut of hours: still nothing lost.
        let silent =
            state.after(JobId::issue(), JobEvent::AgentSilent(seconds(100)), seconds(131)).unwrap();
        assert_eq!(step(&live(&silent, 100), seconds(40_000), TTL, GRACE, 3), None);
        assert_eq!(
            step(&live(&silent, 40_000), seconds(40_001), TTL, GRACE, 3),
            Some(JobEvent::AgentBack)
        );
    }

    #[test]
    fn a_job_is_given_up_after_its_hard_end_and_a_grace() {
        let state = running();
        let end = 86_400 + 21_600;
        assert!(!matches!(
            step(&live(&state, 100), seconds(end), TTL, GRACE, 3),
            Some(JobEvent::GivenUp { .. })
        ));
        let Some(JobEvent::GivenUp { reason }) =
            step(&live(&state, 100), seconds(end + 1), TTL, GRACE, 3)
        else {
            panic!("not given up")
        };
        assert!(reason.contains("agent a was not heard of since 1970-01-01T00:01:40Z"), "{reason}");
    }

    #[test]
    fn a_lost_job_is_tried_again_only_where_the_plan_says_so_and_never_before_its_hard_end() {
        let state = running();
        let silent =
            state.after(JobId::issue(), JobEvent::AgentSilent(seconds(100)), seconds(131)).unwrap();
        let mut job = live(&silent, 100);
        job.on_lost = OnLost::Retry;
        let end = 86_400 + 21_600;
        assert_eq!(step(&job, seconds(end), TTL, GRACE, 3), None);
        let lost = step(&job, seconds(end + 1), TTL, GRACE, 3);
        assert!(matches!(lost, Some(JobEvent::Lost { max_attempts: 3, .. })), "{lost:?}");
        job.on_lost = OnLost::Wait;
        let lost = step(&job, seconds(end + 1), TTL, GRACE, 3);
        let Some(JobEvent::GivenUp { reason }) = lost else { panic!("{lost:?}") };
        assert!(reason.contains("on_lost = \"retry\""), "{reason}");
    }

    #[test]
    fn a_coordinator_that_was_away_listens_before_it_gives_up() {
        let state = running();
        let mut job = live(&state, 100);
        job.listening_since = seconds(500_000);
        let step_at = |at| step(&job, seconds(at), TTL, GRACE, 3);
        assert!(!matches!(step_at(500_600), Some(JobEvent::GivenUp { .. })));
        assert!(matches!(step_at(500_601), Some(JobEvent::GivenUp { .. })));
    }

    #[test]
    fn a_coordinator_whose_clock_was_set_while_it_was_away_waits_for_the_hard_end_again() {
        let state = running();
        let mut job = live(&state, 100);
        job.listening_since = seconds(500_000);
        job.is_time_known = false;
        let end = 500_000 + 86_400 + 21_600;
        assert!(!matches!(step(&job, seconds(end), TTL, GRACE, 3), Some(JobEvent::GivenUp { .. })));
        assert!(matches!(
            step(&job, seconds(end + 1), TTL, GRACE, 3),
            Some(JobEvent::GivenUp { .. })
        ));
        // What it gave away itself it can count.
        job.listening_since = seconds(0);
        let end = 86_400 + 21_600;
        assert!(matches!(
            step(&job, seconds(end + 1), TTL, GRACE, 3),
            Some(JobEvent::GivenUp { .. })
        ));
    }

    #[test]
    fn an_agent_that_still_brings_evidence_after_the_hard_end_is_listened_to() {
        let state = running();
        let late = 200_000;
        assert_eq!(step(&live(&state, late - 5), seconds(late), TTL, GRACE, 3), None);
        let mut mute = live(&state, late - 5);
        mute.job_heard_at = seconds(100);
        assert!(matches!(
            step(&mute, seconds(late), TTL, GRACE, 3),
            Some(JobEvent::GivenUp { .. })
        ));
    }
}
