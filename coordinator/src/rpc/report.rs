//! Reports of runs: the stored result in a form, or judged again from the stored evidence.

use crate::engine::handle::RunSnapshot;
use crate::engine::judging;
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus;
use crate::rpc::view;
use pgsoak_analysis::report;
use pgsoak_analysis::result::RunResult;
use pgsoak_proto::wire;
use tonic::Status;
use tracing::warn;

/// The report of a run.
pub(crate) async fn report(
    services: &Services,
    snapshot: RunSnapshot,
    format: i32,
    is_replay: bool,
) -> Result<wire::GetReportResponse, Status> {
    let format = match wire::ReportFormat::try_from(format) {
        Ok(wire::ReportFormat::Unspecified) | Err(_) => {
            return Err(Status::invalid_argument(
                "format is none of json, markdown, html and junit",
            ));
        }
        Ok(format) => format,
    };
    let run = snapshot.record.run;
    let Some(stored) = services.store.result(run).await.or_status()? else {
        return Err(Status::failed_precondition(format!(
            "run {run} is {}; its report is there when it is finished (follow it with `pgsoak watch {run}`)",
            snapshot.record.state.label()
        )));
    };
    let (json, replay) = if is_replay {
        let input = services.store.input(run).await.or_status()?.unwrap_or_default();
        let again = judging::result_of(&services.store, &snapshot, &input).await.or_status()?;
        let again = report::to_json(&again);
        let replay = if again == stored { "same".to_owned() } else { differs(&stored, &again) };
        (again, replay)
    } else {
        (stored, String::new())
    };
    let result: RunResult = serde_json::from_str(&json).map_err(|error| {
        Status::data_loss(format!("the stored result of run {run} cannot be read: {error}"))
    })?;
    let text = match format {
        wire::ReportFormat::Json | wire::ReportFormat::Unspecified => json,
        wire::ReportFormat::Markdown => report::to_markdown(&result),
        wire::ReportFormat::Html => html(services, &snapshot, &result).await?,
        wire::ReportFormat::Junit => report::to_junit(&result),
    };
    Ok(wire::GetReportResponse { text, verdict: view::verdict(result.verdict).to_owned(), replay })
}

/// The page, with charts where the evidence can be read.
async fn html(
    services: &Services,
    snapshot: &RunSnapshot,
    result: &RunResult,
) -> Result<String, Status> {
    let run = snapshot.record.run;
    let input = services.store.input(run).await.or_status()?.unwrap_or_default();
    let evidence = judging::evidence_of(&services.store, snapshot, &input)
        .await
        .inspect_err(|error| warn!(%run, %error, "the report has no charts"))
        .ok();
    let result = result.clone();
    crate::blocking::spawn(move || report::to_html(&result, evidence.as_ref()))
        .await
        .map_err(|error| Status::internal(format!("the report broke off: {error}")))
}

/// Where two results part, for people.
fn differs(stored: &str, again: &str) -> String {
    let at = stored
        .lines()
        .zip(again.lines())
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| stored.lines().count().min(again.lines().count()));
    format!("differs: from line {} on", at + 1)
}
