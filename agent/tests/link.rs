//! The daemon against a scripted coordinator and a scripted runner: assignment, evidence, cuts, cancels, crashes, restarts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of a test; a failure here is the report"
)]

#[path = "link/coordinator.rs"]
mod coordinator;
#[path = "link/runner.rs"]
mod runner;

use coordinator::{Coordinator, PATIENCE, Stored};
use pgsoak_agent::app::{self, AgentError};
use pgsoak_agent::config::{AgentConfig, Endpoint};
use pgsoak_agent::folder::{JobFolder, jobs_dir};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Lease, Outcome, PostgresRef, Tool};
use pgsoak_proto::session::{
    AgentMessage, Assignment, Capabilities, CoordinatorMessage, JobStage, PostgresFound, Refusal,
};
use pgsoak_proto::wire;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

#[test]
#[ignore = "not a test: the program that the agent under test starts as its runner"]
fn scripted_runner() {
    runner::play();
}

/// A data folder that the jobs' user can enter, and a socket.
struct Place {
    dir: tempfile::TempDir,
}

struct Agent {
    task: JoinHandle<Result<(), AgentError>>,
    shutdown: CancellationToken,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn config(&self) -> AgentConfig {
        let own = std::env::current_exe().unwrap();
        let words = ["scripted_runner", "--ignored", "--exact", "--nocapture"];
        AgentConfig {
            coordinator: Endpoint::Unix(self.socket()),
            data_dir: self.data(),
            cache_dir: self.dir.path().join("cache"),
            name: "a".into(),
            slots: 2,
            labels: BTreeMap::new(),
            runner: std::iter::once(own.into()).chain(words.map(Into::into)).collect(),
            pg_configs: Vec::new(),
            stop_jobs_on_shutdown: false,
            token: None,
            max_load_percent: None,
        }
    }

    fn agent(&self) -> Agent {
        Agent::start(self.config())
    }

    fn folder(&self, lease: &Lease) -> JobFolder {
        JobFolder::of(&self.data(), lease)
    }
}

impl Agent {
    fn start(config: AgentConfig) -> Self {
        let shutdown = CancellationToken::new();
        let capabilities = Capabilities {
            slots: config.slots,
            cores: 1,
            memory_bytes: 1,
            kernel: "k".into(),
            tools: Vec::new(),
            postgres: vec![PostgresFound {
                major: 15,
                version: "PostgreSQL 15".into(),
                pg_config: "/usr/bin/pg_config".into(),
            }],
            builds: Vec::new(),
            labels: BTreeMap::new(),
            host: "h".into(),
        };
        let find = Arc::new(move || capabilities.clone());
        let task = tokio::spawn(app::run_on(config, find, shutdown.clone()));
        Self { task, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }
}

fn assignment(script: &str) -> Assignment {
    let job = JobId::issue();
    let spec = JobSpec {
        job,
        run: RunId::issue(),
        workload_name: "scripted".into(),
        workload_toml: script.into(),
        tool: Tool::Plain,
        arm: Arm::Candidate,
        build: BuildRef::Vanilla,
        postgres: PostgresRef::Major(15),
        loop_for: None,
        scale: 1.0,
        sample_every: Duration::from_secs(1),
        hard_end: Duration::from_secs(600),
        seed: 1,
        replica: 0,
        exclusive: false,
        agents: BTreeMap::new(),
        on_lost: pgsoak_proto::job::OnLost::Wait,
        options: Default::default(),
    };
    Assignment { lease: Lease { job, attempt: 1, fence: 5 }, spec }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(20)).await;
    }
}

fn outcome(ended: &wire::AttemptEnded) -> Outcome {
    wire::Outcome::try_from(ended.outcome).unwrap().try_into().unwrap()
}

