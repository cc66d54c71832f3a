//! `pgsoak baseline`: what runs are compared with when their plan has no baseline arm.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use pgsoak_proto::wire;

/// `baseline`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak baseline set pg_tviews@0.1.0-beta.20 --reason 'last release in the field'\n  pgsoak baseline set 3f2a --plan nightly --reason 'measured on the quiet host'\n  pgsoak baseline show          what is set\n  pgsoak baseline show latest   what that run is compared with, and why\n  pgsoak baseline clear --plan nightly\n\nWhere nothing is set, it is the latest earlier release that passed the same plan."
)]
pub struct BaselineArgs {
    /// What to do.
    #[command(subcommand)]
    pub inner: BaselineInner,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum BaselineInner {
    /// Compare runs with this run or release from now on.
    Set(SetArgs),
    /// List what is set; of a run, what it is compared with.
    Show(ShowArgs),
    /// Choose automatically again.
    Clear(ClearArgs),
}

/// `baseline set`
#[derive(Debug, Args)]
pub struct SetArgs {
    /// A run (an id, a unique part of one, `latest`) or a build (NAME@RELEASE).
    pub target: String,
    /// Why this one.
    #[arg(long)]
    pub reason: String,
    /// Only for runs of this plan; without it for all plans that have none of their own.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub plan: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `baseline show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A run, to see what it is compared with.
    pub run: Option<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `baseline clear`
#[derive(Debug, Args)]
pub struct ClearArgs {
    /// What is set for this plan; without it, what is set for all plans.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub plan: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: BaselineArgs) -> anyhow::Result<u8> {
    match args.inner {
        BaselineInner::Set(SetArgs { target, reason, plan, json, at }) => {
            let request = wire::SetBaselineRequest { plan, target, reason };
            let found = verbs::with_channel(&at, async |channel| {
                let answer = connect::history(channel).set_baseline(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            });
            print(&found.await?.baselines, json)
        }
        BaselineInner::Clear(ClearArgs { plan, json, at }) => {
            let request = wire::ClearBaselineRequest { plan };
            let found = verbs::with_channel(&at, async |channel| {
                let answer = connect::history(channel).clear_baseline(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            });
            print(&found.await?.baselines, json)
        }
        BaselineInner::Show(ShowArgs { run: None, json, at }) => {
            let found = verbs::with_channel(&at, async |channel| {
                let request = wire::ListBaselinesRequest {};
                let answer = connect::history(channel).list_baselines(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            });
            print(&found.await?.baselines, json)
        }
        BaselineInner::Show(ShowArgs { run: Some(run), json, at }) => {
            let detail = verbs::with_channel(&at, async |channel| {
                let request = wire::GetRunRequest { run_id: run };
                let answer = connect::history(channel).show_run(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            });
            choice(detail.await?.baseline.as_ref(), json)
        }
    }
}

fn choice(choice: Option<&wire::BaselineChoice>, is_json: bool) -> anyhow::Result<u8> {
    if is_json {
        verbs::print_json(&choice.map(|choice| {
            serde_json::json!({"target": choice.target, "plan": choice.plan, "why": choice.why})
        }))?;
        return Ok(exit::PASS);
    }
    verbs::print(&match choice {
        Some(choice) => {
            let of = match choice.plan.as_str() {
                "" => String::new(),
                plan => format!(" in runs of plan {plan}"),
            };
            format!("{}{of}: {}\n", choice.target, choice.why)
        }
        None => {
            "nothing: no baseline is set, and no earlier release has passed its plan\n".to_owned()
        }
    })?;
    Ok(exit::PASS)
}

fn print(baselines: &[wire::BaselineView], is_json: bool) -> anyhow::Result<u8> {
    if is_json {
        for baseline in baselines {
            verbs::print_json(&serde_json::json!({
                "plan": if baseline.plan.is_empty() { None } else { Some(&baseline.plan) },
                "target": baseline.target,
                "reason": baseline.reason,
                "set_at_unix_us": baseline.set_at_unix_us,
            }))?;
        }
        return Ok(exit::PASS);
    }
    if baselines.is_empty() {
        verbs::print(
            "none is set: runs are compared with the latest earlier release that passed their plan\n",
        )?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["Plan", "Baseline", "Set", "Reason"]);
    for baseline in baselines {
        table.add_row([
            if baseline.plan.is_empty() { "all others" } else { &baseline.plan }.to_owned(),
            baseline.target.clone(),
            words::time(baseline.set_at_unix_us),
            baseline.reason.clone(),
        ]);
    }
    verbs::print(&format!("{table}\n"))?;
    Ok(exit::PASS)
}
