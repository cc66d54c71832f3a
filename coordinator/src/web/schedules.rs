//! `/schedules`: what runs by a calendar, when it comes next, and what became of the last time.

use crate::domain::time::UnixUs;
use crate::rpc::schedules;
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{extract::State, response::Html};
use maud::{Markup, html};
use pgsoak_proto::wire;
use std::time::Duration;

/// How far the page looks ahead.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Coming times on the page.
const SHOWN: usize = 40;
/// Alerts of a schedule on the page.
const ALERTS: usize = 10;

/// The list, and the coming week.
pub(super) async fn schedules(State(web): State<Web>) -> Result<Html<String>, Trouble> {
    let all = schedules::list(&web.services).await?;
    let coming = schedules::coming(&web.services, None, WEEK, SHOWN).await?;
    let content = html! {
        h1 { "Schedules" }
        @if all.is_empty() {
            p.empty { "Nothing runs by a calendar. Add a plan with " code { "pgsoak schedule add PLAN --cron '0 22 * * mon-fri'" } "." }
        } @else {
            div.wide {
                table {
                    thead { tr { th { "Schedule" } th { "When" } th { "Next" } th { "What became of the last time" } th { "Policy" } th { "Alerts" } } }
                    tbody { @for view in &all { (row(view)) } }
                }
            }
            h2 { "The coming week" }
            @if coming.ticks.is_empty() { p.empty { "No time comes." } } @else {
                div.wide {
                    table {
                        thead { tr { th { "When" } th { "Schedule" } th { "Note" } } }
                        tbody {
                            @for tick in &coming.ticks {
                                tr { td.nowrap { (tick.local) } td { (tick.name) } td.sentence { (tick.note) } }
                            }
                        }
                    }
                }
            }
            @if coming.has_more { p.quiet { "More: " code { "pgsoak schedule next" } } }
        }
    };
    Ok(page::page("Schedules", "/schedules", &content))
}

fn row(view: &wire::ScheduleView) -> Markup {
    let spec = view.spec.clone().unwrap_or_default();
    html! {
        tr {
            td { b { (view.name) } @if view.plan != view.name { div.quiet { "plan " (view.plan) } } }
            td {
                span.nowrap { code { (spec.cron) } } " " span.nowrap { (spec.time_zone) }
                @for window in &spec.windows { div.quiet { "only " (window) } }
                @for blackout in &spec.blackouts { div.quiet { "not " (blackout) } }
                @if spec.jitter_ms > 0 { div.quiet { "up to " (millis(spec.jitter_ms)) " later" } }
            }
            td {
                @match (&view.next, view.is_paused) {
                    (_, true) => { (badge("paused")) " " (view.paused_reason) }
                    (Some(tick), false) => span.nowrap { (tick.local) },
                    (None, false) => "never",
                }
            }
            td.sentence {
                @match view.past.first() {
                    Some(past) => (became(past)),
                    None => "no time has come yet",
                }
                @if !view.owed_unix_us.is_empty() { div.quiet { (view.owed_unix_us.len()) " still to be made up for" } }
                @for run in &view.unfinished { div.quiet { "goes on: " (link(run)) } }
            }
            td { (policy(&spec)) }
            td.sentence { (alerts(view)) }
        }
    }
}

fn link(run: &str) -> Markup {
    html! { a href={ "/runs/" (run) } { (page::short(run)) } }
}

fn millis(ms: u64) -> String {
    page::duration(Duration::from_millis(ms))
}

/// What became of a time.
fn became(past: &wire::TickRecord) -> Markup {
    html! {
        (badge(&past.what)) " " (page::time(UnixUs(past.last_tick_unix_us))) " UTC"
        @if past.count > 1 { " (" (past.count) " times)" }
        @if !past.run_id.is_empty() { " run " (link(&past.run_id)) }
        @if !past.reason.is_empty() { div { (past.reason) } }
    }
}

/// The words of `schedule add`.
fn policy(spec: &wire::ScheduleSpec) -> Markup {
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    html! {
        div.nowrap { "missed: " (word(spec.missed().as_str_name(), "MISSED_POLICY_")) }
        div.nowrap { "overlap: " (word(spec.overlap().as_str_name(), "OVERLAP_POLICY_")) }
        @if !spec.end_before.is_empty() { div.nowrap { "over before " (spec.end_before) } }
        @if spec.only_new_builds { div.nowrap { "only new builds" } }
        @if spec.priority > 0 { div.nowrap { "priority " (spec.priority) } }
    }
}

/// The unseen ones stand out; all that are kept are behind a click.
fn alerts(view: &wire::ScheduleView) -> Markup {
    let Some(last) = view.alerts.first() else { return html! {} };
    html! {
        @if view.unseen_alerts > 0 {
            div.note {
                @if view.unseen_alerts > 1 { (view.unseen_alerts) " since the last run on time; the last: " }
                (last.text)
            }
        }
        details {
            summary.quiet { (view.alerts.len()) " alert(s)" }
            ul { @for alert in view.alerts.iter().take(ALERTS) { li { (page::time(UnixUs(alert.at_unix_us))) " " (alert.text) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_and_reasons_are_text() {
        let hostile = "<script>alert(1)</script>".to_owned();
        let view = wire::ScheduleView {
            name: "n".to_owned(),
            is_paused: true,
            paused_reason: hostile.clone(),
            alerts: vec![wire::ScheduleAlert { at_unix_us: 1_000_000, text: hostile.clone() }],
            unseen_alerts: 2,
            past: vec![wire::TickRecord {
                what: "missed".to_owned(),
                count: 3,
                reason: hostile,
                ..Default::default()
            }],
            ..Default::default()
        };
        let shown = row(&view).into_string();
        assert!(!shown.contains("<script>"), "{shown}");
        assert_eq!(shown.matches("&lt;script&gt;").count(), 4, "{shown}");
        assert!(shown.contains("badge missed") && shown.contains("(3 times)"), "{shown}");
        assert!(shown.contains("2 since the last run on time"), "{shown}");
    }
}
