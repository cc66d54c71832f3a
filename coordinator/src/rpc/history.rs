//! `History`: past runs by filter, notes and pins.

use crate::decide::find::{Filter, Page, Sort};
use crate::domain::history::{MAX_NOTES, MAX_TEXT, Remark, RunLine};
use crate::domain::time::UnixUs;
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus as _;
use crate::rpc::{control, view};
use crate::store::catalogue::Batch;
use pgsoak_proto::id::RunId;
use pgsoak_proto::wire;
use pgsoak_proto::wire::history_server::History;
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

    async fn detail(&self, run: RunId) -> Result<wire::RunDetail, Status> {
        let snapshot = control::snapshot(&self.services, run).await?;
        let line = self.services.store.line(run).ok_or_else(|| {
            Status::not_found(format!("the history does not have run {run}: its record is damaged"))
        })?;
        let remark =
            |remark: &Remark| wire::Remark { at_unix_us: remark.at.0, text: remark.text.clone() };
        Ok(wire::RunDetail {
            line: Some(run_line(&line)),
            run: Some(view::run(snapshot)),
            notes: line.annotations.notes.iter().map(remark).collect(),
            pin: line.annotations.pin.as_ref().map(remark),
        })
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
        self.services.store.commit(batch).await.or_status()?;
        self.detail(run).await.map(Response::new)
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
        self.services.store.commit(batch).await.or_status()?;
        self.detail(run).await.map(Response::new)
    }
}
