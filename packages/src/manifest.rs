//! What a package says of itself: `build.json`, as `deploy/build-extension.sh` writes it and `pgsoak build push` completes it.

use serde::{Deserialize, Serialize};

/// The name of the file in a package.
pub const FILE: &str = "build.json";

/// What a package is and where it comes from. Empty texts: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The extension's name.
    pub extension: String,
    /// Its release, as published.
    pub release: String,
    /// The major of PostgreSQL it was built for.
    pub postgres: u32,
    /// As in `rustc --version` or `cc --version`.
    #[serde(default)]
    pub toolchain: String,
    /// Version of pgrx.
    #[serde(default)]
    pub pgrx: String,
    /// Commit of the sources.
    #[serde(default)]
    pub commit: String,
    /// What people should know of how it was built.
    #[serde(default)]
    pub note: String,
}
