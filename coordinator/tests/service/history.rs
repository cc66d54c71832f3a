//! Past runs: found by what they were about, with what people wrote to them, over a restart.

use crate::scripted::{Scripted, Stage, ended, frames, plan, submission};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use pgsoak_proto::wire::history_client::HistoryClient;
use tonic::{Code, transport::Channel};

async fn history(stage: &Stage) -> HistoryClient<Channel> {
    HistoryClient::new(crate::scripted::channel(&stage.socket()).await)
}

/// Ids of the runs that fit, as they are listed.
async fn found(stage: &Stage, filter: wire::RunFilter) -> Vec<String> {
    let request = wire::FindRunsRequest { filter: Some(filter), ..Default::default() };
    let found = history(stage).await.find_runs(request).await.unwrap().into_inner();
    assert_eq!(found.total as usize, found.runs.len());
    found.runs.into_iter().map(|line| line.run.unwrap().run_id).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A run that an agent of this name brings to its end.
async fn soak(stage: &Stage, agent: &mut Scripted, key: &str, label: &str) -> String {
    let mut request = submission(&plan(""), key);
    request.labels.insert("branch".to_owned(), label.to_owned());
    let run = stage.control().await.submit_run(request).await.unwrap().into_inner().run_id;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 3)).await;
    agent.evidence(lease, vec![ended(4, Outcome::Finished, "")]).await;
    agent.acknowledged(lease, 4).await;
    agent.say(pgsoak_proto::session::AgentMessage::Delivered(lease)).await;
    agent.next().await.unwrap();
    stage.finished(&run).await;
    run
}

#[tokio::test]
async fn runs_are_found_by_what_they_were_about_also_after_a_restart() {
    let mut stage = Stage::new().await;
    let mut west = Scripted::new("west-1");
    west.connect(&stage.socket(), vec![]).await;
    let first = soak(&stage, &mut west, "1", "main").await;
    west.disconnect();
    let mut east = Scripted::new("east-1");
    east.connect(&stage.socket(), vec![]).await;
    let second = soak(&stage, &mut east, "2", "dev").await;
    east.disconnect();
    let waiting = stage.submit(&plan("tool = \"memcheck\""), "3").await;

    for is_restarted in [false, true] {
        if is_restarted {
            stage.stop().await;
            stage.start().await;
        }
        let all = found(&stage, wire::RunFilter::default()).await;
        assert_eq!(all, [waiting.clone(), second.clone(), first.clone()]);
        let agents = words(&["west-*"]);
        let fits = found(&stage, wire::RunFilter { agents, ..Default::default() }).await;
        assert_eq!(fits, std::slice::from_ref(&first));
        let labels = [("branch".to_owned(), "dev".to_owned())].into();
        let fits = found(&stage, wire::RunFilter { labels, ..Default::default() }).await;
        assert_eq!(fits, std::slice::from_ref(&second));
        let tools = words(&["memcheck"]);
        let fits = found(&stage, wire::RunFilter { tools, ..Default::default() }).await;
        assert_eq!(fits, std::slice::from_ref(&waiting));
        let verdicts = words(&["queued"]);
        let fits = found(&stage, wire::RunFilter { verdicts, ..Default::default() }).await;
        assert_eq!(fits, std::slice::from_ref(&waiting));
    }

    // Pages follow one another.
    let page = wire::FindRunsRequest { limit: 2, ascending: true, ..Default::default() };
    let page = history(&stage).await.find_runs(page).await.unwrap().into_inner();
    assert!(page.has_more && page.total == 3);
    let after = page.runs[1].run.as_ref().unwrap().run_id.clone();
    assert_eq!(after, second);
    let page = wire::FindRunsRequest { limit: 2, ascending: true, after, ..Default::default() };
    let page = history(&stage).await.find_runs(page).await.unwrap().into_inner();
    assert_eq!(page.runs[0].run.as_ref().unwrap().run_id, waiting);
    assert!(!page.has_more);
    stage.stop().await;
}

