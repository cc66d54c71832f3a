//! Figures of a workload over releases, from what was kept when runs were judged.

use crate::rpc::server::Services;
use crate::rpc::status::{OrStatus as _, cut};
use pgsoak_analysis::releases::{ReleaseTrend, Wanted, over_releases};
use pgsoak_proto::job::Tool;
use pgsoak_proto::wire;
use tonic::Status;

/// The trend, for programs.
pub(super) async fn trend(
    services: &Services,
    request: wire::GetTrendRequest,
) -> Result<wire::GetTrendResponse, Status> {
    let found = found(services, request).await?;
    let json =
        serde_json::to_string(&found).map_err(|error| Status::internal(error.to_string()))?;
    Ok(wire::GetTrendResponse { json })
}

/// The trend.
pub(crate) async fn found(
    services: &Services,
    request: wire::GetTrendRequest,
) -> Result<ReleaseTrend, Status> {
    let wire::GetTrendRequest {
        workload,
        what,
        phases,
        tool,
        agents,
        extension,
        postgres,
        since_unix_us,
    } = request;
    let tool = match tool.as_str() {
        "" => None,
        word => Some(Tool::ALL.into_iter().find(|tool| tool.label() == word).ok_or_else(|| {
            let known = Tool::ALL.map(Tool::label).join(", ");
            Status::invalid_argument(cut(&format!("tool '{word}' is none of {known}")))
        })?),
    };
    let postgres = match postgres.as_str() {
        "" => String::new(),
        major => format!("PostgreSQL {major}."),
    };
    let mut runs = services.store.points(workload.clone()).await.or_status()?;
    if runs.is_empty() {
        let known = services.store.workloads().await.or_status()?;
        let known = match known.as_slice() {
            [] => "no run was judged yet".to_owned(),
            known => format!("there are {}", known.join(", ")),
        };
        return Err(Status::not_found(cut(&format!(
            "no judged run has a sound job of workload '{workload}'; {known}"
        ))));
    }
    runs.retain(|run| run.at_unix_us >= since_unix_us);
    let wanted = Wanted { what, phases, tool, agents, extension, postgres };
    crate::blocking::spawn(move || over_releases(&workload, &runs, &wanted))
        .await
        .map_err(|error| Status::internal(format!("the trend broke off: {error}")))
}