#[tokio::test]
async fn evidence_and_artifacts_arrive_once_and_a_release_removes_the_folder() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, hello) = coordinator.accept().await;
    assert_eq!((hello.name.as_str(), hello.protocol, hello.held.len()), ("a", 1, 0));
    session.welcome(&[]).await;
    let assignment = assignment("frames=500 artifact=700000 end");
    let lease = assignment.lease;
    session.say(CoordinatorMessage::Assignment(assignment.clone())).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.frames.len() == 100.min(s.frames.len())).await;
    // Said again: nothing happens twice.
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    assert!(stored.is_complete());
    assert_eq!(stored.frames.len(), 502);
    assert_eq!(stored.repeats, 0);
    assert_eq!(outcome(&stored.ended().unwrap()), Outcome::Finished);
    let raw = &stored.artifacts["raw.zst"];
    assert_eq!(raw.len(), 700_000);
    assert!(raw.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
    assert_eq!(stored.artifacts["empty.zst"], b"");
    let folder = place.folder(&lease);
    assert!(folder.path().exists(), "kept until it is released");
    let beats = session.beats(1).await.last().unwrap().clone();
    assert_eq!(beats.jobs[0].stage, JobStage::Ended);
    session.say(CoordinatorMessage::Release(lease)).await;
    eventually("the folder goes", || !folder.path().exists()).await;
    let beats = session.beats(2).await.last().unwrap().clone();
    assert_eq!(beats.jobs, []);
    agent.stop().await;
}

#[tokio::test]
async fn a_cut_and_a_store_that_lost_frames_leave_no_hole() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=400 every_ms=10 end");
    let lease = assignment.lease;
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.high_water() >= 60).await;
    drop(session);
    coordinator.stop().await;

    // Meanwhile the job goes on.
    let folder = place.folder(&lease);
    let before = folder.progress().unwrap();
    eventually("the job goes on", || folder.progress().is_some_and(|p| p != before)).await;

    // Another coordinator, whose store lost what came last.
    let mut coordinator = Coordinator::listen(&place.socket());
    let (mut session, hello) = coordinator.accept().await;
    let [held] = hello.held.as_slice() else { panic!("{hello:?}") };
    assert_eq!(held.lease, lease);
    assert!(held.last_sequence >= 60);
    let kept = stored.frames.range(..=40).map(|(s, b)| (*s, b.clone())).collect();
    let mut second = Stored { frames: kept, ..Stored::default() };
    session.welcome(&[(lease, 40)]).await;
    session.store(lease, &mut second, |s| s.is_delivered).await;
    assert!(second.is_complete());
    assert_eq!(second.frames.len(), 402);
    assert_eq!(second.repeats, 0, "it begins where the store ends");
    for (sequence, bytes) in &stored.frames {
        assert_eq!(&second.frames[sequence], bytes, "a repeat has the same bytes");
    }
    agent.stop().await;
}

