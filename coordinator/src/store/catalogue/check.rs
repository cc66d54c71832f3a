//! Looks at every record of a catalogue: does its checksum agree, does it parse.

use crate::domain::alert::Alert;
use crate::domain::build::BuildRecord;
use crate::domain::fleet::FleetRecord;
use crate::domain::history::{Against, Annotations, Baseline, RunFacts, Signature};
use crate::domain::notice::Notice;
use crate::domain::record::{
    AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord, SpecRecord,
};
use crate::domain::schedule::ScheduleRecord;
use crate::domain::time::UnixUs;
use crate::store::StoreError;
use crate::store::catalogue::summaries::{Figures, unpack};
use crate::store::catalogue::{keys, parse};
use crate::store::open::SyncedDb;
use crate::store::value;
use pgsoak_analysis::releases::RunPoints;
use pgsoak_proto::id::{JobId, RunId};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What a catalogue holds.
#[derive(Debug, Default)]
pub(crate) struct CheckedCatalogue {
    pub(crate) records: u64,
    pub(crate) agents: u64,
    pub(crate) results: u64,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    pub(crate) artifacts: Vec<(RunId, ArtifactRecord)>,
    /// One sentence each.
    pub(crate) problems: Vec<String>,
}

/// Reads all of it.
pub(crate) fn check(db: &SyncedDb) -> Result<CheckedCatalogue, StoreError> {
    let mut found = CheckedCatalogue::default();
    value::scan(&db.db, b"", |key, stored| {
        found.records += 1;
        let added = stored.map_err(|damage| damage.to_string());
        if let Err(problem) = added.and_then(|bytes| found.add(key, &bytes)) {
            found.problems.push(format!("the catalogue's {}: {problem}", keys::describe(key)));
        }
        true
    })
    .map_err(|source| db.error("read", source))?;
    let missing: Vec<String> = found
        .runs
        .values()
        .flat_map(|run| run.jobs.iter().map(move |job| (run.run, job)))
        .filter(|(_, job)| !found.jobs.contains_key(job))
        .map(|(run, job)| format!("run {run} names job {job}, and the catalogue has no such job"))
        .collect();
    found.problems.extend(missing);
    Ok(found)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    parse(bytes).map_err(|damage| damage.to_string())
}

fn packed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    unpack(bytes).map_err(|damage| damage.to_string())
}

impl CheckedCatalogue {
    fn add(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), String> {
        match key.first() {
            Some(b'r') => {
                let run: RunRecord = read(bytes)?;
                self.runs.insert(run.run, run);
            }
            Some(b'j') => {
                let job: JobRecord = read(bytes)?;
                self.jobs.insert(job.job, job);
            }
            Some(b'x') => {
                let run = keys::run_of(key).ok_or("its key is too short")?;
                self.artifacts.push((run, read(bytes)?));
            }
            Some(b'a') => {
                read::<AgentRecord>(bytes)?;
                self.agents += 1;
            }
            Some(b'v') => {
                let text: String = read(bytes)?;
                read::<serde_json::Value>(text.as_bytes())?;
                self.results += 1;
            }
            Some(b'i') => drop(read::<RunInput>(bytes)?),
            Some(b's') => drop(read::<SpecRecord>(bytes)?),
            Some(b'o' | b'k') => drop(read::<RunId>(bytes)?),
            Some(b'f') => drop(read::<u64>(bytes)?),
            Some(b'A') => drop(read::<Alert>(bytes)?),
            Some(b'G') => drop(read::<FleetRecord>(bytes)?),
            Some(b'S') => match key.get(1) {
                Some(b'r') => drop(read::<ScheduleRecord>(bytes)?),
                Some(b'f') => drop(read::<RunInput>(bytes)?),
                _ => return Err("nobody knows what it is".to_owned()),
            },
            Some(b'B') => drop(read::<BuildRecord>(bytes)?),
            Some(b'H') => match key.get(1) {
                Some(b'f') => drop(read::<RunFacts>(bytes)?),
                Some(b'a') => drop(read::<Annotations>(bytes)?),
                Some(b'b') => drop(read::<Baseline>(bytes)?),
                Some(b'g') => drop(read::<Signature>(bytes)?),
                Some(b's') => drop(packed::<Figures>(bytes)?),
                Some(b't') => drop(packed::<RunPoints>(bytes)?),
                Some(b'c') => drop(packed::<Against>(bytes)?),
                Some(b'r') => drop(read::<RunId>(bytes)?),
                _ => return Err("nobody knows what it is".to_owned()),
            },
            Some(b'N') => match key.get(1) {
                Some(b'm') => drop(read::<Notice>(bytes)?),
                Some(b'c') => drop(read::<UnixUs>(bytes)?),
                _ => return Err("nobody knows what it is".to_owned()),
            },
            _ => return Err("nobody knows what it is".to_owned()),
        }
        Ok(())
    }
}
