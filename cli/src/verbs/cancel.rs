//! `pgsoak cancel`: idempotent; with `--wait`, until no process of the run is left.

use crate::args::CancelArgs;
use crate::connect;
use crate::exit;
use crate::show::progress::Progress;
use crate::verbs;
use crate::verbs::{runs, submit};
use pgsoak_proto::wire;

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