#[tokio::test]
async fn heartbeats_go_on_while_evidence_waits() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    // Three times the window.
    let assignment = assignment("frames=5000 wait");
    let lease = assignment.lease;
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    eventually("everything is in the spool", || {
        pgsoak_agent::spool::last_sequence(&place.folder(&lease).spool()).unwrap() == 5001
    })
    .await;
    let mut stored = Stored::default();
    let mut bytes = 0;
    // Nothing is acknowledged: the window fills, and heartbeats come all the same.
    let quiet = timeout(Duration::from_secs(4), async {
        loop {
            if let AgentMessage::Evidence(batch) = session.receive().await {
                let frames: Vec<wire::Frame> = batch.frames.iter().map(Into::into).collect();
                bytes += frames.iter().map(prost::Message::encoded_len).sum::<usize>();
                stored.take(frames);
            }
        }
    })
    .await;
    assert!(quiet.is_err());
    assert!((400_000..800_000).contains(&bytes), "{bytes} bytes on their way");
    let beats = session.heartbeats.len();
    assert!(beats >= 10, "{beats} heartbeats");
    assert_eq!(session.heartbeats.last().unwrap().jobs[0].phase, "scripted");
    // With an answer the rest comes.
    session.acknowledge(lease, stored.high_water()).await;
    session.store(lease, &mut stored, |s| s.high_water() == 5001).await;
    session.cancel(lease).await;
    session.cancelled(lease, &mut stored).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_flood_of_acknowledgements_does_not_cost_the_session() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=1500 every_ms=1 end");
    let lease = assignment.lease;
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.high_water() >= 100).await;
    // Many at once, as when a coordinator that was slow catches up with many small batches.
    for _ in 0..5 {
        for sequence in 1..=stored.high_water() {
            session.acknowledge(lease, sequence).await;
        }
    }
    // In the same session, to the end.
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    assert!(stored.is_complete());
    assert_eq!(stored.repeats, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_session_that_is_never_welcomed_is_given_up() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    // As behind a proxy that answers for a coordinator that is not there: the stream opens, and nobody says anything.
    let (silent, _) = coordinator.accept().await;
    let (session, hello) = coordinator.accept().await;
    assert_eq!(hello.held.len(), 0);
    session.welcome(&[]).await;
    drop(silent);
    let mut session = session;
    session.beats(2).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_cancel_is_acknowledged_when_no_process_is_left() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=5 wait");
    let lease = assignment.lease;
    let folder = place.folder(&lease);
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.high_water() == 6).await;
    eventually("runner and server", || folder.processes_left().len() == 2).await;
    session.cancel(lease).await;
    session.cancelled(lease, &mut stored).await;
    assert_eq!(folder.processes_left(), []);
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    let ended = stored.ended().unwrap();
    assert_eq!((outcome(&ended), ended.reason.as_str()), (Outcome::Cancelled, "by hand"));
    // Asked again, and of something that was never here.
    session.cancel(lease).await;
    session.cancelled(lease, &mut stored).await;
    let unknown = Lease { attempt: 9, ..lease };
    session.cancel(unknown).await;
    session.cancelled(unknown, &mut stored).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_runner_that_will_not_end_is_killed_with_all_it_started() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=5 stubborn");
    let lease = assignment.lease;
    let folder = place.folder(&lease);
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.high_water() == 6).await;
    eventually("runner and server", || folder.processes_left().len() == 2).await;
    let asked = Instant::now();
    session.cancel(lease).await;
    session.cancelled(lease, &mut stored).await;
    assert!(asked.elapsed() > Duration::from_secs(15), "it had its time");
    assert_eq!(folder.processes_left(), []);
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    let ended = stored.ended().unwrap();
    assert_eq!(outcome(&ended), Outcome::Cancelled);
    assert!(ended.reason.contains("killed by signal 9"), "{}", ended.reason);
    agent.stop().await;
}

