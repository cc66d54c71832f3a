//! Reports and raw files of a run.

use crate::rpc::{control, evidence, report};
use crate::web::Web;
use crate::web::page::Trouble;
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use pgsoak_proto::id::JobId;
use pgsoak_proto::wire::ReportFormat;
use tokio_stream::wrappers::ReceiverStream;

/// The HTML report brings its styles and its chart script along, and nothing from elsewhere.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; \
                             img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/runs/RUN/report.html`, `.md`, `.json`, `.xml`.
pub(super) async fn report(
    State(web): State<Web>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let (format, kind) = match file.as_str() {
        "report.html" => (ReportFormat::Html, "text/html; charset=utf-8"),
        "report.md" => (ReportFormat::Markdown, "text/plain; charset=utf-8"),
        "report.json" => (ReportFormat::Json, "application/json"),
        "report.xml" => (ReportFormat::Junit, "application/xml"),
        _ => return Err(Trouble::nowhere()),
    };
    let run = control::find(&web.services, &name).await?;
    let snapshot = control::snapshot(&web.services, run).await?;
    let report = report::report(&web.services, snapshot, format.into(), false).await?;
    let mut response = ([(header::CONTENT_TYPE, kind)], report.text).into_response();
    if format == ReportFormat::Html {
        let policy = HeaderValue::from_static(REPORT_POLICY);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// `/runs/RUN/artifacts/JOB/ATTEMPT/NAME`: as it is stored, for keeping; browsers never show it.
pub(super) async fn artifact(
    State(web): State<Web>,
    Path((name, job, attempt, file)): Path<(String, String, u32, String)>,
) -> Result<Response, Trouble> {
    let run = control::find(&web.services, &name).await?;
    let snapshot = control::snapshot(&web.services, run).await?;
    let job: JobId = job.parse().map_err(|error| Trouble::bad(format!("job: {error}")))?;
    let pieces = evidence::artifact(&web.services, &snapshot, job, attempt, &file).await?;
    let body = ReceiverStream::new(pieces).map(|piece| piece.map(|piece| piece.data));
    // A name of a file that an agent chose: only what is harmless in a header.
    let plain: String = file
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    let headers: [(HeaderName, String); 2] = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{plain}\"")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}
