//! The settings of the daemons: flags win over the environment, it over the file, it over the default.
//!
//! A setting is one line of a table (`coordinator::KEYS`, `agent::KEYS`): from it come the parsing, the messages, the example
//! file, `config show` and what a reload may change. Add a line there, and read it in `config` beside it; then write the example
//! anew (`pgsoak config example coordinator > deploy/coordinator.toml`).
//!
//! `kind` (what a value looks like) · `file` (TOML) · `resolve` (what is in force) · `secrets` · `example` · the daemons' tables.

pub mod agent;
pub mod coordinator;
pub mod example;
pub mod file;
pub mod kind;
pub mod resolve;
pub mod secrets;

use kind::Kind;

/// One setting of a daemon.
#[derive(Debug)]
pub struct Key {
    /// Tables and key, joined by points. `*` stands for a name that people choose: `webhook.*.url`.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// What is in force when nobody says anything.
    pub default: Default,
    /// What it does, with its unit: one or more sentences.
    pub about: &'static str,
    /// Whether SIGHUP applies a change.
    pub reload: Reload,
    /// The variable, where it is not `PGSOAK_` and the name.
    pub variable: Option<&'static str>,
}

/// What is in force when nobody says anything.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This, written as in the environment.
    Fixed(&'static str),
    /// Nothing, or what the daemon chooses at its start.
    Chosen {
        /// What that is, for people.
        words: &'static str,
        /// A value for the example.
        sample: &'static str,
    },
    /// A table of this kind without it is refused.
    Required {
        /// A value for the example.
        sample: &'static str,
    },
}

/// Whether SIGHUP applies a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// At once.
    Live,
    /// At the next start.
    Restart,
}

/// Which daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Daemon {
    /// The coordinator.
    Coordinator,
    /// The agent.
    Agent,
}

// === impl Key ===

impl Key {
    /// A setting that needs a restart.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: Default,
        about: &'static str,
    ) -> Self {
        Self { name, kind, default, about, reload: Reload::Restart, variable: None }
    }

    /// The same, applied by SIGHUP.
    pub const fn live(self) -> Self {
        Self { reload: Reload::Live, ..self }
    }

    /// The same, with a variable of another name.
    pub const fn variable(self, name: &'static str) -> Self {
        Self { variable: Some(name), ..self }
    }

    /// Its environment variable; `None` below a name that people choose.
    pub fn environment(&self) -> Option<String> {
        if self.name.contains('*') {
            return None;
        }
        let derived = || format!("PGSOAK_{}", self.name.replace('.', "_").to_uppercase());
        Some(self.variable.map_or_else(derived, str::to_owned))
    }

    /// Whether this is the setting at `path`.
    pub fn is_at(&self, path: &[&str]) -> bool {
        let mut own = self.name.split('.');
        let is_same =
            path.iter().all(|part| own.next().is_some_and(|own| own == *part || own == "*"));
        is_same && own.next().is_none()
    }

    /// The part of its name that follows `path`, when it lies below that.
    pub fn below(&self, path: &[&str]) -> Option<&'static str> {
        let mut own = self.name.split('.');
        let is_below =
            path.iter().all(|part| own.next().is_some_and(|own| own == *part || own == "*"));
        is_below.then(|| own.next()).flatten()
    }
}

// === impl Daemon ===

impl Daemon {
    /// Its settings.
    pub const fn keys(self) -> &'static [Key] {
        match self {
            Self::Coordinator => coordinator::KEYS,
            Self::Agent => agent::KEYS,
        }
    }

    /// Its name in commands and files.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
        }
    }
}
