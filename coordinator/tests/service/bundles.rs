//! A whole run out of one coordinator and into another, which judges it again.

use crate::scripted::{Scripted, Stage, channel, ended, frames, plan};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::{AgentMessage, ArtifactChunk};
use pgsoak_proto::wire;
use pgsoak_proto::wire::bundle_piece::Part;
use pgsoak_proto::wire::bundles_client::BundlesClient;
use pgsoak_proto::wire::history_client::HistoryClient;
use tonic::{Code, Status};

async fn exported(stage: &Stage, run: &str) -> Result<Vec<wire::BundlePiece>, Status> {
    let request = wire::GetRunRequest { run_id: run.to_owned() };
    let mut client = BundlesClient::new(channel(&stage.socket()).await);
    let mut stream = client.export(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

async fn import(stage: &Stage, pieces: &[wire::BundlePiece]) -> Result<wire::ImportedRun, Status> {
    let mut client = BundlesClient::new(channel(&stage.socket()).await);
    Ok(client.import(tokio_stream::iter(pieces.to_vec())).await?.into_inner())
}

async fn report(stage: &Stage, run: &str, replay: bool) -> wire::GetReportResponse {
    let request = wire::GetReportRequest {
        run_id: run.to_owned(),
        format: wire::ReportFormat::Json.into(),
        replay,
    };
    stage.control().await.get_report(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn another_coordinator_comes_to_the_same_bytes() {
    let mut there = Stage::new().await;
    let mut agent = Scripted::new("west-1");
    agent.connect(&there.socket(), vec![]).await;
    let run = there.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 60)).await;
    agent.evidence(lease, vec![ended(61, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, 61).await;
    let raw = vec![7_u8; 400_000];
    for (offset, end) in [(0, 250_000), (250_000, 400_000)] {
        let chunk = ArtifactChunk {
            lease,
            name: "server.log.zst".to_owned(),
            offset: offset as u64,
            data: raw[offset..end].to_vec(),
            total_bytes: raw.len() as u64,
            sha256: pgsoak_packages::digest::of_bytes(&raw),
        };
        agent.say(AgentMessage::Artifact(chunk)).await;
        agent.next().await.unwrap();
    }
    let early = exported(&there, &run).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    agent.say(AgentMessage::Delivered(lease)).await;
    there.finished(&run).await;
    let note = wire::AddNoteRequest { run_id: run.clone(), text: "look at this".to_owned() };
    HistoryClient::new(channel(&there.socket()).await).add_note(note).await.unwrap();
    let pieces = exported(&there, &run).await.unwrap();
    let said = report(&there, &run, false).await;

    let mut here = Stage::new().await;
    // Cut off, or with a frame that is not what it was: refused, and nothing of it stays.
    assert_eq!(
        import(&here, &pieces[..pieces.len() - 1]).await.unwrap_err().code(),
        Code::DataLoss
    );
    let without_a_frame: Vec<_> = {
        let is_frame = |piece: &wire::BundlePiece| matches!(piece.part, Some(Part::Frame(_)));
        let at = pieces.iter().position(is_frame).unwrap();
        pieces
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != at)
            .map(|(_, p)| p.clone())
            .collect()
    };
    assert_eq!(import(&here, &without_a_frame).await.unwrap_err().code(), Code::DataLoss);
    let mut forged = pieces.clone();
    for piece in &mut forged {
        if let Some(Part::Records(json)) = &mut piece.part {
            let mut records: serde_json::Value = serde_json::from_slice(json).unwrap();
            let mut result: serde_json::Value =
                serde_json::from_str(records["result"].as_str().unwrap()).unwrap();
            result["sentence"] = "all is well".into();
            records["result"] = result.to_string().into();
            *json = serde_json::to_vec(&records).unwrap();
        }
    }
    let other = import(&here, &forged).await.unwrap_err();
    assert!(other.message().contains("another result"), "{other}");
    assert!(!here.data().join("runs").join(&run).exists(), "a refused import leaves nothing");
    here.stop().await;

    let mut here = Stage::new().await;
    let taken = import(&here, &pieces).await.unwrap();
    assert_eq!((taken.run_id.as_str(), taken.replay.as_str()), (run.as_str(), "same"));
    assert_eq!((taken.frames, taken.files), (61, 1));
    assert_eq!(import(&here, &pieces).await.unwrap_err().code(), Code::FailedPrecondition);
    for is_restarted in [false, true] {
        if is_restarted {
            here.stop().await;
            here.start().await;
        }
        assert_eq!(report(&here, &run, false).await.text, said.text);
        assert_eq!(report(&here, &run, true).await.replay, "same");
        assert_eq!(here.stored(&run).await[&1], (1..=61).collect::<Vec<u64>>());
        let request = wire::GetRunRequest { run_id: run.clone() };
        let mut history = HistoryClient::new(channel(&here.socket()).await);
        let detail = history.show_run(request).await.unwrap().into_inner();
        assert_eq!(detail.notes[0].text, "look at this");
        assert_eq!(detail.line.unwrap().agents, ["west-1"]);
    }
    let again = exported(&here, &run).await.unwrap();
    assert_eq!(again.len(), pieces.len());
    there.stop().await;
    here.stop().await;
    assert_eq!(
        pgsoak_coordinator::app::check(&here.data()).unwrap().problems,
        Vec::<String>::new()
    );
}
