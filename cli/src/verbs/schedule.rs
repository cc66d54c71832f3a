//! `pgsoak schedule`: plans with a calendar, kept by a coordinator.

use crate::args::{self, Where};
use crate::connect;
use crate::connect::Channel;
use crate::exit::{self, Coded};
use crate::plan_files;
use crate::show::schedules as show;
use crate::verbs;
use clap::{Args, Subcommand, ValueEnum};
use pgsoak_proto::wire;
use pgsoak_proto::wire::schedules_client::SchedulesClient;
use std::time::Duration;

/// `schedule`
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// What to do.
    #[command(subcommand)]
    pub inner: ScheduleInner,
}

/// Verbs of `schedule`.
#[derive(Debug, Subcommand)]
pub enum ScheduleInner {
    /// Give a plan a calendar. Its text and workloads are kept as they are now.
    Add(Box<AddArgs>),
    /// All schedules: when each comes next, what became of the last time.
    List(args::Listing),
    /// One schedule with its past, its alerts, and the command that adds it.
    Show(OneSchedule),
    /// Start nothing until `resume`.
    Pause(PauseArgs),
    /// Go on.
    Resume(OneSchedule),
    /// Forget a schedule; its runs stay.
    Remove(OneSchedule),
    /// Start a run now, whatever the calendar says; prints its id.
    RunNow(OneSchedule),
    /// What comes in the next week.
    Next(NextArgs),
}

/// `schedule add`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak schedule add nightly.toml --cron '0 22 * * mon-fri' --time-zone Europe/Berlin\n  pgsoak schedule add nightly.toml --cron '30 21 * * *' --jitter 30m --missed once --end-before 07:00\n  pgsoak schedule add weekly.toml --cron '0 6 * * sat' --window sat,sun --blackout 2026-12-24..2027-01-02\n  pgsoak schedule add nightly.toml --cron '0 22 * * *' --only-new-builds --replace    change one\n\nCron: minute hour day month weekday, e.g. '*/30 * * * *', '0 6 1 * *', '0 22 * * mon-fri', @daily. A night that loses an hour to daylight\nsaving has its run right after the gap; an hour that comes twice has one.\nA window or blackout: '22:00-06:00', 'mon-fri 22:00-06:00', 'sat,sun', '2026-12-24..2027-01-02', '2026-12-24T18:00..2026-12-27T06:00'."
)]
pub struct AddArgs {
    /// A plan file, or the name of a plan of the library.
    pub plan: String,
    /// When: five fields, minute hour day month weekday.
    #[arg(long, value_name = "EXPRESSION")]
    pub cron: String,
    /// Its name. Default: the plan's.
    #[arg(long)]
    pub name: Option<String>,
    /// The time zone of everything here. Default: this host's.
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Start runs only in this span (may be given again).
    #[arg(long = "window", value_name = "SPAN")]
    pub windows: Vec<String>,
    /// Start no run in this span (may be given again).
    #[arg(long = "blackout", value_name = "SPAN")]
    pub blackouts: Vec<String>,
    /// Start up to so much later; how much follows from the schedule's id and the day.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    pub jitter: Duration,
    /// A time that passed while the coordinator was away, or that lies outside the windows, is …
    #[arg(long, value_enum, default_value_t = MissedBy::Skip)]
    pub missed: MissedBy,
    /// While an earlier run of the schedule goes on, the next one is …
    #[arg(long, value_enum, default_value_t = OverlapBy::Forbid)]
    pub overlap: OverlapBy,
    /// Do not start what cannot be over by this time of day.
    #[arg(long, value_name = "HH:MM")]
    pub end_before: Option<String>,
    /// Only when a build of the plan is another one than in the schedule's last run.
    #[arg(long)]
    pub only_new_builds: bool,
    /// A start that is later than this after its time counts as missed.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
    pub start_within: Duration,
    /// Of its runs: among waiting runs the higher comes first, 1 to 100. Default: the plan's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub priority: Option<u32>,
    /// A label for its runs; may be repeated. `schedule=NAME` is always there.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    pub labels: Vec<(String, String)>,
    /// Change the schedule of this name; its past stays.
    #[arg(long)]
    pub replace: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// What becomes of a missed time.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MissedBy {
    /// Left out.
    Skip,
    /// Made up for by one run, for all of them, as soon as may be.
    Once,
    /// Made up for each, one after the other, at most 7.
    Shift,
}

