//! A private cluster: one PostgreSQL server of one job, from a cached template, on a Unix socket, under a tool.
//!
//! The server is started directly, not by `pg_ctl`: its exit state is then known, and the tool sees it from its first instruction. It
//! does not restart after a crash of a backend, so a crash always ends the server and is noticed ([`Cluster::ended`]).
//! Everything lies in the job's folder; shared memory is anonymous or a file there. This module never becomes another user.
//!
//! - `settings`: postgresql.conf · `socket`: a folder short enough for a socket · `template`: initdb once
//! - `log`: what the server wrote, and crashes in it · `survivors`: processes and shared memory that are left
//! - `server`: the process and its end

pub mod log;
pub mod server;
pub mod settings;
pub mod socket;
pub mod survivors;
pub mod template;

use crate::cluster::log::Crash;
use crate::cluster::server::Server;
use crate::cluster::settings::SettingsError;
use crate::cluster::socket::SocketFolder;
use crate::cluster::template::TemplateError;
use crate::tools::Limits;
use crate::tools::Tooling;
use crate::tree::Tree;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};
use tokio::time::Instant;

/// Database that the workload runs in.
pub const DATABASE: &str = "postgres";
/// The cluster's one role, a superuser.
pub const ROLE: &str = "postgres";
/// Part of the socket's name; no network is involved.
pub const PORT: u16 = 5432;
/// Between two attempts to connect while the server starts.
const CONNECT_EVERY: Duration = Duration::from_millis(50);

/// What a cluster is made from.
#[derive(Clone, Copy, Debug)]
pub struct ClusterPlan<'a> {
    /// The job's folder: `data/`, `run/` and `logs/` are made in it.
    pub folder: &'a Path,
    /// Holds the templates, where this user may write there.
    pub cache_dir: &'a Path,
    /// `shared_preload_libraries`.
    pub preload: &'a [String],
    /// The workload's lines of postgresql.conf.
    pub settings: &'a BTreeMap<String, String>,
    /// Most sessions at once, the harness's own included.
    pub sessions: u32,
}

/// A running server. Dropping it without [`Cluster::stop`] kills every process of it.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    socket: SocketFolder,
    data_dir: PathBuf,
    log: PathBuf,
    limits: Limits,
}

/// Why there is no running server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workload's settings cannot be written.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No data folder.
    #[error("initialise the cluster")]
    Template(#[from] TemplateError),
    /// A file or folder cannot be made.
    #[error("make {}", path.display())]
    Make {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// PostgreSQL refuses to run as root.
    #[error(
        "PostgreSQL does not run as root; the runner has to be started as an unprivileged user"
    )]
    Root,
    /// The program does not run.
    #[error("start {}", program.display())]
    Spawn {
        /// The program: the server's, or the tool's.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It ended before it answered. The product's failure, or that of its settings.
    #[error("the server ended while it started ({status}); its log ends with:\n{log_tail}")]
    Died {
        /// How it ended.
        status: String,
        /// Last lines of its log, at most 16 KiB.
        log_tail: String,
    },
    /// It did not answer in time.
    #[error("the server did not answer within {} s; its log ends with:\n{log_tail}", limit.as_secs())]
    Late {
        /// What it was given.
        limit: Duration,
        /// Last lines of its log, at most 16 KiB.
        log_tail: String,
    },
}

/// The end of a server that nobody had asked to end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerEnd {
    /// One sentence for people.
    pub sentence: String,
    /// The process that crashed, as the log says; `None`: the log names none.
    pub crash: Option<Crash>,
    /// Last lines of the log, at most 16 KiB.
    pub log_tail: String,
}

/// How a server stopped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stopped {
    /// The last step that was needed.
    pub how: StopStep,
    /// Whether it ended with state 0: data written, every process left by itself.
    pub clean: bool,
    /// As the system gives it: "exit status: 0".
    pub status: String,
    /// From the request to the last process.
    pub took: Duration,
    /// Processes that had to be killed after the server was gone.
    pub killed: Vec<u32>,
    /// What could not be removed: a process, a shared memory segment. Empty when all is well.
    pub left: Vec<String>,
}

/// How hard the server had to be asked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum StopStep {
    /// It had ended before.
    Already,
    /// SIGTERM: sessions end by themselves.
    Smart,
    /// SIGINT: sessions are ended.
    Fast,
    /// SIGQUIT: leave at once.
    Immediate,
    /// SIGKILL to every process.
    Kill,
}

// === impl StartError ===

