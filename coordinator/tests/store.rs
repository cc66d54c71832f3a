//! The store by itself: what is answered is there when it is opened again, once, whole, and nothing else is.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; a failure here is the report"
)]

use pgsoak_coordinator::domain::record::{RunInput, RunRecord};
use pgsoak_coordinator::domain::run::RunState;
use pgsoak_coordinator::domain::time::UnixUs;
use pgsoak_coordinator::store::Store;
use pgsoak_coordinator::store::catalogue::Batch;
use pgsoak_coordinator::store::evidence::{Append, AppendError, Appended};
use pgsoak_coordinator::store::run_db::StoredFrame;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::wire;
use prost::Message as _;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

fn frame(sequence: u64, bytes: usize) -> (u64, Vec<u8>) {
    let gap = wire::Gap { first_tick: 1, ticks: 1, cause: "x".repeat(bytes) };
    let body = Some(wire::frame::Body::Gap(gap));
    (sequence, wire::Frame { sequence, elapsed_us: 1, body }.encode_to_vec())
}

fn append(run: RunId, job: JobId, frames: Vec<(u64, Vec<u8>)>) -> Append {
    Append { run, job, attempt: 1, frames, lost_up_to: 0 }
}

async fn store_in(folder: &Path) -> Store {
    Store::open(folder).await.unwrap()
}

async fn write(store: &Store, append: Append) -> Result<Appended, AppendError> {
    store.append(append).await.unwrap().await
}

async fn sequences(store: &Store, run: RunId, job: JobId) -> Vec<u64> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&found);
    store
        .read_frames(run, job, 1, move |frame| {
            match frame {
                StoredFrame::Whole(frame) => sink.lock().unwrap().push(frame.sequence),
                StoredFrame::Damaged { sequence, problem } => panic!("{sequence}: {problem}"),
            }
            true
        })
        .await
        .unwrap();
    Arc::try_unwrap(found).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn what_is_answered_is_there_again_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (run, job) = (RunId::issue(), JobId::issue());
    let store = store_in(folder.path()).await;
    let first: Vec<_> = (1..=20).map(|n| frame(n, 10)).collect();
    let answer = write(&store, append(run, job, first.clone())).await.unwrap();
    assert_eq!(answer, Appended { high_water: 20, repeated: 0, skipped: 0 });
    // A repeat, and one that reaches beyond: only what is new is stored. One frame is far larger than a piece.
    let answer = write(&store, append(run, job, first)).await.unwrap();
    assert_eq!(answer, Appended { high_water: 20, repeated: 20, skipped: 0 });
    let more: Vec<_> = (15..=25).map(|n| frame(n, if n == 22 { 900_000 } else { 10 })).collect();
    let answer = write(&store, append(run, job, more)).await.unwrap();
    assert_eq!(answer, Appended { high_water: 25, repeated: 6, skipped: 0 });
    store.close().await;
    drop(store);

    let store = store_in(folder.path()).await;
    let (marks, damage) = store.high_water(run, vec![(job, 1), (job, 2)]).await.unwrap();
    assert_eq!((marks, damage), (vec![25, 0], None));
    assert_eq!(sequences(&store, run, job).await, (1..=25).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn a_hole_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (run, job) = (RunId::issue(), JobId::issue());
    let store = store_in(folder.path()).await;
    write(&store, append(run, job, vec![frame(1, 5)])).await.unwrap();
    let refused = write(&store, append(run, job, vec![frame(3, 5)])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Hole { have: 1, got: 3 }), "{refused}");
    let too_far = Append { lost_up_to: 2, ..append(run, job, vec![frame(4, 5)]) };
    assert!(write(&store, too_far).await.is_err(), "frame 3 was not said to be lost");
    let lost = Append { lost_up_to: 3, ..append(run, job, vec![frame(4, 5)]) };
    let answer = write(&store, lost).await.unwrap();
    assert_eq!(answer, Appended { high_water: 4, repeated: 0, skipped: 2 });
    assert_eq!(sequences(&store, run, job).await, [1, 4]);
    store.close().await;
}

