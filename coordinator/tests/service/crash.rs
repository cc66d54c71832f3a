//! What was acknowledged is there after the coordinator stopped, was killed, or found a run's folder damaged.

use crate::scripted::{Scripted, Stage, channel, ended, frames, held, plan, submission};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::CoordinatorMessage;
use pgsoak_proto::wire;
use pgsoak_proto::wire::control_client::ControlClient;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan("replicas = 2"), "key").await;
    let (first, second) = (agent.assignment().await.lease, agent.assignment().await.lease);
    agent.evidence(first, frames(1, 100)).await;
    agent.acknowledged(first, 100).await;
    stage.stop().await;
    assert!(!stage.socket().exists(), "the socket is tidied up");

    stage.start().await;
    let view = stage.until(&run, |view| view.stage() == wire::RunStage::Running).await;
    assert_eq!(view.jobs.len(), 2);
    let welcome = agent.connect(&stage.socket(), vec![held(first, 120), held(second, 0)]).await;
    let mut marks: Vec<_> =
        welcome.high_water.iter().map(|mark| (mark.lease, mark.sequence)).collect();
    marks.sort_unstable();
    let mut wanted = [(first, 100), (second, 0)];
    wanted.sort_unstable();
    assert_eq!(marks, wanted);
    for lease in [first, second] {
        let from = if lease == first { 101 } else { 1 };
        let mut rest = frames(from, 119);
        rest.push(ended(120, Outcome::Finished, ""));
        agent.evidence(lease, rest).await;
        agent.acknowledged(lease, 120).await;
    }
    let view = stage.finished(&run).await;
    assert!(view.jobs.iter().all(|job| job.attempts == 1 && job.stored_sequence == 120));
    stage.stop().await;
}

struct Killable {
    child: Child,
}

impl Killable {
    fn start(data: &Path, socket: &Path) -> Self {
        let exe = std::env::current_exe().unwrap();
        let example: PathBuf = exe.parent().unwrap().parent().unwrap().join("examples/coordinator");
        assert!(example.exists(), "{} is built by `cargo test`", example.display());
        let mut child =
            Command::new(example).arg(data).arg(socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_killed_coordinator_has_everything_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, socket) = (folder.path().join("data"), folder.path().join("c.sock"));
    let mut coordinator = Killable::start(&data, &socket);
    let mut agent = Scripted::new("a");
    agent.connect(&socket, vec![]).await;
    let run = ControlClient::new(channel(&socket).await)
        .submit_run(submission(&plan(""), "key"))
        .await
        .unwrap()
        .into_inner()
        .run_id;
    let lease = agent.assignment().await.lease;

    let mut sent = 0;
    let mut acknowledged = 0;
    for round in 0..3 {
        // Batches go out without a pause; the kill falls among them.
        for _ in 0..40 {
            agent.evidence(lease, frames(sent + 1, sent + 25)).await;
            sent += 25;
        }
        for _ in 0..10 + round * 7 {
            if let CoordinatorMessage::EvidenceAcknowledged(mark) = agent.next().await.unwrap() {
                acknowledged = mark.sequence;
            }
        }
        coordinator.kill();
        agent.disconnect();
        coordinator = Killable::start(&data, &socket);
        let welcome = agent.connect(&socket, vec![held(lease, sent)]).await;
        assert_eq!(welcome.high_water.len(), 1, "its lease stands");
        let mark = welcome.high_water[0].sequence;
        assert!(mark >= acknowledged, "acknowledged {acknowledged}, and {mark} is there");
        assert!(mark <= sent);
        sent = mark;
    }
    agent.evidence(lease, vec![ended(sent + 1, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, sent + 1).await;

    let mut control = ControlClient::new(channel(&socket).await);
    let request = wire::ReadEvidenceRequest { run_id: run.clone(), ..Default::default() };
    let mut stream = control.read_evidence(request).await.unwrap().into_inner();
    let mut next = 1;
    while let Some(item) = stream.message().await.unwrap() {
        assert_eq!(item.frame.unwrap().sequence, next, "each once, in order");
        next += 1;
    }
    assert_eq!(next, sent + 2);

    // The same key is the same run, over all of this.
    let again = control.submit_run(submission(&plan(""), "key")).await.unwrap().into_inner();
    assert_eq!((again.run_id, again.is_new), (run, false));
    coordinator.kill();
}

#[tokio::test]
async fn a_damaged_run_is_set_aside_and_filled_again() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 200)).await;
    agent.acknowledged(lease, 200).await;
    stage.stop().await;

    let folder = stage.data().join("runs").join(&run);
    let log = folder.join("db");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, vec![0xa5; bytes.len()]).unwrap();

    stage.start().await;
    let welcome = agent.connect(&stage.socket(), vec![held(lease, 200)]).await;
    assert_eq!(welcome.high_water[0].sequence, 0, "the agent is asked for all of it again");
    assert!(stage.data().join("runs").join(format!("{run}.damaged-1")).is_dir());
    let view = stage.until(&run, |view| view.sentence.contains("damaged")).await;
    assert!(view.sentence.contains("set aside as"), "{}", view.sentence);
    agent.evidence(lease, [frames(1, 200), vec![ended(201, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(lease, 201).await;
    stage.finished(&run).await;
    assert_eq!(stage.stored(&run).await[&1].len(), 201);
    stage.stop().await;
}

#[tokio::test]
async fn a_run_that_lost_its_end_keeps_the_rest_and_is_filled_again() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    let folder = stage.data().join("runs").join(&run);
    agent.evidence(lease, frames(1, 100)).await;
    agent.acknowledged(lease, 100).await;
    stage.stop().await;
    // As it was then: what sled makes of a log whose end was never written.
    let saved = stage.folder.path().join("saved");
    copy(&folder, &saved);
    stage.start().await;
    agent.connect(&stage.socket(), vec![held(lease, 200)]).await;
    agent.evidence(lease, frames(101, 200)).await;
    agent.acknowledged(lease, 200).await;
    stage.stop().await;
    let told = std::fs::read(folder.join("acknowledged")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&saved, &folder);
    std::fs::write(folder.join("acknowledged"), told).unwrap();

    stage.start().await;
    let welcome = agent.connect(&stage.socket(), vec![held(lease, 200)]).await;
    assert_eq!(welcome.high_water[0].sequence, 100, "what is there is kept");
    let view = stage.until(&run, |view| view.sentence.contains("lost its end")).await;
    assert!(view.sentence.contains("frame 200 was acknowledged and 100"), "{}", view.sentence);
    agent.evidence(lease, frames(101, 200)).await;
    agent.acknowledged(lease, 200).await;
    stage.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_comes_after_a_sync() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    for batch in 0..5 {
        agent.evidence(lease, frames(batch * 10 + 1, batch * 10 + 10)).await;
        agent.acknowledged(lease, batch * 10 + 10).await;
    }
    // Five acknowledgements that waited for one another: at least five syncs.
    let syncs = stage.evidence_syncs();
    assert!(syncs >= 5, "{syncs}");
    stage.stop().await;
}
