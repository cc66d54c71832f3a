//! A workload: the cluster's settings and phases of SQL, with their checks and budgets. Knows nothing of tools or hosts.

mod budget;
mod parse;

use crate::file_error::FileError;
use std::{collections::BTreeMap, time::Duration};

/// Name of the phase that creates the extension, the first of a workload that has one.
pub const EXTENSION_PHASE: &str = "extension";

/// A checked workload file.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name, `[a-z0-9_]{1,63}`.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// `CREATE EXTENSION … CASCADE`, measured as a phase of its own (named `extension`, the first); left out in a control arm.
    pub extension: Option<String>,
    /// The cluster.
    pub cluster: Cluster,
    /// In the order they run; at least one; names are unique.
    pub phases: Vec<Phase>,
    /// Bytes per row that the workload may hold by design.
    pub allow_bytes_per_row: f64,
    /// What is not judged at the start.
    pub warm_up: Option<WarmUp>,
}

/// How the cluster is set up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// `shared_preload_libraries`; left out in a control arm.
    pub preload: Vec<String>,
    /// Lines of postgresql.conf; left out in a control arm when the name carries a dot and starts with a preloaded library.
    pub settings: BTreeMap<String, String>,
}

/// What is not judged at the start of a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WarmUp {
    /// So long.
    Time(Duration),
    /// So many rounds.
    Rounds(u32),
}

/// One phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name, unique in the workload.
    pub name: String,
    /// Statements for the extension; `${n}`, `${worker}`, `${round}`, `${seed}` are replaced as text.
    pub sql: String,
    /// What a control arm runs instead; `None`: the same; empty: nothing.
    pub control_sql: Option<String>,
    /// Must be true after the phase (loop: after every round). Not asked in a control arm unless `control_check` is given.
    pub check: Option<String>,
    /// The check of a control arm.
    pub control_check: Option<String>,
    /// A query for one number: rows the session's objects hold; feeds `allow_bytes_per_row`.
    pub rows: Option<String>,
    /// What memory it may use.
    pub budget: Budget,
    /// Once or in rounds.
    pub kind: Kind,
}

/// Once or in rounds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Each statement once, in the main session.
    Once,
    /// Operations in rounds, in workers.
    Loop(Loop),
}

/// The shape of a loop phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// Sessions of their own, 1 to 1,000.
    pub workers: u32,
    /// Per worker and round, at least 1.
    pub operations: u64,
    /// How long it goes on.
    pub length: Length,
    /// Operations per second and worker; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// When workers take a new connection.
    pub reconnect: Reconnect,
}

/// How long a loop goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// So many rounds.
    Rounds(u32),
    /// Rounds go on until the time is up.
    For(Duration),
}

/// When workers take a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Never.
    Never,
    /// Before every round but the first.
    EveryRound,
    /// After so many operations.
    Every(u64),
}

/// What memory a phase may use. Bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// RssAnon of the session at rest, after less before.
    pub growth: Option<u64>,
    /// Loop phases: growth at rest per operation, bytes.
    pub growth_per_operation: Option<f64>,
    /// Largest sampled RssAnon of a session of the phase, less the main session's RssAnon before the first phase.
    pub peak: Option<u64>,
    /// At rest after this phase, less at rest before the phase `since`.
    pub residual: Option<Residual>,
}

/// What may be left after a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    /// Bytes.
    pub bytes: u64,
    /// Name of an earlier phase.
    pub since: String,
}

// === impl Workload ===

impl Workload {
    /// Reads and checks a workload's file. `file_name` is how messages call it; its stem is the default of `name`.
    ///
    /// Defaults: a phase runs once; a loop has 20 rounds of 1,000 operations in one worker, as fast as it goes, and keeps its
    /// connections.
    ///
    /// # Errors
    ///
    /// Every problem of the file, by line, each with the way out.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Vec<FileError>> {
        parse::workload(file_name, text)
    }

    /// The phase of that name. The phase that creates the extension is not among them.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

// === impl Loop ===

impl Loop {
    /// Operations per worker and round under a job's `scale`; at least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn scaled_operations(&self, scale: f64) -> u64 {
        // A float to integer cast saturates, and NaN gives 0.
        ((self.operations as f64 * scale).round() as u64).max(1)
    }
}
