//! A run that is over for a while is packed: fewer bytes, and everybody reads what they read before.

use crate::scripted::{Scripted, Stage, ended, frames, limits, plan};
use pgsoak_coordinator::domain::limits::Limits;
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::{AgentMessage, ArtifactChunk};
use pgsoak_proto::wire;
use std::{path::PathBuf, time::Duration};

const FRAMES: u64 = 3_000;

/// A run at its end, and its folder.
async fn soaked(stage: &Stage) -> (String, PathBuf) {
    let mut agent = Scripted::new("west-1");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, FRAMES - 1)).await;
    agent.evidence(lease, vec![ended(FRAMES, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, FRAMES).await;
    agent.say(AgentMessage::Delivered(lease)).await;
    stage.finished(&run).await;
    let folder = stage.data().join("runs").join(&run);
    (run, folder)
}

async fn replayed(stage: &Stage, run: &str) -> wire::GetReportResponse {
    let request = wire::GetReportRequest {
        run_id: run.to_owned(),
        format: wire::ReportFormat::Json.into(),
        replay: true,
    };
    stage.control().await.get_report(request).await.unwrap().into_inner()
}

fn soon() -> Limits {
    Limits {
        housekeeping_every: Duration::from_millis(50),
        linger: Duration::from_millis(100),
        ..limits()
    }
}

#[tokio::test]
async fn a_run_that_is_over_is_packed_and_reads_as_before() {
    let mut stage = Stage::with(soon(), Duration::from_secs(20)).await;
    let (run, folder) = soaked(&stage).await;
    let (said, stored) = (replayed(&stage, &run).await, stage.stored(&run).await);
    assert_eq!(said.replay, "same");
    let before = bytes(&folder);
    assert!(folder.join("db").exists() && !folder.join("sealed").exists());

    // As a reload of the settings does it.
    stage.keep.seal_after = Duration::ZERO;
    stage.reconfigure(Default::default()).await;
    for _ in 0..200 {
        if !folder.join("db").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!folder.join("db").exists() && folder.join("sealed").exists());
    assert!(bytes(&folder) * 4 < before, "{} of {before} bytes", bytes(&folder));

    for is_restarted in [false, true] {
        if is_restarted {
            stage.stop().await;
            stage.start().await;
        }
        let again = replayed(&stage, &run).await;
        assert_eq!((again.replay.as_str(), &again.text), ("same", &said.text));
        assert_eq!(stage.stored(&run).await, stored);
    }
    stage.stop().await;
    let checked = pgsoak_coordinator::app::check(&stage.data()).unwrap();
    assert_eq!((checked.frames, &checked.problems), (FRAMES, &vec![]));

    // A byte that is not what it was is found, and named.
    let path = folder.join("sealed");
    let mut sealed = std::fs::read(&path).unwrap();
    sealed[40] ^= 1;
    std::fs::write(&path, sealed).unwrap();
    let checked = pgsoak_coordinator::app::check(&stage.data()).unwrap();
    assert!(checked.problems[0].contains("checksum"), "{:?}", checked.problems);
}

#[tokio::test]
async fn what_is_over_the_settings_limits_goes_by_itself() {
    let mut stage = Stage::with(soon(), Duration::from_secs(20)).await;
    let (run, folder) = soaked(&stage).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(folder.exists(), "without limits nothing goes");
    stage.keep.max_bytes = Some(1);
    stage.reconfigure(Default::default()).await;
    for _ in 0..200 {
        if !folder.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!folder.exists());
    let gone = stage.control().await.get_run(wire::GetRunRequest { run_id: run }).await;
    assert_eq!(gone.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn raw_files_of_a_run_that_is_over_move_and_come_back_from_where_they_are() {
    let away = tempfile::tempdir().unwrap();
    let mut stage = Stage::with(soon(), Duration::from_secs(20)).await;
    stage.artifacts_url = format!("file://{}/raw", away.path().display());
    stage.stop().await;
    stage.start().await;
    let mut agent = Scripted::new("west-1");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, vec![ended(1, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, 1).await;
    let raw: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let chunk = ArtifactChunk {
        lease,
        name: "server.log.zst".to_owned(),
        offset: 0,
        data: raw.clone(),
        total_bytes: raw.len() as u64,
        sha256: pgsoak_packages::digest::of_bytes(&raw),
    };
    agent.say(AgentMessage::Artifact(chunk)).await;
    agent.next().await.unwrap();
    agent.say(AgentMessage::Delivered(lease)).await;
    stage.finished(&run).await;
    stage.keep.seal_after = Duration::ZERO;
    stage.reconfigure(Default::default()).await;
    let here =
        stage.data().join("artifacts").join(&run).join(format!("{}-1/server.log.zst", lease.job));
    let there = away.path().join("raw").join(&run).join(format!("{}-1/server.log.zst", lease.job));
    for _ in 0..200 {
        if !here.exists() && there.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!here.exists(), "it is still in {}", here.display());
    assert_eq!(std::fs::read(&there).unwrap(), raw);

    let read = |stage: Stage| {
        let request = wire::ReadArtifactRequest {
            run_id: run.clone(),
            job_id: lease.job.to_string(),
            attempt: 1,
            name: "server.log.zst".to_owned(),
        };
        async move {
            let mut stream = stage.control().await.read_artifact(request).await?.into_inner();
            let mut found = Vec::new();
            while let Some(piece) = stream.message().await? {
                found.extend(piece.data);
            }
            Ok::<_, tonic::Status>((stage, found))
        }
    };
    let (mut stage, found) = read(stage).await.unwrap();
    assert_eq!(found, raw);
    // Without the setting it is said where they went.
    stage.artifacts_url = String::new();
    stage.stop().await;
    stage.start().await;
    let missing = read(stage).await.map(|_| ()).unwrap_err();
    assert!(missing.message().contains("artifacts.url"), "{missing}");
}

fn bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata().unwrap() {
            of if of.is_dir() => bytes(&entry.path()),
            of => of.len(),
        })
        .sum()
}
