//! Records that are written together or not at all.

use crate::domain::record::{
    AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord, SpecRecord,
};
use crate::store::catalogue::history::Edit;
use crate::store::catalogue::keys::Key;
use crate::store::index::Change;
use crate::store::value;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::JobSpec;
use serde::Serialize;

/// Records to write together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) puts: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) removes: Vec<Vec<u8>>,
    pub(super) edits: Vec<Edit>,
    /// What readers of the index see once it is durable.
    pub(super) changes: Vec<Change>,
    /// A record that cannot be written at all (too large); the whole batch is refused.
    pub(super) refused: Option<String>,
}

// === impl Batch ===

impl Batch {
    pub(super) fn put(&mut self, key: &Key<'_>, record: &impl Serialize) {
        match serde_json::to_vec(record) {
            Ok(bytes) if bytes.len() <= value::MAX_VALUE => {
                self.puts.push((key.encode(), bytes));
            }
            Ok(bytes) => self.refused = Some(format!("{key:?} has {} bytes", bytes.len())),
            Err(error) => self.refused = Some(format!("{key:?}: {error}")),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.removes.is_empty()
            && self.edits.is_empty()
            && self.refused.is_none()
    }

    /// A run.
    pub fn run(&mut self, run: &RunRecord) {
        self.put(&Key::Run(run.run), run);
        self.changes.push(Change::Run(Box::new(run.clone())));
    }

    /// The files of a run.
    pub fn input(&mut self, run: RunId, input: &RunInput) {
        self.put(&Key::Input(run), input);
    }

    /// What a job was asked; its `workload_toml` is not kept here.
    pub fn spec(&mut self, spec: &JobSpec) {
        let record = SpecRecord { spec: JobSpec { workload_toml: String::new(), ..spec.clone() } };
        self.put(&Key::Spec(spec.run, spec.job), &record);
        self.put(&Key::RunOfJob(spec.job), &spec.run);
        self.changes.push(Change::Spec(Box::new(record.spec)));
    }

    /// Where a job stands.
    pub fn job(&mut self, job: &JobRecord) {
        self.put(&Key::Job(job.run, job.job), job);
        self.changes.push(Change::Job(Box::new(job.clone())));
    }

    /// An agent.
    pub fn agent(&mut self, agent: &AgentRecord) {
        self.put(&Key::Agent(agent.agent), agent);
        self.changes.push(Change::Agent(Box::new(agent.clone())));
    }

    /// The run that a client key stands for.
    pub fn client_key(&mut self, client_key: &str, run: RunId) {
        self.put(&Key::Client(client_key), &run);
    }

    /// The last fence that was given away.
    pub fn fence(&mut self, fence: u64) {
        self.put(&Key::Fence, &fence);
    }

    /// The result of a run, as JSON text.
    pub fn result(&mut self, run: RunId, json: &str) {
        self.put(&Key::Result(run), &json);
    }

    /// An artifact.
    pub fn artifact(&mut self, run: RunId, artifact: &ArtifactRecord) {
        self.put(&Key::Artifact(run, artifact.job, artifact.attempt, &artifact.name), artifact);
    }
}
