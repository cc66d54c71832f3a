//! One live attempt at most: leases, fences, agents that come back or do not.

use crate::scripted::{Scripted, Stage, ended, frames, held, limits, plan};
use pgsoak_proto::job::{Lease, Outcome};
use pgsoak_proto::session::{AgentMessage, CoordinatorMessage, Refusal};
use pgsoak_proto::wire;
use std::time::Duration;

#[tokio::test]
async fn an_attempt_that_is_gone_is_made_again_and_the_old_lease_is_refused() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("on_lost = \"retry\""), "key").await;
    let first = agent.assignment().await.lease;
    agent.evidence(first, frames(1, 3)).await;
    agent.acknowledged(first, 3).await;

    // It comes back, and its folder is gone.
    agent.connect(&stage.socket(), vec![]).await;
    let second = agent.assignment().await.lease;
    assert_eq!((second.job, second.attempt), (first.job, 2));
    assert!(second.fence > first.fence);

    agent.evidence(first, frames(4, 5)).await;
    let CoordinatorMessage::LeaseRefused(refused) = agent.next().await.unwrap() else {
        panic!("an old lease stands")
    };
    assert_eq!(refused.lease, first);
    assert!(refused.reason.contains("replaced by attempt 2"), "{}", refused.reason);
    let forged = Lease { fence: second.fence + 1, ..second };
    agent.evidence(forged, frames(1, 1)).await;
    assert!(matches!(agent.next().await.unwrap(), CoordinatorMessage::LeaseRefused(_)));

    agent.evidence(second, [frames(1, 1), vec![ended(2, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(second, 2).await;
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].attempts, 2);
    let stored = stage.stored(&run).await;
    assert_eq!((stored[&1].len(), stored[&2].len()), (3, 2));
    stage.stop().await;
}

#[tokio::test]
async fn a_job_that_is_refused_again_and_again_is_over() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    for attempt in 1..=6 {
        let lease = agent.assignment().await.lease;
        assert_eq!(lease.attempt, attempt);
        let reason = "no room on the disk".to_owned();
        agent.say(AgentMessage::AssignmentRefused(Refusal { lease, reason })).await;
    }
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Infrastructure);
    assert_eq!(view.jobs[0].reason, "agent a refused it: no room on the disk");
    assert_ne!(view.verdict, "pass");
    assert_ne!(view.verdict, "fail", "infrastructure is never the product's failure");
    stage.stop().await;
}

#[tokio::test]
async fn attempts_that_are_lost_again_and_again_end_the_job() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("on_lost = \"retry\""), "key").await;
    for attempt in 1..=3 {
        let lease = agent.assignment().await.lease;
        assert_eq!(lease.attempt, attempt);
        agent.heartbeat(&[lease]).await;
        agent.connect(&stage.socket(), vec![]).await;
    }
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Infrastructure);
    assert_eq!(view.jobs[0].reason, "agent a came back without it");
    assert!(view.sentence.contains("attempt 1 of job"), "{}", view.sentence);
    stage.stop().await;
}

#[tokio::test]
async fn without_the_policy_a_lost_attempt_is_not_made_again() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 3)).await;
    agent.acknowledged(lease, 3).await;
    agent.connect(&stage.socket(), vec![]).await;
    let view = stage.finished(&run).await;
    assert_eq!((view.jobs[0].attempts, view.jobs[0].outcome()), (1, wire::Outcome::Infrastructure));
    assert!(view.jobs[0].reason.contains("on_lost = \"retry\""), "{}", view.jobs[0].reason);
    assert_eq!(view.verdict, "invalid", "what is lost never passes");
    stage.stop().await;
}

#[tokio::test]
async fn a_silent_host_is_replaced_after_the_hard_end_and_its_late_report_is_refused() {
    let mut stage = Stage::with(limits(), Duration::from_secs(3)).await;
    let (mut lost, mut other) = (Scripted::new("a"), Scripted::new("b"));
    lost.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("hard_end = \"1s\"\non_lost = \"retry\""), "key").await;
    let first = lost.assignment().await.lease;
    lost.evidence(first, frames(1, 2)).await;
    lost.acknowledged(first, 2).await;
    lost.disconnect();
    // It says no more than hello: it counts as there for as long as the lost one still did, and then some.
    tokio::time::sleep(Duration::from_secs(2)).await;
    other.connect(&stage.socket(), vec![]).await;
    stage.until(&run, |view| view.jobs[0].attempts == 2).await;
    let second = other.assignment().await.lease;
    assert_eq!((second.job, second.attempt), (first.job, 2));
    assert!(second.fence > first.fence);

    // Back too late: what it brings is refused, and stored nowhere.
    lost.connect(&stage.socket(), vec![held(first, 9)]).await;
    let CoordinatorMessage::LeaseRefused(refused) = lost.next().await.unwrap() else {
        panic!("two attempts are live")
    };
    assert!(refused.reason.contains("replaced by attempt 2"), "{}", refused.reason);
    lost.evidence(first, frames(3, 9)).await;
    assert!(matches!(lost.next().await.unwrap(), CoordinatorMessage::LeaseRefused(_)));
    other.evidence(second, [frames(1, 1), vec![ended(2, Outcome::Finished, "")]].concat()).await;
    other.acknowledged(second, 2).await;
    assert_eq!(stage.finished(&run).await.jobs[0].attempts, 2);
    let stored = stage.stored(&run).await;
    assert_eq!((stored[&1].len(), stored[&2].len()), (2, 2));
    stage.stop().await;
}

