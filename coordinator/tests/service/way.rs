//! The way of a run: submitted, assigned, stored, acknowledged, judged, released.

use crate::scripted::{Scripted, Stage, ended, frames, plan};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::{AgentMessage, ArtifactChunk, CoordinatorMessage, EvidenceBatch};
use pgsoak_proto::wire;
use sha2::{Digest as _, Sha256};

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_run_goes_its_way() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    assert!(agent.connect(&stage.socket(), vec![]).await.high_water.is_empty());
    let run = stage.submit(&plan(""), "key").await;
    let assignment = agent.assignment().await;
    assert_eq!(assignment.spec.run.to_string(), run);
    assert!(assignment.spec.workload_toml.contains("SELECT 1"), "the workload comes with it");
    let lease = assignment.lease;
    assert_eq!((lease.attempt, lease.fence), (1, 1));

    agent.heartbeat(&[lease]).await;
    let view = stage.until(&run, |view| view.jobs[0].place() == wire::JobPlace::Running).await;
    assert_eq!(view.stage(), wire::RunStage::Running);
    assert_eq!((view.jobs[0].agent.as_str(), view.jobs[0].attempts), ("a", 1));
    assert_eq!(view.jobs[0].progress.as_ref().unwrap().operations, 5);

    // Several batches under way at once, a repeat among them.
    agent.evidence(lease, frames(1, 40)).await;
    agent.evidence(lease, frames(41, 80)).await;
    agent.evidence(lease, frames(30, 90)).await;
    agent.acknowledged(lease, 90).await;
    agent.evidence(lease, vec![ended(91, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, 91).await;

    // A raw file, in two pieces.
    let raw = vec![9_u8; 300_000];
    for (offset, end) in [(0, 200_000), (200_000, 300_000)] {
        agent
            .say(AgentMessage::Artifact(ArtifactChunk {
                lease,
                name: "server.log.zst".to_owned(),
                offset: offset as u64,
                data: raw[offset..end].to_vec(),
                total_bytes: raw.len() as u64,
                sha256: hex(&raw),
            }))
            .await;
        let CoordinatorMessage::ArtifactAcknowledged(received) = agent.next().await.unwrap() else {
            panic!("no answer to a chunk")
        };
        assert_eq!(received.received_bytes, end as u64);
    }
    agent.say(AgentMessage::Delivered(lease)).await;
    assert_eq!(agent.next().await.unwrap(), CoordinatorMessage::Release(lease));

    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].outcome(), wire::Outcome::Finished);
    assert_eq!((view.jobs_total, view.jobs_over, view.is_cancelled), (1, 1, false));
    assert_eq!(view.jobs[0].stored_sequence, 91);
    assert!(!view.verdict.is_empty() && !view.sentence.is_empty());
    assert_eq!(stage.stored(&run).await[&1], (1..=91).collect::<Vec<_>>(), "each once, in order");

    // All of it is still there after a restart.
    stage.stop().await;
    stage.start().await;
    let mut control = stage.control().await;
    let report = control
        .get_report(wire::GetReportRequest {
            run_id: run.clone(),
            format: wire::ReportFormat::Json.into(),
            replay: false,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(report.verdict, view.verdict);
    assert!(report.text.contains(&run), "{}", report.text);
    let replay = control
        .get_report(wire::GetReportRequest {
            run_id: run.clone(),
            format: wire::ReportFormat::Json.into(),
            replay: true,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((replay.replay.as_str(), replay.text), ("same", report.text));

    let request = wire::GetRunRequest { run_id: run.clone() };
    let artifacts = control.list_artifacts(request).await.unwrap().into_inner().artifacts;
    assert_eq!(artifacts.len(), 1);
    assert!(artifacts[0].is_complete);
    let mut pieces = control
        .read_artifact(wire::ReadArtifactRequest {
            run_id: run.clone(),
            job_id: artifacts[0].job_id.clone(),
            attempt: 1,
            name: "server.log.zst".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    let mut read = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        read.extend(piece.data);
    }
    assert_eq!(read, raw);

    // An agent that missed the release hears it again.
    let welcome = agent.connect(&stage.socket(), vec![crate::scripted::held(lease, 91)]).await;
    assert!(welcome.high_water.is_empty());
    assert_eq!(agent.next().await.unwrap(), CoordinatorMessage::Release(lease));
    stage.stop().await;
}

#[tokio::test]
async fn a_run_does_not_wait_for_artifacts_for_ever() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent
        .evidence(
            lease,
            [frames(1, 2), vec![ended(3, Outcome::Failed, "the server died")]].concat(),
        )
        .await;
    agent.acknowledged(lease, 3).await;
    let view = stage.finished(&run).await;
    assert_eq!(view.jobs[0].reason, "the server died");
    // What comes later is stored and released all the same.
    agent.say(AgentMessage::Delivered(lease)).await;
    assert_eq!(agent.next().await.unwrap(), CoordinatorMessage::Release(lease));
    stage.stop().await;
}

#[tokio::test]
async fn a_hole_is_refused_and_what_is_lost_is_counted() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 5)).await;
    agent.acknowledged(lease, 5).await;
    agent.evidence(lease, frames(9, 12)).await;
    let status = agent.next().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    assert!(status.message().contains("from frame 5 to frame 9"), "{status}");

    let welcome = agent.connect(&stage.socket(), vec![crate::scripted::held(lease, 12)]).await;
    assert_eq!(welcome.high_water[0].sequence, 5, "the welcome says where to go on");
    let batch = EvidenceBatch { lease, frames: frames(9, 12), lost_up_to: 8 };
    agent.say(AgentMessage::Evidence(batch)).await;
    agent.acknowledged(lease, 12).await;
    let view = stage.until(&run, |view| view.sentence.contains("3 frame(s)")).await;
    assert!(view.sentence.contains("are lost"), "{}", view.sentence);
    assert_eq!(stage.stored(&run).await[&1], [1, 2, 3, 4, 5, 9, 10, 11, 12]);
    stage.stop().await;
}
