//! What the server runs under: how it is started with each tool, what the tool left, and what is kept of it.
//!
//! The server's environment is made from nothing: the same on every host, and without the names that valgrind and vgdb build their
//! channel's file name from (LOGNAME, USER, HOST, HOSTNAME): PostgreSQL overwrites its environment to show its process title, and a
//! backend whose name no longer matches dies at the first check.

pub mod allocator;
pub mod heaptrack;
pub mod memcheck;

use crate::tools::heaptrack::Heaptrack;
use crate::tools::memcheck::Memcheck;
use pgsoak_proto::job::{Tool, ToolOptions};
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// One tool, ready for one job.
#[derive(Clone, Debug)]
pub struct Tooling {
    /// Which.
    pub tool: Tool,
    /// As the tool says it; empty for plain.
    pub version: String,
    /// Holds its raw output; inside the job's folder.
    pub folder: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Memcheck(Memcheck),
    Massif { valgrind: PathBuf, pages_as_heap: bool },
    Heaptrack(Heaptrack),
}

/// What a job asks of its tool beside the usual.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// As the plan has it.
    pub options: ToolOptions,
    /// PostgreSQL's own suppressions, where its installation brings them.
    pub postgres_suppressions: Option<PathBuf>,
}

/// How a program is started: everything that matters, nothing inherited.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Launch {
    /// The program that runs first.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// How long the server may take for what, under one tool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// From its start to the first answered query.
    pub start: Duration,
    /// For sessions to end by themselves (SIGTERM).
    pub smart: Duration,
    /// To end them and to write what memory holds (SIGINT).
    pub fast: Duration,
    /// To leave at once (SIGQUIT); then SIGKILL.
    pub immediate: Duration,
}

/// Why a tool cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A program or file of it is not installed.
    #[error("{tool} needs {what}, which is not on this host; install it with: deploy/setup.sh")]
    Missing {
        /// The tool.
        tool: Tool,
        /// The program or file.
        what: String,
    },
    /// It is there and does not run.
    #[error("run {} --version", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its folder or a file in it cannot be made.
    #[error("make {}", path.display())]
    Make {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

// === impl Tooling ===

impl Tooling {
    /// Finds the tool's programs and makes its folder.
    ///
    /// # Errors
    /// The tool is not installed or does not run, or `folder` cannot be made.
    pub fn prepare(tool: Tool, folder: &Path) -> Result<Self, ToolError> {
        Self::prepare_with(tool, folder, &Wishes::default())
    }

    /// As [`Self::prepare`], with what the job asks for.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_with(tool: Tool, folder: &Path, wishes: &Wishes) -> Result<Self, ToolError> {
        fs::create_dir_all(folder)
            .map_err(|source| ToolError::Make { path: folder.to_owned(), source })?;
        let folder = fs::canonicalize(folder)
            .map_err(|source| ToolError::Make { path: folder.to_owned(), source })?;
        let (kind, version) = match tool {
            Tool::Plain => (Kind::Plain, String::new()),
            Tool::Memcheck => {
                let valgrind = required(tool, "valgrind")?;
                let version = version_of(&valgrind)?;
                let vgdb = required(tool, "vgdb")?;
                (Kind::Memcheck(Memcheck::prepare(valgrind, vgdb, &folder, wishes)?), version)
            }
            Tool::Massif => {
                let valgrind = required(tool, "valgrind")?;
                let version = version_of(&valgrind)?;
                let pages_as_heap = wishes.options.pages_as_heap;
                (Kind::Massif { valgrind, pages_as_heap }, version)
            }
            Tool::Heaptrack => {
                let heaptrack = Heaptrack::prepare(&folder)?;
                let version = heaptrack.version();
                (Kind::Heaptrack(heaptrack), version)
            }
        };
        Ok(Self { tool, version, folder, kind })
    }

    /// How to start `postgres` with `arguments`; `library_path` is the `LD_LIBRARY_PATH` that its tree needs.
    pub fn launch(
        &self,
        postgres: &Path,
        arguments: &[OsString],
        library_path: Option<&OsStr>,
    ) -> Launch {
        let mut environment = bare_environment(&self.folder);
        if let Some(path) = library_path {
            environment.push(("LD_LIBRARY_PATH".into(), path.to_owned()));
        }
        let under = |valgrind: &Path, options: Vec<OsString>, environment| {
            let mut all = options;
            all.push(postgres.into());
            all.extend_from_slice(arguments);
            Launch { program: valgrind.to_owned(), arguments: all, environment }
        };
        match &self.kind {
            Kind::Plain => Launch {
                program: postgres.to_owned(),
                arguments: arguments.to_owned(),
                environment,
            },
            Kind::Memcheck(memcheck) => under(&memcheck.valgrind, memcheck.options(), environment),
            Kind::Massif { valgrind, pages_as_heap } => {
                under(valgrind, massif_options(&self.folder, *pages_as_heap), environment)
            }
            Kind::Heaptrack(heaptrack) => {
                environment.extend(heaptrack.environment());
                Launch {
                    program: postgres.to_owned(),
                    arguments: arguments.to_owned(),
                    environment,
                }
            }
        }
    }

    /// memcheck's checks, when this is memcheck.
    pub fn memcheck(&self) -> Option<&Memcheck> {
        match &self.kind {
            Kind::Memcheck(memcheck) => Some(memcheck),
            _ => None,
        }
    }

    /// heaptrack's files, when this is heaptrack.
    pub fn heaptrack(&self) -> Option<&Heaptrack> {
        match &self.kind {
            Kind::Heaptrack(heaptrack) => Some(heaptrack),
            _ => None,
        }
    }

    /// How long the server may take for what.
    pub fn limits(&self) -> Limits {
        let seconds = Duration::from_secs;
        match self.tool {
            Tool::Plain => Limits {
                start: seconds(60),
                smart: seconds(5),
                fast: seconds(60),
                immediate: seconds(10),
            },
            Tool::Heaptrack => Limits {
                start: seconds(90),
                smart: seconds(10),
                fast: seconds(120),
                immediate: seconds(20),
            },
            // Every process walks its whole heap on its way out.
            Tool::Memcheck | Tool::Massif => Limits {
                start: seconds(180),
                smart: seconds(30),
                fast: seconds(180),
                immediate: seconds(30),
            },
        }
    }

    /// Pids of the processes that the tool wrote a report for, sorted.
    ///
    /// # Errors
    /// The tool's folder cannot be read.
    pub fn seen(&self) -> io::Result<Vec<u32>> {
        Ok(self.reports()?.into_keys().collect())
    }

    /// Massif counts pages that are mapped, not blocks that malloc gives out.
    pub fn counts_pages(&self) -> bool {
        matches!(self.kind, Kind::Massif { pages_as_heap: true, .. })
    }

    /// What the tool wrote for each process, by pid. Complete once the server has stopped.
    ///
    /// # Errors
    /// The tool's folder cannot be read.
    pub fn reports(&self) -> io::Result<BTreeMap<u32, PathBuf>> {
        let pid_of: fn(&str) -> Option<&str> = match self.tool {
            Tool::Plain => return Ok(BTreeMap::new()),
            Tool::Memcheck => |name| name.strip_suffix(".log"),
            Tool::Massif => |name| name.strip_prefix("massif."),
            Tool::Heaptrack => |name| name.strip_prefix("ht.")?.strip_suffix(".raw"),
        };
        let mut reports = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(pid) = name.to_str().and_then(pid_of).and_then(|pid| pid.parse().ok()) {
                reports.insert(pid, entry.path());
            }
        }
        Ok(reports)
    }
}

