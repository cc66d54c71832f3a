//! memcheck: how the server is started under it, leak checks while it runs, and what its logs say in the end.
//!
//! A check runs inside the backend that is checked (valgrind does it between two instructions of the client), so it is asked for at
//! rest only. "Increased" means since the last check of any kind: hence one check per round, all kinds in it.

use crate::tools::ToolError;
use crate::tools::Wishes;
use crate::tools::bare_environment;
use pgsoak_analysis::valgrind::LEAK_CHECK_COMMAND;
use pgsoak_analysis::valgrind::MEMCHECK_OPTIONS;
use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::Instant};

/// What PostgreSQL itself is known for and no extension can help: padding written to files.
const SUPPRESSIONS: &str = include_str!("postgres.supp");
/// Names of the files, by which a log's counts are told apart.
const OWN_FILE: &str = "pgsoak.supp";
const PLAN_FILE: &str = "plan.supp";
const POSTGRES_FILE: &str = "postgresql.supp";
/// Longest answer that is read, in bytes; the first check of a large heap says some hundred kilobytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// memcheck in one job.
#[derive(Clone, Debug)]
pub struct Memcheck {
    /// The program.
    pub valgrind: PathBuf,
    vgdb: PathBuf,
    folder: PathBuf,
    suppressions: Vec<PathBuf>,
}

/// Which check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Check {
    /// The first of a session: sets the mark that later ones count from; names no record.
    Mark,
    /// What grew since the check before, of all kinds, with stacks.
    Increased,
}

/// What a check said.
#[derive(Clone, Debug)]
pub struct CheckText {
    /// valgrind's text, every line with its `==PID==`.
    pub text: String,
    /// `/proc/PID/maps` of the backend at the time: places functions that valgrind has no module for.
    pub maps: String,
    /// How long the check lasted.
    pub took: Duration,
}

/// Why a check has no answer. A backend that is gone belongs to the product, the rest to the harness.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The backend has no channel: it ended, or it does not run under memcheck.
    #[error("process {pid} has no memcheck channel; vgdb said: {said}")]
    NoChannel {
        /// The backend.
        pid: u32,
        /// vgdb's words.
        said: String,
    },
    /// No answer in time.
    #[error("the leak check of process {pid} did not answer within {} s", limit.as_secs())]
    Late {
        /// The backend.
        pid: u32,
        /// What it was given.
        limit: Duration,
    },
    /// vgdb failed.
    #[error("the leak check of process {pid} failed: vgdb {status}: {said}")]
    Failed {
        /// The backend.
        pid: u32,
        /// How vgdb ended.
        status: String,
        /// vgdb's words.
        said: String,
    },
    /// vgdb does not run.
    #[error("run {}", vgdb.display())]
    Run {
        /// The program.
        vgdb: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

// === impl Check ===

impl Check {
    /// The words that valgrind takes.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Mark => &["leak_check", "summary", "kinds", "all", "increased"],
            Self::Increased => LEAK_CHECK_COMMAND,
        }
    }
}

// === impl Memcheck ===

impl Memcheck {
    /// Writes the suppressions into `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn prepare(
        valgrind: PathBuf,
        vgdb: PathBuf,
        folder: &Path,
        wishes: &Wishes,
    ) -> Result<Self, ToolError> {
        let mut suppressions = Vec::new();
        let mut put = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text)
                .map_err(|source| ToolError::Make { path: path.clone(), source })?;
            suppressions.push(path);
            Ok(())
        };
        // valgrind takes the first that fits: the plan's own count before ours, ours before PostgreSQL's.
        if !wishes.options.suppressions.is_empty() {
            put(PLAN_FILE, &wishes.options.suppressions)?;
        }
        put(OWN_FILE, SUPPRESSIONS)?;
        if let Some(from) = &wishes.postgres_suppressions {
            let text = fs::read_to_string(from)
                .map_err(|source| ToolError::Make { path: from.clone(), source })?;
            put(POSTGRES_FILE, &text)?;
        }
        Ok(Self { valgrind, vgdb, folder: folder.to_owned(), suppressions })
    }

    /// valgrind's options; the program and its arguments follow.
    pub fn options(&self) -> Vec<OsString> {
        let with = |option: &str, path: &Path| {
            let mut whole = OsString::from(option);
            whole.push(path);
            whole
        };
        let mut options: Vec<OsString> = MEMCHECK_OPTIONS.iter().map(OsString::from).collect();
        options.extend([
            // Else a forked child gets no channel for vgdb.
            "--trace-children=yes".into(),
            "--vgdb=yes".into(),
            self.prefix_option(),
            with("--log-file=", &self.folder.join("%p.log")),
        ]);
        options.extend(self.suppressions.iter().map(|path| with("--suppressions=", path)));
        options
    }

    /// Checks one backend that is at rest; 0.4 to 1 s for a usual heap.
    ///
    /// # Errors
    /// The backend has no channel, does not answer within `limit`, or vgdb fails.
    pub async fn leak_check(
        &self,
        pid: u32,
        check: Check,
        limit: Duration,
    ) -> Result<CheckText, CheckError> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let started_at = Instant::now();
        let mut command = std::process::Command::new(&self.vgdb);
        command
            .arg(self.prefix_option())
            .arg(format!("--pid={pid}"))
            .args(check.words())
            .env_clear()
            .envs(bare_environment(&self.folder))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let run = |source| CheckError::Run { vgdb: self.vgdb.clone(), source };
        let child = Command::from(command).kill_on_drop(true).spawn().map_err(run)?;
        let output = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| CheckError::Late { pid, limit })?
            .map_err(run)?;
        let took = started_at.elapsed();

        let said = || String::from_utf8_lossy(&output.stderr).trim().chars().take(2_000).collect();
        if !output.status.success() {
            let said: String = said();
            if said.contains("no FIFO found") || said.contains("No such process") {
                return Err(CheckError::NoChannel { pid, said });
            }
            return Err(CheckError::Failed { pid, status: output.status.to_string(), said });
        }
        let answer = output.stdout.get(..MAX_ANSWER_BYTES).unwrap_or(&output.stdout);
        let text = String::from_utf8_lossy(answer).into_owned();
        if !text.contains("LEAK SUMMARY") && !text.contains("All heap blocks were freed") {
            return Err(CheckError::Failed {
                pid,
                status: "left without a summary".to_owned(),
                said: text.chars().take(2_000).collect(),
            });
        }
        Ok(CheckText { text, maps, took })
    }

    /// The log of one process, as far as it was written; at most 64 MiB of it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn log(&self, pid: u32) -> io::Result<String> {
        let bytes = fs::read(self.folder.join(format!("{pid}.log")))?;
        let kept = bytes.get(..MAX_ANSWER_BYTES).unwrap_or(&bytes);
        Ok(String::from_utf8_lossy(kept).into_owned())
    }

    fn prefix_option(&self) -> OsString {
        let mut option = OsString::from("--vgdb-prefix=");
        option.push(self.folder.join("vgdb"));
        option
    }
}
