//! `Control`: what people and programs ask.

use crate::domain::short_id;
use crate::engine::handle::{RunSnapshot, Submission};
use crate::engine::stored;
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus as _;
use crate::rpc::{backup, evidence, report, submit, view};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use pgsoak_proto::wire;
use pgsoak_proto::wire::control_server::Control;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Between two views of a watched run.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Views on their way: a slow watcher gets fewer, not older ones.
const VIEWS: usize = 1;
/// Runs in a list that asks for none in particular.
const LIST: usize = 50;
const MAX_LIST: usize = 1_000;

/// The service.
#[derive(Clone, Debug)]
pub struct ControlService {
    services: Services,
}

impl ControlService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    /// Agents that have a session now.
    async fn connected(&self) -> Result<u32, Status> {
        let agents = self.services.engine.agents().await.or_status()?;
        let connected = agents.iter().filter(|agent| agent.is_connected).count();
        Ok(u32::try_from(connected).unwrap_or(u32::MAX))
    }

    async fn find(&self, text: &str) -> Result<RunId, Status> {
        find(&self.services, text).await
    }

    async fn snapshot(&self, run: RunId) -> Result<RunSnapshot, Status> {
        snapshot(&self.services, run).await
    }
}

/// The run that people mean: an id, a unique part of one, or `latest`.
pub(crate) async fn find(services: &Services, text: &str) -> Result<RunId, Status> {
    if let Ok(run) = text.parse::<RunId>()
        && services.store.run(run).await.or_status()?.is_some()
    {
        return Ok(run);
    }
    let runs = services.store.run_ids().await.or_status()?;
    if text == "latest" {
        return runs.last().copied().ok_or_else(|| {
            Status::not_found("there is no run yet; start one with `pgsoak submit PLAN`")
        });
    }
    short_id::find(text, runs.into_iter()).or_status()
}

/// A run as it is now: from memory while it is alive, from the store when it is over.
pub(crate) async fn snapshot(services: &Services, run: RunId) -> Result<RunSnapshot, Status> {
    if let Some(live) = services.engine.view(run).await.or_status()? {
        return Ok(live);
    }
    stored::snapshot(&services.store, run)
        .await
        .or_status()?
        .ok_or_else(|| Status::not_found(format!("there is no run {run}")))
}

fn job_id(text: &str) -> Result<JobId, Status> {
    text.parse().map_err(|error: pgsoak_proto::id::InvalidId| {
        Status::invalid_argument(format!("job_id: {error}"))
    })
}

