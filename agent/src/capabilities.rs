//! What this host can do: found by trying it, not assumed.
//!
//! A tool counts when a job could be started under it here and now; a PostgreSQL when its `pg_config` answers and its server
//! is there; a build when it is complete. What is missing is told with its reason, for `doctor` and `check`.

mod builds;
mod postgres;

use crate::config::AgentConfig;
use crate::environment::Environment;
use crate::privilege;
use crate::tools::Tooling;
use pgsoak_proto::chain::chain;
use pgsoak_proto::job::Tool;
use pgsoak_proto::session::{Capabilities, ToolFound};
use std::{fs, path::Path};

/// What was found, and what was not.
#[derive(Clone, Debug)]
pub struct Survey {
    /// What jobs can count on.
    pub capabilities: Capabilities,
    /// What jobs will not find, with the way out.
    pub missing: Vec<Missing>,
}

/// Something that jobs could use and that is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// "memcheck", "postgres", "user" …
    pub what: String,
    /// One sentence: what is wrong, where, and what to do.
    pub why: String,
}

/// What jobs can count on. Starts programs; takes a second or two.
pub fn find(config: &AgentConfig) -> Capabilities {
    let survey = survey(config);
    for Missing { what, why } in &survey.missing {
        tracing::info!(what, why, "this host lacks something that jobs may ask for");
    }
    survey.capabilities
}

/// What jobs can count on and what not. Starts programs; takes a second or two.
pub fn survey(config: &AgentConfig) -> Survey {
    let mut missing = Vec::new();
    let environment = Environment::read();
    let tools = find_tools(&config.data_dir, &mut missing);
    let postgres = postgres::find(&config.cache_dir, &config.pg_configs, &mut missing);
    if postgres.is_empty() {
        missing.push(Missing {
            what: "postgres".to_owned(),
            why: "no PostgreSQL server was found by its pg_config; run deploy/setup.sh, or name one in the agent's settings"
                .to_owned(),
        });
    }
    let builds = builds::find(&config.cache_dir);
    missing.extend(unreachable(config));
    let capabilities = Capabilities {
        slots: config.slots.max(1),
        cores: environment.cores,
        memory_bytes: environment.memory_bytes,
        kernel: environment.kernel,
        tools,
        postgres,
        builds,
        labels: config.labels.clone(),
        host: environment.host,
    };
    Survey { capabilities, missing }
}

/// Prepares each tool as a job would, in a folder of its own that is removed again.
fn find_tools(data_dir: &Path, missing: &mut Vec<Missing>) -> Vec<ToolFound> {
    let folder = data_dir.join(format!("capabilities-{}", std::process::id()));
    let found = Tool::ALL.into_iter().filter_map(|tool| {
        match Tooling::prepare(tool, &folder.join(tool.label())) {
            Ok(tooling) => Some(ToolFound { tool, version: tooling.version }),
            Err(error) => {
                missing.push(Missing { what: tool.label().to_owned(), why: chain(&error) });
                None
            }
        }
    });
    let found = found.collect();
    if let Err(error) = fs::remove_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "a scratch folder stays behind");
    }
    found
}

/// As root: whether there is a user to run jobs as, and whether it can get at what it needs.
fn unreachable(config: &AgentConfig) -> Vec<Missing> {
    if !privilege::is_root() {
        return Vec::new();
    }
    let Some(user) = privilege::unprivileged_user() else {
        let why = "this agent is root, PostgreSQL refuses to be, and there is neither a user postgres nor a user nobody; \
                   start the agent as another user"
            .to_owned();
        return vec![Missing { what: "user".to_owned(), why }];
    };
    let blocked = |path: &Path| {
        privilege::reachable_by(&user, path).err().map(|blocks| (path.to_owned(), blocks))
    };
    let folders = [&config.data_dir, &config.cache_dir];
    let blocked = folders.into_iter().filter_map(|path| blocked(path));
    blocked
        .map(|(path, blocks)| Missing {
            what: "user".to_owned(),
            why: format!(
                "{}, which jobs run as, cannot reach {}: {} is closed to it; open it with: chmod a+rx {}",
                user.name,
                path.display(),
                blocks.display(),
                blocks.display()
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_its_tools_and_keeps_no_trace_of_the_search() {
        let data_dir = tempfile::tempdir().unwrap();
        let mut missing = Vec::new();
        let tools = find_tools(data_dir.path(), &mut missing);
        let version = |tool| {
            tools.iter().find(|found| found.tool == tool).map(|found| found.version.as_str())
        };
        assert_eq!(version(Tool::Plain), Some(""));
        assert!(
            version(Tool::Memcheck).unwrap().contains(|c: char| c.is_ascii_digit()),
            "{missing:?}"
        );
        assert_eq!(version(Tool::Memcheck), version(Tool::Massif));
        // What is not there says why.
        let is_told = missing.iter().any(|missing| missing.what == Tool::Heaptrack.label());
        assert_eq!(version(Tool::Heaptrack).is_none(), is_told, "{missing:?}");
        assert_eq!(fs::read_dir(data_dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn this_host_has_a_server() {
        let mut missing = Vec::new();
        let found = postgres::find(Path::new("/nowhere"), &[], &mut missing);
        assert!(found.iter().all(|found| found.pg_config.is_absolute()));
        assert!(!found.is_empty(), "install one with deploy/setup.sh");
    }
}
