//! A finished run as a whole, out of one store and into another, which judges it again before it counts.

use crate::domain::history::{Annotations, RunFacts, Signature};
use crate::domain::record::{ArtifactRecord, JobRecord, RunInput, RunRecord};
use crate::domain::run::RunState;
use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::engine::judging::{self, JudgeError};
use crate::engine::stored;
use crate::store::artifacts::{ArtifactError, ArtifactWrite};
use crate::store::catalogue::Batch;
use crate::store::evidence::{Append, AppendError};
use crate::store::{Store, StoreError};
use pgsoak_analysis::result::RunResult;
use pgsoak_proto::evidence::Frame;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use pgsoak_proto::wire;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Bytes of frames that are written together.
const PORTION: usize = 1 << 20;

/// The records of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Records {
    record: RunRecord,
    input: RunInput,
    jobs: Vec<(JobSpec, JobRecord)>,
    result: String,
    /// Complete ones; their files follow.
    pub artifacts: Vec<ArtifactRecord>,
    annotations: Annotations,
}

/// Why a run is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle is not what `Export` gives.
    #[error("the bundle is damaged: {0}")]
    Malformed(String),
    /// It is here.
    #[error("run {0} is here already")]
    Known(RunId),
    /// What it says of itself does not follow from what it holds.
    #[error(
        "run {run} is not taken: its evidence, judged here, gives another result (from line {line} on)"
    )]
    OtherResult {
        /// The run.
        run: RunId,
        /// Where the JSON texts part, 1-based.
        line: usize,
    },
    /// A frame was not stored.
    #[error("the run's evidence is not taken: {0}")]
    Append(#[from] AppendError),
    /// A raw file was not stored.
    #[error("a raw file is not taken: {0}")]
    Artifact(#[from] ArtifactError),
    /// It cannot be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A run on its way in. Nothing of it is in the catalogue before [`Incoming::finish`].
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    records: Records,
    waiting: Vec<(u64, Vec<u8>)>,
    waiting_bytes: usize,
    of: Option<(JobId, u32)>,
    file: Option<(usize, u64)>,
    complete: BTreeSet<usize>,
    /// How many came.
    pub frames: u64,
}

/// The records of a finished run; `None`: there is none, or it is not finished.
///
/// # Errors
///
/// When they cannot be read.
pub async fn records(store: &Store, run: RunId) -> Result<Option<Records>, StoreError> {
    let Some(snapshot) = stored::snapshot(store, run).await? else { return Ok(None) };
    let Some(result) = store.result(run).await? else { return Ok(None) };
    let mut input = store.input(run).await?.unwrap_or_default();
    for job in &snapshot.jobs {
        if let Some(tenure) = job.record.state.tenure() {
            input.agents.insert(tenure.agent, job.agent.clone());
        }
    }
    let mut artifacts = store.artifacts(run).await?;
    artifacts.retain(|artifact| artifact.is_complete);
    // Wherever they lie here: there they come with the bundle.
    artifacts.iter_mut().for_each(|artifact| artifact.is_away = false);
    let annotations = store.line(run).map(|line| line.annotations.clone()).unwrap_or_default();
    let jobs = snapshot.jobs.into_iter().map(|job| (job.spec, job.record)).collect();
    let record = snapshot.record;
    Ok(Some(Records { record, input, jobs, result, artifacts, annotations }))
}

impl Records {
    fn check(&self) -> Result<(), ImportError> {
        let run = self.record.run;
        let wrong = |what: &str| Err(ImportError::Malformed(what.to_owned()));
        if !matches!(self.record.state, RunState::Finished { .. }) {
            return wrong("its run is not finished");
        }
        let ids: Vec<JobId> = self.jobs.iter().map(|(spec, _)| spec.job).collect();
        if ids != self.record.jobs {
            return wrong("its jobs are not those of its run");
        }
        let is_own = |(spec, job): &(JobSpec, JobRecord)| {
            spec.run == run && job.run == run && job.job == spec.job && job.state.is_over()
        };
        if !self.jobs.iter().all(is_own) {
            return wrong("a job is not over, or of another run");
        }
        if !self.artifacts.iter().all(|of| ids.contains(&of.job) && of.is_complete) {
            return wrong("a raw file is of no job of it");
        }
        Ok(())
    }

    fn snapshot(&self) -> RunSnapshot {
        let jobs = self.jobs.iter().map(|(spec, record)| {
            let tenure = record.state.tenure();
            JobSnapshot {
                agent: tenure
                    .and_then(|tenure| self.input.agents.get(&tenure.agent).cloned())
                    .unwrap_or_default(),
                spec: spec.clone(),
                record: record.clone(),
                progress: None,
                forecast: None,
                why: String::new(),
                look: None,
            }
        });
        RunSnapshot { record: self.record.clone(), jobs: jobs.collect() }
    }
}

impl Incoming {
    /// Begins with a run's records.
    ///
    /// # Errors
    ///
    /// When they are not sound, or the run is here.
    pub async fn begin(store: &Store, json: &[u8]) -> Result<Self, ImportError> {
        let records: Records = serde_json::from_slice(json)
            .map_err(|error| ImportError::Malformed(error.to_string()))?;
        records.check()?;
        if records.artifacts.iter().any(|artifact| artifact.is_away) {
            return Err(ImportError::Malformed("a raw file is said to lie elsewhere".to_owned()));
        }
        let run = records.record.run;
        let is_known = store.run(run).await?.is_some();
        let mut is_other = false;
        for (spec, _) in &records.jobs {
            is_other |= store.run_of_job(spec.job).await?.is_some();
        }
        if is_known || is_other {
            return Err(ImportError::Known(run));
        }
        // Of an import that was cut off.
        store.discard(run).await?;
        Ok(Self {
            store: store.clone(),
            records,
            waiting: Vec::new(),
            waiting_bytes: 0,
            of: None,
            file: None,
            complete: BTreeSet::new(),
            frames: 0,
        })
    }

    /// The run that comes in.
    pub fn run(&self) -> RunId {
        self.records.record.run
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// When it is none of the run's, or the disk does not take it.
    pub async fn frame(&mut self, stored: wire::StoredFrame) -> Result<(), ImportError> {
        let wire::StoredFrame { job_id, attempt, frame } = stored;
        let malformed = |what: &str| ImportError::Malformed(what.to_owned());
        let job: JobId = job_id.parse().map_err(|_| malformed("a frame is of no job"))?;
        if !self.records.record.jobs.contains(&job) {
            return Err(malformed("a frame is of a job of another run"));
        }
        let frame = frame.ok_or_else(|| malformed("a frame is empty"))?;
        let (sequence, bytes) = (frame.sequence, frame.encode_to_vec());
        Frame::try_from(frame).map_err(|error| ImportError::Malformed(error.to_string()))?;
        if self.of != Some((job, attempt)) || self.waiting_bytes >= PORTION {
            self.write().await?;
            self.of = Some((job, attempt));
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push((sequence, bytes));
        self.frames += 1;
        Ok(())
    }

    async fn write(&mut self) -> Result<(), ImportError> {
        let frames = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (Some((job, attempt)), Some((first, _))) = (self.of, frames.first()) else {
            return Ok(());
        };
        // What was missing there is missing here.
        let lost_up_to = first.saturating_sub(1);
        let append = Append { run: self.run(), job, attempt, frames, lost_up_to };
        self.store.append(append).await?.await?;
        Ok(())
    }

    /// A raw file begins.
    ///
    /// # Errors
    ///
    /// When the records do not name it, or the one before did not come whole.
    pub async fn file(&mut self, index: u32) -> Result<(), ImportError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index >= self.records.artifacts.len() {
            return Err(ImportError::Malformed("a raw file stands in no record".to_owned()));
        }
        self.file = Some((index, 0));
        self.data(Vec::new()).await
    }

    /// Data of the raw file that began last.
    ///
    /// # Errors
    ///
    /// When there is none, or the disk does not take it.
    pub async fn data(&mut self, data: Vec<u8>) -> Result<(), ImportError> {
        let run = self.run();
        let Some((index, offset)) = &mut self.file else {
            return Err(ImportError::Malformed("data of no raw file".to_owned()));
        };
        let Some(of) = self.records.artifacts.get(*index) else { return Ok(()) };
        let is_last = data.is_empty() && of.total_bytes > 0;
        let write = ArtifactWrite {
            run,
            job: of.job,
            attempt: of.attempt,
            name: of.name.clone(),
            offset: *offset,
            total_bytes: of.total_bytes,
            sha256: of.sha256.clone(),
            data,
        };
        *offset += u64::try_from(write.data.len()).unwrap_or(u64::MAX);
        if is_last {
            return Ok(());
        }
        let received = self.store.write_artifact(write).await?.await?;
        if received.is_complete {
            self.complete.insert(*index);
        }
        Ok(())
    }

    /// Everything has come: judged, compared, and only then put into the catalogue. The verdict's word is in the record.
    ///
    /// # Errors
    ///
    /// When something is missing, or the evidence gives another result than the bundle says.
    pub async fn finish(mut self) -> Result<(RunRecord, String), ImportError> {
        self.write().await?;
        if self.complete.len() != self.records.artifacts.len() {
            return Err(ImportError::Malformed("a raw file is missing or cut off".to_owned()));
        }
        let Self { store, records, .. } = self;
        let snapshot = records.snapshot();
        let judged = judging::judge_run(&store, &snapshot, &records.input).await;
        let said: RunResult = serde_json::from_str(&records.result)
            .map_err(|error| ImportError::Malformed(format!("its result: {error}")))?;
        let ours = pgsoak_analysis::verdict::ENGINE;
        let replay = if judged.json == records.result {
            "same".to_owned()
        } else if said.engine == ours {
            let pairs = judged.json.lines().zip(records.result.lines());
            let line = pairs.take_while(|(a, b)| a == b).count() + 1;
            return Err(ImportError::OtherResult { run: records.record.run, line });
        } else {
            format!("judged by engine {} there, by {ours} here", said.engine)
        };
        let run = records.record.run;
        let mut batch = Batch::default();
        batch.run(&records.record);
        batch.input(run, &records.input);
        for (spec, job) in &records.jobs {
            batch.spec(spec);
            batch.job(job);
        }
        for artifact in &records.artifacts {
            batch.artifact(run, artifact);
        }
        batch.result(run, &records.result);
        let of = snapshot.jobs.iter().map(|job| (&job.spec, job.agent.as_str()));
        batch.facts(run, &RunFacts::of(of));
        batch.figures(run, records.record.submitted_at.0, &judged.figures);
        batch.signatures(Signature::of(&said, records.record.submitted_at));
        store.commit(batch).await?;
        // After the run is there: they are added to its line.
        let mut batch = Batch::default();
        for note in records.annotations.notes {
            batch.remark(run, note);
        }
        batch.pin(run, records.annotations.pin);
        store.commit(batch).await?;
        store.close_run(run).await;
        Ok((records.record, replay))
    }
}
