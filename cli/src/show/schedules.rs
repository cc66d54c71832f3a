//! Schedules as people read them, and as programs do.

use crate::show::words;
use comfy_table::{ContentArrangement, Table, presets};
use pgsoak_proto::wire;
use pgsoak_workloads::library;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;

/// Times of its past that a schedule shows.
const SHOWN: usize = 20;

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    if !std::io::stdout().is_terminal() {
        table.set_width(200);
    }
    table
}

/// What became of a time, in a few words.
fn came_to(record: &wire::TickRecord) -> String {
    let mut text = record.what.clone();
    if record.count > 1 {
        text.push_str(&format!(" ({} times)", record.count));
    }
    if !record.run_id.is_empty() {
        text.push_str(&format!(", run {}", record.run_id));
    }
    if !record.reason.is_empty() {
        text.push_str(&format!(": {}", record.reason));
    }
    text
}

fn next(view: &wire::ScheduleView) -> String {
    match (&view.next, view.is_paused) {
        (_, true) if view.paused_reason.is_empty() => "paused".to_owned(),
        (_, true) => format!("paused: {}", view.paused_reason),
        (Some(tick), false) => tick.local.clone(),
        (None, false) => "never".to_owned(),
    }
}

/// A schedule a line.
pub fn table(schedules: &[wire::ScheduleView]) -> Table {
    let mut table = new_table(&["Schedule", "Plan", "Cron", "Next", "Last", "Alerts"]);
    for view in schedules {
        let spec = view.spec.clone().unwrap_or_default();
        let alerts = match (view.unseen_alerts, view.alerts.first()) {
            (0, _) | (_, None) => String::new(),
            (1, Some(alert)) => alert.text.clone(),
            (many, Some(alert)) => format!("{many}; the last: {}", alert.text),
        };
        table.add_row([
            view.name.clone(),
            view.plan.clone(),
            format!("{} {}", spec.cron, spec.time_zone),
            next(view),
            view.past.first().map(came_to).unwrap_or_default(),
            alerts,
        ]);
    }
    table
}

/// A time a line.
pub fn ticks(ticks: &[wire::Tick]) -> Table {
    let mut table = new_table(&["When", "Schedule", "Note"]);
    for tick in ticks {
        table.add_row([&tick.local, &tick.name, &tick.note]);
    }
    table
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/=,@+".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The command that adds it.
fn command(view: &wire::ScheduleView) -> String {
    let spec = view.spec.clone().unwrap_or_default();
    let plan = match library::plan(&view.plan) {
        Some(_) => view.plan.clone(),
        None => format!("{}.toml", view.plan),
    };
    let mut words = vec![format!("pgsoak schedule add {plan}")];
    let mut option = |name: &str, value: &str| words.push(format!("--{name} {}", quoted(value)));
    option("cron", &spec.cron);
    if view.name != view.plan {
        option("name", &view.name);
    }
    option("time-zone", &spec.time_zone);
    for window in &spec.windows {
        option("window", window);
    }
    for blackout in &spec.blackouts {
        option("blackout", blackout);
    }
    let time = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    if spec.jitter_ms > 0 {
        option("jitter", &time(spec.jitter_ms));
    }
    match spec.missed() {
        wire::MissedPolicy::Once => option("missed", "once"),
        wire::MissedPolicy::Shift => option("missed", "shift"),
        wire::MissedPolicy::Skip | wire::MissedPolicy::Unspecified => {}
    }
    match spec.overlap() {
        wire::OverlapPolicy::Allow => option("overlap", "allow"),
        wire::OverlapPolicy::Replace => option("overlap", "replace"),
        wire::OverlapPolicy::Forbid | wire::OverlapPolicy::Unspecified => {}
    }
    if !spec.end_before.is_empty() {
        option("end-before", &spec.end_before);
    }
    if spec.start_within_ms != 600_000 {
        option("start-within", &time(spec.start_within_ms));
    }
    if spec.priority > 0 {
        option("priority", &spec.priority.to_string());
    }
    for (key, value) in &spec.labels {
        option("label", &format!("{key}={value}"));
    }
    if spec.only_new_builds {
        words.push("--only-new-builds".to_owned());
    }
    words.join(" ")
}

/// One schedule, whole.
pub fn detail(view: &wire::ScheduleView) -> String {
    let mut out = String::new();
    let mut row = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{key:<11}{value}\n"));
        }
    };
    row("Schedule", &view.name);
    row("Plan", &view.plan);
    row("Added", &words::time(view.added_at_unix_us));
    row("Next", &next(view));
    row("Unfinished", &view.unfinished.join(", "));
    let owed: Vec<String> = view.owed_unix_us.iter().map(|tick| words::time(*tick)).collect();
    row("Owed", &owed.join(", "));
    row("As", &command(view));
    for alert in &view.alerts {
        row("Alert", &format!("{}: {}", words::time(alert.at_unix_us), alert.text));
    }
    if view.past.is_empty() {
        out.push_str("\nno time has come yet\n");
        return out;
    }
    let mut table = new_table(&["Time", "What became of it"]);
    for record in view.past.iter().take(SHOWN) {
        let time = match record.count {
            0 | 1 => words::time(record.tick_unix_us),
            _ => format!(
                "{} to {}",
                words::time(record.tick_unix_us),
                words::time(record.last_tick_unix_us)
            ),
        };
        table.add_row([time, came_to(record)]);
    }
    out.push_str(&format!("\n{table}\n"));
    if view.past.len() > SHOWN {
        out.push_str(&format!("… {} older ones: --json\n", view.past.len() - SHOWN));
    }
    out
}

