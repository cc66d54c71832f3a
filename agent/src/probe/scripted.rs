//! A probe that replays readings: the second implementation of the seam, for tests of what uses it.

use crate::probe::{HostSample, Probe, ProcessKey, ProcessSample};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What one process will say.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Tells lives of one pid apart.
    pub start_time_ticks: u64,
    /// One per reading; after the last the process has gone. `Err` stands for a reading that fails.
    pub readings: VecDeque<Result<ProcessSample, io::ErrorKind>>,
    /// Its children at every look.
    pub children: Vec<u32>,
    /// It can be opened after its last reading: its parent has not asked yet how it ended.
    pub lingers: bool,
    /// Its Pss_Anon, KiB; `None`: not to be had.
    pub pss_anon_kib: Option<u64>,
}

/// Replays scripts by pid. Cheap to clone: clones share the scripts, so that a test can change them while a sampler runs.
#[derive(Clone, Debug, Default)]
pub struct ScriptedProbe {
    scripts: Arc<Mutex<BTreeMap<u32, Script>>>,
    /// What the host says, each time.
    pub host: HostSample,
}

/// A scripted process, opened.
#[derive(Debug)]
pub struct ScriptedProcess(ProcessKey);

// === impl ScriptedProbe ===

impl ScriptedProbe {
    /// Puts the script of `pid` in place of the one before.
    pub fn set(&self, pid: u32, script: Script) {
        self.scripts().insert(pid, script);
    }

    /// Changes the script of `pid`, where there is one.
    pub fn change(&self, pid: u32, change: impl FnOnce(&mut Script)) {
        if let Some(script) = self.scripts().get_mut(&pid) {
            change(script);
        }
    }

    fn scripts(&self) -> MutexGuard<'_, BTreeMap<u32, Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script, if this life of the pid has anything left to say.
    fn with<T>(&self, key: ProcessKey, use_it: impl FnOnce(&mut Script) -> T) -> Option<T> {
        let mut scripts = self.scripts();
        let script = scripts.get_mut(&key.pid)?;
        let is_alive =
            script.start_time_ticks == key.start_time_ticks && !script.readings.is_empty();
        is_alive.then(|| use_it(script))
    }
}

impl Probe for ScriptedProbe {
    type Process = ScriptedProcess;

    fn open(&mut self, pid: u32) -> io::Result<Option<ScriptedProcess>> {
        let scripts = self.scripts();
        let script =
            scripts.get(&pid).filter(|script| script.lingers || !script.readings.is_empty());
        let key =
            script.map(|script| ProcessKey { pid, start_time_ticks: script.start_time_ticks });
        Ok(key.map(ScriptedProcess))
    }

    fn key(process: &ScriptedProcess) -> ProcessKey {
        process.0
    }

    fn sample(&mut self, process: &ScriptedProcess) -> io::Result<Option<ProcessSample>> {
        match self.with(process.0, |script| script.readings.pop_front()).flatten() {
            Some(Ok(sample)) => Ok(Some(sample)),
            Some(Err(kind)) => Err(kind.into()),
            None => Ok(None),
        }
    }

    fn children(&mut self, process: &mut ScriptedProcess, found: &mut Vec<u32>) -> io::Result<()> {
        self.with(process.0, |script| found.extend_from_slice(&script.children));
        Ok(())
    }

    fn pss_anon_kib(&mut self, process: &ScriptedProcess) -> io::Result<Option<u64>> {
        Ok(self.with(process.0, |script| script.pss_anon_kib).flatten())
    }

    fn host(&mut self) -> HostSample {
        self.host
    }
}
