//! Builds: pushed once, given to runs, fetched by agents; kept for whom they were given.

use crate::scripted::{Scripted, Stage, ended, frames, plan};
use pgsoak_packages::{archive, digest, manifest::Manifest};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::AgentMessage;
use pgsoak_proto::wire;
use pgsoak_proto::wire::builds_client::BuildsClient;
use pgsoak_proto::wire::push_build_piece::Part;
use tonic::{Code, Status, transport::Channel};

async fn builds(stage: &Stage) -> BuildsClient<Channel> {
    BuildsClient::new(crate::scripted::channel(&stage.socket()).await)
}

/// A package file of `e@1` for PostgreSQL 18, with a file of this content.
fn packed(content: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let files = ["e.so", "e.control", "e--1.sql"].map(|name| {
        std::fs::write(folder.path().join(name), content).unwrap();
        (name.to_owned(), folder.path().join(name))
    });
    let manifest = Manifest {
        extension: "e".to_owned(),
        release: "1".to_owned(),
        postgres: 18,
        toolchain: "cc 1".to_owned(),
        ..Manifest::default()
    };
    let to = folder.path().join("packed");
    archive::pack(&files, &manifest, &to).unwrap();
    std::fs::read(&to).unwrap()
}

async fn push(stage: &Stage, said: &str, data: &[u8]) -> Result<wire::BuildView, Status> {
    let start = wire::PushBuild { digest: said.to_owned(), bytes: data.len() as u64 };
    let mut parts = vec![Part::Start(start)];
    parts.extend(data.chunks(100).map(|piece| Part::Data(piece.to_vec())));
    let pieces = parts.into_iter().map(|part| wire::PushBuildPiece { part: Some(part) });
    let pieces: Vec<_> = pieces.collect();
    Ok(builds(stage).await.push(tokio_stream::iter(pieces)).await?.into_inner())
}

async fn pinned(stage: &Stage, run: &str) -> Result<String, Status> {
    let request =
        wire::PinnedBuildRequest { run_id: run.to_owned(), build: "e@1".to_owned(), postgres: 18 };
    Ok(builds(stage).await.pinned(request).await?.into_inner().digest)
}

async fn fetched(stage: &Stage, digest: &str, offset: u64) -> Result<Vec<u8>, Status> {
    let request = wire::FetchBuildRequest { digest: digest.to_owned(), offset };
    let mut stream = builds(stage).await.fetch(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = stream.message().await? {
        data.extend(piece.data);
    }
    Ok(data)
}

fn with_build() -> String {
    plan("").replace("vanilla", "e@1")
}

#[tokio::test]
async fn a_run_keeps_the_package_it_was_given_whoever_pushes_later() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let before = stage.submit(&with_build(), "before").await;
    let view = stage.until(&before, |view| !view.jobs[0].reason.is_empty()).await;
    assert!(view.jobs[0].reason.contains("the build e@1"), "{}", view.jobs[0].reason);
    assert_eq!(pinned(&stage, &before).await.unwrap_err().code(), Code::NotFound);

    let old = packed("old");
    let said = digest::of_bytes(&old);
    let pushed = push(&stage, &said, &old).await.unwrap();
    assert_eq!((pushed.build.as_str(), pushed.postgres), ("e@1", 18));
    assert_eq!((pushed.toolchain.as_str(), pushed.files.len()), ("cc 1", 4));
    // Again it is the same.
    assert_eq!(push(&stage, &said, &old).await.unwrap(), pushed);

    let run = stage.submit(&with_build(), "run").await;
    let lease = agent.assignment().await.lease;
    assert_eq!(pinned(&stage, &run).await.unwrap(), said);
    let new = packed("new");
    push(&stage, &digest::of_bytes(&new), &new).await.unwrap();
    let later = stage.submit(&with_build(), "later").await;

    stage.stop().await;
    stage.start().await;
    // At once: the attempt has not begun, and on a busy host its lease would run out meanwhile.
    agent.connect(&stage.socket(), vec![crate::scripted::held(lease, 0)]).await;
    assert_eq!(pinned(&stage, &run).await.unwrap(), said);
    assert_eq!(pinned(&stage, &later).await.unwrap(), digest::of_bytes(&new));
    assert_eq!(fetched(&stage, &said, 0).await.unwrap(), old);
    assert_eq!(fetched(&stage, &said, 70).await.unwrap(), &old[70..]);

    // Over: nobody needs the old one any more.
    agent.evidence(lease, frames(1, 3)).await;
    agent.evidence(lease, vec![ended(4, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, 4).await;
    agent.say(AgentMessage::Delivered(lease)).await;
    stage.finished(&run).await;
    let remove = wire::RemoveBuildRequest { build: "e@1".to_owned(), postgres: 0 };
    let mut client = builds(&stage).await;
    assert_eq!(client.remove(remove.clone()).await.unwrap().into_inner().removed, 1);
    assert_eq!(client.remove(remove).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(fetched(&stage, &said, 0).await.unwrap_err().code(), Code::NotFound);
    // The run that waits has been given the new one.
    assert_eq!(fetched(&stage, &digest::of_bytes(&new), 0).await.unwrap(), new);
    stage.stop().await;
}

#[tokio::test]
async fn what_is_no_package_is_refused_and_leaves_nothing() {
    let mut stage = Stage::new().await;
    let good = packed("x");
    let said = digest::of_bytes(&good);
    let status = push(&stage, &said, &good[..good.len() - 1]).await.unwrap_err();
    assert!(
        status.message().contains("bytes came") || status.message().contains("digest"),
        "{status}"
    );
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    assert_eq!(push(&stage, &said, &flipped).await.unwrap_err().code(), Code::DataLoss);
    let noise = b"not a package".to_vec();
    let status = push(&stage, &digest::of_bytes(&noise), &noise).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    for bad in ["../../etc/passwd", "", "ABC"] {
        assert_eq!(push(&stage, bad, &good).await.unwrap_err().code(), Code::DataLoss);
        assert_eq!(fetched(&stage, bad, 0).await.unwrap_err().code(), Code::NotFound);
    }
    let left: Vec<_> = std::fs::read_dir(stage.data().join("builds")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    push(&stage, &said, &good).await.unwrap();
    stage.stop().await;
}
