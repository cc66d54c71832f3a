//! The lines of postgresql.conf: the harness's defaults, the workload's, and those that no workload may change.
//!
//! `fsync` is off unless the workload turns it on: a soak measures memory, and its cluster is thrown away. It changes the time of commits, so the
//! settings that differ from their boot values stand in the evidence.

use crate::cluster::PORT;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

/// What the harness relies on; a workload that sets one is refused.
const RESERVED: [&str; 14] = [
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_permissions",
    "shared_preload_libraries",
    "data_directory",
    "hba_file",
    "logging_collector",
    "log_destination",
    "log_line_prefix",
    "lc_messages",
    "restart_after_crash",
    "dynamic_shared_memory_type",
    "external_pid_file",
];
/// What a workload may override.
const DEFAULTS: [(&str, &str); 3] =
    [("fsync", "off"), ("log_checkpoints", "off"), ("log_min_messages", "warning")];
/// Beside the workload's sessions: superuser reserve, and whoever looks in.
const SPARE_SESSIONS: u32 = 20;

/// Checked lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    lines: BTreeMap<String, String>,
    preload: String,
}

/// A setting that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No name of a setting.
    #[error("'{name}' in [cluster] settings is not the name of a PostgreSQL setting")]
    Name {
        /// What stands there.
        name: String,
    },
    /// The harness's own.
    #[error(
        "[cluster] settings must not set {name}: the harness sets it (libraries go into [cluster] preload)"
    )]
    Reserved {
        /// The setting.
        name: String,
    },
    /// A value that would break the file.
    #[error("the value of {name} in [cluster] holds a line break or a null byte")]
    Value {
        /// The setting.
        name: String,
    },
}

// === impl Settings ===

impl Settings {
    /// Checks the workload's settings; `sessions` is how many connect at once.
    ///
    /// # Errors
    /// A name or value that cannot be written, or one that the harness sets itself.
    pub fn new(
        preload: &[String],
        settings: &BTreeMap<String, String>,
        sessions: u32,
    ) -> Result<Self, SettingsError> {
        let mut lines: BTreeMap<String, String> = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let connections = sessions.saturating_add(SPARE_SESSIONS).max(100);
        lines.insert("max_connections".to_owned(), connections.to_string());
        for (name, value) in settings {
            // PostgreSQL takes names in any case.
            let name = name.to_ascii_lowercase();
            if !is_name(&name) {
                return Err(SettingsError::Name { name });
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(SettingsError::Reserved { name });
            }
            if value.contains(['\n', '\r', '\0']) {
                return Err(SettingsError::Value { name });
            }
            lines.insert(name, value.clone());
        }
        let preload = preload.join(",");
        if preload.contains(['\n', '\r', '\0']) {
            return Err(SettingsError::Value { name: "preload".to_owned() });
        }
        Ok(Self { lines, preload })
    }

    /// Appends the lines to a postgresql.conf; the last one of a name counts.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_to(&self, conf: &Path, socket_dir: &Path) -> io::Result<()> {
        let socket_dir = socket_dir
            .to_str()
            .filter(|path| !path.contains(['\n', '\r']))
            .ok_or_else(|| io::Error::other("the socket's folder has a name that is not UTF-8"))?;
        OpenOptions::new().append(true).open(conf)?.write_all(self.render(socket_dir).as_bytes())
    }

    fn render(&self, socket_dir: &str) -> String {
        let mut text = String::from("\n# pgsoak\n");
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        };
        for (name, value) in &self.lines {
            line(name, value);
        }
        line("listen_addresses", "");
        line("port", &PORT.to_string());
        // A list; quotes keep a comma in a path from cutting it.
        line("unix_socket_directories", &format!("\"{}\"", socket_dir.replace('"', "\"\"")));
        line("unix_socket_permissions", "0700");
        line("shared_preload_libraries", &self.preload);
        line("logging_collector", "off");
        line("log_destination", "stderr");
        line("log_line_prefix", "%m [%p] %b %a: ");
        line("lc_messages", "C");
        // A crash of one backend ends the server: it is the job's result, and must not be papered over.
        line("restart_after_crash", "off");
        // Files in the data folder, so that nothing outlives it in /dev/shm.
        line("dynamic_shared_memory_type", "mmap");
        text
    }
}

fn is_name(name: &str) -> bool {
    let mut parts = name.split('.');
    name.len() <= 128
        && parts.clone().count() <= 2
        && parts.all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Settings::new(&["pg_tviews".to_owned(), "other".to_owned()], &pairs, 3)
    }

    #[test]
    fn the_workload_overrides_defaults_and_quotes_do_not_escape() {
        let text = settings(&[("FSync", "on"), ("my.thing", "it's")]).unwrap().render("/tmp/a b");
        assert!(text.contains("\nfsync = 'on'\n"));
        assert!(!text.contains("fsync = 'off'"));
        assert!(text.contains("\nmy.thing = 'it''s'\n"));
        assert!(text.contains("\nunix_socket_directories = '\"/tmp/a b\"'\n"));
        assert!(text.contains("\nshared_preload_libraries = 'pg_tviews,other'\n"));
        assert!(text.contains("\nmax_connections = '100'\n"));
    }

    #[test]
    fn what_the_harness_sets_is_refused() {
        let said = settings(&[("Restart_After_Crash", "on")]).unwrap_err().to_string();
        assert!(said.contains("must not set restart_after_crash"), "{said}");
        assert!(matches!(settings(&[("a b", "")]), Err(SettingsError::Name { .. })));
        assert!(matches!(settings(&[("a.b.c", "")]), Err(SettingsError::Name { .. })));
        assert!(matches!(settings(&[("a", "x\nport = 1")]), Err(SettingsError::Value { .. })));
    }
}
