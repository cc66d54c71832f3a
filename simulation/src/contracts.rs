//! What must hold after every look (contracts 1, 4 and 6), and at the end of a world (1 to 6 and 9), exact to the sample.

use crate::fleet::Fleet;
use crate::script::{Book, checksum};
use pgsoak_analysis::result::{RunResult, Verdict};
use pgsoak_coordinator::domain::job::JobState;
use pgsoak_coordinator::domain::record::{JobRecord, RunRecord};
use pgsoak_coordinator::domain::run::RunState;
use pgsoak_coordinator::store::Store;
use pgsoak_coordinator::store::run_db::StoredFrame;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{JobSpec, Lease, OnLost, Outcome};
use pgsoak_proto::wire;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// A run as it is stored.
#[derive(Debug)]
pub struct Stored {
    /// The run.
    pub record: RunRecord,
    /// Its jobs, in order.
    pub jobs: Vec<(JobSpec, JobRecord)>,
}

/// Looks at everything from outside. Its own runtime only carries the store's futures.
#[derive(Debug)]
pub struct Contracts {
    runtime: Runtime,
    starts: u64,
    finished: BTreeSet<RunId>,
}

/// What a world came to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Runs by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Attempts that ran.
    pub attempts: u64,
    /// Frames that were made and are stored, each once.
    pub frames: u64,
    /// Samples (ticks) of these.
    pub samples: u64,
    /// Ticks that stand in the ledger as gaps.
    pub gaps: u64,
    /// Over all of it, in the order of runs, jobs and attempts: two worlds of one seed have the same.
    pub checksum: u32,
}

impl Default for Contracts {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, starts: 0, finished: BTreeSet::new() }
    }
}

// === impl Contracts ===

impl Contracts {
    /// After every look of the world.
    pub fn check(&mut self, fleet: &Fleet) {
        let mut running: BTreeMap<JobId, Lease> = BTreeMap::new();
        for lease in fleet.hosts.iter().flat_map(|host| host.machine.running()) {
            if let Some(other) = running.insert(lease.job, lease) {
                panic!("contract 4: {other:?} and {lease:?} run at once");
            }
        }
        let store = fleet.store.borrow();
        let Some(store) = store.as_ref() else { return };
        for (job, lease) in &running {
            let Some(record) = self.job(store, *job) else {
                panic!("{lease:?} runs of a job that is not stored")
            };
            if let JobState::Over { outcome, reason, .. } = &record.state {
                panic!("contract 6: job {job} is over ({outcome}: {reason}), and {lease:?} runs");
            }
        }
        if self.starts != fleet.starts.get() {
            self.starts = fleet.starts.get();
            self.check_acknowledged(store, fleet);
        }
    }

    /// Contract 1, after each start of the coordinator: what it said is stored is there.
    fn check_acknowledged(&self, store: &Store, fleet: &Fleet) {
        for ((job, attempt), sequence) in fleet.acknowledged.lock().unwrap().iter() {
            let job: JobId = job.parse().unwrap();
            let run =
                self.runtime.block_on(store.run_of_job(job)).unwrap().expect("its run is stored");
            let (marks, damage) =
                self.runtime.block_on(store.high_water(run, vec![(job, *attempt)])).unwrap();
            assert_eq!(damage, None);
            assert!(
                marks[0] >= *sequence,
                "contract 1: frame {sequence} of {job} attempt {attempt} was acknowledged; {} are stored after a restart",
                marks[0]
            );
        }
    }

    fn job(&self, store: &Store, job: JobId) -> Option<JobRecord> {
        let run = self.runtime.block_on(store.run_of_job(job)).unwrap()?;
        let stored = self.run(store, run)?;
        stored.jobs.into_iter().map(|(_, record)| record).find(|record| record.job == job)
    }

    fn run(&self, store: &Store, run: RunId) -> Option<Stored> {
        let record = self.runtime.block_on(store.run(run)).unwrap()?;
        let jobs = self.runtime.block_on(store.jobs(&record)).unwrap();
        Some(Stored { record, jobs })
    }

