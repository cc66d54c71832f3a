//! A host: scripted runners that outlive the daemon, seen through the daemon's own seam. Moved on by the world, not by a runtime.

use crate::dice::Dice;
use crate::script::{Book, Script};
use crate::shape::Shape;
use pgsoak_agent::config::AgentConfig;
use pgsoak_agent::folder::{Assignment, JobFolder, ProcessKey};
use pgsoak_agent::link::{LaunchError, Runners, Started};
use pgsoak_proto::job::Lease;
use pgsoak_proto::session::{self, Capabilities};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::oneshot;

/// A host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    shape: Shape,
    dice: Dice,
    now: Duration,
    boot: u32,
    next_pid: u32,
    runners: BTreeMap<u32, Runner>,
    /// Of every attempt that ever ran here, by lease.
    books: BTreeMap<Lease, Book>,
    /// Attempts whose folders went with the host's disk.
    wiped: BTreeSet<Lease>,
}

#[derive(Debug)]
struct Runner {
    folder: JobFolder,
    script: Script,
    ended: Option<oneshot::Sender<String>>,
}

// === impl Machine ===

impl Machine {
    /// A host on which nothing runs.
    pub fn new(shape: Shape, dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Inside {
            shape,
            dice,
            now: Duration::ZERO,
            boot: 1,
            next_pid: 1,
            runners: BTreeMap::new(),
            books: BTreeMap::new(),
            wiped: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// The runners work until `now`, whether or not a daemon is there.
    pub fn work(&self, now: Duration) {
        let mut inside = self.lock();
        inside.now = now;
        let ended: Vec<u32> = inside
            .runners
            .iter_mut()
            .filter_map(|(pid, runner)| (!runner.script.work(now)).then_some(*pid))
            .collect();
        for pid in ended {
            inside.bury(pid, "the runner ended with exit code 0", false);
        }
    }

    /// `kill -9` of one of its runners, if there is any.
    pub fn kill_one(&self, dice: &mut Dice) {
        let mut inside = self.lock();
        let pids: Vec<u32> = inside.runners.keys().copied().collect();
        if !pids.is_empty() {
            let pid = pids[usize::try_from(dice.below(pids.len() as u64)).unwrap()];
            inside.bury(pid, "the runner was killed by signal 9", true);
        }
    }

    /// The power goes: nothing runs any more, and pids begin again. The caller ends the daemon.
    pub fn reboot(&self) {
        let mut inside = self.lock();
        let pids: Vec<u32> = inside.runners.keys().copied().collect();
        for pid in pids {
            inside.bury(pid, "", true);
        }
        inside.boot += 1;
        inside.next_pid = 1;
    }

    /// The host gets a new disk: nothing runs, and nothing of what ran is left. The caller ends the daemon and removes the folders.
    pub fn wipe(&self) {
        self.reboot();
        let mut inside = self.lock();
        let leases: Vec<Lease> = inside.books.keys().copied().collect();
        inside.wiped.extend(leases);
    }

    /// Attempts whose folders went with the host's disk, and others before them.
    pub fn wiped(&self) -> BTreeSet<Lease> {
        self.lock().wiped.clone()
    }

    /// Leases whose runners live.
    pub fn running(&self) -> Vec<Lease> {
        self.lock().runners.values().map(|runner| runner.script.lease).collect()
    }

    /// Books of everything that ran here; of what still runs, as far as it is.
    pub fn books(&self) -> BTreeMap<Lease, Book> {
        let inside = self.lock();
        let mut books = inside.books.clone();
        for runner in inside.runners.values() {
            books.insert(runner.script.lease, runner.script.book.clone());
        }
        books
    }
}

impl Runners for Machine {
    fn launch(
        &self,
        config: &AgentConfig,
        _: &Capabilities,
        assignment: session::Assignment,
    ) -> Result<(JobFolder, Started), LaunchError> {
        let mut inside = self.lock();
        if inside.dice.one_in(30) {
            return Err(LaunchError::NoRunner);
        }
        let session::Assignment { lease, spec } = assignment;
        assert!(!inside.books.contains_key(&lease), "{lease:?} is begun a second time");
        let input = Assignment {
            lease,
            spec: spec.clone(),
            cache_dir: config.cache_dir.clone(),
            pg_config: "/pg_config".into(),
        };
        let folder = JobFolder::make(&config.data_dir, &input, None)?;
        let pid = inside.next_pid;
        inside.next_pid += 1;
        let key = inside.key(pid);
        folder.write_runner_key(&key).unwrap();
        let (now, shape) = (inside.now, inside.shape);
        let script = Script::start(folder.clone(), lease, spec, &shape, now, &mut inside.dice);
        let (ended, hear) = oneshot::channel();
        inside.runners.insert(pid, Runner { folder: folder.clone(), script, ended: Some(ended) });
        inside.books.insert(lease, Book::default());
        let ended =
            Box::pin(async move { hear.await.unwrap_or_else(|_| "the runner is gone".to_owned()) });
        Ok((folder, Started { key: Some(key), ended }))
    }

    fn is_alive(&self, key: &ProcessKey) -> bool {
        let inside = self.lock();
        inside.runners.contains_key(&key.pid) && *key == inside.key(key.pid)
    }

    fn signal(&self, key: &ProcessKey, signal: Signal) -> bool {
        let mut inside = self.lock();
        if *key != inside.key(key.pid) {
            return false;
        }
        let now = inside.now;
        let Some(runner) = inside.runners.get_mut(&key.pid) else { return false };
        runner.script.ask(now);
        if signal == Signal::KILL {
            inside.bury(key.pid, "the runner was killed by signal 9", true);
        }
        true
    }

    fn left_in(&self, folder: &Path) -> Vec<ProcessKey> {
        let inside = self.lock();
        let here = |runner: &Runner| runner.folder.path() == folder;
        inside
            .runners
            .iter()
            .filter(|(_, runner)| here(runner))
            .map(|(pid, _)| inside.key(*pid))
            .collect()
    }

    fn kill_left(&self, folder: &Path) -> Vec<ProcessKey> {
        for key in self.left_in(folder) {
            self.lock().bury(key.pid, "the runner was killed by signal 9", true);
        }
        Vec::new()
    }
}

// === impl Inside ===

impl Inside {
    fn key(&self, pid: u32) -> ProcessKey {
        // Pids are given again after a boot, at the same tick even: only the boot tells them apart.
        ProcessKey { pid, start_time_ticks: 1, boot_id: format!("boot-{}", self.boot) }
    }

    fn bury(&mut self, pid: u32, how: &str, is_killed: bool) {
        let Some(runner) = self.runners.remove(&pid) else { return };
        let lease = runner.script.lease;
        let book = if is_killed { runner.script.die() } else { runner.script.book };
        self.books.insert(lease, book);
        if let Some(ended) = runner.ended {
            // A daemon that is gone hears nothing.
            let _ = ended.send(how.to_owned());
        }
    }
}
