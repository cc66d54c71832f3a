//! The server's process. One task owns it, reaps it, and keeps its log within bounds; everybody else sees its end through a watch.

use crate::cluster::StopStep;
use crate::cluster::log;
use crate::cluster::survivors;
use crate::folder::ProcessKey;
use crate::tools::Launch;
use crate::tools::Limits;
use rustix::process::Signal;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

/// Between two looks at the size of the log.
const LOG_CHECK_EVERY: Duration = Duration::from_secs(30);
/// One attempt to connect and to ask; a server under valgrind takes a second.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);

/// How the server ended: `None` while it runs; then its state, where it could be had.
type End = Option<Option<ExitStatus>>;

/// A started server.
#[derive(Debug)]
pub struct Server {
    pid: u32,
    process: Option<ProcessKey>,
    folder: PathBuf,
    end: watch::Receiver<End>,
}

// === impl Server ===

impl Server {
    /// Starts it in the job's folder, with a process group of its own, writing into `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program does not run.
    pub(super) fn spawn(launch: &Launch, folder: &Path, log: &Path) -> io::Result<Self> {
        let log_file = open_log(log)?;
        let mut command = launch.command();
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // Ctrl-C in a terminal is for the runner, which then stops the server in order.
            .process_group(0);
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has no pid"))?;
        // It is not reaped before `attend` waits for it, so the entry in /proc is its own; a server that is dead already has none.
        let process = ProcessKey::of(pid);
        let (sender, end) = watch::channel(None);
        tokio::spawn(attend(child, sender, log.to_owned()));
        Ok(Self { pid, process, folder: folder.to_owned(), end })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The job's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How it ended; `None` while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        (*self.end.borrow()).flatten()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Option<ExitStatus> {
        let mut end = self.end.clone();
        // An error means that the task is gone, and the process with it (`kill_on_drop`).
        end.wait_for(Option::is_some).await.ok().and_then(|end| (*end).flatten())
    }

    fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Asks ever harder; gives the last step that was needed.
    pub(super) async fn stop(&self, limits: Limits) -> StopStep {
        if self.has_ended() {
            return StopStep::Already;
        }
        let steps = [
            (StopStep::Smart, Signal::TERM, limits.smart),
            (StopStep::Fast, Signal::INT, limits.fast),
            (StopStep::Immediate, Signal::QUIT, limits.immediate),
        ];
        for (step, signal, limit) in steps {
            self.signal(signal);
            if tokio::time::timeout(limit, self.ended()).await.is_ok() {
                return step;
            }
            tracing::warn!(pid = self.pid, ?step, ?limit, "the server did not stop; asking harder");
        }
        self.kill();
        drop(tokio::time::timeout(limits.immediate, self.ended()).await);
        StopStep::Kill
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// SIGKILL to the server and to whatever else works in the job's folder.
    fn kill(&self) {
        self.signal(Signal::KILL);
        survivors::kill_all(&survivors::pids_left(&self.folder));
    }
}

impl Drop for Server {
    /// For a runner that gives up in between: nothing may stay.
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

/// Reaps the process and bounds its log.
async fn attend(mut child: Child, end: watch::Sender<End>, log_path: PathBuf) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = tokio::time::sleep(LOG_CHECK_EVERY) => match log::limit(&log_path) {
                Ok(false) => {}
                Ok(true) => tracing::warn!(log = %log_path.display(), "the server's log grew too large and was cut"),
                Err(error) => tracing::warn!(%error, log = %log_path.display(), "bound the server's log"),
            },
        }
    };
    end.send_replace(Some(status.ok()));
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether the server answers a query.
pub(super) async fn answers(config: &tokio_postgres::Config) -> bool {
    let attempt = async {
        let mut config = config.clone();
        config.application_name("pgsoak start");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.ok()?;
        let connection = tokio::spawn(connection);
        let answered = client.simple_query("SELECT 1").await.is_ok();
        drop(client);
        drop(connection.await);
        answered.then_some(())
    };
    tokio::time::timeout(ATTEMPT_LIMIT, attempt).await.ok().flatten().is_some()
}
