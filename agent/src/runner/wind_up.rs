//! The end of an attempt, however it came: server and sampler stop, reports become frames, raw files are kept, the rest
//! goes, and the last frame is written.
//!
//! Every step has a time limit and none depends on the one before, so that a step that fails costs its own result only.
//! When the attempt was stopped from outside the server is killed at once: its cluster is thrown away, and who cancels
//! should not have to wait.

use crate::cluster::log;
use crate::cluster::survivors;
use crate::folder::JobFolder;
use crate::runner::artifacts;
use crate::runner::costs;
use crate::runner::digests::digests;
use crate::runner::fault::Ending;
use crate::runner::fault::Fault;
use crate::runner::orphans;
use crate::runner::progress::Progress;
use crate::runner::record::Record;
use crate::runner::stop::Stop;
use crate::runner::stop::StopCause;
use crate::runner::work::Holdings;
use crate::runner::work::Order;
use crate::sampler::SamplerStats;
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{AttemptEnded, Body};
use pgsoak_proto::job::Outcome;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// For the sampler's last batch.
const SAMPLER_LIMIT: Duration = Duration::from_secs(10);

/// What may still be done with reports after a stop from outside.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// How often the job's folders are removed until they stay away, and the time between.
const REMOVE_TRIES: u32 = 100;
const REMOVE_AGAIN: Duration = Duration::from_millis(50);

/// Folders of the job that go with it.
const REMOVED: [&str; 5] = ["tree", "data", "run", "logs", "tool"];

/// Ends the attempt. `true`: the last frame is on disk.
pub async fn wind_up(
    order: &Order,
    holdings: &Arc<Holdings>,
    record: &Record,
    progress: &Progress,
    stop: &Stop,
    mut ending: Ending,
) -> bool {
    progress.finishing();
    let stats = stop_sampler(holdings).await;
    let was_stopped = stop_server(order, holdings, stop).await;
    if let (Some(cause), Outcome::Finished) = (was_stopped, ending.outcome) {
        ending = Fault::Stopped(cause).into();
    }
    let log_file = order.folder.path().join("logs").join("server.log");
    let server_log_tail =
        if ending.outcome == Outcome::Finished { String::new() } else { log::tail(&log_file) };
    ending = ending.with_log(&server_log_tail);

    let mut frames = Vec::new();
    if !record.has_started() {
        frames.push(Body::Started(holdings.ground()));
    }
    frames.extend(read_reports(holdings, record, stop).await);
    if let Some(problem) = put_away(&order.folder).await {
        tracing::error!(problem, "the job's folder is not clean");
        if ending.outcome == Outcome::Finished {
            ending = Fault::Infrastructure(problem).into();
        }
    }
    frames.push(Body::Ended(AttemptEnded {
        outcome: ending.outcome,
        reason: ending.reason,
        server_log_tail,
        ticks: stats.ticks,
        ticks_sampled: stats.ticks_sampled,
        sampler_cpu_us: stats.cpu_us,
        process_samples: stats.process_samples,
        runner_cpu_us: u64::try_from(costs::own_cpu().as_micros()).unwrap_or(u64::MAX),
        runner_peak_rss_bytes: costs::own_peak_rss_bytes(),
        statement: ending.statement,
        sqlstate: ending.sqlstate,
    }));
    let mut is_whole = true;
    for frame in frames {
        if let Err(fault) = record.write(&frame) {
            tracing::error!(?fault, "one of the last frames is lost");
            is_whole = false;
        }
    }
    if let Err(error) = record.close().await {
        tracing::error!(error, "the last frames are not on disk");
        is_whole = false;
    }
    progress.ended();
    is_whole
}

async fn stop_sampler(holdings: &Holdings) -> SamplerStats {
    let Some(sampler) = holdings.take_sampler() else { return SamplerStats::default() };
    match tokio::time::timeout(SAMPLER_LIMIT, sampler.stop()).await {
        Ok(Ok(stats)) => stats,
        Ok(Err(error)) => {
            tracing::error!(%error, "the sampler's figures are lost");
            SamplerStats::default()
        }
        Err(_) => {
            tracing::error!("the sampler does not end");
            SamplerStats::default()
        }
    }
}

