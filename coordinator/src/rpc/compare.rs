//! Two sides of stored runs against each other, as people name them: a run or a build.

use crate::domain::history::BaselineOf;
use crate::engine::comparing;
use crate::rpc::control;
use crate::rpc::server::Services;
use crate::rpc::status::{OrStatus as _, cut};
use pgsoak_analysis::compare::{Set, SetComparison};
use pgsoak_proto::job::InvalidBuild;
use tonic::Status;

/// Runs of a build in a comparison that asks for none in particular.
pub(crate) const COMPARED: usize = 20;

/// The answer. `plan`: of builds only its runs; empty: all.
pub(crate) async fn compare(
    services: &Services,
    (before, after): (&str, &str),
    plan: &str,
    most_runs: usize,
) -> Result<SetComparison, Status> {
    let before = side(services, before, plan, most_runs).await?;
    let after = side(services, after, plan, most_runs).await?;
    comparing::compare(&services.store, before, after).await.or_status()
}

/// The side of a comparison that somebody means.
pub(super) async fn side(
    services: &Services,
    name: &str,
    plan: &str,
    most_runs: usize,
) -> Result<Set, Status> {
    let store = &services.store;
    match named(services, name).await? {
        BaselineOf::Build(build) => {
            comparing::set_of_build(store, &build, plan, most_runs).await.or_status()
        }
        BaselineOf::Run(run) => comparing::set_of_run(store, run).await.or_status(),
    }
}

/// A run or a build, as people write it.
pub(super) async fn named(services: &Services, name: &str) -> Result<BaselineOf, Status> {
    let is_build =
        name.contains('@') || name.contains(':') || name == "system" || name == "vanilla";
    if !is_build {
        return control::find(services, name).await.map(BaselineOf::Run);
    }
    name.parse()
        .map(BaselineOf::Build)
        .map_err(|error: InvalidBuild| Status::invalid_argument(cut(&error.to_string())))
}
