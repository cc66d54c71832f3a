//! `Schedules`: plans with a calendar, and alerts.

use crate::decide::calendar::{Calendar, Upcoming};
use crate::domain::alert::Alert;
use crate::domain::record::RunInput;
use crate::domain::schedule::{Missed, Overlap, ScheduleRecord, ScheduleSpec, TickRecord};
use crate::domain::time::UnixUs;
use crate::engine::schedules::{NewSchedule, ScheduleRefused};
use crate::rpc::server::Services;
use crate::rpc::status::{IntoStatus, OrStatus as _, cut};
use crate::rpc::submit;
use pgsoak_proto::wire;
use pgsoak_proto::wire::schedules_server::Schedules;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Later than this after its time, a time counts as missed, where a schedule does not say.
const START_WITHIN: Duration = Duration::from_secs(600);
/// How far `NextTicks` looks, where the caller does not say.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Furthest that it looks.
const FARTHEST: Duration = Duration::from_secs(400 * 86_400);
const MOST_TICKS: usize = 1_000;
const LIST: usize = 50;
const MAX_LIST: usize = 1_000;
/// Longest reason of a pause, in bytes.
const MAX_REASON: usize = 2_000;

/// The service.
#[derive(Clone, Debug)]
pub struct SchedulesService {
    services: Services,
}

impl IntoStatus for ScheduleRefused {
    fn into_status(self) -> Status {
        let text = cut(&self.to_string());
        match self {
            Self::Unknown(_) => Status::not_found(text),
            Self::Taken(_) => Status::failed_precondition(text),
            Self::TooMany(_) => Status::failed_precondition(text),
            Self::Name(_) | Self::Calendar(_) | Self::Plan(_) => Status::invalid_argument(text),
        }
    }
}

// === impl SchedulesService ===

impl SchedulesService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    fn wall(&self) -> UnixUs {
        self.services.engine.wall()
    }

    async fn named(&self, name: String) -> Result<ScheduleRecord, Status> {
        named(&self.services, name).await
    }
}

/// Every schedule by name, with when it comes next and what became of its last time.
pub(crate) async fn list(services: &Services) -> Result<Vec<wire::ScheduleView>, Status> {
    let now = services.engine.wall();
    let records = services.engine.schedules().await.or_status()?;
    Ok(records.iter().map(|record| view(record, now, false)).collect())
}

async fn named(services: &Services, name: String) -> Result<ScheduleRecord, Status> {
    let all = services.engine.schedules().await.or_status()?;
    all.into_iter()
        .find(|record| record.name == name)
        .ok_or_else(|| ScheduleRefused::Unknown(name.chars().take(100).collect()).into_status())
}

/// Coming times of one schedule, or of all, the next first.
pub(crate) async fn coming(
    services: &Services,
    name: Option<String>,
    length: Duration,
    most: usize,
) -> Result<wire::NextTicksResponse, Status> {
    let records = match name {
        None => services.engine.schedules().await.or_status()?,
        Some(name) => vec![named(services, name).await?],
    };
    let now = services.engine.wall();
    let mut ticks: Vec<wire::Tick> =
        records.iter().flat_map(|record| upcoming(record, now, length, most + 1)).collect();
    ticks.sort_by(|a, b| (a.due_unix_us, &a.name).cmp(&(b.due_unix_us, &b.name)));
    let has_more = ticks.len() > most;
    ticks.truncate(most);
    Ok(wire::NextTicksResponse { ticks, has_more })
}

// === wire to checked ===

fn spec(spec: wire::ScheduleSpec) -> Result<ScheduleSpec, Status> {
    let missed = match spec.missed() {
        wire::MissedPolicy::Unspecified | wire::MissedPolicy::Skip => Missed::Skip,
        wire::MissedPolicy::Once => Missed::Once,
        wire::MissedPolicy::Shift => Missed::Shift,
    };
    let overlap = match spec.overlap() {
        wire::OverlapPolicy::Unspecified | wire::OverlapPolicy::Forbid => Overlap::Forbid,
        wire::OverlapPolicy::Allow => Overlap::Allow,
        wire::OverlapPolicy::Replace => Overlap::Replace,
    };
    let start_within = match spec.start_within_ms {
        0 => START_WITHIN,
        ms => Duration::from_millis(ms),
    };
    Ok(ScheduleSpec {
        cron: spec.cron,
        time_zone: if spec.time_zone.is_empty() { "UTC".to_owned() } else { spec.time_zone },
        windows: spec.windows,
        blackouts: spec.blackouts,
        jitter: Duration::from_millis(spec.jitter_ms),
        missed,
        overlap,
        end_before: Some(spec.end_before).filter(|text| !text.is_empty()),
        only_new_builds: spec.only_new_builds,
        start_within,
        priority: submit::priority(spec.priority)?,
        labels: submit::labels(spec.labels)?,
    })
}