/// Sends the run whenever it changed, until it is over or nobody watches.
async fn watch(services: Services, run: RunId, views: mpsc::Sender<Result<wire::RunView, Status>>) {
    let mut changes = services.engine.changes();
    let mut last: Option<wire::RunView> = None;
    loop {
        changes.mark_unchanged();
        let now = match snapshot(&services, run).await {
            Ok(snapshot) => view::run(snapshot),
            Err(status) => {
                // A watcher that is gone needs no error.
                let _ = views.send(Err(status)).await;
                return;
            }
        };
        let is_over = now.stage() == wire::RunStage::Finished;
        if last.as_ref() != Some(&now) {
            if views.send(Ok(now.clone())).await.is_err() {
                return;
            }
            last = Some(now);
        }
        if is_over {
            return;
        }
        tokio::select! {
            () = services.shutdown.cancelled() => {
                let _ = views.send(Err(Status::unavailable("the coordinator is shutting down"))).await;
                return;
            }
            () = views.closed() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        tokio::select! {
            () = services.shutdown.cancelled() => {}
            () = views.closed() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WatchRunStream = ReceiverStream<Result<wire::RunView, Status>>;
    type ReadEvidenceStream = ReceiverStream<Result<wire::StoredFrame, Status>>;
    type ReadArtifactStream = ReceiverStream<Result<wire::ArtifactPiece, Status>>;

    async fn submit_run(
        &self,
        request: Request<wire::SubmitRunRequest>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        let wire::SubmitRunRequest { plan_toml, workloads, client_key, labels, priority } =
            request.into_inner();
        submit::client_key(&client_key)?;
        let known = self.services.store.run_of_key(client_key.clone()).await.or_status()?;
        if let Some(run) = known {
            return Ok(Response::new(wire::SubmitRunResponse {
                run_id: run.to_string(),
                is_new: false,
            }));
        }
        let labels = submit::labels(labels)?;
        let agents = self.connected().await?;
        let submission =
            submit::submission(plan_toml, workloads, client_key, &self.services.limits, agents)?;
        let priority = submit::priority(priority)?.unwrap_or(submission.priority);
        let submission = Submission { labels, priority, ..submission };
        let submitted = self.services.engine.submit(submission).await.or_status()?;
        Ok(Response::new(wire::SubmitRunResponse {
            run_id: submitted.run.to_string(),
            is_new: submitted.is_new,
        }))
    }

    async fn check_plan(
        &self,
        request: Request<wire::CheckPlanRequest>,
    ) -> Result<Response<wire::CheckPlanResponse>, Status> {
        let wire::CheckPlanRequest { plan_toml, workloads } = request.into_inner();
        let agents = self.connected().await?;
        let limits = &self.services.limits;
        let submission = submit::submission(plan_toml, workloads, String::new(), limits, agents)?;
        let Submission { specs, priority, .. } = submission;
        let packages = self.services.store.shelf().packages(&specs);
        let places =
            self.services.engine.check(specs.clone(), packages, priority).await.or_status()?;
        let jobs = specs
            .into_iter()
            .zip(places.jobs)
            .map(|(spec, place)| {
                let (agent, starts_at, why_not) = match place {
                    Ok((agent, at)) => (agent, at.map_or(0, |at| at.0), String::new()),
                    Err(why) => (String::new(), 0, why),
                };
                // As in a run's view: the file is what the caller sent.
                let spec = JobSpec { workload_toml: String::new(), ..spec };
                wire::PlacedJob {
                    spec: Some((&spec).into()),
                    agent,
                    why_not,
                    starts_at_unix_us: starts_at,
                }
            })
            .collect();
        Ok(Response::new(wire::CheckPlanResponse { jobs }))
    }

    async fn list_runs(
        &self,
        request: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        let wire::ListRunsRequest { limit, before, plan } = request.into_inner();
        let limit = match usize::try_from(limit) {
            Ok(0) => LIST,
            Ok(limit) if limit <= MAX_LIST => limit,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "limit is {limit}; at most {MAX_LIST} runs are listed at once"
                )));
            }
        };
        let before = match before.as_str() {
            "" => None,
            text => Some(self.find(text).await?),
        };
        let plan = (!plan.is_empty()).then_some(plan);
        let runs = self.services.store.list_runs(before, plan, limit).await.or_status()?;
        Ok(Response::new(wire::ListRunsResponse {
            runs: runs.iter().map(view::run_line).collect(),
        }))
    }

    async fn get_run(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<wire::RunView>, Status> {
        let run = self.find(&request.into_inner().run_id).await?;
        Ok(Response::new(view::run(self.snapshot(run).await?)))
    }

    async fn get_run_input(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<wire::RunInput>, Status> {
        let run = self.find(&request.into_inner().run_id).await?;
        let Some(input) = self.services.store.input(run).await.or_status()? else {
            return Err(Status::data_loss(format!("the files of run {run} are not stored")));
        };
        let workloads = input
            .workloads
            .into_iter()
            .map(|(name, toml)| wire::WorkloadFile { name, toml })
            .collect();
        Ok(Response::new(wire::RunInput { plan_toml: input.plan_toml, workloads }))
    }

    async fn watch_run(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let run = self.find(&request.into_inner().run_id).await?;
        let (views, stream) = mpsc::channel(VIEWS);
        self.services.tasks.spawn(watch(self.services.clone(), run, views));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn cancel_run(
        &self,
        request: Request<wire::CancelRunRequest>,
    ) -> Result<Response<wire::RunView>, Status> {
        let wire::CancelRunRequest { run_id, reason } = request.into_inner();
        let run = self.find(&run_id).await?;
        let reason = match reason.trim() {
            "" => "cancelled".to_owned(),
            reason => reason.chars().take(500).collect(),
        };
        let view = match self.services.engine.cancel(run, reason).await.or_status()? {
            Some(live) => live,
            None => self.snapshot(run).await?,
        };
        Ok(Response::new(view::run(view)))
    }

    async fn get_report(
        &self,
        request: Request<wire::GetReportRequest>,
    ) -> Result<Response<wire::GetReportResponse>, Status> {
        let wire::GetReportRequest { run_id, format, replay } = request.into_inner();
        let run = self.find(&run_id).await?;
        let snapshot = self.snapshot(run).await?;
        report::report(&self.services, snapshot, format, replay).await.map(Response::new)
    }

    async fn read_evidence(
        &self,
        request: Request<wire::ReadEvidenceRequest>,
    ) -> Result<Response<Self::ReadEvidenceStream>, Status> {
        let wire::ReadEvidenceRequest { run_id, job_id: job, samples_only } = request.into_inner();
        let run = self.find(&run_id).await?;
        let snapshot = self.snapshot(run).await?;
        let only = match job.as_str() {
            "" => None,
            text => {
                let job = job_id(text)?;
                if !snapshot.record.jobs.contains(&job) {
                    return Err(Status::not_found(format!("run {run} has no job {job}")));
                }
                Some(job)
            }
        };
        let frames = evidence::frames(&self.services, snapshot, only, samples_only);
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    type BackupStream = ReceiverStream<Result<wire::BackupPiece, Status>>;

    async fn backup(
        &self,
        _request: Request<wire::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Ok(Response::new(ReceiverStream::new(backup::pieces(&self.services))))
    }

    async fn list_agents(
        &self,
        _request: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let agents = self.services.engine.agents().await.or_status()?;
        Ok(Response::new(wire::ListAgentsResponse {
            agents: agents.into_iter().map(view::agent).collect(),
        }))
    }

    async fn list_artifacts(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<wire::ListArtifactsResponse>, Status> {
        let run = self.find(&request.into_inner().run_id).await?;
        let found = self.services.store.artifacts(run).await.or_status()?;
        Ok(Response::new(wire::ListArtifactsResponse {
            artifacts: found.into_iter().map(view::artifact).collect(),
        }))
    }

    async fn read_artifact(
        &self,
        request: Request<wire::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let wire::ReadArtifactRequest { run_id, job_id: job, attempt, name } = request.into_inner();
        let run = self.find(&run_id).await?;
        let snapshot = self.snapshot(run).await?;
        let job = job_id(&job)?;
        let pieces = evidence::artifact(&self.services, &snapshot, job, attempt, &name).await?;
        Ok(Response::new(ReceiverStream::new(pieces)))
    }
}
