//! What is kept of judged runs so that history need not read their evidence: figures for comparisons, points for trends, and
//! what each was compared with. JSON under zstd: about a tenth of its size.

use crate::domain::history::Against;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use crate::store::value;
use pgsoak_analysis::compare::JobFigures;
use pgsoak_analysis::releases::RunPoints;
use pgsoak_proto::id::RunId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tracing::warn;

/// zstd's usual level: history is written once a run.
const LEVEL: i32 = 3;
/// A record that says it is larger than this when unpacked is damaged.
const MOST_BYTES: usize = 64 << 20;

/// The figures of a run, with the version of the engine that made them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    engine: u32,
    jobs: Vec<JobFigures>,
}

impl Batch {
    fn put_packed(&mut self, key: &Key<'_>, record: &impl Serialize) {
        let packed = serde_json::to_vec(record)
            .map_err(|error| error.to_string())
            .and_then(|bytes| zstd::bulk::compress(&bytes, LEVEL).map_err(|e| e.to_string()));
        match packed {
            Ok(bytes) if bytes.len() <= value::MAX_VALUE => self.puts.push((key.encode(), bytes)),
            // History is worth less than the run's end: it is made again from the evidence when it is asked for.
            Ok(bytes) => warn!(?key, bytes = bytes.len(), "too large; not kept"),
            Err(error) => warn!(?key, error, "not kept"),
        }
    }

    /// The figures of a run's jobs, and what trends need of them.
    pub fn figures(&mut self, run: RunId, at_unix_us: u64, jobs: &[JobFigures]) {
        let figures = Figures { engine: pgsoak_analysis::verdict::ENGINE, jobs: jobs.to_vec() };
        self.put_packed(&Key::Figures(run), &figures);
        let mut points: BTreeMap<String, RunPoints> = BTreeMap::new();
        for point in jobs.iter().filter_map(JobFigures::point) {
            points
                .entry(point.workload.clone())
                .or_insert_with(|| RunPoints { run, at_unix_us, jobs: Vec::new() })
                .jobs
                .push(point);
        }
        for (workload, points) in points {
            self.put_packed(&Key::Points(&workload, run), &points);
        }
    }

    /// What a run was compared with.
    pub fn against(&mut self, run: RunId, against: &Against) {
        self.put_packed(&Key::Against(run), against);
    }
}

pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, value::DamagedValue> {
    let damaged = |problem: String| value::DamagedValue::Content(problem);
    let plain =
        zstd::bulk::decompress(bytes, capacity(bytes)).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_slice(&plain).map_err(|error| damaged(error.to_string()))
}

/// What the frame says that it unpacks to, within bounds.
fn capacity(bytes: &[u8]) -> usize {
    let said = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    said.and_then(|said| usize::try_from(said).ok()).unwrap_or(MOST_BYTES).min(MOST_BYTES)
}

impl Catalogue {
    fn get_packed<T: DeserializeOwned>(&self, key: &Key<'_>) -> Result<Option<T>, StoreError> {
        let found = value::get(&self.db.db, &key.encode())
            .map_err(|source| self.db.error("read", source))?;
        match found.map(|value| value.and_then(|bytes| unpack(&bytes))) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(damage)) => Err(StoreError::Damaged {
                what: format!("the catalogue's {key:?}"),
                problem: damage.to_string(),
            }),
        }
    }

    /// The figures of a run's jobs; `None`: they were never kept, or by another version of the engine.
    pub(crate) fn figures(&self, run: RunId) -> Option<Vec<JobFigures>> {
        let found = self.get_packed::<Figures>(&Key::Figures(run));
        found
            .inspect_err(|error| warn!(%run, %error, "figures are made again"))
            .ok()
            .flatten()
            .filter(|figures| figures.engine == pgsoak_analysis::verdict::ENGINE)
            .map(|figures| figures.jobs)
    }

    pub(crate) fn against(&self, run: RunId) -> Result<Option<Against>, StoreError> {
        self.get_packed(&Key::Against(run))
    }

    /// The points of every run of a workload, oldest first.
    pub(crate) fn points(&self, workload: &str) -> Result<Vec<RunPoints>, StoreError> {
        let mut found = Vec::new();
        value::scan(&self.db.db, &keys::points_of(workload), |key, stored| {
            match stored.and_then(|bytes| unpack(&bytes)) {
                Ok(points) => found.push(points),
                Err(damage) => warn!(key = keys::describe(key), %damage, "left out of a trend"),
            }
            true
        })
        .map_err(|source| self.db.error("read", source))?;
        Ok(found)
    }

    /// Workloads of which points are kept.
    pub(crate) fn workloads(&self) -> Result<Vec<String>, StoreError> {
        let mut found: Vec<String> = Vec::new();
        for key in self.db.db.scan_prefix(keys::POINTS).keys() {
            let key = key.map_err(|source| self.db.error("read", source))?;
            if let Some(name) = keys::workload_of(&key)
                && found.last().is_none_or(|last| *last != name)
            {
                found.push(name);
            }
        }
        Ok(found)
    }
}
