//! Looks at a job that goes on: where it stands is shown, and a plan may end it early.

use crate::pages::get;
use crate::scripted::{Scripted, Stage, frames};
use pgsoak_proto::evidence::{
    AtRest, Body, ContextUse, Frame, HostSamples, PhaseKind, PhaseStarted, Samples,
};
use pgsoak_proto::session::CoordinatorMessage;
use pgsoak_proto::wire;
use std::collections::BTreeMap;
use std::time::Duration;

const LOOP: &str = "name = \"w\"\n[[phase]]\nname = \"steady\"\nkind = \"loop\"\noperations = 1000\nfor = \"400s\"\nsql = \"SELECT 1\"\n";

/// Three minutes of a loop, a round every two seconds; `used` is what a context holds after so many operations.
fn evidence(used: fn(u64) -> u64) -> Vec<Frame> {
    let mut bodies = vec![Body::PhaseStarted(PhaseStarted {
        phase: 0,
        name: "steady".to_owned(),
        kind: PhaseKind::Loop,
        workers: 1,
    })];
    let mut times = vec![Duration::from_secs(1)];
    for round in 0..90_u32 {
        let operations = u64::from(round) * 1_000;
        let used_bytes = used(operations);
        bodies.push(Body::AtRest(AtRest {
            session: 1,
            process: 1,
            phase: 0,
            round,
            operations,
            rss_anon_bytes: (4_000_000 + used_bytes).div_ceil(4_096) * 4_096,
            contexts: vec![ContextUse {
                name: "CachedPlanSource".to_owned(),
                used_bytes,
                total_bytes: used_bytes.div_ceil(8_192) * 8_192,
                count: 1,
            }],
            ..AtRest::default()
        }));
        times.push(Duration::from_secs(2 + 2 * u64::from(round)));
    }
    let ticks: Vec<u64> = (0..182).collect();
    bodies.push(Body::Samples(Samples {
        elapsed_us: ticks.iter().map(|tick| tick * 1_000_000).collect(),
        processes: Vec::new(),
        host: HostSamples { operations: vec![5; ticks.len()], ..HostSamples::default() },
        ticks,
        left_out: 0,
    }));
    times.push(Duration::from_secs(181));
    let started = frames(1, 1).into_iter();
    let rest = bodies.into_iter().zip(times).zip(2..);
    started
        .chain(rest.map(|((body, elapsed), sequence)| Frame { sequence, elapsed, body }))
        .collect()
}

async fn submit(stage: &Stage, top: &str) -> String {
    let plan = format!(
        "name = \"t\"\n{top}\n[[job]]\nworkload = \"w\"\nbuild = \"vanilla\"\npostgres = \"18\"\n"
    );
    let request = wire::SubmitRunRequest {
        plan_toml: plan,
        workloads: vec![wire::WorkloadFile { name: "w".to_owned(), toml: LOOP.to_owned() }],
        client_key: "key".to_owned(),
        labels: BTreeMap::new(),
        priority: 0,
    };
    stage.control().await.submit_run(request).await.unwrap().into_inner().run_id
}

fn proven(view: &wire::RunView) -> bool {
    view.jobs[0].standing == "proven"
}

#[tokio::test]
async fn a_proven_leak_is_shown_and_ends_the_loop_where_the_plan_says_so() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = submit(&stage, "stop_when_proven = true").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, evidence(|operations| 500_000 + 120 * operations)).await;
    let view = stage.until(&run, proven).await;
    assert!(view.jobs[0].standing_reason.contains("CachedPlanSource grows by 120.0 bytes"));
    assert!(view.sentence.contains("the job ends early"), "{}", view.sentence);
    let (_, _, page) = get(stage.http(), &format!("/runs/{run}")).await;
    assert!(page.contains("badge proven"), "{page}");
    assert!(page.contains("CachedPlanSource grows by 120.0 bytes"), "{page}");
    let told = loop {
        match agent.next().await.unwrap() {
            CoordinatorMessage::Conclude(told) => break told,
            CoordinatorMessage::EvidenceAcknowledged(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told.lease, lease);
    assert!(told.reason.contains("CachedPlanSource"), "{}", told.reason);
    stage.stop().await;
}

#[tokio::test]
async fn a_plan_that_does_not_say_so_goes_on_and_a_level_job_is_healthy() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = submit(&stage, "").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, evidence(|_| 500_000)).await;
    let view = stage.until(&run, |view| !view.jobs[0].standing.is_empty()).await;
    assert_eq!(view.jobs[0].standing, "healthy");
    let (_, _, page) = get(stage.http(), &format!("/runs/{run}")).await;
    assert!(page.contains("badge healthy"), "{page}");
    assert!(view.jobs[0].standing_reason.is_empty());
    // Nothing but acknowledgements and answers comes after a heartbeat.
    agent.acknowledged(lease, 93).await;
    agent.heartbeat(&[lease]).await;
    stage.stop().await;
}
