//! Everything that the catalogue holds of a run, removed at once. What the history learnt of leak signatures stays.

use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use crate::store::index::Change;
use crate::store::value;
use pgsoak_proto::id::RunId;

impl Batch {
    /// The files of a removed run are gone.
    pub(crate) fn no_grave(&mut self, run: RunId) {
        self.remove(&Key::Grave(run));
    }

    fn remove(&mut self, key: &Key<'_>) {
        self.removes.push(key.encode());
    }
}

impl Catalogue {
    /// What has to be removed with a run; `None`: there is none.
    pub(crate) fn removal(&self, run: RunId) -> Result<Option<Batch>, StoreError> {
        let Some(record) = self.run(run)? else { return Ok(None) };
        let mut batch = Batch::default();
        for job in &record.jobs {
            batch.remove(&Key::Spec(run, *job));
            batch.remove(&Key::Job(run, *job));
            batch.remove(&Key::RunOfJob(*job));
        }
        for artifact in self.artifacts(run)? {
            let (attempt, name) = (artifact.attempt, artifact.name.as_str());
            batch.remove(&Key::Artifact(run, artifact.job, attempt, name));
        }
        for name in self.workloads()? {
            batch.remove(&Key::Points(&name, run));
        }
        // A key that stands for a run which is gone would give that run to whoever retries.
        let mut clients = Vec::new();
        value::scan(&self.db.db, keys::CLIENTS, |key, stored| {
            let of = stored.ok().and_then(|bytes| serde_json::from_slice::<RunId>(&bytes).ok());
            if of == Some(run) {
                clients.push(key.to_owned());
            }
            true
        })
        .map_err(|source| self.db.error("read", source))?;
        batch.removes.extend(clients);
        for key in [
            Key::Run(run),
            Key::Input(run),
            Key::Result(run),
            Key::Facts(run),
            Key::Annotations(run),
            Key::Figures(run),
            Key::Against(run),
        ] {
            batch.remove(&key);
        }
        batch.put(&Key::Grave(run), &run);
        batch.changes.push(Change::Removed(run));
        Ok(Some(batch))
    }

    /// Runs whose files were still to be removed.
    pub(crate) fn graves(&self) -> Result<Vec<RunId>, StoreError> {
        let mut found = Vec::new();
        self.scan(keys::GRAVES, |run: Result<RunId, _>| {
            found.extend(run.ok());
            true
        })?;
        Ok(found)
    }
}
