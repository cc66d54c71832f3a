//! heaptrack in every process of the server.
//!
//! heaptrack mutes itself in forked children, so the server gets a small preload library instead (`heapshim`), which starts heaptrack anew
//! in every child with a raw file of its own: `ht.<pid>.raw`.

use crate::tools::ToolError;
use pgsoak_proto::job::Tool;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// File name of the preload library as cargo builds it.
const SHIM: &str = "libpgsoak_heapshim.so";
/// Overrides where the preload library is looked for.
const SHIM_VARIABLE: &str = "PGSOAK_HEAPSHIM";
/// Where distributions put heaptrack's own library.
const INJECT_PLACES: [&str; 5] = [
    "/usr/lib/heaptrack/libheaptrack_inject.so",
    "/usr/lib/x86_64-linux-gnu/heaptrack/libheaptrack_inject.so",
    "/usr/lib/aarch64-linux-gnu/heaptrack/libheaptrack_inject.so",
    "/usr/lib64/heaptrack/libheaptrack_inject.so",
    "/usr/local/lib/heaptrack/libheaptrack_inject.so",
];

/// heaptrack in one job.
#[derive(Clone, Debug)]
pub struct Heaptrack {
    shim: PathBuf,
    inject: PathBuf,
    folder: PathBuf,
}

// === impl Heaptrack ===

impl Heaptrack {
    /// Finds both libraries.
    ///
    /// # Errors
    /// One of them is not on this host.
    pub(super) fn prepare(folder: &Path) -> Result<Self, ToolError> {
        let missing =
            |what: &str| ToolError::Missing { tool: Tool::Heaptrack, what: what.to_owned() };
        let inject = INJECT_PLACES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .ok_or_else(|| missing("libheaptrack_inject.so (Debian: package heaptrack)"))?;
        let shim = find_shim().ok_or_else(|| {
            missing(&format!("{SHIM} beside the pgsoak program (or its path in {SHIM_VARIABLE})"))
        })?;
        Ok(Self { shim, inject, folder: folder.to_owned() })
    }

    /// As `heaptrack --version` says it; empty where only the library is installed.
    pub fn version(&self) -> String {
        Command::new("heaptrack")
            .arg("--version")
            .output()
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    }

    /// What heaptrack writes of a process.
    pub fn raw_file(&self, pid: u32) -> PathBuf {
        self.folder.join(format!("ht.{pid}.raw"))
    }

    /// What the server's environment gets beside the usual.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.shim.clone().into_os_string()),
            ("PGSOAK_HEAPTRACK_INJECT".into(), self.inject.clone().into_os_string()),
            ("PGSOAK_HEAPTRACK_FOLDER".into(), self.folder.clone().into_os_string()),
        ]
    }
}

/// The variable, beside the program, beside the tests of a build.
fn find_shim() -> Option<PathBuf> {
    if let Some(path) = env::var_os(SHIM_VARIABLE) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let program = env::current_exe().ok()?;
    program.ancestors().skip(1).take(2).map(|folder| folder.join(SHIM)).find(|path| path.is_file())
}