impl StartError {
    /// Last lines of the server's log, where it got that far.
    pub fn log_tail(&self) -> Option<&str> {
        match self {
            Self::Died { log_tail, .. } | Self::Late { log_tail, .. } => Some(log_tail),
            _ => None,
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Makes the cluster in the job's folder and waits until its server answers.
    ///
    /// # Errors
    /// The data folder, the settings or the socket's folder cannot be made; the server does not start, dies, or does not answer in
    /// the tool's time. No process is left then.
    pub async fn start(
        plan: ClusterPlan<'_>,
        tree: &Tree,
        tooling: &Tooling,
    ) -> Result<Self, StartError> {
        if rustix::process::geteuid().is_root() {
            return Err(StartError::Root);
        }
        let folder = fs::canonicalize(plan.folder)
            .map_err(|source| StartError::Make { path: plan.folder.to_owned(), source })?;
        let data_dir = folder.join("data");
        let settings = settings::Settings::new(plan.preload, plan.settings, plan.sessions)?;
        let socket = SocketFolder::make(&folder.join("run"))
            .map_err(|source| StartError::Make { path: folder.join("run"), source })?;
        template::instantiate(&tree.installation, plan.cache_dir, &data_dir).await?;
        settings.append_to(&data_dir.join("postgresql.conf"), socket.path()).map_err(|source| {
            StartError::Make { path: data_dir.join("postgresql.conf"), source }
        })?;

        let log = folder.join("logs").join("server.log");
        let launch = tooling.launch(
            &tree.postgres,
            &["-D".into(), data_dir.clone().into()],
            tree.library_path.as_deref(),
        );
        let server = Server::spawn(&launch, &folder, &log)
            .map_err(|source| StartError::Spawn { program: launch.program.clone(), source })?;
        let limits = tooling.limits();
        let cluster = Self { server, socket, data_dir, log, limits };
        match cluster.answers().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    /// How sessions connect: socket, role and database; the caller adds the application's name.
    pub fn connect_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket.path()).port(PORT).user(ROLE).dbname(DATABASE);
        config
    }

    /// Pid of the postmaster (under valgrind as well: it replaces itself).
    pub fn postmaster(&self) -> u32 {
        self.server.pid()
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Holds the socket; outside the job's folder when that one's path is too long.
    pub fn socket_dir(&self) -> &Path {
        self.socket.path()
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Last whole lines of the log, at most 16 KiB.
    pub fn log_tail(&self) -> String {
        log::tail(&self.log)
    }

    /// Whether the postmaster is still there.
    pub fn is_running(&self) -> bool {
        self.server.status().is_none()
    }

    /// Waits until the server is gone. A crash of any of its processes ends it; clients see their connection close some moments
    /// earlier, so who loses one should wait a few seconds for this. May be called often and given up at any time.
    pub async fn ended(&self) -> ServerEnd {
        let status = self.server.ended().await;
        self.describe_end(status)
    }

    /// Stops the server: smart, fast, immediate, kill, each with the tool's time; then sees to it that nothing is left.
    /// Sessions should be closed before: open ones cost the time of the smart step.
    pub async fn stop(&self) -> Stopped {
        let began = Instant::now();
        let segment = survivors::shared_memory(&self.data_dir);
        let how = self.server.stop(self.limits).await;
        let status = self.server.status();
        // Under a tool the last processes may still be writing their reports.
        let patience = if how == StopStep::Kill { Duration::ZERO } else { self.limits.immediate };
        let swept = survivors::sweep(self.server.folder(), patience).await;
        let mut left: Vec<String> = swept.left.iter().map(|pid| format!("process {pid}")).collect();
        if let Some(segment) = segment
            && !survivors::remove_shared_memory(segment, self.server.pid())
        {
            left.push(format!(
                "shared memory segment {segment} (remove it with: ipcrm -m {segment})"
            ));
        }
        self.socket.remove();
        Stopped {
            how,
            clean: status.is_some_and(|status| status.success()) && swept.killed.is_empty(),
            status: status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
            took: began.elapsed(),
            killed: swept.killed,
            left,
        }
    }

    async fn answers(&self) -> Result<(), StartError> {
        let limit = self.limits.start;
        let config = self.connect_config();
        let attempts = async {
            loop {
                if server::answers(&config).await {
                    return;
                }
                tokio::time::sleep(CONNECT_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            status = self.server.ended() => Err(StartError::Died {
                status: status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
                log_tail: self.log_tail(),
            }),
            answered = tokio::time::timeout(limit, attempts) => answered
                .map_err(|_| StartError::Late { limit, log_tail: self.log_tail() }),
        }
    }

    fn describe_end(&self, status: Option<ExitStatus>) -> ServerEnd {
        let log_tail = self.log_tail();
        let crash = log::last_crash(&log_tail);
        let sentence = match (&crash, status) {
            (Some(crash), _) => format!("the server crashed: {crash}"),
            (None, Some(status)) => format!("the server ended by itself ({status})"),
            (None, None) => "the server ended by itself".to_owned(),
        };
        ServerEnd { sentence, crash, log_tail }
    }
}