/// A time, for programs.
pub fn tick_json(tick: &wire::Tick) -> Value {
    json!({
        "schedule": tick.name,
        "tick_unix_us": tick.tick_unix_us,
        "due_unix_us": tick.due_unix_us,
        "local": tick.local,
        "note": tick.note,
    })
}

/// A schedule, for programs.
pub fn json(view: &wire::ScheduleView) -> Value {
    let spec = view.spec.clone().unwrap_or_default();
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    json!({
        "schedule": view.schedule_id,
        "name": view.name,
        "plan": view.plan,
        "cron": spec.cron,
        "time_zone": spec.time_zone,
        "windows": spec.windows,
        "blackouts": spec.blackouts,
        "jitter_ms": spec.jitter_ms,
        "missed": word(spec.missed().as_str_name(), "MISSED_POLICY_"),
        "overlap": word(spec.overlap().as_str_name(), "OVERLAP_POLICY_"),
        "end_before": spec.end_before,
        "only_new_builds": spec.only_new_builds,
        "start_within_ms": spec.start_within_ms,
        "priority": Some(spec.priority).filter(|priority| *priority > 0),
        "labels": spec.labels,
        "added_at_unix_us": view.added_at_unix_us,
        "is_paused": view.is_paused,
        "paused_reason": view.paused_reason,
        "next": view.next.as_ref().map(tick_json),
        "unfinished": view.unfinished,
        "owed_unix_us": view.owed_unix_us,
        "alerts": view.alerts.iter().map(|alert| json!({
            "at_unix_us": alert.at_unix_us,
            "text": alert.text,
        })).collect::<Vec<_>>(),
        "past": view.past.iter().map(|record| json!({
            "tick_unix_us": record.tick_unix_us,
            "last_tick_unix_us": record.last_tick_unix_us,
            "count": record.count,
            "decided_at_unix_us": record.decided_at_unix_us,
            "what": record.what,
            "reason": record.reason,
            "run": Some(&record.run_id).filter(|run| !run.is_empty()),
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_shown_adds_the_same_schedule() {
        let view = wire::ScheduleView {
            name: "night".to_owned(),
            plan: "soak".to_owned(),
            spec: Some(wire::ScheduleSpec {
                cron: "0 22 * * mon-fri".to_owned(),
                time_zone: "Europe/Berlin".to_owned(),
                blackouts: vec!["2026-12-24..2027-01-02".to_owned()],
                jitter_ms: 1_800_000,
                missed: wire::MissedPolicy::Once.into(),
                start_within_ms: 600_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            command(&view),
            "pgsoak schedule add soak.toml --cron '0 22 * * mon-fri' --name night --time-zone Europe/Berlin --blackout 2026-12-24..2027-01-02 --jitter 30m --missed once"
        );
        assert_eq!(json(&view)["missed"], "once");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
