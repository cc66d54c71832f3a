//! `pgsoak judge`: memory series from anywhere, judged for growth over time. Uses every core; answers in the order asked.

use crate::exit::{self, Coded};
use crate::verbs;
use clap::Args;
use pgsoak_analysis::{
    judge::{self, JudgedSeries},
    result::Verdict,
};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// `judge`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak judge runs/*/ --json\n  pgsoak judge memory-over-time.csv"
)]
pub struct JudgeArgs {
    /// Folders of host<k>.csv (t_s, ops, rows, bNN, bNN_pid …) with meta.json, or single CSV files (timestamp,rss_kb,vsz_kb,heap_mb).
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// One line of JSON for each, in order.
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: JudgeArgs) -> anyhow::Result<u8> {
    let JudgeArgs { paths, json } = args;
    let asked = paths.len();
    let judged = tokio::task::spawn_blocking(move || judge_all(&paths)).await?;
    anyhow::ensure!(
        judged.len() == asked,
        "{} of {asked} series were not judged: a thread has died",
        asked - judged.len()
    );
    let mut worst = Verdict::Pass;
    for judged in judged {
        let judged = judged?;
        worst = worst.max(judged.verdict);
        if json {
            verbs::print_json(&judged)?;
        } else {
            let verdict = crate::show::result::label(judged.verdict);
            verbs::print(&format!("{}: {verdict}: {}\n", judged.run, judged.reason))?;
        }
    }
    Ok(exit::of_verdict(worst))
}

/// In the order of the paths.
fn judge_all(paths: &[PathBuf]) -> Vec<anyhow::Result<JudgedSeries>> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(paths.len().max(1));
    let mut done: Vec<(usize, anyhow::Result<JudgedSeries>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = paths.get(index) else { break done };
                        let judged = judge::judge_path(path).map_err(|error| {
                            Coded::usage(format!("{:#}", anyhow::Error::new(error))).into()
                        });
                        done.push((index, judged));
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, judged)| judged).collect()
}
