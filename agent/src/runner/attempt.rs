//! One attempt from its first line to its last: the frame around the work.
//!
//! The work runs in a task that is aborted when something stops the attempt; a panic in it ends as a fault of the
//! infrastructure like any other. Whatever happens, the attempt is wound up and its last frame written.

use crate::folder;
use crate::folder::FolderError;
use crate::folder::JobFolder;
use crate::runner::fault::Ending;
use crate::runner::fault::Fault;
use crate::runner::orphans;
use crate::runner::progress::Progress;
use crate::runner::progress::ProgressReader;
use crate::runner::progress::WRITE_EVERY;
use crate::runner::record::Record;
use crate::runner::stop;
use crate::runner::stop::Stop;
use crate::runner::wind_up::wind_up;
use crate::runner::work::Holdings;
use crate::runner::work::Order;
use crate::runner::work::work;
use crate::spool::SpoolLimits;
use crate::spool::SpoolWriter;
use pgsoak_proto::chain::chain;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// After the hard end an attempt has this long to wind up before the watchdog ends it: killing and removing take
/// seconds, reading and compressing reports up to minutes.
const WIND_UP_LIMIT: Duration = Duration::from_secs(180);

/// Between two looks of the watchdog.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// How long the runtime is waited for at the very end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Exit code when there is no last frame.
const NO_LAST_FRAME: u8 = 70;

/// Why there is no attempt at all. No evidence says so: there is no spool to write it to.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("use the job's folder")]
    Folder(#[from] FolderError),
    #[error("open the spool in {}", dir.display())]
    Spool {
        dir: PathBuf,
        #[source]
        source: crate::spool::SpoolIoError,
    },
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Runs the job whose folder this is, to its end. Exit code 0: the last frame is on disk, however the attempt ended;
/// 70: it is not, and the log says why.
pub fn run_job(dir: &Path) -> ExitCode {
    let origin = Instant::now();
    match open(dir, origin) {
        Ok(attempt) => attempt.run(),
        Err(error) => {
            tracing::error!(error = chain(&error), "no attempt");
            ExitCode::from(NO_LAST_FRAME)
        }
    }
}

/// Everything that is there before the work begins.
struct Attempt {
    runtime: Runtime,
    order: Order,
    record: Record,
    progress: Progress,
    reader: ProgressReader,
}

fn open(dir: &Path, origin: Instant) -> Result<Attempt, OpenError> {
    let io = |doing| move |source| OpenError::Io { doing, source };
    let folder = std::fs::canonicalize(dir).map_err(io("find the job's folder"))?;
    let folder = JobFolder::at(folder);
    let assignment = folder.assignment()?;
    folder.write_runner()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| OpenError::Io { doing: "become a subreaper", source: error.into() })?;
    let spool = SpoolWriter::create(&folder.spool(), SpoolLimits::default())
        .map_err(|source| OpenError::Spool { dir: folder.path().to_owned(), source })?;
    // One thread drives all sessions: a wake-up across threads costs more than an operation's own work here, and the
    // sampler has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the runtime"))?;
    let (progress, reader) = Progress::new(assignment.lease);
    let order = Order { folder, assignment };
    watchdog(&order)?;
    Ok(Attempt { runtime, order, record: Record::new(spool, origin), progress, reader })
}

impl Attempt {
    fn run(self) -> ExitCode {
        let Self { runtime, order, record, progress, reader } = self;
        let is_whole = runtime.block_on(attempt(order, record, progress, reader));
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        if is_whole { ExitCode::SUCCESS } else { ExitCode::from(NO_LAST_FRAME) }
    }
}

async fn attempt(order: Order, record: Record, progress: Progress, reader: ProgressReader) -> bool {
    let stop = Stop::default();
    let writer = tokio::spawn(write_progress(order.folder.clone(), reader));
    let holdings = Arc::new(Holdings::default());
    let done =
        match stop::watch(stop.clone(), order.folder.cancel_file(), order.assignment.spec.hard_end)
        {
            Ok(_watch) => {
                let work =
                    work(order.clone(), Arc::clone(&holdings), record.clone(), progress.clone());
                let mut work = tokio::spawn(work);
                tokio::select! {
                    biased;
                    cause = stop.fired() => {
                        work.abort();
                        // Its sessions are gone when it is.
                        let _ = work.await;
                        Err(Fault::Stopped(cause))
                    }
                    done = &mut work => done.unwrap_or_else(|error| {
                        Err(Fault::Infrastructure(format!("the runner failed: {error}")))
                    }),
                }
            }
            Err(error) => Err(Fault::Infrastructure(format!("watch for signals: {error}"))),
        };
    if let Err(fault) = &done {
        tracing::warn!(?fault, "the work ended early");
    }
    let ending = done.map_or_else(Ending::from, |()| Ending::finished());
    let is_whole = wind_up(&order, &holdings, &record, &progress, &stop, ending).await;
    drop(progress);
    drop(holdings);
    let _ = writer.await;
    is_whole
}

/// Writes `progress.json` when something has changed, at most twice a second, and a last time at the end.
async fn write_progress(folder: JobFolder, mut reader: ProgressReader) {
    let write = |progress| {
        if let Err(error) = folder.write_progress(&progress) {
            tracing::debug!(error = chain(&error), "nobody is told of the progress");
        }
    };
    write(reader.now());
    while let Some(progress) = reader.next().await {
        write(progress);
        tokio::time::sleep(WRITE_EVERY).await;
    }
}

/// A thread that ends everything when the attempt has not ended well after its hard end.
fn watchdog(order: &Order) -> Result<(), OpenError> {
    let (folder, limit) = (
        order.folder.path().to_owned(),
        order.assignment.spec.hard_end.saturating_add(WIND_UP_LIMIT),
    );
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            // Asleep with the host: looked at again when it wakes.
            let end = stop::since_boot().saturating_add(limit);
            while let Some(left) = end.checked_sub(stop::since_boot()).filter(|left| !left.is_zero()) {
                std::thread::sleep(left.min(WATCH_EVERY));
            }
            tracing::error!(folder = %folder.display(), "the attempt does not end: killing what is left");
            orphans::kill_now();
            folder::kill_left(&folder);
            std::process::exit(i32::from(NO_LAST_FRAME));
        })
        .map(drop)
        .map_err(|source| OpenError::Io { doing: "start the watchdog", source })
}
