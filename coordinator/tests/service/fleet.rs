//! Agents as part of a fleet: tokens and approval, drain, quarantine, health checks, names.

use crate::pages::get;
use crate::scripted::{
    Scripted, Stage, WORKLOAD, channel, ended, frames, held, plan, submission, with_token,
};
use pgsoak_coordinator::app::start_with;
use pgsoak_coordinator::config::{CanaryPlan, CoordinatorConfig, Role, Token};
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::AgentMessage;
use pgsoak_proto::wire;
use pgsoak_proto::wire::fleet_admin_client::FleetAdminClient;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

async fn admin(stage: &Stage) -> FleetAdminClient<Channel> {
    FleetAdminClient::new(channel(&stage.socket()).await)
}

async fn order(
    stage: &Stage,
    name: &str,
    order: wire::AgentOrder,
    text: &str,
) -> Result<Vec<wire::FleetMember>, Status> {
    let request = wire::OrderAgentRequest {
        name: name.to_owned(),
        order: order.into(),
        text: text.to_owned(),
    };
    Ok(admin(stage).await.order_agent(request).await?.into_inner().members)
}

async fn fleet(stage: &Stage) -> Vec<wire::FleetMember> {
    admin(stage).await.list_fleet(wire::ListFleetRequest {}).await.unwrap().into_inner().members
}

/// Waits until the first waiting job of the run says this.
async fn says(stage: &Stage, run: &str, part: &str) {
    stage.until(run, |view| view.jobs.iter().any(|job| job.reason.contains(part))).await;
}

/// Brings the next job to its end.
async fn soak(agent: &mut Scripted, outcome: Outcome, reason: &str) {
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 2)).await;
    agent.evidence(lease, vec![ended(3, outcome, reason)]).await;
    agent.acknowledged(lease, 3).await;
    agent.say(AgentMessage::Delivered(lease)).await;
    agent.next().await.unwrap();
}