// === impl Launch ===

impl Launch {
    /// The command, with this environment alone.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().cloned());
        command
    }
}

/// What every program of a job gets: no names, no locale, a temporary folder inside the job's.
pub fn bare_environment(temporary: &Path) -> Vec<(OsString, OsString)> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut environment: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), path),
        ("LC_ALL".into(), "C".into()),
        ("TZ".into(), "UTC".into()),
        ("TMPDIR".into(), temporary.into()),
    ];
    // A valgrind outside its place of installation is found by this.
    if let Some(place) = env::var_os("VALGRIND_LIB") {
        environment.push(("VALGRIND_LIB".into(), place));
    }
    environment
}

/// Where `name` is found on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
    })
}

fn required(tool: Tool, name: &str) -> Result<PathBuf, ToolError> {
    find_program(name).ok_or_else(|| ToolError::Missing { tool, what: name.to_owned() })
}

fn version_of(program: &Path) -> Result<String, ToolError> {
    let run = |source| ToolError::Run { program: program.to_owned(), source };
    let output = Command::new(program).arg("--version").output().map_err(run)?;
    if !output.status.success() {
        return Err(run(io::Error::other(output.status.to_string())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// One snapshot file per process; stacks deep enough to reach past SPI into the statement.
///
/// With `pages_as_heap` massif counts what the process maps instead of what malloc gives out: an mmap of the extension's own shows.
fn massif_options(folder: &Path, pages_as_heap: bool) -> Vec<OsString> {
    let mut out = OsString::from("--massif-out-file=");
    out.push(folder.join("massif.%p"));
    let mut log = OsString::from("--log-file=");
    log.push(folder.join("%p.massif-log"));
    let mut options: Vec<OsString> = vec![
        "--tool=massif".into(),
        "--trace-children=yes".into(),
        "--vgdb=no".into(),
        "--depth=30".into(),
        "--max-snapshots=200".into(),
        out,
        log,
    ];
    if pages_as_heap {
        options.push("--pages-as-heap=yes".into());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_launch_carries_a_name_that_the_channel_is_made_from() {
        let folder = tempfile::tempdir().unwrap();
        for tool in [Tool::Plain, Tool::Memcheck, Tool::Massif] {
            let tooling = Tooling::prepare(tool, folder.path()).unwrap();
            let launch = tooling.launch(Path::new("/pg/bin/postgres"), &["-D".into()], None);
            let names: Vec<&OsStr> = launch.environment.iter().map(|(name, _)| &**name).collect();
            for forbidden in ["LOGNAME", "USER", "HOST", "HOSTNAME"] {
                assert!(!names.contains(&OsStr::new(forbidden)), "{tool}: {forbidden}");
            }
            assert_eq!(tooling.version.is_empty(), tool == Tool::Plain);
        }
    }

    #[test]
    fn memcheck_is_started_as_its_live_checks_need_it() {
        let folder = tempfile::tempdir().unwrap();
        let tooling = Tooling::prepare(Tool::Memcheck, folder.path()).unwrap();
        let launch = tooling.launch(Path::new("/pg/bin/postgres"), &["-D".into()], None);
        let prefix = format!("--vgdb-prefix={}/vgdb", tooling.folder.display());
        for option in ["--trace-children=yes", "--vgdb=yes", prefix.as_str()] {
            assert!(launch.arguments.iter().any(|argument| argument == option), "{option}");
        }
        assert_eq!(launch.arguments.last().unwrap(), "-D");
    }

    #[test]
    fn reports_are_told_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let tooling = Tooling::prepare(Tool::Memcheck, folder.path()).unwrap();
        for name in ["12.log", "7.log", "vgdb-12", "x.log", "9.log.zst"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(tooling.seen().unwrap(), [7, 12]);
    }
}