#[tokio::test]
async fn assignments_that_never_arrived_use_no_attempts_up() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    for attempt in 1..=5 {
        assert_eq!(agent.assignment().await.lease.attempt, attempt);
        agent.connect(&stage.socket(), vec![]).await;
    }
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, [frames(1, 1), vec![ended(2, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(lease, 2).await;
    agent.say(AgentMessage::Delivered(lease)).await;
    assert_eq!(stage.finished(&run).await.jobs[0].outcome(), wire::Outcome::Finished);
    stage.stop().await;
}

#[tokio::test]
async fn a_slot_is_free_when_everything_of_its_job_is_delivered() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.slots = 1;
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("replicas = 2"), "key").await;
    let first = agent.assignment().await.lease;
    agent.evidence(first, [frames(1, 1), vec![ended(2, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(first, 2).await;
    // Its runner still tidies up, for longer than artifacts are waited for: the slot is not free.
    for _ in 0..4 {
        tokio::time::sleep(limits().artifacts_wait / 3).await;
        agent.heartbeat(&[first]).await;
    }
    agent.say(AgentMessage::Delivered(first)).await;
    assert_eq!(agent.next().await.unwrap(), CoordinatorMessage::Release(first));
    let second = agent.assignment().await.lease;
    assert_ne!(second.job, first.job);
    stage.until(&run, |view| view.jobs_over == 1).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_silent_agent_is_unreachable_and_its_job_goes_on() {
    let mut stage = Stage::with(limits(), Duration::from_millis(300)).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 2)).await;
    agent.acknowledged(lease, 2).await;
    let view = stage.until(&run, |view| view.jobs[0].place() == wire::JobPlace::Unreachable).await;
    assert!(view.jobs[0].reason.contains("goes on by itself"), "{}", view.jobs[0].reason);

    let welcome = agent.connect(&stage.socket(), vec![held(lease, 4)]).await;
    assert_eq!(welcome.high_water[0].sequence, 2);
    agent.evidence(lease, [frames(3, 4), vec![ended(5, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(lease, 5).await;
    let view = stage.finished(&run).await;
    assert_eq!((view.jobs[0].attempts, view.jobs[0].outcome()), (1, wire::Outcome::Finished));
    stage.stop().await;
}

#[tokio::test]
async fn an_agent_that_never_comes_back_ends_its_job_after_the_hard_end() {
    let mut stage = Stage::with(limits(), Duration::from_millis(300)).await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("hard_end = \"1s\""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 2)).await;
    agent.acknowledged(lease, 2).await;
    agent.disconnect();
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Infrastructure);
    assert!(
        view.jobs[0].reason.starts_with("agent a was not heard of since 20"),
        "{}",
        view.jobs[0].reason
    );

    // Back too late: the run was judged without it.
    agent.connect(&stage.socket(), vec![held(lease, 9)]).await;
    let CoordinatorMessage::LeaseRefused(refused) = agent.next().await.unwrap() else {
        panic!("it goes on")
    };
    assert!(refused.reason.contains("judged without"), "{}", refused.reason);
    stage.stop().await;
}

#[tokio::test]
async fn replicas_go_to_different_agents_and_a_full_fleet_says_why_a_job_waits() {
    let mut stage = Stage::new().await;
    let (mut a, mut b) = (Scripted::new("a"), Scripted::new("b"));
    (a.slots, b.slots) = (1, 1);
    a.connect(&stage.socket(), vec![]).await;
    b.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("replicas = 3"), "key").await;
    let (first, second) = (a.assignment().await, b.assignment().await);
    assert_ne!(first.spec.replica, second.spec.replica);
    let view = stage
        .until(&run, |view| view.jobs.iter().any(|job| job.reason.contains("runs 1 job")))
        .await;
    let waiting: Vec<_> =
        view.jobs.iter().filter(|job| job.place() == wire::JobPlace::Waiting).collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].reason, "a runs 1 job in 1 slot(s); b runs 1 job in 1 slot(s)");
    stage.stop().await;
}

#[tokio::test]
async fn names_are_unique_and_protocols_must_agree() {
    let mut stage = Stage::new().await;
    let mut first = Scripted::new("a");
    first.connect(&stage.socket(), vec![]).await;
    let mut second = Scripted::new("a");
    let hello = second.hello(vec![]);
    let status = second.open(&stage.socket(), hello).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::AlreadyExists);
    assert!(status.message().contains("--name"), "{status}");
    let mut old = Scripted::new("b");
    let mut hello = old.hello(vec![]);
    hello.protocol = 99;
    let status = old.open(&stage.socket(), hello).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("protocol 99"), "{status}");
    // The same agent again takes its own place over.
    first.connect(&stage.socket(), vec![]).await;
    first.heartbeat(&[]).await;
    stage.stop().await;
}

#[tokio::test]
async fn evidence_that_breaks_the_contract_ends_the_attempt_and_not_the_session() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, vec![frames(1, 1).remove(0), frames(3, 3).remove(0)]).await;
    let CoordinatorMessage::LeaseRefused(refused) = agent.next().await.unwrap() else {
        panic!("it was taken")
    };
    assert!(refused.reason.contains("breaks the contract"), "{}", refused.reason);
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Infrastructure);
    agent.heartbeat(&[]).await;
    stage.stop().await;
}
