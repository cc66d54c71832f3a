//! `/agents`: the fleet, in the words of `pgsoak agents`.

use crate::engine::fleet::{FleetMember, NAME_LABEL, VERSION};
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{extract::State, response::Html};
use maud::{Markup, html};
use pgsoak_analysis::figures;

/// The list.
pub(super) async fn agents(State(web): State<Web>) -> Result<Html<String>, Trouble> {
    let members = web.services.engine.fleet().await.map_err(Trouble::gone)?;
    let has_skew = members.iter().any(FleetMember::is_skewed);
    let content = html! {
        h1 { "Agents" }
        @if members.is_empty() {
            p.empty { "No agent was ever seen. Start one with " code { "pgsoak agent --coordinator URL" } "." }
        } @else {
            div.wide {
                table {
                    thead { tr { th { "Agent" } th { "State" } th { "Health" } th { "Why it takes no job, notes" } th { "Jobs" } th { "Last heard" } th { "Tools" } th { "PostgreSQL" } th { "Labels" } th { "Host" } th { "Version" } } }
                    tbody { @for member in &members { (row(member)) } }
                }
            }
            p.quiet {
                "Times are UTC. " code { "pgsoak agents approve|drain|resume|note|remove NAME" } " decides."
                @if has_skew {
                    " (!): another version than the coordinator's " (VERSION) "; it works as long as the protocol is the same."
                }
            }
        }
    };
    Ok(page::page("Agents", "/agents", &content))
}

fn row(member: &FleetMember) -> Markup {
    let FleetMember { status, fleet, standing, health, closed } = member;
    let record = &status.record;
    let can = &record.capabilities;
    let tools: Vec<_> = can.tools.iter().map(|found| found.tool.label()).collect();
    let mut majors: Vec<_> = can.postgres.iter().map(|found| found.major).collect();
    majors.sort_unstable();
    majors.dedup();
    let majors: Vec<_> = majors.iter().map(ToString::to_string).collect();
    // The name stands in the first column.
    let labels = can.labels.iter().filter(|(key, _)| *key != NAME_LABEL);
    let checked = fleet.canary.as_ref().map(|canary| format!("/runs/{}", canary.run));
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let memory = figures::bytes_text(can.memory_bytes as f64);
    html! {
        tr {
            td { b { (record.name) } }
            td { (badge(standing.label())) }
            td {
                @if let Some(run) = &checked {
                    a href=(run) title="the last health check" { (badge(health.label())) }
                } @else { (badge(health.label())) }
            }
            td.sentence {
                (closed)
                @if !fleet.note.is_empty() { div.note { (fleet.note) } }
            }
            td.nowrap { (status.jobs) "/" (can.slots) }
            td.nowrap { (page::time(status.seen_at)) }
            td { (tools.join(", ")) }
            td { (majors.join(", ")) }
            td { @for (key, value) in labels { span.label { (key) "=" (value) } " " } }
            td { (can.host) ", " (can.cores) " cores, " (memory) }
            td.nowrap { (record.version) @if member.is_skewed() { " (!)" } }
        }
    }
}
