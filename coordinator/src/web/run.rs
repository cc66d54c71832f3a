//! `/runs/RUN`: one run, live until it is over. The part that changes is one fragment, which `/runs/RUN/live` sends anew.

use crate::domain::job::JobState;
use crate::domain::record::ArtifactRecord;
use crate::domain::run::RunState;
use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::rpc::status::OrStatus as _;
use crate::rpc::{control, view};
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{
    extract::{Path, State},
    response::{
        Html,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::Stream;
use maud::{Markup, html};
use pgsoak_analysis::figures;
use pgsoak_proto::session::JobStage;
use std::{convert::Infallible, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Between two fragments.
const EVERY: Duration = Duration::from_secs(1);
/// Fragments on their way: a slow reader gets fewer, not older ones.
const FRAGMENTS: usize = 1;

/// The page.
pub(super) async fn run(
    State(web): State<Web>,
    Path(name): Path<String>,
) -> Result<Html<String>, Trouble> {
    let run = control::find(&web.services, &name).await?;
    let snapshot = control::snapshot(&web.services, run).await?;
    let artifacts = web.services.store.artifacts(run).await.or_status()?;
    let line = web.services.store.line(run);
    let is_over = is_over(&snapshot);
    let live = (!is_over).then(|| format!("/runs/{run}/live"));
    let content = html! {
        h1 { (snapshot.record.plan) " " small { (page::short(&run.to_string())) } }
        div #live data-live=[live] { (fragment(&snapshot, web.services.engine.now())) }
        @if let Some(line) = line {
            @if let Some(pin) = &line.annotations.pin { p { "📌 Pinned " (page::time(pin.at)) ": " (pin.text) } }
            @if !line.annotations.notes.is_empty() {
                h2 { "Notes" }
                ul { @for note in &line.annotations.notes { li { (page::time(note.at)) " " (note.text) } } }
            }
        }
        (files(&snapshot, &artifacts))
        p.quiet { "Run " code { (run) } }
    };
    Ok(page::page(&snapshot.record.plan, "/runs", &content))
}

/// The live part, as server-sent events, until the run is over or nobody reads.
pub(super) async fn live(
    State(web): State<Web>,
    Path(name): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let run = control::find(&web.services, &name).await?;
    let (events, stream) = mpsc::channel(FRAGMENTS);
    let services = web.services.clone();
    web.services.tasks.spawn(async move {
        let mut changes = services.engine.changes();
        let mut last = String::new();
        loop {
            changes.mark_unchanged();
            let Ok(snapshot) = control::snapshot(&services, run).await else { return };
            let now = fragment(&snapshot, services.engine.now()).into_string();
            let is_over = is_over(&snapshot);
            if now != last {
                let name = if is_over { "over" } else { "state" };
                if events.send(Ok(Event::default().event(name).data(&now))).await.is_err() {
                    return;
                }
                last = now;
            }
            if is_over {
                return;
            }
            tokio::select! {
                () = services.shutdown.cancelled() => return,
                () = events.closed() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                () = services.shutdown.cancelled() => return,
                () = events.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
    Ok(Sse::new(ReceiverStream::new(stream)).keep_alive(KeepAlive::default()))
}

fn is_over(snapshot: &RunSnapshot) -> bool {
    matches!(snapshot.record.state, RunState::Finished { .. })
}

/// What changes while the run goes on.
fn fragment(snapshot: &RunSnapshot, now: crate::domain::time::UnixUs) -> Markup {
    let record = &snapshot.record;
    let share = share_done(snapshot);
    let summary = match &record.state {
        RunState::Finished { verdict, sentence, .. } => html! {
            p.verdict { (badge(view::verdict(*verdict))) " " (sentence) }
        },
        state => html! {
            p.verdict { (badge(state.label())) " " (record.jobs_over) " of " (record.jobs.len()) " jobs over"
                @if let Some(left) = left(snapshot, share, now) { ", about " (left) " left" }
            }
            progress max="1000" value=(permille(share)) { }
        },
    };
    let (started, finished) = match &record.state {
        RunState::Finished { started_at, finished_at, .. } => (*started_at, Some(*finished_at)),
        state => (state.started_at(), None),
    };
    html! {
        (summary)
        p.quiet {
            "Submitted " (page::time(record.submitted_at))
            @if let Some(at) = started { ", started " (page::time(at)) }
            @if let Some(at) = finished { ", over " (page::time(at)) }
            " UTC"
        }
        @if let Some(why) = record.state.cancelled() { p { "Cancelled: " (why) } }
        @for note in &record.notes { p.note { (note) } }
        @if !record.labels.is_empty() {
            p.quiet { @for (key, value) in &record.labels { span.label { (key) "=" (value) } " " } }
        }
        h2 { "Jobs" }
        div.wide {
            table {
                thead { tr { th { "State" } th { "Workload" } th { "Tool" } th { "Build" } th { "Agent" } th { "Where it stands" } } }
                tbody { @for job in &snapshot.jobs { (row(job)) } }
            }
        }
    }
}

fn row(job: &JobSnapshot) -> Markup {
    let state = &job.record.state;
    let word = match state {
        JobState::Over { outcome, .. } => outcome.label(),
        other => other.label(),
    };
    html! {
        tr {
            td {
                (badge(word))
                @if let Some(look) = job.looked_at() { " " (badge(look.standing.label())) }
            }
            td { (job.spec.workload_name) }
            td { (job.spec.tool) }
            td { (job.spec.build) " " small { (job.spec.arm) } }
            td { (job.agent) }
            td.sentence { (stands(job)) }
        }
    }
}

/// What a job does, waits for or came to.
fn stands(job: &JobSnapshot) -> Markup {
    match &job.record.state {
        JobState::Waiting { .. } => {
            return html! {
                @if let Some((agent, at)) = &job.forecast {
                    "likely on " (agent) " from " (page::time(*at)) "; now "
                }
                (job.why)
            };
        }
        JobState::Over { reason, attempts, .. } => {
            return html! { (reason) @if *attempts > 1 { " (attempt " (attempts) ")" } };
        }
        JobState::Unreachable { silent_since, .. } => {
            return html! { "agent last heard " (page::time(*silent_since)) "; the job goes on by itself" };
        }
        JobState::Cancelling { reason, .. } => return html! { "stopping: " (reason) },
        JobState::Assigned { .. } | JobState::Running { .. } => {}
    }
    let Some(progress) = &job.progress else { return html! { "starting" } };
    let what = match progress.stage {
        JobStage::Preparing => "preparing".to_owned(),
        JobStage::Finishing => "stopping the server".to_owned(),
        JobStage::Ended => "sending evidence".to_owned(),
        JobStage::Running if progress.rounds > 0 => {
            format!("{}, round {} of {}", progress.phase, progress.round, progress.rounds)
        }
        JobStage::Running if progress.round > 0 => {
            format!("{}, round {}", progress.phase, progress.round)
        }
        JobStage::Running => progress.phase.clone(),
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let memory = progress.rss_anon_bytes as f64;
    html! {
        progress max="1000" value=(permille(progress.done)) { }
        " " (what)
        @if progress.left_ms > 0 { ", " (page::duration(Duration::from_millis(progress.left_ms))) " left" }
        @if progress.rss_anon_bytes > 0 { ", largest session " (figures::bytes_text(memory)) }
        @if let Some(look) = job.looked_at().filter(|look| !look.reason.is_empty()) {
            div.note { (look.reason) }
        }
    }
}

/// Reports and raw files.
fn files(snapshot: &RunSnapshot, artifacts: &[ArtifactRecord]) -> Markup {
    let run = snapshot.record.run;
    html! {
        @if is_over(snapshot) {
            h2 { "Reports" }
            p.links {
                a href={ "/runs/" (run) "/report.html" } { "Report with charts" }
                a href={ "/runs/" (run) "/report.md" } { "Markdown" }
                a href={ "/runs/" (run) "/report.json" } { "JSON" }
                a href={ "/runs/" (run) "/report.xml" } { "JUnit" }
            }
        }
        @if !artifacts.is_empty() {
            details {
                summary { (artifacts.len()) " raw file(s)" }
                ul {
                    @for artifact in artifacts {
                        li {
                            @if artifact.is_complete {
                                a href={ "/runs/" (run) "/artifacts/" (artifact.job) "/" (artifact.attempt) "/" (artifact.name) } { (artifact.name) }
                            } @else { (artifact.name) " (on its way)" }
                            " " span.quiet { (size(artifact.total_bytes)) ", job " (page::short(&artifact.job.to_string())) }
                        }
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn size(bytes: u64) -> String {
    figures::bytes_text(bytes as f64)
}

fn share_done(snapshot: &RunSnapshot) -> f64 {
    let done = snapshot.jobs.iter().map(|job| match (&job.record.state, &job.progress) {
        (JobState::Over { .. }, _) => 1.0,
        (_, Some(progress)) => progress.done.clamp(0.0, 1.0),
        _ => 0.0,
    });
    #[expect(clippy::cast_precision_loss, reason = "a count of jobs")]
    let all = snapshot.jobs.len().max(1) as f64;
    done.sum::<f64>() / all
}

/// By what has been done so far; `None`: too early to say.
fn left(snapshot: &RunSnapshot, share: f64, now: crate::domain::time::UnixUs) -> Option<String> {
    let started = snapshot.record.state.started_at().filter(|_| share > 0.02)?;
    Some(page::duration(now.since(started).mul_f64((1.0 - share) / share)))
}

fn permille(share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let permille = (share.clamp(0.0, 1.0) * 1_000.0) as u64;
    permille
}
