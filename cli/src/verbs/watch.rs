//! `pgsoak watch`: follows a run until it is over.

use crate::args::OneRun;
use crate::connect;
use crate::exit;
use crate::show::progress::Progress;
use crate::show::runs;
use crate::verbs;
use crate::verbs::submit;
use pgsoak_proto::wire;

pub async fn run(args: OneRun) -> anyhow::Result<u8> {
    let OneRun { run, json, at } = args;
    verbs::with_control(&at, async |control| {
        let run = verbs::run_named(control, &run).await?;
        if json {
            let request = wire::GetRunRequest { run_id: run.clone() };
            let answer = control.watch_run(request).await;
            let mut stream = answer.map_err(|status| connect::explain(&status))?.into_inner();
            while let Some(view) =
                stream.message().await.map_err(|status| connect::explain(&status))?
            {
                verbs::print_json(&runs::json(&view))?;
            }
            return Ok(exit::PASS);
        }
        let mut progress = Progress::new(false);
        let view = submit::follow(control, &run, &mut progress).await?;
        verbs::print(&format!("{}\n", view.sentence))?;
        Ok(exit::PASS)
    })
    .await
}