#[tokio::test]
async fn many_appends_share_a_sync_and_each_is_answered_after_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunId::issue();
    let store = store_in(folder.path()).await;
    let jobs: Vec<JobId> = (0..200).map(|_| JobId::issue()).collect();
    let mut answers = Vec::new();
    for job in &jobs {
        answers.push(store.append(append(run, *job, vec![frame(1, 50)])).await.unwrap());
    }
    for answer in answers {
        let before = store.evidence_syncs();
        answer.await.unwrap();
        assert!(store.evidence_syncs() >= before.max(1), "answered before the first sync");
    }
    assert!(store.evidence_syncs() < 200, "{} syncs for 200 appends", store.evidence_syncs());
    store.close().await;
}

#[tokio::test]
async fn every_run_has_a_folder_of_its_own_and_is_closed_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path()).await;
    let (a, b, job) = (RunId::issue(), RunId::issue(), JobId::issue());
    for run in [a, b] {
        write(&store, append(run, job, vec![frame(1, 5)])).await.unwrap();
        assert!(folder.path().join("runs").join(run.to_string()).join("db").is_file());
    }
    store.close_run(a).await;
    // Closed is not gone: it opens again for readers, and for a late writer.
    assert_eq!(sequences(&store, a, job).await, [1]);
    write(&store, append(a, job, vec![frame(2, 5)])).await.unwrap();
    assert_eq!(sequences(&store, a, job).await, [1, 2]);
    assert_eq!(sequences(&store, RunId::issue(), job).await, Vec::<u64>::new());
    store.close().await;
}

fn record(run: RunId) -> RunRecord {
    RunRecord {
        run,
        plan: "p".to_owned(),
        submitted_at: UnixUs(5),
        state: RunState::Queued,
        jobs: (0..500).map(|_| JobId::issue()).collect(),
        jobs_over: 0,
        notes: Vec::new(),
        escalations: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        priority: 50,
    }
}

#[tokio::test]
async fn the_catalogue_keeps_large_records_and_names_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path()).await;
    let (good, bad) = (record(RunId::issue()), record(RunId::issue()));
    let input = RunInput {
        plan_toml: "x = 1\n".repeat(50_000),
        workloads: BTreeMap::from([("w".to_owned(), "y".repeat(200_000))]),
        ..RunInput::default()
    };
    let mut batch = Batch::default();
    for run in [&good, &bad] {
        batch.run(run);
        batch.input(run.run, &input);
    }
    batch.client_key("key", good.run);
    batch.fence(7);
    store.commit(batch).await.unwrap();
    assert_eq!(store.input(good.run).await.unwrap(), Some(input.clone()));
    store.close().await;
    drop(store);

    // A flipped bit in a stored value, behind the back of everybody.
    let mut db = None;
    for _ in 0..200 {
        match sled::open(folder.path().join("catalogue")) {
            Ok(open) => {
                db = Some(open);
                break;
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    let db = db.expect("the store let go of its folder");
    let mut key = vec![b'r'];
    key.extend_from_slice(bad.run.as_bytes());
    key.extend_from_slice(&[0, 0]);
    let mut value = db.get(&key).unwrap().unwrap().to_vec();
    let last = value.len() - 1;
    value[last] ^= 1;
    db.insert(key, value).unwrap();
    db.flush().unwrap();
    drop(db);

    let store = store_in(folder.path()).await;
    assert_eq!(store.run_of_key("key".to_owned()).await.unwrap(), Some(good.run));
    assert_eq!(store.run(good.run).await.unwrap(), Some(good));
    let error = store.run(bad.run).await.unwrap_err().to_string();
    assert!(error.contains(&bad.run.to_string()) || error.contains("Run("), "{error}");
    assert!(error.contains("checksum"), "{error}");
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.fence, 7);
    assert!(loaded.damage.iter().any(|damage| damage.contains("checksum")), "{:?}", loaded.damage);
    store.close().await;
}