// === checked to wire ===

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn spec_view(spec: &ScheduleSpec) -> wire::ScheduleSpec {
    let missed = match spec.missed {
        Missed::Skip => wire::MissedPolicy::Skip,
        Missed::Once => wire::MissedPolicy::Once,
        Missed::Shift => wire::MissedPolicy::Shift,
    };
    let overlap = match spec.overlap {
        Overlap::Allow => wire::OverlapPolicy::Allow,
        Overlap::Forbid => wire::OverlapPolicy::Forbid,
        Overlap::Replace => wire::OverlapPolicy::Replace,
    };
    wire::ScheduleSpec {
        cron: spec.cron.clone(),
        time_zone: spec.time_zone.clone(),
        windows: spec.windows.clone(),
        blackouts: spec.blackouts.clone(),
        jitter_ms: millis(spec.jitter),
        missed: missed.into(),
        overlap: overlap.into(),
        end_before: spec.end_before.clone().unwrap_or_default(),
        only_new_builds: spec.only_new_builds,
        start_within_ms: millis(spec.start_within),
        priority: spec.priority.unwrap_or(0),
        labels: spec.labels.clone(),
    }
}

fn tick(record: &ScheduleRecord, upcoming: Upcoming) -> wire::Tick {
    let Upcoming { tick, due, closed, local } = upcoming;
    let note = match &record.paused {
        Some(reason) if reason.is_empty() => "paused".to_owned(),
        Some(reason) => format!("paused: {reason}"),
        None => closed.map_or_else(String::new, |closed| match record.spec.missed {
            Missed::Skip => format!("left out: {closed}"),
            Missed::Once | Missed::Shift => format!("later: {closed}"),
        }),
    };
    wire::Tick { name: record.name.clone(), tick_unix_us: tick.0, due_unix_us: due.0, note, local }
}

fn tick_record(record: &TickRecord) -> wire::TickRecord {
    wire::TickRecord {
        tick_unix_us: record.tick.0,
        last_tick_unix_us: record.last_tick.0,
        count: record.count,
        decided_at_unix_us: record.at.0,
        what: record.what.label().to_owned(),
        reason: record.what.reason().to_owned(),
        run_id: record.what.run().map(|run| run.to_string()).unwrap_or_default(),
    }
}

fn upcoming(
    record: &ScheduleRecord,
    now: UnixUs,
    length: Duration,
    most: usize,
) -> Vec<wire::Tick> {
    // A calendar that cannot be read any more has no times; the log says so.
    let Ok(calendar) = Calendar::parse(&record.spec, now) else { return Vec::new() };
    // Of which some may be decided already (the clock was set back), or due and not yet started.
    let after = record.progress.decided_until.min(now);
    let until = now.plus(length);
    calendar
        .upcoming(record.schedule, record.spec.jitter, (after, until), most)
        .into_iter()
        .filter(|next| next.due > now && !record.progress.has_started(next.tick))
        .map(|next| tick(record, next))
        .collect()
}

fn view(record: &ScheduleRecord, now: UnixUs, is_whole: bool) -> wire::ScheduleView {
    let progress = &record.progress;
    let last_start = progress.past.iter().rev().find_map(|past| match past.what.label() {
        "started" => Some(past.at),
        _ => None,
    });
    let unseen = record.alerts.iter().filter(|(at, _)| last_start.is_none_or(|last| *at > last));
    let next = upcoming(record, now, FARTHEST, 20).into_iter().find(|tick| tick.note.is_empty());
    wire::ScheduleView {
        schedule_id: record.schedule.to_string(),
        name: record.name.clone(),
        plan: record.plan.clone(),
        spec: Some(spec_view(&record.spec)),
        added_at_unix_us: record.added_at.0,
        is_paused: record.paused.is_some(),
        paused_reason: record.paused.clone().unwrap_or_default(),
        next,
        past: match is_whole {
            true => progress.past.iter().rev().map(tick_record).collect(),
            false => progress.past.back().map(tick_record).into_iter().collect(),
        },
        unfinished: progress.unfinished.keys().map(ToString::to_string).collect(),
        alerts: record
            .alerts
            .iter()
            .rev()
            .map(|(at, text)| wire::ScheduleAlert { at_unix_us: at.0, text: text.clone() })
            .collect(),
        owed_unix_us: progress.owed.iter().map(|tick| tick.0).collect(),
        unseen_alerts: u32::try_from(unseen.count()).unwrap_or(u32::MAX),
    }
}

