//! The world of a seed: everybody at work, faults for as long as its shape says, and an end that everything must come to.

use crate::contracts::{Contracts, Ledger};
use crate::dice::Dice;
use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::people::Wish;
use crate::shape::{LOOK, Shape};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    fmt,
    path::Path,
    sync::Once,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use turmoil::Sim;

/// After the last fault everything must come to its end within this, beside the longest job's hard end and grace.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);

thread_local! {
    /// Panics of tasks, which their runtimes keep to themselves.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A world.
pub struct World {
    seed: u64,
    shape: Shape,
    dice: Dice,
    sim: Sim<'static>,
    fleet: Fleet,
    faults: Faults,
    contracts: Contracts,
    submitted: u64,
    _folder: TempDir,
}

/// What a world came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What is stored at the end.
    pub ledger: Ledger,
    /// Of virtual time.
    pub lived: Duration,
    /// Of real time.
    pub took: Duration,
    /// Faults by kind.
    pub faults: Vec<(String, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { verdicts, attempts, frames, samples, gaps, checksum } = &self.ledger;
        let faults: u64 = self.faults.iter().map(|(_, count)| count).sum();
        write!(
            f,
            "seed {}: {:.1} h in {:.1} s, {faults} faults; runs {verdicts:?}; {attempts} attempts, {frames} frames, {samples} samples and {gaps} in gaps, all accounted for ({checksum:08x})",
            self.seed,
            self.lived.as_secs_f64() / 3_600.0,
            self.took.as_secs_f64(),
        )
    }
}

// === impl World ===

impl World {
    /// A world at its beginning.
    pub fn new(seed: u64, shape: Shape) -> Self {
        watch_panics();
        pgsoak_agent::blocking::inline_on_this_thread();
        pgsoak_coordinator::blocking::inline_on_this_thread();
        pgsoak_coordinator::blocking::die_after(None);
        let mut dice = Dice::new(seed);
        // In memory where there is such a place: what a disk does is proven elsewhere.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
                .unwrap();
        let mut sim = turmoil::Builder::new()
            .tick_duration(shape.tick)
            .simulation_duration(Duration::from_secs(1_000 * 86_400))
            .rng_seed(seed)
            .tcp_capacity(4_096)
            .build();
        let fleet = Fleet::begin(&mut sim, shape, &mut dice, folder.path());
        Self {
            seed,
            shape,
            dice,
            sim,
            fleet,
            faults: Faults::default(),
            contracts: Contracts::default(),
            submitted: 0,
            _folder: folder,
        }
    }

    /// Until everything has come to its end.
    ///
    /// # Panics
    ///
    /// When a contract is broken.
    pub fn live(mut self) -> Report {
        let began = Instant::now();
        let grace = (self.shape.hard_end() / 4).max(Duration::from_secs(600));
        let last = self.shape.faults_for + self.shape.hard_end() * 2 + grace + PATIENCE;
        let mut looked_at = Duration::ZERO;
        let mut is_calm = false;
        loop {
            self.step();
            let now = self.sim.elapsed();
            if now - looked_at < LOOK {
                continue;
            }
            looked_at = now;
            for host in &self.fleet.hosts {
                host.machine.work(now);
            }
            self.contracts.check(&self.fleet);
            if now < self.shape.faults_for {
                self.faults.heal(&mut self.sim, now);
                self.wish(now);
                if self.shape.rate > 0 {
                    self.faults.draw(&mut self.sim, &self.fleet, &self.shape, &mut self.dice, now);
                }
                continue;
            }
            if !is_calm {
                self.faults.end(&mut self.sim);
                is_calm = true;
            }
            match self.contracts.is_over(&self.fleet) {
                Ok(()) => break,
                Err(left) => assert!(now < last, "it does not come to its end: {left}"),
            }
        }
        let ledger = self.contracts.check_end(&self.fleet);
        let faults =
            self.faults.counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        // The coordinator goes before its folder does.
        *self.fleet.store.borrow_mut() = None;
        Report { seed: self.seed, ledger, lived: self.sim.elapsed(), took: began.elapsed(), faults }
    }

    fn step(&mut self) {
        self.sim.step().unwrap_or_else(|error| panic!("a part of the fleet ended: {error}"));
        let now = self.sim.elapsed();
        self.faults.bury(&mut self.sim, &self.fleet, &mut self.dice, now);
        let panics = PANICS.take();
        assert!(panics.is_empty(), "a task panicked: {panics:?}");
    }

    fn wish(&mut self, now: Duration) {
        let looks = self.shape.faults_for.as_secs() / LOOK.as_secs();
        let often = looks / (self.shape.runs * 2).max(1);
        let is_first = self.submitted == 0 && now > Duration::from_secs(60);
        if self.submitted < self.shape.runs && (is_first || self.dice.one_in(often)) {
            self.submitted += 1;
            let key = format!("key-{}", self.submitted);
            let plan = self.plan();
            self.fleet.desk.lock().unwrap().wishes.push_back(Wish::Submit { key, plan });
        }
        if self.submitted > 0 && self.dice.one_in(often * 3) {
            let key = format!("key-{}", 1 + self.dice.below(self.submitted));
            let mut desk = self.fleet.desk.lock().unwrap();
            // It counts from when it is asked for: it may be written before it is answered.
            desk.cancelled.insert(key.clone());
            desk.wishes.push_back(Wish::Cancel { key });
        }
    }

    fn plan(&mut self) -> String {
        let replicas = 1 + self.dice.below(self.shape.jobs);
        let on_lost = if self.dice.one_in(2) { "retry" } else { "wait" };
        format!(
            "name = \"p\"\n[[job]]\nworkload = \"w\"\nbuild = \"vanilla\"\npostgres = \"18\"\nreplicas = {replicas}\nsample_every = \"{}s\"\nhard_end = \"{}s\"\non_lost = \"{on_lost}\"\n",
            self.shape.sample_every.as_secs(),
            self.shape.hard_end().as_secs(),
        )
    }
}

/// Panics inside the fleet's tasks are remembered; the world's own end the test as ever.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if turmoil::in_simulation() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            }
            before(info);
        }));
    });
}
