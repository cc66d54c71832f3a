//! Cancel: idempotent, at once where nothing runs, acknowledged where something does.

use crate::scripted::{Scripted, Stage, ended, frames, held, plan};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::{AgentMessage, CoordinatorMessage};
use pgsoak_proto::wire;

fn cancel(run: &str) -> wire::CancelRunRequest {
    wire::CancelRunRequest { run_id: run.to_owned(), reason: "enough".to_owned() }
}

#[tokio::test]
async fn a_run_that_waits_is_over_at_once() {
    let mut stage = Stage::new().await;
    let run = stage.submit(&plan(""), "key").await;
    let mut control = stage.control().await;
    for _ in 0..2 {
        let view = control.cancel_run(cancel(&run)).await.unwrap().into_inner();
        assert!(view.is_cancelled);
        assert_eq!(view.jobs[0].outcome(), wire::Outcome::Cancelled);
        assert_eq!(view.jobs[0].reason, "enough");
    }
    let view = stage.finished(&run).await;
    assert!(view.is_cancelled);
    assert_eq!(view.started_at_unix_us, 0);
    assert_ne!(view.verdict, "pass");
    stage.stop().await;
}

#[tokio::test]
async fn a_running_job_is_over_when_its_agent_says_that_nothing_is_left() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 2)).await;
    agent.acknowledged(lease, 2).await;
    let view = stage.control().await.cancel_run(cancel(&run)).await.unwrap().into_inner();
    assert_eq!(view.stage(), wire::RunStage::Cancelling);
    assert_eq!(view.jobs[0].place(), wire::JobPlace::Cancelling);
    let CoordinatorMessage::Cancel(asked) = agent.next().await.unwrap() else {
        panic!("the agent was not told")
    };
    assert_eq!((asked.lease, asked.reason.as_str()), (lease, "enough"));
    agent.say(AgentMessage::CancelAcknowledged(lease)).await;
    // Its last frame is still wanted.
    agent.evidence(lease, vec![ended(3, Outcome::Cancelled, "")]).await;
    agent.acknowledged(lease, 3).await;
    agent.say(AgentMessage::Delivered(lease)).await;
    assert_eq!(agent.next().await.unwrap(), CoordinatorMessage::Release(lease));
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Cancelled);
    assert_eq!(view.jobs[0].stored_sequence, 3);
    stage.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_away_hears_of_the_cancel_when_it_is_back() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.heartbeat(&[lease]).await;
    agent.disconnect();
    stage.control().await.cancel_run(cancel(&run)).await.unwrap();
    // The cancel outlives the coordinator.
    stage.stop().await;
    stage.start().await;
    agent.connect(&stage.socket(), vec![held(lease, 2)]).await;
    assert!(
        matches!(agent.next().await.unwrap(), CoordinatorMessage::Cancel(asked) if asked.lease == lease)
    );
    agent.say(AgentMessage::CancelAcknowledged(lease)).await;
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Cancelled);
    stage.stop().await;
}
