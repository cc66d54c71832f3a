//! The coordinator's settings.

use crate::folders;
use crate::settings::kind::Kind::{AddressOrOff, Filter, Path, Time};
use crate::settings::resolve::Settings;
use crate::settings::{
    Default::{Chosen, Fixed},
    Key,
};
use pgsoak_coordinator::config::{CoordinatorConfig, HttpListen};

/// All of them. A table's settings stand together; those without a table first.
pub const KEYS: &[Key] = &[
    Key::new(
        "listen",
        AddressOrOff,
        Fixed("127.0.0.1:7420"),
        "TCP address for agents and clients (gRPC). Keep it on loopback, a tunnel or a trusted network.",
    ),
    Key::new(
        "socket",
        Path,
        Chosen { words: "`socket` in the data folder", sample: "/run/pgsoak/coordinator.socket" },
        "Unix socket beside it.",
    ),
    Key::new(
        "data_dir",
        Path,
        Chosen {
            words: "/var/lib/pgsoak/coordinator for root, else ~/.local/share/pgsoak/coordinator",
            sample: "/var/lib/pgsoak/coordinator",
        },
        "Catalogue, runs and artifacts. One coordinator at a time works in it.",
    )
    .variable("PGSOAK_COORDINATOR_DATA"),
    Key::new(
        "log",
        Filter,
        Fixed("info"),
        "What is logged on standard error (\"info\", \"pgsoak_coordinator=debug\").",
    )
    .live(),
    Key::new(
        "heartbeat_every",
        Time(1, 600),
        Fixed("5s"),
        "How often agents say that they are there.",
    ),
    Key::new(
        "lease_ttl",
        Time(2, 3_600),
        Fixed("30s"),
        "Silence after which an agent counts as unreachable; its jobs go on by themselves. At least twice `heartbeat_every`.",
    ),
    Key::new(
        "http.listen",
        AddressOrOff,
        Fixed("127.0.0.1:7421"),
        "Address of the web pages, /metrics, /healthz and /readyz (HTTP, read only, without authentication). When nobody sets it and the \
         address is taken, the coordinator starts without it.",
    ),
];

/// What a coordinator is started with.
///
/// # Errors
///
/// Names settings that do not go together.
pub fn config(settings: &Settings) -> anyhow::Result<CoordinatorConfig> {
    let data_dir = settings
        .path("data_dir")?
        .unwrap_or_else(|| folders::coordinator_dir(&folders::default_data_dir()));
    let socket = settings.path("socket")?.unwrap_or_else(|| folders::socket_of(&data_dir));
    let mut config = CoordinatorConfig::new(data_dir);
    config.listen = settings.address("listen")?;
    config.socket = Some(socket);
    config.http = match settings.address("http.listen")? {
        None => HttpListen::Off,
        // Nobody chose it: a second coordinator on the host need not care.
        Some(address) if settings.is_default("http.listen") => HttpListen::IfFree(address),
        Some(address) => HttpListen::At(address),
    };
    set(&mut config.heartbeat_every, settings.time("heartbeat_every")?);
    set(&mut config.lease_ttl, settings.time("lease_ttl")?);
    anyhow::ensure!(
        config.lease_ttl >= 2 * config.heartbeat_every,
        crate::exit::Coded::usage(
            "`lease_ttl` is less than twice `heartbeat_every`: one late heartbeat would make an agent unreachable"
        )
    );
    Ok(config)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Daemon, resolve};

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_code() {
        let settings = resolve::resolve(Daemon::Coordinator, None, |_| None, Vec::new()).unwrap();
        let of_table = config(&settings).unwrap();
        let mut of_code = CoordinatorConfig::new(of_table.data_dir.clone());
        of_code.listen = Some("127.0.0.1:7420".parse().unwrap());
        of_code.http = HttpListen::IfFree("127.0.0.1:7421".parse().unwrap());
        of_code.socket.clone_from(&of_table.socket);
        assert_eq!(of_table, of_code);
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        let file = Some(("c.toml", "heartbeat_every = \"20s\"\n"));
        let settings = resolve::resolve(Daemon::Coordinator, file, |_| None, Vec::new()).unwrap();
        let said = config(&settings).unwrap_err().to_string();
        assert!(said.contains("less than twice `heartbeat_every`"), "{said}");
    }
}