/// What becomes of a time at which an earlier run goes on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OverlapBy {
    /// Started beside it.
    Allow,
    /// Left out.
    Forbid,
    /// Started, and the earlier one is cancelled.
    Replace,
}

/// A schedule by its name.
#[derive(Debug, Args)]
pub struct OneSchedule {
    /// Its name.
    pub name: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `schedule pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Which.
    #[command(flatten)]
    pub one: OneSchedule,
    /// Why; for people.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// `schedule next`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak schedule next                 the coming week of all schedules\n  pgsoak schedule next nightly --for 30d"
)]
pub struct NextArgs {
    /// One schedule. Default: all.
    pub name: Option<String>,
    /// How far to look.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "7d")]
    pub length: Duration,
    /// For programs: a line a time.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// Asks one thing.
async fn ask<T>(
    at: &Where,
    request: impl AsyncFnOnce(&mut SchedulesClient<Channel>) -> Result<T, tonic::Status>,
) -> anyhow::Result<T> {
    verbs::with_channel(at, async |channel| {
        request(&mut connect::schedules(channel)).await.map_err(|status| connect::explain(&status))
    })
    .await
}

pub async fn run(args: ScheduleArgs) -> anyhow::Result<u8> {
    match args.inner {
        ScheduleInner::Add(args) => add(*args).await,
        ScheduleInner::List(args) => list(args).await,
        ScheduleInner::Show(OneSchedule { name, json, at }) => {
            let request = wire::ScheduleRequest { name };
            let view = ask(&at, async |client| client.get_schedule(request).await).await?;
            print(&view.into_inner(), json)
        }
        ScheduleInner::Pause(PauseArgs { one, reason }) => pause(one, true, reason).await,
        ScheduleInner::Resume(one) => pause(one, false, String::new()).await,
        ScheduleInner::Remove(OneSchedule { name, json, at }) => {
            let request = wire::ScheduleRequest { name: name.clone() };
            ask(&at, async |client| client.remove_schedule(request).await).await?;
            match json {
                true => verbs::print_json(&serde_json::json!({ "removed": name }))?,
                false => verbs::print(&format!("{name} is removed; its runs stay\n"))?,
            }
            Ok(exit::PASS)
        }
        ScheduleInner::RunNow(OneSchedule { name, json, at }) => {
            let request = wire::ScheduleRequest { name };
            let answer = ask(&at, async |client| client.run_schedule_now(request).await).await?;
            let run = answer.into_inner().run_id;
            match json {
                true => verbs::print_json(&serde_json::json!({ "run": run }))?,
                false => verbs::print(&format!("{run}\n"))?,
            }
            Ok(exit::PASS)
        }
        ScheduleInner::Next(args) => next(args).await,
    }
}

async fn add(args: AddArgs) -> anyhow::Result<u8> {
    let files = plan_files::read(&args.plan)?;
    let time_zone = match args.time_zone {
        Some(zone) => zone,
        None => jiff::tz::TimeZone::system().iana_name().map(str::to_owned).ok_or_else(|| {
            Coded::usage(
                "this host's time zone has no name; give one with --time-zone Europe/Berlin",
            )
        })?,
    };
    let missed = match args.missed {
        MissedBy::Skip => wire::MissedPolicy::Skip,
        MissedBy::Once => wire::MissedPolicy::Once,
        MissedBy::Shift => wire::MissedPolicy::Shift,
    };
    let overlap = match args.overlap {
        OverlapBy::Allow => wire::OverlapPolicy::Allow,
        OverlapBy::Forbid => wire::OverlapPolicy::Forbid,
        OverlapBy::Replace => wire::OverlapPolicy::Replace,
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let spec = wire::ScheduleSpec {
        cron: args.cron,
        time_zone,
        windows: args.windows,
        blackouts: args.blackouts,
        jitter_ms: millis(args.jitter),
        missed: missed.into(),
        overlap: overlap.into(),
        end_before: args.end_before.unwrap_or_default(),
        only_new_builds: args.only_new_builds,
        // 0 would mean the default.
        start_within_ms: millis(args.start_within).max(1),
        priority: args.priority.unwrap_or(0),
        labels: args.labels.into_iter().collect(),
    };
    let request = wire::AddScheduleRequest {
        name: args.name.unwrap_or_default(),
        plan_toml: files.plan_toml,
        workloads: files.workloads,
        spec: Some(spec),
        replace: args.replace,
    };
    let view = ask(&args.at, async |client| client.add_schedule(request).await).await?.into_inner();
    if args.json {
        verbs::print_json(&show::json(&view))?;
        return Ok(exit::PASS);
    }
    let next = view.next.as_ref().map_or("never", |tick| tick.local.as_str());
    verbs::print(&format!("{} is scheduled; its next run: {next}\n", view.name))?;
    Ok(exit::PASS)
}

async fn list(args: args::Listing) -> anyhow::Result<u8> {
    let answer =
        ask(&args.at, async |client| client.list_schedules(wire::ListSchedulesRequest {}).await)
            .await?;
    let schedules = answer.into_inner().schedules;
    if args.json {
        for view in &schedules {
            verbs::print_json(&show::json(view))?;
        }
    } else if schedules.is_empty() {
        verbs::print(
            "no schedules yet; `pgsoak schedule add PLAN --cron '0 22 * * *'` adds one\n",
        )?;
    } else {
        verbs::print(&format!("{}\n", show::table(&schedules)))?;
    }
    Ok(exit::PASS)
}

async fn pause(one: OneSchedule, paused: bool, reason: String) -> anyhow::Result<u8> {
    let request = wire::SetSchedulePausedRequest { name: one.name, paused, reason };
    let view = ask(&one.at, async |client| client.set_schedule_paused(request).await).await?;
    let view = view.into_inner();
    if one.json {
        verbs::print_json(&show::json(&view))?;
    } else if paused {
        verbs::print(&format!("{} is paused; runs that have begun go on\n", view.name))?;
    } else {
        let next = view.next.as_ref().map_or("never", |tick| tick.local.as_str());
        verbs::print(&format!("{} goes on; its next run: {next}\n", view.name))?;
    }
    Ok(exit::PASS)
}

async fn next(args: NextArgs) -> anyhow::Result<u8> {
    let request = wire::NextTicksRequest {
        name: args.name.unwrap_or_default(),
        for_ms: u64::try_from(args.length.as_millis()).unwrap_or(u64::MAX).max(1),
    };
    let answer = ask(&args.at, async |client| client.next_ticks(request).await).await?.into_inner();
    if args.json {
        for tick in &answer.ticks {
            verbs::print_json(&show::tick_json(tick))?;
        }
    } else if answer.ticks.is_empty() {
        verbs::print("nothing comes in that time\n")?;
    } else {
        verbs::print(&format!("{}\n", show::ticks(&answer.ticks)))?;
        if answer.has_more {
            verbs::print("… and more; ask for one schedule, or with a shorter --for\n")?;
        }
    }
    Ok(exit::PASS)
}

fn print(view: &wire::ScheduleView, json: bool) -> anyhow::Result<u8> {
    match json {
        true => verbs::print_json(&show::json(view))?,
        false => verbs::print(&show::detail(view))?,
    }
    Ok(exit::PASS)
}