#[tokio::test]
async fn a_runner_that_dies_gets_a_last_frame_and_leaves_no_process() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    for (script, said) in
        [("frames=20 wait", "killed by signal 9"), ("frames=20 die", "exit code 3")]
    {
        let assignment = assignment(script);
        let lease = assignment.lease;
        let folder = place.folder(&lease);
        session.say(CoordinatorMessage::Assignment(assignment)).await;
        let mut stored = Stored::default();
        session.store(lease, &mut stored, |s| s.high_water() >= 21).await;
        if script.contains("wait") {
            eventually("runner and server", || folder.processes_left().len() == 2).await;
            assert!(folder.runner().unwrap().unwrap().signal(Signal::KILL));
        }
        session.store(lease, &mut stored, |s| s.is_delivered).await;
        assert!(stored.is_complete());
        assert_eq!(stored.frames.len(), 22);
        let ended = stored.ended().unwrap();
        assert_eq!(outcome(&ended), Outcome::Infrastructure);
        assert!(ended.reason.contains(said), "{}", ended.reason);
        if script.contains("die") {
            assert!(ended.reason.ends_with("something is wrong here"), "{}", ended.reason);
        }
        assert_eq!(folder.processes_left(), []);
        session.say(CoordinatorMessage::Release(lease)).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_daemon_that_restarts_adopts_its_runners() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, hello) = coordinator.accept().await;
    let id = hello.agent;
    session.welcome(&[]).await;
    let going = assignment("frames=300 every_ms=10 end");
    let dying = assignment("frames=10 wait");
    let mut stored = [Stored::default(), Stored::default()];
    for (assignment, stored) in [&going, &dying].into_iter().zip(&mut stored) {
        session.say(CoordinatorMessage::Assignment(assignment.clone())).await;
        session.store(assignment.lease, stored, |s| s.high_water() >= 5).await;
        if assignment.lease == going.lease {
            // The other job's evidence alone from here on.
            drop(session);
            (session, _) = coordinator.accept().await;
            session.welcome(&[]).await;
        }
    }
    let runner = place.folder(&going.lease).runner().unwrap().unwrap();
    agent.stop().await;
    assert!(runner.is_alive(), "the job goes on without the daemon");
    let dead = place.folder(&dying.lease);
    assert!(dead.runner().unwrap().unwrap().signal(Signal::KILL));
    drop(session);

    let agent = place.agent();
    let (mut session, hello) = coordinator.accept().await;
    assert_eq!(hello.agent, id, "the agent keeps its id");
    let held: BTreeMap<Lease, bool> =
        hello.held.iter().map(|held| (held.lease, held.is_running)).collect();
    assert!(held.contains_key(&dying.lease));
    assert_eq!(held[&going.lease], runner.is_alive());
    let [going_stored, dying_stored] = &mut stored;
    session.welcome(&[(going.lease, going_stored.high_water())]).await;
    session.store(going.lease, going_stored, |s| s.is_delivered).await;
    assert!(going_stored.is_complete());
    assert_eq!(outcome(&going_stored.ended().unwrap()), Outcome::Finished);
    assert_eq!((going_stored.frames.len(), going_stored.repeats), (302, 0));
    // The other one is kept until the coordinator says what becomes of it.
    drop(session);
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[(dying.lease, dying_stored.high_water())]).await;
    session.store(dying.lease, dying_stored, |s| s.is_delivered).await;
    assert_eq!(outcome(&dying_stored.ended().unwrap()), Outcome::Infrastructure);
    assert_eq!(dead.processes_left(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_lease_that_does_not_stand_ends_the_attempt_and_keeps_its_folder_aside() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=10 wait");
    let lease = assignment.lease;
    let folder = place.folder(&lease);
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    session.store(lease, &mut Stored::default(), |s| s.high_water() >= 11).await;
    let runner = folder.runner().unwrap().unwrap();
    let reason = "another attempt runs".to_owned();
    session.say(CoordinatorMessage::LeaseRefused(Refusal { lease, reason })).await;
    eventually("the folder goes", || !folder.path().exists()).await;
    assert!(!runner.is_alive());
    let aside: Vec<PathBuf> = fs::read_dir(place.data().join("refused"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [aside] = aside.as_slice() else { panic!("{aside:?}") };
    assert!(JobFolder::at(aside).cancel_reason().unwrap().contains("another attempt runs"));
    assert_eq!(session.beats(2).await.last().unwrap().jobs, []);
    agent.stop().await;
}

#[tokio::test]
async fn what_an_agent_cannot_take_is_refused_with_the_reason() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let mut config = place.config();
    config.slots = 1;
    let agent = Agent::start(config);
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let mut wrong = assignment("end");
    wrong.spec.postgres = PostgresRef::Major(99);
    session.say(CoordinatorMessage::Assignment(wrong.clone())).await;
    let AgentMessage::AssignmentRefused(refused) = session.receive().await else { panic!() };
    assert_eq!(refused.lease, wrong.lease);
    assert!(refused.reason.starts_with("this host has no PostgreSQL 99"), "{}", refused.reason);
    assert_eq!(fs::read_dir(jobs_dir(&place.data())).map_or(0, Iterator::count), 0);

    let taken = assignment("wait");
    session.say(CoordinatorMessage::Assignment(taken.clone())).await;
    let second = assignment("wait");
    session.say(CoordinatorMessage::Assignment(second.clone())).await;
    let mut stored = Stored::default();
    let refused = loop {
        match session.receive().await {
            AgentMessage::AssignmentRefused(refused) => break refused,
            AgentMessage::Evidence(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.lease, second.lease);
    assert_eq!(refused.reason, "all 1 slots of the agent are taken");
    // The same attempt under another lease is not another job.
    let mut other = taken.clone();
    other.lease.fence += 1;
    session.say(CoordinatorMessage::Assignment(other)).await;
    let refused = loop {
        match session.receive().await {
            AgentMessage::AssignmentRefused(refused) => break refused,
            AgentMessage::Evidence(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(refused.reason.contains("under another lease"), "{}", refused.reason);
    session.cancel(taken.lease).await;
    session.cancelled(taken.lease, &mut stored).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_to_stop_its_jobs_leaves_no_process() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let mut config = place.config();
    config.stop_jobs_on_shutdown = true;
    let agent = Agent::start(config);
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    let assignment = assignment("frames=10 wait");
    let lease = assignment.lease;
    let folder = place.folder(&lease);
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.high_water() >= 11).await;
    let Agent { task, shutdown } = agent;
    shutdown.cancel();
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    assert_eq!(folder.processes_left(), []);
    assert_eq!(outcome(&stored.ended().unwrap()), Outcome::Cancelled);
    session.say(CoordinatorMessage::Release(lease)).await;
    timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    assert!(!folder.path().exists());
}

#[tokio::test]
async fn a_second_daemon_on_the_data_folder_is_told_who_has_it() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (_session, _) = coordinator.accept().await;
    let second = Agent::start(place.config());
    let error = timeout(PATIENCE, second.task).await.unwrap().unwrap().unwrap_err();
    let own = format!("another agent (process {})", std::process::id());
    assert!(error.to_string().starts_with(&own), "{error}");
    agent.stop().await;
}

#[tokio::test]
async fn a_damaged_segment_costs_its_own_frames_and_the_coordinator_is_told() {
    let place = Place::new();
    let mut coordinator = Coordinator::listen(&place.socket());
    let agent = place.agent();
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;
    // Two segments of 4 MiB.
    let assignment = assignment("frames=20000 wait");
    let lease = assignment.lease;
    let spool = place.folder(&lease).spool();
    session.say(CoordinatorMessage::Assignment(assignment)).await;
    // Nothing is acknowledged, so little is read ahead.
    eventually("two segments", || fs::read_dir(&spool).is_ok_and(|dir| dir.count() == 2)).await;
    let mut segments: Vec<PathBuf> =
        fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let mut bytes = fs::read(&segments[0]).unwrap();
    bytes[2_000_000] ^= 1;
    fs::write(&segments[0], bytes).unwrap();
    let second: u64 = segments[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();

    let mut due = 1;
    let mut lost = None;
    while due < 20_002 {
        let AgentMessage::Evidence(batch) = session.receive().await else { continue };
        let first = batch.frames[0].sequence;
        if first != due {
            assert_eq!(lost, None, "one hole");
            assert_eq!((first, batch.lost_up_to), (second, second - 1));
            lost = Some(due..first);
        }
        due = batch.frames.last().unwrap().sequence + 1;
        session.acknowledge(lease, due - 1).await;
    }
    let lost = lost.expect("the damage was found");
    assert!(lost.start > 1000, "what is before the damage arrives: {lost:?}");
    session.cancel(lease).await;
    session.cancelled(lease, &mut Stored::default()).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_data_folder_or_program_that_the_jobs_user_cannot_reach_is_dealt_with() {
    if !rustix::process::geteuid().is_root() {
        // Only root runs jobs as somebody else.
        return;
    }
    let place = Place::new();
    let closed = |closed: bool| {
        let mode = if closed { 0o700 } else { 0o755 };
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut coordinator = Coordinator::listen(&place.socket());
    let mut config = place.config();
    // A program in a folder of root's own.
    let private = place.dir.path().join("private");
    fs::create_dir(&private).unwrap();
    let program = private.join("runner");
    fs::copy(&config.runner[0], &program).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    config.runner[0] = program.into();
    let agent = Agent::start(config);
    let (mut session, _) = coordinator.accept().await;
    session.welcome(&[]).await;

    closed(true);
    let refused = assignment("end");
    session.say(CoordinatorMessage::Assignment(refused)).await;
    let AgentMessage::AssignmentRefused(refused) = session.receive().await else { panic!() };
    assert!(refused.reason.contains("cannot reach"), "{}", refused.reason);
    assert!(refused.reason.contains("chmod o+x"), "{}", refused.reason);

    closed(false);
    let taken = assignment("frames=3 end");
    let lease = taken.lease;
    session.say(CoordinatorMessage::Assignment(taken)).await;
    let mut stored = Stored::default();
    session.store(lease, &mut stored, |s| s.is_delivered).await;
    assert_eq!(outcome(&stored.ended().unwrap()), Outcome::Finished);
    assert_eq!(fs::read_dir(place.data().join("bin")).unwrap().count(), 1, "one copy");
    agent.stop().await;
}