#[tokio::test]
async fn notes_and_pins_stay_and_bad_ones_are_refused() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = soak(&stage, &mut agent, "1", "main").await;
    let mut client = history(&stage).await;
    let note = |text: &str| wire::AddNoteRequest { run_id: run.clone(), text: text.to_owned() };
    // Two at once: none is lost.
    let mut other = client.clone();
    let (a, b) =
        tokio::join!(client.add_note(note("the host was busy")), other.add_note(note("b")));
    assert!(a.is_ok() && b.is_ok());
    let pin =
        wire::SetPinRequest { run_id: "latest".to_owned(), pinned: true, reason: "why".to_owned() };
    client.set_pin(pin).await.unwrap();
    for text in ["  ", &"x".repeat(2_001)] {
        let refused = client.add_note(note(text)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let mut bad = submission(&plan(""), "2");
    bad.labels.insert("a b".to_owned(), "c".to_owned());
    let refused = stage.control().await.submit_run(bad).await.unwrap_err();
    assert!(refused.message().contains("label 'a b=c'"), "{refused}");

    stage.stop().await;
    stage.start().await;
    let mut client = history(&stage).await;
    let request = wire::GetRunRequest { run_id: run.clone() };
    let detail = client.show_run(request).await.unwrap().into_inner();
    let mut notes: Vec<&str> = detail.notes.iter().map(|note| note.text.as_str()).collect();
    notes.sort_unstable();
    assert_eq!(notes, ["b", "the host was busy"]);
    assert_eq!(detail.pin.as_ref().unwrap().text, "why");
    assert_eq!(detail.run.unwrap().jobs[0].agent, "a");
    let text = "HOST was".to_owned();
    let wanted = wire::RunFilter { text, pinned: true, ..Default::default() };
    assert_eq!(found(&stage, wanted).await, std::slice::from_ref(&run));
    let unpin = wire::SetPinRequest { run_id: run, ..Default::default() };
    assert!(client.set_pin(unpin).await.unwrap().into_inner().pin.is_none());
    stage.stop().await;
}

#[tokio::test]
async fn pruning_takes_the_oldest_and_neither_pins_nor_what_is_compared_with() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let mut runs = Vec::new();
    for key in ["1", "2", "3", "4"] {
        runs.push(soak(&stage, &mut agent, key, "main").await);
    }
    let mut client = history(&stage).await;
    let pin = wire::SetPinRequest { run_id: runs[0].clone(), pinned: true, ..Default::default() };
    client.set_pin(pin).await.unwrap();
    let baseline = wire::SetBaselineRequest {
        plan: "t".to_owned(),
        target: runs[1].clone(),
        reason: "known good".to_owned(),
    };
    let set = client.set_baseline(baseline).await.unwrap().into_inner().baselines;
    assert_eq!((set[0].plan.as_str(), &set[0].target), ("t", &runs[1]));
    let shown = wire::GetRunRequest { run_id: runs[3].clone() };
    let choice = client.show_run(shown).await.unwrap().into_inner().baseline.unwrap();
    assert!(choice.target == runs[1] && choice.why.contains("known good"), "{choice:?}");

    let keep = |dry_run| wire::PruneRequest { max_runs: Some(2), dry_run, ..Default::default() };
    let dry = client.prune(keep(true)).await.unwrap().into_inner();
    assert_eq!((dry.runs.len(), dry.total, dry.protected), (2, 4, 2));
    assert_eq!(found(&stage, wire::RunFilter::default()).await.len(), 4);
    assert!(stage.data().join("runs").join(&runs[2]).exists());
    // The coordinator may hold a finished run in memory for a moment: pruning asks again.
    let pruned = client.prune(keep(false)).await.unwrap().into_inner();
    assert_eq!(pruned.runs.len(), 2, "{pruned:?}");
    assert_eq!(pruned.runs[0].run_id, runs[2]);

    for is_restarted in [false, true] {
        if is_restarted {
            stage.stop().await;
            stage.start().await;
        }
        let left = found(&stage, wire::RunFilter::default()).await;
        assert_eq!(left, [runs[1].clone(), runs[0].clone()]);
        for (run, is_there) in [(&runs[0], true), (&runs[2], false), (&runs[3], false)] {
            assert_eq!(stage.data().join("runs").join(run).exists(), is_there, "{run}");
            let request = wire::GetRunRequest { run_id: run.clone() };
            assert_eq!(stage.control().await.get_run(request).await.is_ok(), is_there);
        }
    }
    // The key of a run that is gone begins a new one.
    let again = stage.control().await.submit_run(submission(&plan(""), "3")).await.unwrap();
    assert!(again.into_inner().is_new);
    let nothing = history(&stage).await.prune(wire::PruneRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    stage.stop().await;
    let checked = pgsoak_coordinator::app::check(&stage.data()).unwrap();
    assert_eq!(checked.problems, Vec::<String>::new());
}

#[tokio::test]
async fn runs_are_compared_by_kept_figures_and_a_trend_needs_a_sound_job() {
    let mut stage = Stage::new().await;
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let first = soak(&stage, &mut agent, "1", "main").await;
    let second = soak(&stage, &mut agent, "2", "main").await;
    let mut client = history(&stage).await;
    let compare = |before: &str, after: &str| wire::CompareRunsRequest {
        before: before.to_owned(),
        after: after.to_owned(),
        ..Default::default()
    };
    let json = client.compare_runs(compare(&first, &second)).await.unwrap().into_inner().json;
    let compared: pgsoak_analysis::compare::SetComparison = serde_json::from_str(&json).unwrap();
    assert_eq!((&compared.before.runs[0], &compared.after.runs[0]), (&first, &second));
    // Their jobs did no work at all: that is said, and nothing is compared.
    assert!(compared.notes.iter().any(|note| note.contains("left out")), "{compared:#?}");
    let of_build = client.compare_runs(compare("vanilla", &second)).await;
    assert!(of_build.is_ok(), "{of_build:?}");
    let unknown = client.compare_runs(compare("e@9", &second)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    let trend = wire::GetTrendRequest { workload: "w".to_owned(), ..Default::default() };
    let none = client.get_trend(trend).await.unwrap_err();
    assert!(none.message().contains("no judged run has a sound job"), "{none}");
    let waiting = stage.submit(&plan("tool = \"memcheck\""), "3").await;
    let unfinished = client.compare_runs(compare(&first, &waiting)).await.unwrap_err();
    assert_eq!(unfinished.code(), Code::FailedPrecondition, "{unfinished}");
    stage.stop().await;
}
