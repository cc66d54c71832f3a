//! Schedules, trends and comparisons as pages: the words of the command line, and the way out where an argument is wrong.

use crate::pages::get;
use crate::scripted::{Scripted, Stage, WORKLOAD, channel, ended, frames, plan};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::session::AgentMessage;
use pgsoak_proto::wire;
use pgsoak_proto::wire::schedules_client::SchedulesClient;

#[tokio::test]
async fn the_calendar_is_a_page() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    let (status, _, page) = get(http, "/schedules").await;
    assert!(status == 200 && page.contains("pgsoak schedule add"), "{page}");
    let mut client = SchedulesClient::new(channel(&stage.socket()).await);
    let request = wire::AddScheduleRequest {
        name: "night".to_owned(),
        plan_toml: plan(""),
        workloads: vec![wire::WorkloadFile { name: "w".to_owned(), toml: WORKLOAD.to_owned() }],
        spec: Some(wire::ScheduleSpec {
            cron: "30 22 * * *".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            missed: wire::MissedPolicy::Once.into(),
            ..Default::default()
        }),
        replace: false,
    };
    client.add_schedule(request).await.unwrap();
    let named = wire::ScheduleRequest { name: "night".to_owned() };
    let run = client.run_schedule_now(named).await.unwrap().into_inner().run_id;
    let (_, _, page) = get(http, "/schedules").await;
    for holds in [
        "30 22 * * *",
        "Europe/Berlin",
        "missed: once",
        "overlap: forbid",
        "badge by_hand",
        &format!("/runs/{run}"),
        "goes on: ",
    ] {
        assert!(page.contains(holds), "{holds}: {page}");
    }
    // The next time, and seven in the coming week.
    assert_eq!(page.matches(" 22:30 CE").count(), 8, "{page}");
    let pause = wire::SetSchedulePausedRequest {
        name: "night".to_owned(),
        paused: true,
        reason: "<i>move</i>".to_owned(),
    };
    client.set_schedule_paused(pause).await.unwrap();
    let (_, _, page) = get(http, "/schedules").await;
    assert!(page.contains("badge paused") && page.contains("&lt;i&gt;move"), "{page}");
    assert!(!page.contains("<i>"), "{page}");
    stage.stop().await;
}

#[tokio::test]
async fn trends_and_comparisons_are_asked_by_url() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    let (status, _, page) = get(http, "/trend").await;
    assert!(status == 200 && page.contains("No run was judged yet"), "{page}");
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let mut runs = Vec::new();
    for key in ["1", "2"] {
        let run = stage.submit(&plan(""), key).await;
        let lease = agent.assignment().await.lease;
        agent.evidence(lease, frames(1, 3)).await;
        agent.evidence(lease, vec![ended(4, Outcome::Finished, "")]).await;
        agent.acknowledged(lease, 4).await;
        agent.say(AgentMessage::Delivered(lease)).await;
        agent.next().await.unwrap();
        stage.finished(&run).await;
        runs.push(run);
    }
    let waiting = stage.submit(&plan("tool = \"memcheck\""), "3").await;

    let (status, _, page) = get(http, "/compare").await;
    assert!(status == 200 && page.contains("value=\"vanilla\""), "builds are suggested: {page}");
    // Their jobs did no work at all: that is said, and nothing is called the same.
    let both = format!("/compare?before={}&after={}", runs[0], runs[1]);
    let (status, _, page) = get(http, &both).await;
    assert!(status == 200 && page.contains("badge can_t_tell"), "{status} {page}");
    assert!(page.contains("left out before") && page.contains(&runs[0]), "{page}");
    let hostile = "%22%3E%3Cscript%3Ealert(1)";
    for (path, wanted, says) in [
        ("/trend?workload=w".to_owned(), 404, "no judged run has a sound job"),
        ("/trend?workload=w&metric=size".to_owned(), 400, "bytes_per_operation"),
        ("/trend?workload=w&tool=gdb".to_owned(), 400, "memcheck"),
        ("/trend?workload=w&postgres=x".to_owned(), 400, "such as 18"),
        (format!("/trend?workload={hostile}"), 404, "&lt;script&gt;alert"),
        ("/compare?before=latest".to_owned(), 400, "NAME@RELEASE"),
        ("/compare?after=latest".to_owned(), 400, "NAME@RELEASE"),
        ("/compare?before=latest&after=ffffffff".to_owned(), 409, "is not finished"),
        (format!("/compare?before={}&after=ffffffff", runs[0]), 404, "pgsoak runs"),
        (format!("/compare?before={}&after=e@9", runs[0]), 404, "no stored run"),
        (format!("/compare?before={}&after={waiting}", runs[0]), 409, "pgsoak watch"),
        (format!("/compare?before={hostile}&after=latest"), 400, "&lt;script&gt;alert"),
        (format!("/compare?before={}&after=latest", "x".repeat(300)), 400, "longer than 200"),
    ] {
        let (status, _, page) = get(http, &path).await;
        assert_eq!(status, wanted, "{path}: {page}");
        assert!(page.contains(says) && !page.contains("<script>alert"), "{path}: {says}: {page}");
    }
    stage.stop().await;
}
