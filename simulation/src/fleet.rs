//! Everybody on the simulated network: the coordinator, agents on their machines, a relay, people.

use crate::dice::Dice;
use crate::machine::Machine;
use crate::people::{self, Desk};
use crate::relay::{self, Acknowledged};
use crate::shape::{LOOK, Shape};
use crate::wire::{dial, incoming};
use pgsoak_agent::config::{AgentConfig, Endpoint};
use pgsoak_agent::link::{Connection, Surroundings};
use pgsoak_coordinator::app;
use pgsoak_coordinator::config::{CoordinatorConfig, HttpListen, KeepConfig, NotifyConfig};
use pgsoak_coordinator::domain::limits::Limits;
use pgsoak_coordinator::domain::time::UnixUs;
use pgsoak_coordinator::engine::clock::Clock;
use pgsoak_coordinator::store::Store;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::session::{Capabilities, PostgresFound};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

/// Runs are packed while others go on, and while the coordinator is killed.
const SEAL_AFTER: Duration = Duration::from_secs(900);
/// Wall time when a world begins, microseconds since 1970.
const WALL: i64 = 1_800_000_000_000_000;

/// A host with an agent.
#[derive(Debug)]
pub struct Host {
    /// On the network.
    pub name: String,
    /// Its runners.
    pub machine: Machine,
    /// Its data folder.
    pub data: PathBuf,
    /// The host that its agent talks to.
    pub talks_to: &'static str,
}

/// All of them.
pub struct Fleet {
    /// The hosts with agents.
    pub hosts: Vec<Host>,
    /// What people want and know.
    pub desk: Arc<Mutex<Desk>>,
    /// What the relay saw acknowledged.
    pub acknowledged: Acknowledged,
    /// What the coordinator has stored, while it is up.
    pub store: Rc<RefCell<Option<Store>>>,
    /// How many times it came up.
    pub starts: Rc<Cell<u64>>,
    /// Its wall clock's error, microseconds; read when it starts.
    pub wall_error_us: Rc<Cell<i64>>,
}

// === impl Fleet ===

impl Fleet {
    /// Puts everybody on the network; nothing has happened yet.
    pub fn begin(sim: &mut Sim<'static>, shape: Shape, dice: &mut Dice, folder: &Path) -> Self {
        let store = Rc::new(RefCell::new(None));
        let starts = Rc::new(Cell::new(0));
        let wall_error_us = Rc::new(Cell::new(0));
        coordinator(sim, shape, folder.join("coordinator"), &store, &starts, &wall_error_us);
        let acknowledged = Acknowledged::default();
        let relays = Rc::new(RefCell::new(dice.fork()));
        let seen = Arc::clone(&acknowledged);
        sim.host("relay", move || relay::serve(relays.borrow_mut().fork(), Arc::clone(&seen)));
        let desk = Arc::new(Mutex::new(Desk::default()));
        let at = Arc::clone(&desk);
        sim.host("people", move || people::work(Arc::clone(&at)));
        let hosts =
            (0..shape.agents).map(|number| agent(sim, shape, dice, folder, number)).collect();
        Self { hosts, desk, acknowledged, store, starts, wall_error_us }
    }
}

fn coordinator(
    sim: &mut Sim<'static>,
    shape: Shape,
    data: PathBuf,
    store: &Rc<RefCell<Option<Store>>>,
    starts: &Rc<Cell<u64>>,
    wall_error_us: &Rc<Cell<i64>>,
) {
    let (store, starts, wall_error_us) =
        (Rc::clone(store), Rc::clone(starts), Rc::clone(wall_error_us));
    sim.host("coordinator", move || {
        let (store, starts) = (Rc::clone(&store), Rc::clone(&starts));
        let config = CoordinatorConfig {
            data_dir: data.clone(),
            listen: None,
            socket: None,
            http: HttpListen::Off,
            notify: NotifyConfig::default(),
            artifacts_url: String::new(),
            keep: KeepConfig { seal_after: SEAL_AFTER, ..KeepConfig::default() },
            heartbeat_every: shape.heartbeat_every,
            lease_ttl: shape.heartbeat_every * 5,
            tokens: Vec::new(),
            canary: None,
        };
        let wall_error_us = wall_error_us.get();
        async move {
            let elapsed = i64::try_from(turmoil::sim_elapsed().unwrap_or_default().as_micros())?;
            let wall = u64::try_from(WALL + elapsed + wall_error_us)?;
            let limits = Limits {
                tick_every: Duration::from_secs(10),
                housekeeping_every: Duration::from_secs(60),
                ..Limits::default()
            };
            let incoming = incoming().await;
            let running =
                app::start_on(config, limits, Clock::showing(UnixUs(wall)), incoming).await?;
            *store.borrow_mut() = Some(running.store().clone());
            starts.set(starts.get() + 1);
            running.failed().await;
            Err("the coordinator ended by itself".into())
        }
    });
}

fn agent(
    sim: &mut Sim<'static>,
    shape: Shape,
    dice: &mut Dice,
    folder: &Path,
    number: u64,
) -> Host {
    let name = format!("a{number}");
    let data = folder.join(&name);
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("agent-id"), AgentId::from_bytes(dice.id()).to_string()).unwrap();
    let machine = Machine::new(shape, dice.fork());
    let talks_to = if dice.one_in(3) { "relay" } else { "coordinator" };
    let slots = u32::try_from(1 + dice.below(3)).unwrap();
    let config = AgentConfig {
        coordinator: Endpoint::Tcp("http://simulated".to_owned()),
        data_dir: data.clone(),
        cache_dir: folder.join("cache"),
        name: name.clone(),
        slots,
        labels: BTreeMap::new(),
        runner: Vec::new(),
        pg_configs: Vec::new(),
        stop_jobs_on_shutdown: false,
        token: None,
        max_load_percent: None,
    };
    let surroundings = Surroundings {
        find: Arc::new(move || capabilities(slots)),
        runners: Arc::new(machine.clone()),
        dial: Some(Arc::new(move || {
            Box::pin(async move { Ok(Box::new(dial(talks_to).await?) as Box<dyn Connection>) })
        })),
        look_every: LOOK,
    };
    sim.host(name.as_str(), move || {
        let running = pgsoak_agent::app::run_in(
            config.clone(),
            surroundings.clone(),
            CancellationToken::new(),
        );
        async move { Ok(running.await?) }
    });
    Host { name, machine, data, talks_to }
}

fn capabilities(slots: u32) -> Capabilities {
    let found = PostgresFound {
        major: 18,
        version: "PostgreSQL 18.4".to_owned(),
        pg_config: "/pg_config".into(),
    };
    Capabilities {
        slots,
        cores: 2,
        memory_bytes: 1 << 34,
        kernel: "k".to_owned(),
        tools: Vec::new(),
        postgres: vec![found],
        builds: Vec::new(),
        labels: BTreeMap::new(),
        host: "h".to_owned(),
    }
}
