//! `History`: past runs by filter, notes and pins, comparisons, baselines.

use crate::decide::find::{Filter, Page, Sort};
use crate::decide::retention::Limits;
use crate::domain::history::{Baseline, BaselineOf, MAX_NOTES, MAX_TEXT, Remark, RunLine};
use crate::domain::time::UnixUs;
use crate::engine::{comparing, retention};
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus as _;
use crate::rpc::{compare, control, signatures, trend, view};
use crate::store::catalogue::Batch;
use pgsoak_proto::id::RunId;
use pgsoak_proto::wire;
use pgsoak_proto::wire::history_server::History;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Runs in a page that asks for none in particular.
const PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;

/// The service.
#[derive(Clone, Debug)]
pub struct HistoryService {
    services: Services,
}

impl HistoryService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    async fn find(&self, text: &str) -> Result<RunId, Status> {
        control::find(&self.services, text).await
    }

    /// Stores what somebody changed of a run, and answers with the run as it is then.
    async fn changed(&self, run: RunId, batch: Batch) -> Result<Response<wire::RunDetail>, Status> {
        self.services.store.commit(batch).await.or_status()?;
        self.detail(run).await.map(Response::new)
    }

    async fn detail(&self, run: RunId) -> Result<wire::RunDetail, Status> {
        let snapshot = control::snapshot(&self.services, run).await?;
        let line = self.services.store.line(run).ok_or_else(|| {
            Status::not_found(format!("the history does not have run {run}: its record is damaged"))
        })?;
        let store = &self.services.store;
        let against = store.against(run).await.or_status()?;
        let against = against.map(|found| serde_json::to_string(&found)).transpose();
        let against = against.map_err(|error| Status::internal(error.to_string()))?;
        let baseline = comparing::baseline_of(store, &line).await.or_status()?;
        let remark =
            |remark: &Remark| wire::Remark { at_unix_us: remark.at.0, text: remark.text.clone() };
        Ok(wire::RunDetail {
            line: Some(run_line(&line)),
            run: Some(view::run(snapshot)),
            notes: line.annotations.notes.iter().map(remark).collect(),
            pin: line.annotations.pin.as_ref().map(remark),
            against_json: against.unwrap_or_default(),
            baseline: baseline.map(|chosen| wire::BaselineChoice {
                target: target(&chosen.of),
                plan: chosen.plan,
                why: chosen.why,
            }),
        })
    }

    async fn list_of_baselines(&self) -> Result<Response<wire::ListBaselinesResponse>, Status> {
        let baselines = self.services.store.baselines().await.or_status()?;
        let view = |baseline: Baseline| wire::BaselineView {
            target: target(&baseline.of),
            plan: baseline.plan,
            reason: baseline.reason,
            set_at_unix_us: baseline.set_at.0,
        };
        Ok(Response::new(wire::ListBaselinesResponse {
            baselines: baselines.into_iter().map(view).collect(),
        }))
    }

    fn remark(&self, text: String) -> Result<Remark, Status> {
        let characters = text.chars().count();
        if characters > MAX_TEXT {
            return Err(Status::invalid_argument(format!(
                "the text has {characters} characters; at most {MAX_TEXT} are kept"
            )));
        }
        Ok(Remark { at: self.services.engine.now(), text })
    }
}

fn target(of: &BaselineOf) -> String {
    match of {
        BaselineOf::Run(run) => run.to_string(),
        BaselineOf::Build(build) => build.to_string(),
    }
}

fn moment(unix_us: u64) -> Option<UnixUs> {
    (unix_us > 0).then_some(UnixUs(unix_us))
}

fn filter(filter: wire::RunFilter) -> Filter {
    let wire::RunFilter {
        since_unix_us,
        until_unix_us,
        plans,
        workloads,
        tools,
        builds,
        releases,
        agents,
        verdicts,
        labels,
        text,
        pinned,
    } = filter;
    Filter {
        since: moment(since_unix_us),
        until: moment(until_unix_us),
        plans,
        workloads,
        tools,
        builds,
        releases,
        agents,
        verdicts,
        labels,
        text,
        is_pinned: pinned,
    }
}

