//! `pgsoak agents`: who is there, where each stands, what it can do; and what people decide about agents.

use crate::args::{Listing, Where};
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};
use pgsoak_proto::wire;
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// `agents`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  pgsoak agents                                   who is there\n  pgsoak agents approve lab-3                     let in an agent that waits\n  pgsoak agents drain lab-1 --reason 'new disk'   no further jobs; those that it has go on\n  pgsoak agents resume lab-1                      jobs again; ends a quarantine as well\n  pgsoak agents note lab-1 'ask Kim before 9'\n  pgsoak agents remove lab-2                      forget one that is gone for good\n\nState: waiting (for approval), ready, busy (its host works for others), draining, drained, quarantined, unreachable (silent,\nwith jobs), offline. Health is apart from that: what the last health check said."
)]
pub struct AgentsArgs {
    /// What to decide.
    #[command(subcommand)]
    pub inner: Option<AgentsInner>,
    /// The list.
    #[command(flatten)]
    pub list: Listing,
}

/// Verbs of `agents`.
#[derive(Debug, Subcommand)]
pub enum AgentsInner {
    /// Let in an agent that waits.
    Approve(OneAgent),
    /// Give an agent no further jobs; those that it has go on.
    Drain(Drain),
    /// Give an agent jobs again: ends a drain and a quarantine.
    Resume(OneAgent),
    /// Forget an agent that is gone for good. What it ran stays.
    Remove(OneAgent),
    /// Write a note to an agent, for people; an empty one takes it away.
    Note(Note),
}

