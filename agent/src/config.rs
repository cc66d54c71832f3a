//! What an agent needs to know to start.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

/// Checked settings of one agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where the coordinator listens.
    pub coordinator: Endpoint,
    /// Holds the agent's id and its jobs' folders. When the agent is root, the unprivileged user must be able to reach it.
    pub data_dir: PathBuf,
    /// Holds builds, PostgreSQL trees and cluster templates; outlives checkouts and data folders.
    pub cache_dir: PathBuf,
    /// Unique in the fleet.
    pub name: String,
    /// Jobs at once, at least 1.
    pub slots: u32,
    /// What plans may ask for.
    pub labels: BTreeMap<String, String>,
    /// Program and arguments that run a job when the job's folder is appended: `pgsoak agent run-job`.
    pub runner: Vec<OsString>,
    /// Further `pg_config`s to offer, beside those that are found.
    pub pg_configs: Vec<PathBuf>,
    /// When the daemon is asked to end: cancel all jobs and wait until they are gone (`pgsoak run`), instead of leaving them
    /// to the next daemon on the data folder.
    pub stop_jobs_on_shutdown: bool,
    /// Lets it in, where the coordinator asks for tokens.
    pub token: Option<Token>,
    /// Load of the last minute, in percent of the cores, above which it starts no job; `None`: any.
    pub max_load_percent: Option<u32>,
}

/// A secret that no log shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl Token {
    /// Keeps it.
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The text, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where a coordinator listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `http://HOST:PORT`
    Tcp(String),
    /// `unix:PATH`
    Unix(PathBuf),
}