/// Stops the server, in order or at once; gives the cause when the attempt was stopped from outside before it was done.
async fn stop_server(order: &Order, holdings: &Holdings, stop: &Stop) -> Option<StopCause> {
    let in_order = async {
        if let Some(cluster) = holdings.cluster.get() {
            let stopped = cluster.stop().await;
            tracing::info!(?stopped, "the server has stopped");
        }
    };
    let cause = tokio::select! {
        biased;
        cause = stop.fired() => Some(cause),
        () = in_order => None,
    };
    survivors::sweep(order.folder.path(), Duration::ZERO).await;
    if cause.is_some()
        && let Some(cluster) = holdings.cluster.get()
    {
        // It is dead by now; this removes its socket and its shared memory.
        cluster.stop().await;
    }
    let killed = orphans::end_all().await;
    if !killed.is_empty() {
        tracing::warn!(?killed, "killed what was left");
    }
    cause
}

/// Frames of the tools' reports. After a stop from outside the reports are not whole: only what was covered is said.
async fn read_reports(holdings: &Arc<Holdings>, record: &Record, stop: &Stop) -> Vec<Body> {
    let (holdings, lives, now) = (Arc::clone(holdings), record.lives(), record.origin().elapsed());
    let reading = tokio::task::spawn_blocking(move || {
        let Some(tooling) = holdings.tooling.get() else { return Vec::new() };
        digests(tooling, holdings.instruments.get().map(AsRef::as_ref), &lives, now)
    });
    tokio::select! {
        read = reading => read.unwrap_or_else(|error| {
            tracing::error!(%error, "the tools' reports are lost");
            Vec::new()
        }),
        () = late(stop) => {
            tracing::warn!("the tools' reports are left unread");
            Vec::new()
        }
    }
}

/// Some time after a stop from outside.
async fn late(stop: &Stop) {
    stop.fired().await;
    tokio::time::sleep(AFTER_STOP).await;
}

/// Keeps the raw files and removes the rest; `Some`: what could not be removed.
async fn put_away(folder: &JobFolder) -> Option<String> {
    let folder = folder.clone();
    let putting = tokio::task::spawn_blocking(move || {
        let (left_out, failed) = artifacts::keep(&raw_files(folder.path()), &folder.artifacts());
        if left_out > 0 {
            tracing::warn!(left_out, "raw files beyond the attempt's bound are not kept");
        }
        for error in failed {
            tracing::warn!(error = chain(&error), "a raw file is not kept");
        }
        remove_all(folder.path())
    });
    putting.await.unwrap_or_else(|error| Some(format!("putting away the folder ended: {error}")))
}

/// What the runner said so far, the server's log, and whatever the tool wrote, in the order of their names.
fn raw_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![folder.join("runner.log")];
    for place in ["logs", "tool"] {
        let Ok(entries) = fs::read_dir(folder.join(place)) else { continue };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        files.append(&mut found);
    }
    files
}

/// Removes what goes with the job; `Some`: what would not go. A preparation that was given up may still be copying files on a
/// thread that nobody can stop: then a folder is not empty, or is there again, and goes at the next try.
fn remove_all(folder: &Path) -> Option<String> {
    let mut problems = String::new();
    for _ in 0..REMOVE_TRIES {
        let there: Vec<PathBuf> = REMOVED
            .iter()
            .map(|name| folder.join(name))
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect();
        if there.is_empty() {
            return None;
        }
        let failed: Vec<String> = there
            .iter()
            .filter_map(|path| remove(path).err())
            .map(|error| error.to_string())
            .collect();
        problems = failed.join("; ");
        std::thread::sleep(REMOVE_AGAIN);
    }
    Some(if problems.is_empty() { "files of the job come again".to_owned() } else { problems })
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::other(format!("remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
