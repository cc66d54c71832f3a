//! What people ask, and what they are told when it cannot be done.

use crate::scripted::{Scripted, Stage, ended, frames, plan, submission};
use pgsoak_coordinator::app::{StartError, start};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use tonic::Code;

#[tokio::test]
async fn a_bad_plan_is_refused_with_every_problem_and_its_line() {
    let mut stage = Stage::new().await;
    let mut control = stage.control().await;
    let bad = "name = \"t\"\n[[job]]\nworkload = \"w\"\nreplicsa = 2\ntool = \"plane\"\n";
    let status = control.submit_run(submission(bad, "key")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["plan.toml:4", "replicsa", "plan.toml:5", "plane"] {
        assert!(status.message().contains(part), "no {part} in: {}", status.message());
    }
    let mut without = submission(&plan(""), "key");
    without.workloads.clear();
    let status = control.submit_run(without).await.unwrap_err();
    assert!(status.message().contains("workload 'w'"), "{status}");
    let status = control.submit_run(submission(&plan(""), "")).await.unwrap_err();
    assert!(status.message().contains("client_key"), "{status}");
    // Nothing of it was kept: the key is free.
    assert!(control.submit_run(submission(&plan(""), "key")).await.unwrap().into_inner().is_new);
    stage.stop().await;
}

#[tokio::test]
async fn a_key_stands_for_one_run_even_when_asked_twice_at_once() {
    let mut stage = Stage::new().await;
    let (mut a, mut b) = (stage.control().await, stage.control().await);
    let text = plan("");
    let (a, b) = tokio::join!(
        a.submit_run(submission(&text, "key")),
        b.submit_run(submission(&text, "key"))
    );
    let (a, b) = (a.unwrap().into_inner(), b.unwrap().into_inner());
    assert_eq!(a.run_id, b.run_id);
    assert!(a.is_new != b.is_new);
    stage.stop().await;
}

#[tokio::test]
async fn a_waiting_job_says_what_each_agent_lacks_and_a_check_says_it_before() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let text = plan("tool = [\"plain\", \"memcheck\"]\nagents = { zone = \"lab\" }");
    let request = wire::CheckPlanRequest {
        plan_toml: text.clone(),
        workloads: submission(&text, "key").workloads,
    };
    let placed = stage.control().await.check_plan(request).await.unwrap().into_inner().jobs;
    let whys: Vec<&str> = placed.iter().map(|job| job.why_not.as_str()).collect();
    let wanted = [
        "a lacks the label zone=lab",
        "a lacks the tool memcheck (there: `pgsoak doctor` says why) and the label zone=lab",
    ];
    assert_eq!(whys, wanted);
    let run = stage.submit(&text, "key").await;
    let view = stage.until(&run, |view| !view.jobs[1].reason.is_empty()).await;
    assert_eq!(view.jobs[1].reason, wanted[1]);
    assert_eq!(view.stage(), wire::RunStage::Queued);
    stage.stop().await;
}

#[tokio::test]
async fn runs_are_found_by_the_ends_of_their_ids_and_listed_newest_first() {
    let mut stage = Stage::new().await;
    let mut control = stage.control().await;
    let first = stage.submit(&plan(""), "1").await;
    let second = stage.submit(&plan("").replace("\"t\"", "\"u\""), "2").await;
    let get = |text: &str| wire::GetRunRequest { run_id: text.to_owned() };
    let found = control.get_run(get(&first[24..])).await.unwrap().into_inner();
    assert_eq!(found.run_id, first);
    let status = control.get_run(get(&first[..4])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ambiguous") && status.message().contains(&second));
    assert_eq!(control.get_run(get("ffffffff")).await.unwrap_err().code(), Code::NotFound);

    let list = |limit, before: &str, plan: &str| wire::ListRunsRequest {
        limit,
        before: before.to_owned(),
        plan: plan.to_owned(),
    };
    let ids = |answer: wire::ListRunsResponse| -> Vec<String> {
        answer.runs.into_iter().map(|run| run.run_id).collect()
    };
    let all = control.list_runs(list(0, "", "")).await.unwrap().into_inner();
    assert_eq!(ids(all), [second.clone(), first.clone()]);
    let older = control.list_runs(list(5, &second, "")).await.unwrap().into_inner();
    assert_eq!(ids(older), std::slice::from_ref(&first));
    let of_plan = control.list_runs(list(0, "", "u")).await.unwrap().into_inner();
    assert_eq!(ids(of_plan), [second]);
    assert_eq!(
        control.list_runs(list(5_000, "", "")).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let report = wire::GetReportRequest {
        run_id: first,
        format: wire::ReportFormat::Json.into(),
        replay: false,
    };
    let status = control.get_report(report).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("is queued"), "{status}");
    stage.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_a_run_to_its_end() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let mut watch = stage
        .control()
        .await
        .watch_run(wire::GetRunRequest { run_id: run.clone() })
        .await
        .unwrap()
        .into_inner();
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, [frames(1, 1), vec![ended(2, Outcome::Finished, "")]].concat()).await;
    agent.acknowledged(lease, 2).await;
    let mut last = None;
    while let Some(view) = watch.message().await.unwrap() {
        last = Some(view);
    }
    let last = last.unwrap();
    assert_eq!((last.stage(), last.run_id), (wire::RunStage::Finished, run));
    stage.stop().await;
}

#[tokio::test]
async fn a_second_coordinator_on_the_folder_is_refused() {
    let mut stage = Stage::new().await;
    let error = start(stage.config()).await.unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    stage.stop().await;
    // A port that is taken, in a folder of its own.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = stage.config();
    config.listen = Some(taken.local_addr().unwrap());
    let error = start(config).await.unwrap_err().to_string();
    assert!(error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let mut stage = Stage::new().await;
    let channel = crate::scripted::channel(&stage.socket()).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let request = tonic_health::pb::HealthCheckRequest { service: "pgsoak.v1.Control".to_owned() };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    use tonic_reflection::pb::v1 as reflection;
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel);
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    for service in ["pgsoak.v1.Fleet", "pgsoak.v1.Control", "grpc.health.v1.Health"] {
        assert!(answer.contains(service), "no {service} in {answer}");
    }
    stage.stop().await;
}