#[tokio::test]
async fn tokens_decide_who_comes_in_and_who_waits_for_approval() {
    let folder = tempfile::tempdir().unwrap();
    let token =
        |role, secret: &str| Token { name: "t".to_owned(), role, secret: secret.to_owned() };
    let mut config = CoordinatorConfig::new(folder.path().join("data"));
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    config.socket = Some(folder.path().join("c.sock"));
    config.tokens = vec![
        token(Role::Agent, "token-of-agents!"),
        token(Role::ApprovedAgent, "token-of-trusted"),
        token(Role::Client, "token-of-clients"),
    ];
    let socket = folder.path().join("c.sock");
    let running = start_with(config, crate::scripted::limits()).await.unwrap();
    let url = format!("http://{}", running.tcp.unwrap());
    let tcp = Endpoint::from_shared(url).unwrap().connect().await.unwrap();

    // People.
    let mut control = wire::control_client::ControlClient::new(tcp.clone());
    let list = || wire::ListAgentsRequest {};
    let refused = control.list_agents(list()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("PGSOAK_TOKEN"), "{refused}");
    for (secret, code) in
        [("token-of-nobody!", Code::Unauthenticated), ("token-of-agents!", Code::PermissionDenied)]
    {
        let refused = control.list_agents(with_token(list(), Some(secret))).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
    control.list_agents(with_token(list(), Some("token-of-clients"))).await.unwrap();

    // Agents.
    let mut stranger = Scripted::new("stranger");
    let hello = stranger.hello(vec![]);
    let refused = stranger.open_on(tcp.clone(), None, hello.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = stranger.open_on(tcp.clone(), Some("token-of-clients"), hello.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    stranger.open_on(tcp.clone(), Some("token-of-agents!"), hello).await.unwrap();

    // On the Unix socket nobody asks for a token.
    let mut control = wire::control_client::ControlClient::new(channel(&socket).await);
    let run = control.submit_run(submission(&plan(""), "k")).await.unwrap().into_inner().run_id;
    let mut admin = FleetAdminClient::new(channel(&socket).await);
    let look = async |control: &mut wire::control_client::ControlClient<Channel>| {
        let request = wire::GetRunRequest { run_id: run.clone() };
        control.get_run(request).await.unwrap().into_inner().jobs[0].reason.clone()
    };
    while !look(&mut control).await.contains("pgsoak agents approve stranger") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let members = admin.list_fleet(wire::ListFleetRequest {}).await.unwrap().into_inner().members;
    assert_eq!((members[0].standing.as_str(), members[0].admitted_by.as_str()), ("waiting", ""));
    // Once approved it is, also in its next session.
    let approve = wire::OrderAgentRequest {
        name: "stranger".to_owned(),
        order: wire::AgentOrder::Approve.into(),
        text: String::new(),
    };
    let members = admin.order_agent(approve).await.unwrap().into_inner().members;
    assert_eq!(members[0].admitted_by, "hand");
    let lease = stranger.assignment().await.lease;
    stranger.disconnect();
    let hello = stranger.hello(vec![held(lease, 0)]);
    stranger.open_on(tcp.clone(), Some("token-of-agents!"), hello).await.unwrap();
    let members = admin.list_fleet(wire::ListFleetRequest {}).await.unwrap().into_inner().members;
    assert_eq!((members.len(), members[0].standing.as_str()), (1, "ready"));

    let mut trusted = Scripted::new("trusted");
    let hello = trusted.hello(vec![]);
    trusted.open_on(tcp, Some("token-of-trusted"), hello).await.unwrap();
    let members = admin.list_fleet(wire::ListFleetRequest {}).await.unwrap().into_inner().members;
    assert_eq!(
        (members[1].standing.as_str(), members[1].admitted_by.as_str()),
        ("ready", "its token")
    );
    running.shutdown().await;
}

#[tokio::test]
async fn a_drained_agent_gets_no_job_and_says_why_over_a_restart() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let members = order(&stage, "a", wire::AgentOrder::Drain, "new disk").await.unwrap();
    assert_eq!(members[0].standing, "drained");
    order(&stage, "a", wire::AgentOrder::Note, "ask <b>Kim").await.unwrap();
    // The page and the metrics use the same words.
    let (status, _, page) = get(stage.http(), "/agents").await;
    for holds in
        ["badge drained", "badge unknown", "a is being drained (new disk)", "ask &lt;b&gt;Kim"]
    {
        assert!(status == 200 && page.contains(holds), "{holds}: {page}");
    }
    let (_, _, metrics) = get(stage.http(), "/metrics").await;
    for line in [
        "pgsoak_fleet_agents{state=\"drained\"} 1",
        "pgsoak_fleet_agents{state=\"quarantined\"} 0",
        "pgsoak_fleet_health{health=\"unknown\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let run = stage.submit(&plan(""), "k").await;
    says(&stage, &run, "a is being drained (new disk)").await;
    stage.stop().await;
    stage.start().await;
    agent.connect(&stage.socket(), vec![]).await;
    says(&stage, &run, "a is being drained (new disk)").await;
    assert_eq!(fleet(&stage).await[0].note, "ask <b>Kim");
    order(&stage, "a", wire::AgentOrder::Resume, "").await.unwrap();
    agent.assignment().await;

    let refused = order(&stage, "a", wire::AgentOrder::Remove, "").await.unwrap_err();
    assert!(refused.message().contains("stop its daemon first"), "{refused}");
    agent.disconnect();
    stage.until(&run, |_| true).await;
    let refused = loop {
        match order(&stage, "a", wire::AgentOrder::Remove, "").await.unwrap_err() {
            status if status.message().contains("is connected") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            status => break status,
        }
    };
    assert!(refused.message().contains("holds 1 job(s)"), "{refused}");
    assert!(refused.message().contains(&run), "{refused}");
    let unknown = order(&stage, "b", wire::AgentOrder::Approve, "").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn an_agent_that_was_made_anew_takes_the_place_of_the_old_one() {
    let stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let old = agent.id;
    order(&stage, "a", wire::AgentOrder::Note, "ask Kim").await.unwrap();
    agent.disconnect();
    agent.id = AgentId::issue();
    // Until the coordinator has seen the old session end, the name is taken.
    loop {
        let hello = agent.hello(vec![]);
        match agent.open(&stage.socket(), hello).await {
            Ok(_) => break,
            Err(status) => {
                assert!(status.message().contains("another agent is connected as 'a'"), "{status}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    let members = fleet(&stage).await;
    assert_eq!(members.len(), 1, "it counts once");
    let id = members[0].agent.as_ref().unwrap().agent_id.clone();
    assert_eq!(id, agent.id.to_string());
    assert_ne!(id, old.to_string());
    assert_eq!(members[0].note, "ask Kim", "what was said of the host stays");

    // One that holds a job cannot be replaced unawares.
    let run = stage.submit(&plan(""), "k").await;
    agent.assignment().await;
    agent.disconnect();
    let holder = agent.id;
    agent.id = AgentId::issue();
    let refused = loop {
        let hello = agent.hello(vec![]);
        let status = agent.open(&stage.socket(), hello).await.unwrap_err();
        if !status.message().contains("another agent is connected") {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.message().contains(&format!("another id ({holder})")), "{refused}");
    assert!(refused.message().contains("1 job(s) that are not over"), "{refused}");
    stage.until(&run, |view| view.jobs[0].agent == "a").await;
}

#[tokio::test]
async fn an_agent_that_fails_again_and_again_is_quarantined_and_somebody_is_told() {
    let stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    for key in ["1", "2", "3"] {
        let run = stage.submit(&plan(""), key).await;
        soak(&mut agent, Outcome::Infrastructure, "the data disk is read-only").await;
        let view = stage.finished(&run).await;
        assert_eq!(view.verdict, "invalid", "the host's failure is not the product's");
    }
    let member = &fleet(&stage).await[0];
    assert_eq!((member.standing.as_str(), member.health.as_str()), ("quarantined", "failing"));
    let run = stage.submit(&plan(""), "4").await;
    says(&stage, &run, "a is quarantined (3 attempts in a row ended as infrastructure").await;
    let mut schedules =
        wire::schedules_client::SchedulesClient::new(channel(&stage.socket()).await);
    let alerts = schedules.list_alerts(wire::ListAlertsRequest::default()).await.unwrap();
    let alert = &alerts.into_inner().alerts[0];
    assert_eq!((alert.kind.as_str(), alert.subject.as_str()), ("agent_quarantined", "a"));
    assert!(alert.text.contains("the data disk is read-only"), "{}", alert.text);
    order(&stage, "a", wire::AgentOrder::Resume, "").await.unwrap();
    soak(&mut agent, Outcome::Finished, "").await;
    stage.finished(&run).await;
    assert_eq!(fleet(&stage).await[0].health, "unknown");
}

#[tokio::test]
async fn every_agent_runs_the_health_check_and_one_that_does_not_pass_is_quarantined() {
    let mut stage = Stage::new().await;
    stage.stop().await;
    stage.canary = Some(CanaryPlan {
        every: Duration::from_secs(3_600),
        plan_toml: plan(""),
        workloads: BTreeMap::from([("w".to_owned(), WORKLOAD.to_owned())]),
    });
    stage.start().await;
    let (mut a, mut b) = (Scripted::new("a"), Scripted::new("b"));
    a.connect(&stage.socket(), vec![]).await;
    b.connect(&stage.socket(), vec![]).await;
    for agent in [&mut a, &mut b] {
        let assignment = agent.assignment().await;
        assert_eq!(assignment.spec.agents["agent"], agent.name, "a check is for one agent alone");
        let lease = assignment.lease;
        agent.evidence(lease, frames(1, 2)).await;
        agent.evidence(lease, vec![ended(3, Outcome::Infrastructure, "no memory")]).await;
        agent.acknowledged(lease, 3).await;
        agent.say(AgentMessage::Delivered(lease)).await;
        agent.next().await.unwrap();
    }
    let patience = async {
        loop {
            let members = fleet(&stage).await;
            if members.iter().all(|member| member.standing == "quarantined") {
                return members;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let members = tokio::time::timeout(crate::scripted::PATIENCE, patience).await.unwrap();
    assert!(members[0].closed.contains("health check"), "{}", members[0].closed);
    assert!(!members[0].check_run_id.is_empty());
    let run = stage.submit(&plan(""), "k").await;
    says(&stage, &run, "a is quarantined (health check").await;
}

#[tokio::test]
async fn a_busy_host_gets_no_job_until_it_is_not() {
    let stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    agent.heartbeat_of(&[], "load 9 on 2 cores").await;
    let run = stage.submit(&plan(""), "k").await;
    says(&stage, &run, "a's host is busy (load 9 on 2 cores)").await;
    assert_eq!(fleet(&stage).await[0].standing, "busy");
    agent.heartbeat(&[]).await;
    agent.assignment().await;
}

#[tokio::test]
async fn the_higher_priority_is_first_and_the_rest_is_told_when_and_where() {
    let stage = Stage::new().await;
    let usual = stage.submit(&plan(""), "usual").await;
    let urgent = wire::SubmitRunRequest { priority: 90, ..submission(&plan(""), "urgent") };
    let urgent = stage.control().await.submit_run(urgent).await.unwrap().into_inner().run_id;
    let refused = wire::SubmitRunRequest { priority: 101, ..submission(&plan(""), "x") };
    let refused = stage.control().await.submit_run(refused).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut agent = Scripted::new("a");
    agent.slots = 1;
    agent.connect(&stage.socket(), vec![]).await;
    let first = agent.assignment().await;
    assert_eq!(first.spec.run.to_string(), urgent);
    let waits = stage.until(&usual, |view| !view.jobs[0].would_go.is_empty()).await;
    assert_eq!(waits.jobs[0].would_go, "a");
    assert!(waits.jobs[0].starts_at_unix_us > waits.submitted_at_unix_us);
    assert!(waits.jobs[0].reason.contains("a runs 1 job in 1 slot"), "{}", waits.jobs[0].reason);
    // A plan that would come after it.
    let request = wire::CheckPlanRequest {
        plan_toml: plan(""),
        workloads: vec![wire::WorkloadFile { name: "w".to_owned(), toml: WORKLOAD.to_owned() }],
    };
    let placed = stage.control().await.check_plan(request).await.unwrap().into_inner().jobs;
    assert_eq!(placed[0].agent, "a");
    // A job without loops is expected to take two minutes.
    let (before, after) = (waits.jobs[0].starts_at_unix_us, placed[0].starts_at_unix_us);
    assert!(after >= before + 119_000_000, "{after} {before}");
}