fn sort(sort: wire::RunSort) -> Sort {
    match sort {
        wire::RunSort::Unspecified | wire::RunSort::Submitted => Sort::Submitted,
        wire::RunSort::Finished => Sort::Finished,
        wire::RunSort::Took => Sort::Took,
        wire::RunSort::Plan => Sort::Plan,
        wire::RunSort::Verdict => Sort::Verdict,
    }
}

fn run_line(line: &RunLine) -> wire::RunLine {
    let RunLine { record, facts, annotations } = line;
    wire::RunLine {
        run: Some(view::run_line(record)),
        workloads: facts.workloads.iter().cloned().collect(),
        tools: facts.tools.iter().map(|tool| tool.label().to_owned()).collect(),
        builds: facts
            .builds
            .iter()
            .map(|(arm, build)| wire::RunBuild {
                build: build.clone(),
                arm: arm.label().to_owned(),
            })
            .collect(),
        agents: facts.agents.iter().cloned().collect(),
        labels: record.labels.clone(),
        is_pinned: annotations.pin.is_some(),
        notes: u32::try_from(annotations.notes.len()).unwrap_or(u32::MAX),
    }
}

#[tonic::async_trait]
impl History for HistoryService {
    async fn find_runs(
        &self,
        request: Request<wire::FindRunsRequest>,
    ) -> Result<Response<wire::FindRunsResponse>, Status> {
        let request = request.into_inner();
        let by = sort(request.sort());
        let wire::FindRunsRequest { filter: wanted, ascending, limit, after, .. } = request;
        let limit = match usize::try_from(limit) {
            Ok(0) => PAGE,
            Ok(limit) if limit <= MAX_PAGE => limit,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "limit is {limit}; at most {MAX_PAGE} runs are listed at once"
                )));
            }
        };
        let after = match after.as_str() {
            "" => None,
            text => Some(self.find(text).await?),
        };
        let wanted = filter(wanted.unwrap_or_default());
        let found = self.services.store.find_runs(wanted, by, !ascending, after, limit).await;
        let Page { runs, total, has_more } =
            found.or_status()?.map_err(|lost| Status::failed_precondition(lost.to_string()))?;
        Ok(Response::new(wire::FindRunsResponse {
            runs: runs.iter().map(|line| run_line(line)).collect(),
            total: u32::try_from(total).unwrap_or(u32::MAX),
            has_more,
        }))
    }

    async fn show_run(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<wire::RunDetail>, Status> {
        let run = self.find(&request.into_inner().run_id).await?;
        self.detail(run).await.map(Response::new)
    }

    async fn add_note(
        &self,
        request: Request<wire::AddNoteRequest>,
    ) -> Result<Response<wire::RunDetail>, Status> {
        let wire::AddNoteRequest { run_id, text } = request.into_inner();
        let run = self.find(&run_id).await?;
        let text = text.trim().to_owned();
        if text.is_empty() {
            return Err(Status::invalid_argument("a note needs a text"));
        }
        let remark = self.remark(text)?;
        let notes = self.services.store.line(run).map_or(0, |line| line.annotations.notes.len());
        if notes >= MAX_NOTES {
            return Err(Status::failed_precondition(format!(
                "run {run} has {notes} notes; no more are taken"
            )));
        }
        let mut batch = Batch::default();
        batch.remark(run, remark);
        self.changed(run, batch).await
    }

    async fn set_pin(
        &self,
        request: Request<wire::SetPinRequest>,
    ) -> Result<Response<wire::RunDetail>, Status> {
        let wire::SetPinRequest { run_id, pinned, reason } = request.into_inner();
        let run = self.find(&run_id).await?;
        let pin = match pinned {
            true => Some(self.remark(reason.trim().to_owned())?),
            false => None,
        };
        let mut batch = Batch::default();
        batch.pin(run, pin);
        self.changed(run, batch).await
    }

    async fn get_trend(
        &self,
        request: Request<wire::GetTrendRequest>,
    ) -> Result<Response<wire::GetTrendResponse>, Status> {
        trend::trend(&self.services, request.into_inner()).await.map(Response::new)
    }

    async fn compare_runs(
        &self,
        request: Request<wire::CompareRunsRequest>,
    ) -> Result<Response<wire::CompareRunsResponse>, Status> {
        let wire::CompareRunsRequest { before, after, limit, plan } = request.into_inner();
        let most_runs = match usize::try_from(limit) {
            Ok(0) => compare::COMPARED,
            Ok(limit) if limit <= MAX_PAGE => limit,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "limit is {limit}; at most {MAX_PAGE} runs of a build are compared"
                )));
            }
        };
        let sides = (before.as_str(), after.as_str());
        let found = compare::compare(&self.services, sides, &plan, most_runs).await?;
        let json =
            serde_json::to_string(&found).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::CompareRunsResponse { json }))
    }

    async fn set_baseline(
        &self,
        request: Request<wire::SetBaselineRequest>,
    ) -> Result<Response<wire::ListBaselinesResponse>, Status> {
        let wire::SetBaselineRequest { plan, target, reason } = request.into_inner();
        let reason = reason.trim().to_owned();
        if reason.is_empty() {
            return Err(Status::invalid_argument("a baseline needs a reason"));
        }
        let Remark { at, text: reason } = self.remark(reason)?;
        let of = compare::named(&self.services, &target).await?;
        // What is not there, or cannot be compared with, is refused now and not in the night.
        compare::side(&self.services, &target, "", 1).await?;
        let mut batch = Batch::default();
        batch.baseline(&Baseline { plan, of, reason, set_at: at });
        self.services.store.commit(batch).await.or_status()?;
        self.list_of_baselines().await
    }

    async fn clear_baseline(
        &self,
        request: Request<wire::ClearBaselineRequest>,
    ) -> Result<Response<wire::ListBaselinesResponse>, Status> {
        let wire::ClearBaselineRequest { plan } = request.into_inner();
        let known = self.services.store.baselines().await.or_status()?;
        if !known.iter().any(|baseline| baseline.plan == plan) {
            return Err(Status::not_found(match plan.as_str() {
                "" => "no baseline is set for all plans; `pgsoak baseline show` lists what is set"
                    .to_owned(),
                plan => format!(
                    "no baseline is set for plan {plan}; `pgsoak baseline show` lists what is set"
                ),
            }));
        }
        let mut batch = Batch::default();
        batch.no_baseline(&plan);
        self.services.store.commit(batch).await.or_status()?;
        self.list_of_baselines().await
    }

    async fn list_baselines(
        &self,
        _request: Request<wire::ListBaselinesRequest>,
    ) -> Result<Response<wire::ListBaselinesResponse>, Status> {
        self.list_of_baselines().await
    }

    async fn list_signatures(
        &self,
        request: Request<wire::ListSignaturesRequest>,
    ) -> Result<Response<wire::ListSignaturesResponse>, Status> {
        let signatures = self.services.store.signatures().await.or_status()?;
        Ok(Response::new(signatures::found(signatures, &request.into_inner())))
    }

    async fn prune(
        &self,
        request: Request<wire::PruneRequest>,
    ) -> Result<Response<wire::PruneResponse>, Status> {
        let wire::PruneRequest { max_age_seconds, max_runs, max_bytes, dry_run } =
            request.into_inner();
        let limits = Limits {
            max_age: max_age_seconds.map(Duration::from_secs),
            max_runs: max_runs.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            max_bytes,
        };
        if limits == Limits::default() {
            return Err(Status::invalid_argument("nothing says what may stay"));
        }
        let lines = self.services.store.lines();
        let Services { store, engine, .. } = &self.services;
        let found = retention::retain(store, engine, limits, dry_run).await.or_status()?;
        let runs = found.goes.into_iter().map(|of| {
            let record = lines.iter().map(|line| &line.record).find(|record| record.run == of.run);
            wire::PrunedRun {
                run_id: of.run.to_string(),
                plan: record.map(|record| record.plan.clone()).unwrap_or_default(),
                submitted_at_unix_us: record.map_or(0, |record| record.submitted_at.0),
                why: of.why.to_owned(),
                bytes: of.bytes,
            }
        });
        Ok(Response::new(wire::PruneResponse {
            runs: runs.collect(),
            total: u64::try_from(found.runs).unwrap_or(u64::MAX),
            total_bytes: found.bytes,
            protected: u64::try_from(found.protected).unwrap_or(u64::MAX),
        }))
    }
}