fn alert(alert: Alert) -> wire::Alert {
    let Alert { at, kind, subject, text } = alert;
    wire::Alert { at_unix_us: at.0, kind: kind.label().to_owned(), subject, text }
}

#[tonic::async_trait]
impl Schedules for SchedulesService {
    async fn add_schedule(
        &self,
        request: Request<wire::AddScheduleRequest>,
    ) -> Result<Response<wire::ScheduleView>, Status> {
        let wire::AddScheduleRequest { name, plan_toml, workloads, spec: asked, replace } =
            request.into_inner();
        let input: RunInput = submit::input(plan_toml, workloads)?;
        let spec = spec(asked.unwrap_or_default())?;
        let new = NewSchedule { name, input, spec, is_replacing: replace };
        let record = self.services.engine.add_schedule(new).await.or_status()?.or_status()?;
        Ok(Response::new(view(&record, self.wall(), true)))
    }

    async fn list_schedules(
        &self,
        _: Request<wire::ListSchedulesRequest>,
    ) -> Result<Response<wire::ListSchedulesResponse>, Status> {
        let schedules = list(&self.services).await?;
        Ok(Response::new(wire::ListSchedulesResponse { schedules }))
    }

    async fn get_schedule(
        &self,
        request: Request<wire::ScheduleRequest>,
    ) -> Result<Response<wire::ScheduleView>, Status> {
        let record = self.named(request.into_inner().name).await?;
        Ok(Response::new(view(&record, self.wall(), true)))
    }

    async fn set_schedule_paused(
        &self,
        request: Request<wire::SetSchedulePausedRequest>,
    ) -> Result<Response<wire::ScheduleView>, Status> {
        let wire::SetSchedulePausedRequest { name, paused, reason } = request.into_inner();
        if reason.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!(
                "the reason has {} bytes; at most {MAX_REASON} are kept",
                reason.len()
            )));
        }
        let paused = paused.then(|| reason.trim().to_owned());
        let answer = self.services.engine.pause_schedule(name, paused).await;
        let record = answer.or_status()?.or_status()?;
        Ok(Response::new(view(&record, self.wall(), true)))
    }

    async fn remove_schedule(
        &self,
        request: Request<wire::ScheduleRequest>,
    ) -> Result<Response<wire::RemoveScheduleResponse>, Status> {
        let name = request.into_inner().name;
        self.services.engine.remove_schedule(name).await.or_status()?.or_status()?;
        Ok(Response::new(wire::RemoveScheduleResponse {}))
    }

    async fn run_schedule_now(
        &self,
        request: Request<wire::ScheduleRequest>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        let name = request.into_inner().name;
        let run = self.services.engine.run_schedule(name).await.or_status()?.or_status()?;
        Ok(Response::new(wire::SubmitRunResponse { run_id: run.to_string(), is_new: true }))
    }

    async fn next_ticks(
        &self,
        request: Request<wire::NextTicksRequest>,
    ) -> Result<Response<wire::NextTicksResponse>, Status> {
        let wire::NextTicksRequest { name, for_ms } = request.into_inner();
        let length = match for_ms {
            0 => WEEK,
            ms => Duration::from_millis(ms).min(FARTHEST),
        };
        let name = (!name.is_empty()).then_some(name);
        coming(&self.services, name, length, MOST_TICKS).await.map(Response::new)
    }

    async fn list_alerts(
        &self,
        request: Request<wire::ListAlertsRequest>,
    ) -> Result<Response<wire::ListAlertsResponse>, Status> {
        let limit = match usize::try_from(request.into_inner().limit) {
            Ok(0) => LIST,
            Ok(limit) => limit.min(MAX_LIST),
            Err(_) => MAX_LIST,
        };
        let alerts = self.services.store.alerts(limit).await.or_status()?;
        Ok(Response::new(wire::ListAlertsResponse {
            alerts: alerts.into_iter().map(alert).collect(),
        }))
    }
}
