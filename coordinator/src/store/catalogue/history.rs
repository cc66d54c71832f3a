//! The history's records in the catalogue: what runs were about, notes and pins, baselines, signatures, summaries.

use crate::domain::history::{
    Annotations, Baseline, MAX_NOTES, Remark, RunFacts, RunLine, Signature,
};
use crate::domain::record::RunRecord;
use crate::domain::run::RunState;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue, parse};
use crate::store::index::{Change, RunIndex};
use crate::store::open::SyncedDb;
use crate::store::value;
use pgsoak_proto::id::RunId;
use std::{collections::BTreeMap, sync::Arc};
use tracing::warn;

// === impl Batch ===

impl Batch {
    /// What a run was about. Written when it is judged; until then it follows from its jobs.
    pub fn facts(&mut self, run: RunId, facts: &RunFacts) {
        self.put(&Key::Facts(run), facts);
        self.changes.push(Change::Facts(run, facts.clone()));
    }

    /// Somebody wrote to a run.
    pub fn remark(&mut self, run: RunId, remark: Remark) {
        self.edits.push(Edit::Note(run, remark));
    }

    /// A run is kept by retention, or no longer.
    pub fn pin(&mut self, run: RunId, pin: Option<Remark>) {
        self.edits.push(Edit::Pin(run, pin));
    }

    /// What runs of a plan are compared with.
    pub fn baseline(&mut self, baseline: &Baseline) {
        self.put(&Key::Baseline(&baseline.plan), baseline);
    }

    /// Runs of a plan are compared with what is chosen automatically again.
    pub fn no_baseline(&mut self, plan: &str) {
        self.removes.push(Key::Baseline(plan).encode());
    }

    /// Where signatures were seen; added to what is known of them.
    pub fn signatures(&mut self, found: impl IntoIterator<Item = Signature>) {
        self.edits.extend(found.into_iter().map(Edit::Seen));
    }
}

/// Changes a record by what is in it already. The catalogue's thread carries them out, so none is lost to another.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Note(RunId, Remark),
    Pin(RunId, Option<Remark>),
    Seen(Signature),
}

/// Adds what edits come to, and what they change in the index.
pub(super) fn add_edits(
    db: &SyncedDb,
    index: &RunIndex,
    merged: &mut sled::Batch,
    edits: Vec<Edit>,
) -> Result<Vec<Change>, StoreError> {
    let mut annotations: BTreeMap<RunId, Annotations> = BTreeMap::new();
    let mut seen = Vec::new();
    for edit in edits {
        let (Edit::Note(run, _) | Edit::Pin(run, _)) = &edit else {
            if let Edit::Seen(signature) = edit {
                seen.push(signature);
            }
            continue;
        };
        let known = || index.line(*run).map(|line| line.annotations.clone()).unwrap_or_default();
        let of_run = annotations.entry(*run).or_insert_with(known);
        match edit {
            Edit::Note(_, remark) if of_run.notes.len() < MAX_NOTES => of_run.notes.push(remark),
            Edit::Pin(_, pin) => of_run.pin = pin,
            Edit::Note(run, _) => warn!(%run, "it has too many notes; one was left out"),
            Edit::Seen(_) => {}
        }
    }
    add_signatures(db, merged, seen)?;
    let mut changes = Vec::new();
    for (run, annotations) in annotations {
        put(db, merged, &Key::Annotations(run), &annotations)?;
        changes.push(Change::Annotations(run, annotations));
    }
    Ok(changes)
}

fn put(
    db: &SyncedDb,
    merged: &mut sled::Batch,
    key: &Key<'_>,
    record: &impl serde::Serialize,
) -> Result<(), StoreError> {
    let damaged = |problem: String| StoreError::Damaged { what: format!("{key:?}"), problem };
    let bytes = serde_json::to_vec(record).map_err(|error| damaged(error.to_string()))?;
    let key_bytes = key.encode();
    value::remove(&db.db, merged, &key_bytes, value::pieces_of(bytes.len()))
        .map_err(|source| db.error("read", source))?;
    if value::put(merged, &key_bytes, &bytes) {
        Ok(())
    } else {
        Err(damaged("it is too large".to_owned()))
    }
}

fn add_signatures(
    db: &SyncedDb,
    merged: &mut sled::Batch,
    found: Vec<Signature>,
) -> Result<(), StoreError> {
    let mut known: BTreeMap<String, Signature> = BTreeMap::new();
    for signature in found {
        if !known.contains_key(&signature.fingerprint) {
            let key = Key::Signature(&signature.fingerprint).encode();
            let stored = value::get(&db.db, &key).map_err(|source| db.error("read", source))?;
            let stored = match stored.map(|found| found.and_then(|bytes| parse(&bytes))) {
                Some(Ok(stored)) => stored,
                Some(Err(damage)) => {
                    warn!(%damage, signature = signature.fingerprint, "begun afresh");
                    Signature { builds: BTreeMap::new(), ..signature.clone() }
                }
                None => Signature { builds: BTreeMap::new(), ..signature.clone() },
            };
            known.insert(signature.fingerprint.clone(), stored);
        }
        if let Some(known) = known.get_mut(&signature.fingerprint) {
            known.add(signature);
        }
    }
    for (fingerprint, signature) in known {
        put(db, merged, &Key::Signature(&fingerprint), &signature)?;
    }
    Ok(())
}

// === impl Catalogue ===

impl Catalogue {
    /// Every run with what the history knows of it, as changes of an empty index. Damaged records are left out.
    pub(super) fn index_changes(&self) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        for agent in self.agents()? {
            changes.push(Change::Agent(Box::new(agent)));
        }
        for run in self.run_ids()? {
            match self.line(run) {
                Ok(Some(line)) => {
                    changes.push(Change::Run(Box::new(line.0)));
                    changes.extend(line.1);
                }
                Ok(None) => {}
                Err(error) => warn!(%run, %error, "left out of the history"),
            }
        }
        Ok(changes)
    }

    fn line(&self, run: RunId) -> Result<Option<(RunRecord, Vec<Change>)>, StoreError> {
        let Some(record) = self.run(run)? else { return Ok(None) };
        let mut changes = Vec::new();
        let facts: Option<RunFacts> = match &record.state {
            RunState::Finished { .. } => self.get(&Key::Facts(run))?,
            _ => None,
        };
        match facts {
            Some(facts) => changes.push(Change::Facts(run, facts)),
            // Not judged yet, or judged before facts were kept.
            None => {
                for (spec, job) in self.jobs(&record)? {
                    changes.push(Change::Spec(Box::new(spec)));
                    changes.push(Change::Job(Box::new(job)));
                }
            }
        }
        if let Some(annotations) = self.get::<Annotations>(&Key::Annotations(run))? {
            changes.push(Change::Annotations(run, annotations));
        }
        Ok(Some((record, changes)))
    }

    pub(crate) fn lines(&self) -> Vec<Arc<RunLine>> {
        self.index.lines()
    }

    pub(crate) fn history_line(&self, run: RunId) -> Option<Arc<RunLine>> {
        self.index.line(run)
    }

    pub(crate) fn baselines(&self) -> Result<Vec<Baseline>, StoreError> {
        self.all(keys::BASELINES)
    }

    pub(crate) fn signatures(&self) -> Result<Vec<Signature>, StoreError> {
        self.all(keys::SIGNATURES)
    }
}