/// An agent by its name.
#[derive(Debug, Args)]
pub struct OneAgent {
    /// Its name, or its id.
    pub agent: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `agents drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// Which.
    #[command(flatten)]
    pub one: OneAgent,
    /// Why; waiting jobs say it.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// `agents note`
#[derive(Debug, Args)]
pub struct Note {
    /// Which.
    #[command(flatten)]
    pub one: OneAgent,
    /// The note.
    pub text: String,
}

pub async fn run(args: AgentsArgs) -> anyhow::Result<u8> {
    use wire::AgentOrder as Order;
    match args.inner {
        None => list(args.list).await,
        Some(AgentsInner::Approve(one)) => order(one, Order::Approve, String::new()).await,
        Some(AgentsInner::Drain(drain)) => order(drain.one, Order::Drain, drain.reason).await,
        Some(AgentsInner::Resume(one)) => order(one, Order::Resume, String::new()).await,
        Some(AgentsInner::Remove(one)) => order(one, Order::Remove, String::new()).await,
        Some(AgentsInner::Note(note)) => order(note.one, Order::Note, note.text).await,
    }
}

async fn order(one: OneAgent, order: wire::AgentOrder, text: String) -> anyhow::Result<u8> {
    let request = wire::OrderAgentRequest { name: one.agent.clone(), order: order.into(), text };
    let answer = verbs::with_channel(&one.at, async |channel| {
        let answer = connect::fleet_admin(channel).order_agent(request).await;
        answer.map_err(|status| connect::explain(&status))
    })
    .await?
    .into_inner();
    match answer.members.first() {
        None if one.json => verbs::print_json(&serde_json::json!({ "removed": one.agent }))?,
        None => verbs::print(&format!("{} is removed\n", one.agent))?,
        Some(member) if one.json => {
            verbs::print_json(&json(member, &answer.coordinator_version))?;
        }
        Some(_) if order == wire::AgentOrder::Note => {
            verbs::print(&format!("noted on {}\n", one.agent))?;
        }
        Some(member) => {
            let jobs = member.agent.as_ref().map_or(0, |agent| agent.jobs);
            let rest = match (member.standing.as_str(), jobs) {
                ("draining", 1) => ": 1 job goes on".to_owned(),
                ("draining", jobs) => format!(": {jobs} jobs go on"),
                _ => String::new(),
            };
            verbs::print(&format!("{} is {}{rest}\n", one.agent, member.standing))?;
        }
    }
    Ok(exit::PASS)
}

async fn list(args: Listing) -> anyhow::Result<u8> {
    let answer = verbs::with_channel(&args.at, async |channel| {
        let answer = connect::fleet_admin(channel).list_fleet(wire::ListFleetRequest {}).await;
        answer.map_err(|status| connect::explain(&status))
    })
    .await?
    .into_inner();
    if args.json {
        for member in &answer.members {
            verbs::print_json(&json(member, &answer.coordinator_version))?;
        }
        return Ok(exit::PASS);
    }
    if answer.members.is_empty() {
        verbs::print("no agent has come yet; start one with `pgsoak agent --coordinator URL`\n")?;
        return Ok(exit::PASS);
    }
    verbs::print(&format!("{}\n", table(&answer)))?;
    let skewed: Vec<&str> = answer
        .members
        .iter()
        .filter_map(|member| member.agent.as_ref())
        .filter(|agent| agent.version != answer.coordinator_version)
        .map(|agent| agent.name.as_str())
        .collect();
    if !skewed.is_empty() {
        verbs::print(&format!(
            "another version than the coordinator's {}: {} (works as long as the protocol is the same)\n",
            answer.coordinator_version,
            skewed.join(", ")
        ))?;
    }
    Ok(exit::PASS)
}

fn table(answer: &wire::ListFleetResponse) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "Agent",
            "State",
            "Health",
            "Last seen",
            "Jobs",
            "Cores",
            "Memory",
            "PostgreSQL",
            "Tools",
            "Builds",
            "Labels",
            "Version",
            "Remarks",
        ]);
    if !std::io::stdout().is_terminal() {
        table.set_width(220);
    }
    for member in &answer.members {
        let agent = member.agent.clone().unwrap_or_default();
        let can = agent.capabilities.clone().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let memory = words::bytes(can.memory_bytes as f64);
        let mut majors: Vec<_> = can.postgres.iter().map(|found| found.major).collect();
        majors.sort_unstable();
        majors.dedup();
        let list = |items: Vec<String>| items.join(", ");
        let version = match agent.version == answer.coordinator_version {
            true => agent.version.clone(),
            false => format!("{} (!)", agent.version),
        };
        let remarks: Vec<String> =
            [&member.closed, &member.note].into_iter().filter(|t| !t.is_empty()).cloned().collect();
        table.add_row([
            agent.name.clone(),
            member.standing.clone(),
            member.health.clone(),
            words::time(agent.last_seen_at_unix_us),
            format!("{}/{}", agent.jobs, can.slots),
            can.cores.to_string(),
            memory,
            list(majors.iter().map(ToString::to_string).collect()),
            list(can.tools.iter().map(|found| tool(found.tool()).to_owned()).collect()),
            list(builds(&can)),
            // The name is in the first column.
            list(
                can.labels
                    .iter()
                    .filter(|(key, _)| *key != "agent")
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
            version,
            remarks.join("; "),
        ]);
    }
    table
}

/// Each with the majors that it is there for.
fn builds(can: &wire::Capabilities) -> Vec<String> {
    let mut majors: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for found in &can.builds {
        majors.entry(&found.build).or_default().push(found.postgres_major);
    }
    let each = majors.into_iter().map(|(build, majors)| {
        let majors: Vec<String> = majors.iter().map(|major| format!("pg{major}")).collect();
        format!("{build} ({})", majors.join(" "))
    });
    each.collect()
}

fn tool(tool: wire::Tool) -> &'static str {
    pgsoak_proto::job::Tool::try_from(tool).map_or("?", pgsoak_proto::job::Tool::label)
}

fn json(member: &wire::FleetMember, coordinator_version: &str) -> serde_json::Value {
    let agent = member.agent.clone().unwrap_or_default();
    let can = agent.capabilities.clone().unwrap_or_default();
    serde_json::json!({
        "agent": agent.agent_id,
        "name": agent.name,
        "standing": member.standing,
        "health": member.health,
        "closed": Some(&member.closed).filter(|closed| !closed.is_empty()),
        "note": Some(&member.note).filter(|note| !note.is_empty()),
        "admitted_by": Some(&member.admitted_by).filter(|by| !by.is_empty()),
        "checked_at_unix_us": Some(member.checked_at_unix_us).filter(|at| *at > 0),
        "check_run": Some(&member.check_run_id).filter(|run| !run.is_empty()),
        "is_connected": agent.is_connected,
        "last_seen_at_unix_us": agent.last_seen_at_unix_us,
        "version": agent.version,
        "is_version_skewed": agent.version != coordinator_version,
        "jobs": agent.jobs,
        "slots": can.slots,
        "cores": can.cores,
        "memory_bytes": can.memory_bytes,
        "kernel": can.kernel,
        "host": can.host,
        "labels": can.labels,
        "postgres": can.postgres.iter().map(|found| serde_json::json!({
            "major": found.major, "version": found.version, "pg_config": found.pg_config,
        })).collect::<Vec<_>>(),
        "tools": can.tools.iter().map(|found| serde_json::json!({
            "tool": tool(found.tool()), "version": found.version,
        })).collect::<Vec<_>>(),
        "builds": can.builds.iter().map(|found| serde_json::json!({
            "build": found.build, "postgres_major": found.postgres_major,
        })).collect::<Vec<_>>(),
    })
}
