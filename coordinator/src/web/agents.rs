//! `/agents`: the fleet.

use crate::engine::handle::AgentStatus;
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{extract::State, response::Html};
use maud::{Markup, html};
use pgsoak_analysis::figures;

/// The list.
pub(super) async fn agents(State(web): State<Web>) -> Result<Html<String>, Trouble> {
    let mut agents = web.services.engine.agents().await.map_err(Trouble::gone)?;
    agents.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    let content = html! {
        h1 { "Agents" }
        @if agents.is_empty() {
            p.empty { "No agent was ever seen. Start one with " code { "pgsoak agent --coordinator URL" } "." }
        } @else {
            div.wide {
                table {
                    thead { tr { th { "State" } th { "Agent" } th { "Jobs" } th { "Last heard" } th { "Tools" } th { "PostgreSQL" } th { "Labels" } th { "Host" } th { "Version" } } }
                    tbody { @for agent in &agents { (row(agent)) } }
                }
            }
        }
    };
    Ok(page::page("Agents", "/agents", &content))
}

fn row(agent: &AgentStatus) -> Markup {
    let AgentStatus { record, is_connected, seen_at, jobs, .. } = agent;
    let can = &record.capabilities;
    let tools: Vec<_> = can.tools.iter().map(|found| found.tool.label()).collect();
    let postgres: Vec<_> = can.postgres.iter().map(|found| found.major.to_string()).collect();
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let memory = figures::bytes_text(can.memory_bytes as f64);
    html! {
        tr {
            td { (badge(if *is_connected { "connected" } else { "away" })) }
            td { (record.name) }
            td.nowrap { (jobs) "/" (can.slots) }
            td.nowrap { (page::time(*seen_at)) }
            td { (tools.join(", ")) }
            td { (postgres.join(", ")) }
            td { @for (key, value) in &can.labels { span.label { (key) "=" (value) } " " } }
            td { (can.host) ", " (can.cores) " cores, " (memory) }
            td { (record.version) }
        }
    }
}
