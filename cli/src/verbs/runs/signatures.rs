//! `pgsoak runs signatures`: stacks that lost memory, by release: first seen, last seen, hosts.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use pgsoak_proto::wire;
use std::io::IsTerminal;

/// `runs signatures`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak runs signatures\n  pgsoak runs signatures --build pg_tviews@0.1.0-beta.34\n  pgsoak runs signatures --text refresh --json\n\nA signature is the fingerprint of a finding's stack; it survives rebuilds. What is known of it stays when its runs are pruned."
)]
pub struct SignaturesArgs {
    /// The beginning of a fingerprint.
    #[arg(default_value = "", hide_default_value = true)]
    pub fingerprint: String,
    /// Seen in this build.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME@RELEASE")]
    pub build: String,
    /// Seen in this workload.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub workload: String,
    /// With this text in a function of the stack.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub text: String,
    /// For programs: a line a signature.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: SignaturesArgs) -> anyhow::Result<u8> {
    let SignaturesArgs { fingerprint, build, workload, text, json, at } = args;
    let request = wire::ListSignaturesRequest { fingerprint, build, workload, text };
    let found = verbs::with_channel(&at, async |channel| {
        let answer = connect::history(channel).list_signatures(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner().signatures)
    })
    .await?;
    if json {
        for signature in &found {
            verbs::print_json(&value(signature))?;
        }
        return Ok(exit::PASS);
    }
    if found.is_empty() {
        verbs::print("no stored run showed such a leak signature\n")?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["Signature", "Function", "Owner", "Build", "First", "Last", "Runs", "Hosts"]);
    if !std::io::stdout().is_terminal() {
        table.set_width(180);
    }
    for signature in &found {
        for (index, seen) in signature.builds.iter().enumerate() {
            let first = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
            table.add_row([
                first(&signature.fingerprint),
                first(&signature.function),
                first(&signature.owner),
                seen.build.clone(),
                words::time(seen.first_at_unix_us),
                words::time(seen.last_at_unix_us),
                seen.runs.to_string(),
                seen.hosts.join(", "),
            ]);
        }
    }
    verbs::print(&format!("{table}\n"))?;
    Ok(exit::PASS)
}

fn value(signature: &wire::SignatureView) -> serde_json::Value {
    let builds = signature.builds.iter().map(|seen| {
        serde_json::json!({
            "build": seen.build,
            "first_run": seen.first_run,
            "first_at_unix_us": seen.first_at_unix_us,
            "last_run": seen.last_run,
            "last_at_unix_us": seen.last_at_unix_us,
            "runs": seen.runs,
            "hosts": seen.hosts,
            "workloads": seen.workloads,
            "worst": seen.worst,
        })
    });
    serde_json::json!({
        "fingerprint": signature.fingerprint,
        "function": signature.function,
        "owner": signature.owner,
        "stack": signature.stack,
        "builds": builds.collect::<Vec<_>>(),
    })
}
