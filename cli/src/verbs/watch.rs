//! `pgsoak watch`: follows a run until it is over, on the whole terminal, or by lines where there is none.

use crate::args::OneRun;
use crate::connect;
use crate::exit;
use crate::show::progress::Progress;
use crate::show::runs;
use crate::show::screen::Screen;
use crate::verbs;
use crate::verbs::submit;
use pgsoak_proto::wire;
use std::io::IsTerminal as _;
use tokio_util::sync::CancellationToken;

/// The whole screen where there is one.
fn progress() -> Progress {
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    if is_terminal
        && !is_dumb
        && let Ok(screen) = Screen::open()
    {
        return Progress::Screen(screen);
    }
    Progress::new(false)
}

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
        let mut progress = progress();
        let left = match &progress {
            Progress::Screen(screen) => screen.left(),
            _ => CancellationToken::new(),
        };
        let view = tokio::select! {
            view = submit::follow(control, &run, &mut progress) => Some(view?),
            () = left.cancelled() => None,
        };
        progress.finish();
        verbs::print(&match view {
            Some(view) => format!("{}\n", view.sentence),
            None => format!("the run goes on; `pgsoak watch {run}` shows it again\n"),
        })?;
        Ok(exit::PASS)
    })
    .await
}
