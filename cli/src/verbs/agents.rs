//! `pgsoak agents`: who is there and what each can do.

use crate::args::Listing;
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use comfy_table::{Table, presets};
use pgsoak_proto::wire;

pub async fn run(args: Listing) -> anyhow::Result<u8> {
    let agents = verbs::with_control(&args.at, async |control| {
        let answer = control
            .list_agents(wire::ListAgentsRequest {})
            .await
            .map_err(|status| connect::explain(&status))?;
        Ok(answer.into_inner().agents)
    })
    .await?;
    if args.json {
        for agent in &agents {
            verbs::print_json(&json(agent))?;
        }
        return Ok(exit::PASS);
    }
    if agents.is_empty() {
        verbs::print("no agent has come yet; start one with `pgsoak agent --coordinator URL`\n")?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "Agent",
        "State",
        "Last seen",
        "Jobs",
        "Cores",
        "Memory",
        "PostgreSQL",
        "Tools",
        "Builds",
        "Labels",
    ]);
    for agent in &agents {
        let can = agent.capabilities.clone().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let memory = words::bytes(can.memory_bytes as f64);
        let mut majors: Vec<_> = can.postgres.iter().map(|found| found.major).collect();
        majors.sort_unstable();
        majors.dedup();
        let list = |items: Vec<String>| items.join(", ");
        table.add_row([
            agent.name.clone(),
            if agent.is_connected { "connected" } else { "unreachable" }.to_owned(),
            words::time(agent.last_seen_at_unix_us),
            format!("{}/{}", agent.jobs, can.slots),
            can.cores.to_string(),
            memory,
            list(majors.iter().map(ToString::to_string).collect()),
            list(can.tools.iter().map(|found| tool(found.tool()).to_owned()).collect()),
            list(
                can.builds
                    .iter()
                    .map(|found| format!("{} (pg{})", found.build, found.postgres_major))
                    .collect(),
            ),
            list(can.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        ]);
    }
    verbs::print(&format!("{table}\n"))?;
    Ok(exit::PASS)
}

fn tool(tool: wire::Tool) -> &'static str {
    pgsoak_proto::job::Tool::try_from(tool).map_or("?", pgsoak_proto::job::Tool::label)
}

fn json(agent: &wire::AgentView) -> serde_json::Value {
    let can = agent.capabilities.clone().unwrap_or_default();
    serde_json::json!({
        "agent": agent.agent_id,
        "name": agent.name,
        "is_connected": agent.is_connected,
        "last_seen_at_unix_us": agent.last_seen_at_unix_us,
        "version": agent.version,
        "jobs": agent.jobs,
        "slots": can.slots,
        "cores": can.cores,
        "memory_bytes": can.memory_bytes,
        "kernel": can.kernel,
        "host": can.host,
        "labels": can.labels,
        "tools": can.tools.iter().map(|f| serde_json::json!({"tool": tool(f.tool()), "version": f.version})).collect::<Vec<_>>(),
        "postgres": can.postgres.iter().map(|f| serde_json::json!({"major": f.major, "version": f.version, "pg_config": f.pg_config})).collect::<Vec<_>>(),
        "builds": can.builds.iter().map(|f| serde_json::json!({"build": f.build, "postgres_major": f.postgres_major})).collect::<Vec<_>>(),
    })
}