    /// Whether everything has come to its end; else what has not.
    pub fn is_over(&mut self, fleet: &Fleet) -> Result<(), String> {
        let desk = fleet.desk.lock().unwrap();
        if desk.open > 0 || !desk.wishes.is_empty() {
            return Err(format!("people wait for {} answers", desk.open + desk.wishes.len()));
        }
        let store = fleet.store.borrow();
        let store = store.as_ref().ok_or("the coordinator is down")?;
        for run in self.runtime.block_on(store.run_ids()).unwrap() {
            if self.finished.contains(&run) {
                continue;
            }
            let stored = self.run(store, run).unwrap();
            if !matches!(stored.record.state, RunState::Finished { .. }) {
                let jobs: Vec<_> = stored
                    .jobs
                    .iter()
                    .map(|(_, job)| &job.state)
                    .filter(|state| !state.is_over())
                    .collect();
                return Err(format!("run {run} is {}: {jobs:#?}", stored.record.state.label()));
            }
            self.finished.insert(run);
        }
        for host in &fleet.hosts {
            let left = std::fs::read_dir(host.data.join("jobs")).map_or(0, Iterator::count);
            if left > 0 {
                return Err(format!("{left} folder(s) are left on {}", host.name));
            }
        }
        Ok(())
    }

    /// At the end of a world.
    pub fn check_end(&self, fleet: &Fleet) -> Ledger {
        let store = fleet.store.borrow();
        let store = store.as_ref().unwrap();
        let desk = fleet.desk.lock().unwrap();
        let runs = self.runtime.block_on(store.run_ids()).unwrap();
        assert_eq!(runs.len(), desk.runs.len(), "a run for each key, and no other");
        let mut books: BTreeMap<Lease, (Book, bool)> = BTreeMap::new();
        for host in &fleet.hosts {
            let lost = host.machine.wiped();
            let new = host
                .machine
                .books()
                .into_iter()
                .map(|(lease, book)| (lease, (book, lost.contains(&lease))));
            books.extend(new);
        }
        let mut ledger = Ledger::default();
        for (key, run) in &desk.runs {
            let stored =
                self.run(store, run.parse().unwrap()).expect("what was answered is stored");
            let json = self
                .runtime
                .block_on(store.result(stored.record.run))
                .unwrap()
                .expect("a finished run has a result");
            let result: RunResult = serde_json::from_str(&json).unwrap();
            let is_cancelled = desk.cancelled.contains(key);
            for (spec, record) in &stored.jobs {
                self.check_job(store, spec, record, is_cancelled, &mut books, &result, &mut ledger);
            }
            check_verdict(&stored, &result);
            *ledger.verdicts.entry(format!("{:?}", result.verdict).to_lowercase()).or_default() +=
                1;
        }
        assert!(books.is_empty(), "attempts ran of jobs that nobody asked for: {:?}", books.keys());
        ledger
    }

