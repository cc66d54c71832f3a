//! Arguments that several verbs share; each verb's own stand in its file.

use clap::Args;
use std::path::PathBuf;

/// Where the coordinator is.
#[derive(Clone, Debug, Args)]
pub struct Where {
    /// The coordinator: http://HOST:PORT or unix:PATH.
    #[arg(
        long,
        env = "PGSOAK_COORDINATOR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// Read the data folder of `pgsoak run` instead of asking a coordinator.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// A run by its id.
#[derive(Debug, Args)]
pub struct OneRun {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// For programs: one line of JSON for each change.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// A list.
#[derive(Debug, Args)]
pub struct Listing {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}
