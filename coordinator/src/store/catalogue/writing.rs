//! The one thread that writes the catalogue: merges what waits, writes it at once, syncs, answers.

use crate::store::StoreError;
use crate::store::catalogue::Batch;
use crate::store::catalogue::history;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::parse;
use crate::store::index::RunIndex;
use crate::store::open::SyncedDb;
use crate::store::value;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// Added to the last fence when a copy is restored: leases that were given after the copy was made never look new.
pub(super) const FENCES_UNKNOWN: u64 = 1 << 32;
/// Batches that share one sync.
const GROUP: usize = 256;

pub(super) type Waiting = (Batch, oneshot::Sender<Result<(), StoreError>>);

/// Keys and values as they lie in a database.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) enum Command {
    Commit(Waiting),
    /// Everything, as it is between two batches.
    Copy(oneshot::Sender<Result<Entries, StoreError>>),
    Stop,
}

/// Makes a restored catalogue safe to go on with.
pub(crate) fn raise_fence(db: &SyncedDb) -> Result<(), StoreError> {
    let stored = value::get(&db.db, &Key::Fence.encode())
        .map_err(|source| db.error("read", source))?
        .and_then(Result::ok);
    let fence: u64 = stored.and_then(|bytes| parse(&bytes).ok()).unwrap_or(0);
    let mut batch = Batch::default();
    batch.fence(fence.saturating_add(FENCES_UNKNOWN));
    let mut merged = sled::Batch::default();
    add(db, &mut merged, batch)?;
    db.db.apply_batch(merged).map_err(|source| db.error("write", source))
}

/// The thread: merges what waits, writes it at once, syncs, answers.
pub(super) fn write_all(db: &SyncedDb, index: &RunIndex, mut queue: mpsc::Receiver<Command>) {
    let mut group: Vec<Waiting> = Vec::new();
    loop {
        let mut copies = Vec::new();
        let mut next = queue.blocking_recv();
        let is_over = loop {
            match next {
                Some(Command::Commit(waiting)) => group.push(waiting),
                Some(Command::Copy(reply)) => copies.push(reply),
                Some(Command::Stop) | None => break true,
            }
            if group.len() >= GROUP {
                break false;
            }
            match queue.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => break false,
            }
        };
        write_group(db, index, &mut group);
        for reply in copies {
            // A caller that no longer waits is no error of ours.
            let _ = reply.send(entries(db));
        }
        if is_over {
            return;
        }
    }
}

fn entries(db: &SyncedDb) -> Result<Entries, StoreError> {
    db.db
        .iter()
        .map(|entry| match entry {
            Ok((key, value)) => Ok((key.to_vec(), value.to_vec())),
            Err(source) => Err(db.error("copy", source)),
        })
        .collect()
}

fn write_group(db: &SyncedDb, index: &RunIndex, group: &mut Vec<Waiting>) {
    let mut merged = sled::Batch::default();
    let (mut taken, mut changes, mut edits) = (Vec::new(), Vec::new(), Vec::new());
    for (mut batch, reply) in group.drain(..) {
        let changed = std::mem::take(&mut batch.changes);
        let edited = std::mem::take(&mut batch.edits);
        match add(db, &mut merged, batch) {
            Ok(()) => {
                taken.push(reply);
                changes.extend(changed);
                edits.extend(edited);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    if taken.is_empty() {
        return;
    }
    let written = history::add_edits(db, index, &mut merged, edits).and_then(|edited| {
        db.db.apply_batch(merged).map_err(|source| db.error("write", source))?;
        db.sync()?;
        Ok(edited)
    });
    match written {
        Ok(edited) => {
            index.apply(changes.into_iter().chain(edited));
            for reply in taken {
                // A caller that no longer waits is no error of ours.
                let _ = reply.send(Ok(()));
            }
        }
        Err(error) => {
            error!(%error, "the catalogue cannot be written");
            let text = error.to_string();
            for reply in taken {
                let failed = StoreError::Damaged {
                    what: "the catalogue".to_owned(),
                    problem: format!("it cannot be written: {text}"),
                };
                let _ = reply.send(Err(failed));
            }
        }
    }
}

/// Adds a whole batch or nothing of it.
pub(super) fn add(db: &SyncedDb, merged: &mut sled::Batch, batch: Batch) -> Result<(), StoreError> {
    if let Some(problem) = batch.refused {
        return Err(StoreError::Damaged { what: "a record".to_owned(), problem });
    }
    for key in batch.removes {
        value::remove(&db.db, merged, &key, 0).map_err(|source| db.error("read", source))?;
    }
    for (key, bytes) in batch.puts {
        value::remove(&db.db, merged, &key, value::pieces_of(bytes.len()))
            .map_err(|source| db.error("read", source))?;
        if !value::put(merged, &key, &bytes) {
            // Checked when the batch was made; a second look costs nothing.
            return Err(StoreError::Damaged {
                what: keys::describe(&key),
                problem: "it is too large".to_owned(),
            });
        }
    }
    Ok(())
}