    #[allow(clippy::too_many_arguments, reason = "one look at one job, from all sides")]
    fn check_job(
        &self,
        store: &Store,
        spec: &JobSpec,
        record: &JobRecord,
        is_cancelled: bool,
        books: &mut BTreeMap<Lease, (Book, bool)>,
        result: &RunResult,
        ledger: &mut Ledger,
    ) {
        let JobState::Over { outcome, reason, tenure, .. } = &record.state else {
            panic!("not over: {record:?}")
        };
        let leases: Vec<Lease> =
            books.keys().copied().filter(|lease| lease.job == record.job).collect();
        for lease in leases {
            let (book, is_wiped) = books.remove(&lease).unwrap();
            let is_last = tenure.is_some_and(|tenure| tenure.lease == lease);
            let stored = self.frames(store, spec.run, lease);
            let context =
                || format!("{lease:?} of run {} ({outcome}: {reason}; {:?})", spec.run, book.ended);
            // Whatever became of it: what is stored is what was made, in order, without a hole, and at most the daemon's last word behind it.
            let made = book.frames.len();
            let by_runner = stored.len().min(made);
            assert_eq!(
                stored[..by_runner],
                book.frames[..by_runner],
                "contract 2: other frames are stored of {}",
                context()
            );
            assert!(
                stored.len() <= made + 1,
                "contract 2: more is stored than was made of {}",
                context()
            );
            // A job past its hard end whose host was silent, or a host that lost its folders.
            let is_lost = is_wiped || reason.contains("hard end is past") || !is_last;
            let is_given_up = is_cancelled && *outcome == Outcome::Cancelled;
            if !is_last {
                let may = is_wiped || is_cancelled || spec.on_lost == OnLost::Retry;
                assert!(may, "contract 5: {} ran for nothing", context());
            }
            if !is_lost && !is_given_up {
                let whole = made + usize::from(book.ended.is_none());
                assert_eq!(stored.len(), whole, "contract 2: frames are missing of {}", context());
                let ended = book.ended.unwrap_or(Outcome::Infrastructure);
                assert_eq!(*outcome, ended, "contract 9: {}", context());
                let judged = result.jobs.iter().find(|job| job.job == record.job).unwrap();
                if book.ended.is_some() {
                    let counted =
                        (judged.samples.expected, judged.samples.stored, judged.samples.gaps);
                    assert_eq!(
                        counted,
                        (book.ticks, book.sampled, book.gaps),
                        "contract 2: the ledger of {}",
                        context()
                    );
                }
            }
            if let Some(why) = &book.asked {
                assert!(
                    is_cancelled || is_lost,
                    "contract 5: {} was asked to stop: {why}",
                    context()
                );
            }
            ledger.attempts += 1;
            ledger.frames += stored.len() as u64;
            ledger.samples += book.sampled;
            ledger.gaps += book.gaps;
            for frame in &stored {
                ledger.checksum = crc32c::crc32c_append(ledger.checksum, &frame.to_le_bytes());
            }
        }
        ledger.checksum = crc32c::crc32c_append(ledger.checksum, outcome.to_string().as_bytes());
    }

    /// Checksums of the stored frames of an attempt; each has its place.
    fn frames(&self, store: &Store, run: RunId, lease: Lease) -> Vec<u32> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&found);
        let reading = store.read_frames(run, lease.job, lease.attempt, move |frame| {
            let StoredFrame::Whole(frame) = frame else {
                panic!("contract 1: a stored frame is damaged")
            };
            let mut found = to.lock().unwrap();
            let frame: wire::Frame = *frame;
            assert_eq!(
                frame.sequence,
                found.len() as u64 + 1,
                "contract 2: a hole, or a frame twice"
            );
            found.push(checksum(&frame));
            true
        });
        self.runtime.block_on(reading).unwrap();
        Arc::into_inner(found).unwrap().into_inner().unwrap()
    }
}

/// Contracts 3 and 9: the verdict is what the jobs came to.
fn check_verdict(stored: &Stored, result: &RunResult) {
    let outcomes: Vec<Outcome> = stored
        .jobs
        .iter()
        .filter_map(|(_, job)| match &job.state {
            JobState::Over { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect();
    let has = |wanted: Outcome| outcomes.contains(&wanted);
    let said = || format!("{outcomes:?} came to {:?}: {}", result.verdict, result.sentence);
    assert_eq!(result.verdict == Verdict::Fail, has(Outcome::Failed), "contract 9: {}", said());
    if has(Outcome::Infrastructure) && !has(Outcome::Failed) {
        assert_eq!(result.verdict, Verdict::Invalid, "contract 9: {}", said());
    }
    let is_whole = outcomes.iter().all(|outcome| *outcome == Outcome::Finished);
    let has_gaps = result.jobs.iter().any(|job| job.samples.gaps * 5 > job.samples.expected);
    if result.verdict == Verdict::Pass {
        assert!(is_whole && !has_gaps, "contract 3: {}", said());
    } else if is_whole && !has_gaps {
        // A short script may be too little to judge; it is nobody's failure.
        assert_eq!(
            result.verdict,
            Verdict::Inconclusive,
            "nothing is wrong with it, and {}",
            said()
        );
    }
}
