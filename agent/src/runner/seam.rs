//! Stands in for the job's folder until it is there.

use pgsoak_proto::job::{JobSpec, Lease};
use pgsoak_proto::session::JobProgress;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The runner's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The attempt.
    pub lease: Lease,
    /// The job.
    pub spec: JobSpec,
    /// Builds and templates.
    pub cache_dir: PathBuf,
    /// The server.
    pub pg_config: PathBuf,
}

pub fn read_assignment(dir: &Path) -> Result<Assignment, String> {
    let text = std::fs::read_to_string(dir.join("assignment.json")).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

pub fn write_progress(dir: &Path, progress: &JobProgress) {
    if let Ok(text) = serde_json::to_vec(progress) {
        let partial = dir.join("progress.json.partial");
        if std::fs::write(&partial, text).is_ok() {
            let _ = std::fs::rename(partial, dir.join("progress.json"));
        }
    }
}

pub fn write_runner(dir: &Path) -> std::io::Result<()> {
    std::fs::write(dir.join("runner.json"), format!("{{\"pid\":{}}}", std::process::id()))
}
