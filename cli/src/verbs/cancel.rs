//! `pgsoak cancel`: idempotent; with `--wait`, until no process of the run is left.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show::progress::Progress;
use crate::show::runs;
use crate::verbs;
use crate::verbs::submit;
use clap::Args;
use pgsoak_proto::wire;

/// `cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    pub run: String,
    /// Why; kept with the run.
    #[arg(long, default_value = "cancelled by hand")]
    pub reason: String,
    /// Wait until no process of the run is left.
    #[arg(long)]
    pub wait: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: CancelArgs) -> anyhow::Result<u8> {
    let CancelArgs { run, reason, wait, json, at } = args;
    let view = verbs::with_control(&at, async |control| {
        let run = verbs::run_named(control, &run).await?;
        let request = wire::CancelRunRequest { run_id: run, reason };
        let answer =
            control.cancel_run(request).await.map_err(|status| connect::explain(&status))?;
        let view = answer.into_inner();
        if wait && view.stage() != wire::RunStage::Finished {
            let mut progress = Progress::new(json);
            return submit::follow(control, &view.run_id, &mut progress).await;
        }
        Ok(view)
    })
    .await?;
    if json {
        verbs::print_json(&runs::json(&view))?;
    } else {
        verbs::print(&format!("run {}: {}\n", view.run_id, runs::state(&view)))?;
    }
    Ok(exit::PASS)
}
