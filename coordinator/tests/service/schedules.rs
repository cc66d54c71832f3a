//! Schedules over the wire: added, kept over a restart, paused, run by hand, removed.

use crate::pages::get;
use crate::scripted::{Stage, WORKLOAD, channel, plan};
use pgsoak_proto::wire;
use pgsoak_proto::wire::schedules_client::SchedulesClient;
use std::collections::BTreeMap;
use tonic::{Code, transport::Channel};

async fn schedules(stage: &Stage) -> SchedulesClient<Channel> {
    SchedulesClient::new(channel(&stage.socket()).await)
}

fn request(name: &str, cron: &str) -> wire::AddScheduleRequest {
    wire::AddScheduleRequest {
        name: name.to_owned(),
        plan_toml: plan(""),
        workloads: vec![wire::WorkloadFile { name: "w".to_owned(), toml: WORKLOAD.to_owned() }],
        spec: Some(wire::ScheduleSpec {
            cron: cron.to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            labels: BTreeMap::from([("team".to_owned(), "core".to_owned())]),
            ..Default::default()
        }),
        replace: false,
    }
}

fn named(name: &str) -> wire::ScheduleRequest {
    wire::ScheduleRequest { name: name.to_owned() }
}

#[tokio::test]
async fn a_schedule_lives_through_a_restart_and_its_runs_are_found_by_it() {
    let mut stage = Stage::new().await;
    let mut client = schedules(&stage).await;
    let added = client.add_schedule(request("", "0 22 * * *")).await.unwrap().into_inner();
    assert_eq!(added.name, "t", "the plan's name");
    assert!(added.next.unwrap().local.contains(" 22:00 CE"), "in its own zone");
    let run = client.run_schedule_now(named("t")).await.unwrap().into_inner().run_id;
    // A run of it goes on: that is seen, and kept.
    for is_restarted in [false, true] {
        if is_restarted {
            stage.stop().await;
            stage.start().await;
            client = schedules(&stage).await;
        }
        let view = client.get_schedule(named("t")).await.unwrap().into_inner();
        assert_eq!(view.schedule_id, added.schedule_id);
        assert_eq!(view.unfinished, std::slice::from_ref(&run));
        assert_eq!(view.past[0].what, "by hand");
        assert_eq!(view.past[0].run_id, run);
    }
    let lines = wire::history_client::HistoryClient::new(channel(&stage.socket()).await)
        .find_runs(wire::FindRunsRequest {
            filter: Some(wire::RunFilter {
                labels: BTreeMap::from([
                    ("schedule".to_owned(), "t".to_owned()),
                    ("team".to_owned(), "core".to_owned()),
                ]),
                ..Default::default()
            }),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(lines.total, 1);

    client.remove_schedule(named("t")).await.unwrap();
    stage.stop().await;
    stage.start().await;
    let mut client = schedules(&stage).await;
    let gone = client.get_schedule(named("t")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("pgsoak schedule list"), "{}", gone.message());
    // Its run stays.
    stage.until(&run, |view| view.stage() == wire::RunStage::Queued).await;
}

#[tokio::test]
async fn the_coming_week_is_shown_and_a_pause_holds_it() {
    let stage = Stage::new().await;
    let mut client = schedules(&stage).await;
    let mut weekend = request("weekend", "0 */8 * * *");
    weekend.spec.as_mut().unwrap().windows = vec!["sat,sun".to_owned()];
    client.add_schedule(weekend).await.unwrap();
    client.add_schedule(request("night", "30 22 * * *")).await.unwrap();
    let all = client.next_ticks(wire::NextTicksRequest::default()).await.unwrap().into_inner();
    let of = |name: &str| all.ticks.iter().filter(|tick| tick.name == name).count();
    assert_eq!((of("night"), of("weekend")), (7, 21));
    assert!(all.ticks.is_sorted_by_key(|tick| tick.due_unix_us));
    let open = all.ticks.iter().filter(|t| t.name == "weekend" && t.note.is_empty()).count();
    // Saturday and Sunday, three times each; one more or less where an hour comes twice.
    assert!((5..=7).contains(&open), "{open}");
    assert!(all.ticks.iter().any(|tick| tick.note == "left out: outside the windows 'sat,sun'"));

    let pause = wire::SetSchedulePausedRequest {
        name: "night".to_owned(),
        paused: true,
        reason: "the lab moves".to_owned(),
    };
    let paused = client.set_schedule_paused(pause).await.unwrap().into_inner();
    assert!(paused.is_paused && paused.next.is_none());
    let (_, _, metrics) = get(stage.http(), "/metrics").await;
    for (begins, is_there) in [
        ("pgsoak_schedule_paused{schedule=\"night\"} 1", true),
        ("pgsoak_schedule_absent_runs{schedule=\"night\"} 0", true),
        ("pgsoak_schedule_next_run_timestamp_seconds{schedule=\"weekend\"} 1", true),
        ("pgsoak_schedule_next_run_timestamp_seconds{schedule=\"night\"}", false),
        ("pgsoak_alert_raised_total{kind=\"run_missed\"} 0", true),
    ] {
        let found = metrics.lines().any(|line| line.starts_with(begins));
        assert_eq!(found, is_there, "{begins}: {metrics}");
    }
    let request = wire::NextTicksRequest { name: "night".to_owned(), for_ms: 86_400_000 };
    let next = client.next_ticks(request).await.unwrap().into_inner();
    assert_eq!(next.ticks[0].note, "paused: the lab moves");
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_said() {
    let stage = Stage::new().await;
    let mut client = schedules(&stage).await;
    client.add_schedule(request("n", "0 22 * * *")).await.unwrap();
    let taken = client.add_schedule(request("n", "0 23 * * *")).await.unwrap_err();
    assert!(taken.message().contains("--replace"), "{}", taken.message());
    let replaced = wire::AddScheduleRequest { replace: true, ..request("n", "0 23 * * *") };
    let view = client.add_schedule(replaced).await.unwrap().into_inner();
    assert_eq!(view.spec.unwrap().cron, "0 23 * * *");

    let bad_plan =
        wire::AddScheduleRequest { plan_toml: "name = 1".to_owned(), ..request("p", "@daily") };
    for (request, part) in [
        (request("x", "0 22 * *"), "five fields"),
        (request("x", "0 0 30 2 *"), "does not come within five years"),
        (request("a b", "@daily"), "is no name"),
        (bad_plan, "has no [[job]]"),
    ] {
        let refused = client.add_schedule(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(part), "{}", refused.message());
    }
}
