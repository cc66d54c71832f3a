//! The agent's settings.

use crate::embedded::{self, AgentOptions};
use crate::exit::Coded;
use crate::folders;
use crate::settings::kind::Kind::{Filter, Map, Path, Text, Texts, Url, Whole};
use crate::settings::resolve::Settings;
use crate::settings::secrets;
use crate::settings::{
    Default::{Chosen, Fixed},
    Key,
};
use pgsoak_agent::config::{AgentConfig, Endpoint, Token};

/// All of them. A table's settings stand together; those without a table first.
pub const KEYS: &[Key] = &[
    Key::new(
        "coordinator",
        Url(&["http://", "unix:"]),
        Fixed("http://127.0.0.1:7420"),
        "Where the coordinator listens: http://HOST:PORT or unix:PATH.",
    ),
    Key::new(
        "data_dir",
        Path,
        Chosen {
            words: "/var/lib/pgsoak/agent for root, else ~/.local/share/pgsoak/agent",
            sample: "/var/lib/pgsoak/agent",
        },
        "The agent's id, its jobs' folders and their spools. The unprivileged user that runs PostgreSQL must reach it.",
    )
    .variable("PGSOAK_AGENT_DATA"),
    Key::new(
        "cache_dir",
        Path,
        Chosen { words: "/var/cache/pgsoak for root, else ~/.cache/pgsoak", sample: "/var/cache/pgsoak" },
        "Builds, PostgreSQL trees and cluster templates; may be removed while no job runs.",
    )
    .variable("PGSOAK_CACHE"),
    Key::new(
        "name",
        Text,
        Chosen { words: "the host's name", sample: "lab-1" },
        "Its name in the fleet, unique: 1 to 100 of A-Z a-z 0-9 . _ -.",
    )
    .variable("PGSOAK_AGENT_NAME"),
    Key::new(
        "slots",
        Whole(1, 1_024),
        Chosen { words: "the number of usable cores", sample: "4" },
        "Jobs at once.",
    ),
    Key::new(
        "token_file",
        Path,
        Chosen { words: "none", sample: "/etc/pgsoak/agent.token" },
        "A file with the token that lets it in, where the coordinator asks for one.",
    ),
    Key::new(
        "max_load_percent",
        Whole(1, 100_000),
        Chosen { words: "any load", sample: "150" },
        "Load of the last minute, in percent of the cores, above which it starts no job while it runs none itself: somebody else is at \
         work on the host.",
    ),
    Key::new(
        "pg_configs",
        Texts,
        Fixed(""),
        "Further pg_configs to offer, as paths; those in the usual places are found.",
    ),
    Key::new(
        "log",
        Filter,
        Fixed("info"),
        "What is logged on standard error (\"info\", \"pgsoak_agent=debug\").",
    )
    .live(),
    Key::new("labels", Map, Fixed(""), "What plans may ask for, such as zone = \"lab\"."),
];

/// What an agent is started with.
///
/// # Errors
///
/// Names the setting.
pub fn config(settings: &Settings) -> anyhow::Result<AgentConfig> {
    let dir = settings
        .path("data_dir")?
        .unwrap_or_else(|| folders::agent_dir(&folders::default_data_dir()));
    let url = settings.text("coordinator")?.unwrap_or_default();
    let options = AgentOptions {
        name: settings.text("name")?.map(str::to_owned),
        slots: settings.whole("slots")?.and_then(|slots| u32::try_from(slots).ok()),
        labels: settings.map("labels")?,
        pg_configs: settings.texts("pg_configs")?.into_iter().map(Into::into).collect(),
        stop_jobs_on_shutdown: false,
    };
    let mut config = embedded::agent_config(&dir, endpoint(url)?, options)?;
    config.token = secrets::token(settings, "token_file")?.map(Token::new);
    config.max_load_percent =
        settings.whole("max_load_percent")?.and_then(|percent| u32::try_from(percent).ok());
    if let Some(cache) = settings.path("cache_dir")? {
        config.cache_dir = cache;
    }
    Ok(config)
}

/// `http://HOST:PORT` or `unix:PATH`.
fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Endpoint::Unix(path.into()));
    }
    if url.starts_with("http://") {
        return Ok(Endpoint::Tcp(url.to_owned()));
    }
    Err(Coded::usage(format!("coordinator '{url}' is neither http://HOST:PORT nor unix:PATH"))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Daemon, resolve};

    #[test]
    fn a_file_makes_an_agent() {
        let text = "coordinator = \"unix:/run/c\"\nslots = 3\nname = \"a\"\ncache_dir = \"/c\"\n\
                    pg_configs = [\"/usr/bin/pg_config\"]\n[labels]\nzone = \"lab\"\n";
        let variable =
            |name: &str| (name == "PGSOAK_LABELS").then(|| "zone=x,disk=nvme".to_owned());
        let of = |variable: &dyn Fn(&str) -> Option<String>| {
            let settings =
                resolve::resolve(Daemon::Agent, Some(("a.toml", text)), variable, Vec::new())
                    .unwrap();
            config(&settings).unwrap()
        };
        let agent = of(&|_| None);
        assert_eq!(agent.coordinator, Endpoint::Unix("/run/c".into()));
        assert_eq!((agent.slots, agent.name.as_str()), (3, "a"));
        assert_eq!(agent.cache_dir, std::path::Path::new("/c"));
        assert_eq!(agent.labels["zone"], "lab");
        assert_eq!(agent.pg_configs.len(), 1);
        // A table in the environment takes the place of the whole table.
        assert_eq!(of(&variable).labels["disk"], "nvme");
    }

    #[test]
    fn slots_are_at_least_one() {
        let file = Some(("a.toml", "slots = 0\n"));
        let said = resolve::resolve(Daemon::Agent, file, |_| None, Vec::new()).unwrap_err();
        assert!(
            said.to_string().starts_with("a.toml:1: `slots`: must be a whole number, 1 to"),
            "{said}"
        );
    }
}
