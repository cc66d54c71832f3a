//! Verifies a data folder that no coordinator works in: every record and every frame by checksum, every attempt by sequence.
//!
//! Opens the databases as a start would (sled drops a torn tail that was never acknowledged), sets nothing aside, mends nothing.

use crate::domain::record::{ArtifactRecord, RunRecord};
use crate::store::StoreError;
use crate::store::artifacts;
use crate::store::catalogue::check::{self, CheckedCatalogue};
use crate::store::mark::Mark;
use crate::store::open::{SyncedDb, panic_text};
use crate::store::run_db::{RunDb, StoredFrame};
use pgsoak_packages::digest;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::wire::frame::Body;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Sentences about one run; more are counted.
const MOST_PROBLEMS: usize = 20;

/// What a data folder holds, and what is wrong with it.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// Records of the catalogue.
    pub records: u64,
    /// Runs in it.
    pub runs: u64,
    /// Jobs in it.
    pub jobs: u64,
    /// Agents in it.
    pub agents: u64,
    /// Results in it.
    pub results: u64,
    /// Attempts with evidence.
    pub attempts: u64,
    /// Frames, each by its checksum and its sequence.
    pub frames: u64,
    /// Complete raw files, each by its digest.
    pub artifacts: u64,
    /// Raw files that were moved to the object store: not looked at.
    pub away: u64,
    /// What is known to be missing and stands with its run: no damage of the folder.
    pub notes: Vec<String>,
    /// One sentence each; empty: the folder is sound.
    pub problems: Vec<String>,
}

/// Reads everything in the data folder. Blocks.
///
/// # Errors
///
/// When the catalogue does not open or cannot be read at all; everything else is a problem in the answer.
pub fn check(data: &Path) -> Result<Checked, StoreError> {
    let catalogue = {
        let db = SyncedDb::open(&data.join("catalogue"), 32 << 20)?;
        // sled can panic over damage while it reads.
        catch_unwind(AssertUnwindSafe(|| check::check(&db))).unwrap_or_else(|panic| {
            Err(StoreError::Damaged {
                what: "the catalogue".to_owned(),
                problem: panic_text(panic.as_ref()),
            })
        })?
    };
    let mut checked = Checked {
        records: catalogue.records,
        runs: count(catalogue.runs.len()),
        jobs: count(catalogue.jobs.len()),
        agents: catalogue.agents,
        results: catalogue.results,
        problems: catalogue.problems.clone(),
        ..Checked::default()
    };
    for run in catalogue.runs.values() {
        let path = data.join("runs").join(run.run.to_string());
        if path.exists() {
            let looked = catch_unwind(AssertUnwindSafe(|| checked.run(&path, run, &catalogue)));
            if let Err(panic) = looked {
                let problem = panic_text(panic.as_ref());
                checked.problems.push(format!("the evidence of run {}: {problem}", run.run));
            }
        } else if let Some(job) = run
            .jobs
            .iter()
            .filter_map(|job| catalogue.jobs.get(job))
            .find(|job| job.stored_sequence > 0)
        {
            checked.problems.push(format!(
                "run {}: frame {} of job {} was stored, and its folder {} is not there",
                run.run,
                job.stored_sequence,
                job.job,
                path.display()
            ));
        }
    }
    for (run, artifact) in catalogue.artifacts.iter().filter(|(_, artifact)| artifact.is_complete) {
        checked.artifact(&data.join("artifacts"), *run, artifact);
    }
    for entry in fs::read_dir(data.join("runs")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".damaged-") {
            checked.notes.push(format!("{} was set aside earlier", entry.path().display()));
        } else if name.parse::<RunId>().is_ok_and(|run| !catalogue.runs.contains_key(&run)) {
            checked.problems.push(format!(
                "{} holds evidence of a run that the catalogue does not know",
                entry.path().display()
            ));
        }
    }
    Ok(checked)
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

// === impl Checked ===

impl Checked {
    fn run(&mut self, path: &Path, run: &RunRecord, catalogue: &CheckedCatalogue) {
        let mut problems = Vec::new();
        match RunDb::inspect(path) {
            Ok((db, problem)) => {
                problems.extend(problem);
                match db.marks() {
                    Ok(marks) => self.attempts(&db, &marks, run, catalogue, &mut problems),
                    Err(error) => problems.push(error.to_string()),
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        let left = problems.len().saturating_sub(MOST_PROBLEMS);
        let sentences = problems.into_iter().take(MOST_PROBLEMS);
        self.problems.extend(sentences.map(|problem| format!("run {}: {problem}", run.run)));
        if left > 0 {
            self.problems.push(format!("run {}: … and {left} more", run.run));
        }
    }

    fn attempts(
        &mut self,
        db: &RunDb,
        marks: &[Mark],
        run: &RunRecord,
        catalogue: &CheckedCatalogue,
        problems: &mut Vec<String>,
    ) {
        let mut last: BTreeMap<(JobId, u32), (u64, bool)> = BTreeMap::new();
        for Mark { job, attempt, sequence: mark } in marks {
            let (mut next, mut frames, mut is_ended) = (1_u64, 0_u64, false);
            let mut holes = Vec::new();
            let read = db.frames(*job, *attempt, &mut |frame| {
                frames += 1;
                let sequence = match frame {
                    StoredFrame::Whole(frame) => {
                        is_ended = matches!(frame.body, Some(Body::Ended(_)));
                        frame.sequence
                    }
                    StoredFrame::Damaged { sequence, problem } => {
                        problems.push(format!(
                            "job {job} attempt {attempt}: frame {sequence}: {problem}"
                        ));
                        sequence
                    }
                };
                if sequence > next {
                    holes.push(format!(
                        "job {job} attempt {attempt}: frames {next} to {} are missing",
                        sequence - 1
                    ));
                }
                next = sequence.saturating_add(1);
                true
            });
            if let Err(error) = read {
                problems.push(error.to_string());
            }
            if next.saturating_sub(1) != *mark {
                problems.push(format!(
                    "job {job} attempt {attempt}: frame {} is the last there, and {mark} was stored",
                    next.saturating_sub(1)
                ));
            }
            // What an agent no longer had is told with the run.
            let is_told = run.notes.iter().any(|note| note.contains(&job.to_string()));
            if is_told {
                self.notes.extend(holes);
            } else {
                problems.extend(holes);
            }
            self.attempts += 1;
            self.frames += frames;
            last.insert((*job, *attempt), (*mark, is_ended));
        }
        for job in run.jobs.iter().filter_map(|job| catalogue.jobs.get(job)) {
            let attempt = job.state.tenure().map_or(0, |tenure| tenure.lease.attempt);
            let (mark, is_ended) = last.get(&(job.job, attempt)).copied().unwrap_or_default();
            if mark < job.stored_sequence {
                problems.push(format!(
                    "job {}: frame {} was stored, and {mark} is the last there",
                    job.job, job.stored_sequence
                ));
            }
            if job.is_ended && !is_ended {
                problems.push(format!("job {} ended, and its last frame is not there", job.job));
            }
        }
    }

    fn artifact(&mut self, folder: &Path, run: RunId, artifact: &ArtifactRecord) {
        if artifact.is_away {
            self.away += 1;
            return;
        }
        let path = artifacts::path_of(folder, run, artifact.job, artifact.attempt, &artifact.name);
        match digest::of_file(&path) {
            Ok(digest) if digest == artifact.sha256.to_ascii_lowercase() => self.artifacts += 1,
            Ok(_) => {
                self.problems.push(format!("{} has another digest than it had", path.display()));
            }
            Err(error) => self.problems.push(format!("{}: {error}", path.display())),
        }
    }
}
