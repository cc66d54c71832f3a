//! A consistent copy of a store: read from one that is at work, written into a folder that a coordinator can start on.

use crate::store::StoreError;
use crate::store::artifacts::Artifacts;
use crate::store::builds::BuildFiles;
use crate::store::catalogue::{self, Catalogue, Entries};
use crate::store::open::{SyncedDb, sync_folder};
use crate::store::run_dbs::RunDbs;
use pgsoak_proto::id::RunId;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Component, Path, PathBuf},
};

/// Bytes of entries that go together.
const PORTION: usize = 512 << 10;
/// Where package files lie in a data folder.
const BUILDS: &str = "builds";
/// Bytes of a piece of a file.
const PIECE: usize = 256 << 10;
/// Cache of a database that is being written.
const CACHE_BYTES: u64 = 32 << 20;

/// A part of a copy.
#[derive(Debug)]
pub enum CopyPart {
    /// Entries of the catalogue.
    Catalogue(Vec<(Vec<u8>, Vec<u8>)>),
    /// Entries of a run's evidence.
    Run(RunId, Vec<(Vec<u8>, Vec<u8>)>),
    /// A piece of a file.
    File {
        /// Below the data folder.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
        /// At most 256 KiB.
        data: Vec<u8>,
    },
}

/// How much a copy holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CopySummary {
    /// Runs with evidence.
    pub runs: u64,
    /// Entries of all databases.
    pub entries: u64,
    /// Raw files and packages.
    pub files: u64,
    /// Of entries and files.
    pub bytes: u64,
}

// === reading ===

/// Gathers entries into portions, and counts.
struct Portions<F> {
    of: Option<RunId>,
    entries: Entries,
    bytes: usize,
    summary: CopySummary,
    each: F,
    /// `each` wants more.
    goes_on: bool,
}

impl<F: FnMut(CopyPart) -> bool> Portions<F> {
    fn add(&mut self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let size = key.len().saturating_add(value.len());
        self.bytes = self.bytes.saturating_add(size);
        self.summary.entries += 1;
        self.summary.bytes += u64::try_from(size).unwrap_or(0);
        self.entries.push((key, value));
        if self.bytes >= PORTION {
            self.hand_over();
        }
        self.goes_on
    }

    fn hand_over(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.bytes = 0;
        if self.goes_on && !entries.is_empty() {
            self.goes_on = (self.each)(match self.of {
                None => CopyPart::Catalogue(entries),
                Some(run) => CopyPart::Run(run, entries),
            });
        }
    }

    fn piece(&mut self, path: &Path, offset: u64, data: Vec<u8>) -> bool {
        self.summary.bytes += u64::try_from(data.len()).unwrap_or(0);
        let path = path.to_owned();
        self.goes_on = self.goes_on && (self.each)(CopyPart::File { path, offset, data });
        self.goes_on
    }
}

/// Hands everything to `each`, until it returns false. Blocks.
pub(super) fn read(
    catalogue: &Catalogue,
    runs: &RunDbs,
    artifacts: &Artifacts,
    builds: &BuildFiles,
    entries: Entries,
    each: impl FnMut(CopyPart) -> bool,
) -> Result<CopySummary, StoreError> {
    let summary = CopySummary::default();
    let mut to = Portions { of: None, entries: Vec::new(), bytes: 0, summary, each, goes_on: true };
    let mut known = BTreeSet::new();
    for (key, value) in entries {
        known.extend(catalogue::run_of(&key));
        to.add(key, value);
    }
    to.hand_over();
    for run in known {
        if !to.goes_on {
            break;
        }
        to.of = Some(run);
        if let Some(db) = runs.open_existing(run)? {
            db.copy(&mut |key, value| to.add(key, value))?;
            to.hand_over();
            to.summary.runs += 1;
        }
        for artifact in catalogue.artifacts(run)?.iter().filter(|of| of.is_complete && !of.is_away)
        {
            let from = artifacts.path(run, artifact.job, artifact.attempt, &artifact.name);
            let below = artifacts.below_data(&from);
            read_file(&from, |offset, data| to.piece(&below, offset, data))
                .map_err(|source| StoreError::Io { doing: "copy", path: from, source })?;
            to.summary.files += 1;
        }
    }
    for build in catalogue.builds()? {
        if !to.goes_on {
            break;
        }
        let from = builds.path(&build.digest);
        let below = Path::new(BUILDS).join(&build.digest);
        match read_file(&from, |offset, data| to.piece(&below, offset, data)) {
            Ok(()) => to.summary.files += 1,
            // Removed since the catalogue was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { doing: "copy", path: from, source }),
        }
    }
    Ok(to.summary)
}

fn read_file(path: &Path, mut each: impl FnMut(u64, Vec<u8>) -> bool) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut offset = 0;
    loop {
        let mut data = Vec::new();
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut data)?;
        // An empty file has one empty piece.
        if read == 0 && offset > 0 {
            return Ok(());
        }
        if !each(offset, data) || read == 0 {
            return Ok(());
        }
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(0));
    }
}

// === writing ===

/// A copy that is being written. Until [`Self::finish`] it lies under another name, so that half a copy is none.
#[derive(Debug)]
pub struct CopyWriter {
    target: PathBuf,
    partial: PathBuf,
    catalogue: SyncedDb,
    run: Option<(RunId, SyncedDb)>,
    runs: u64,
}

impl CopyWriter {
    /// Begins a copy that will be the folder `target`, which must not be there. Blocks.
    ///
    /// # Errors
    ///
    /// When something is there, or the folder cannot be made.
    pub fn begin(target: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { doing: "make", path, source }
        };
        if target.exists() {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "it is there already");
            return Err(failed(target)(source));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = target.with_file_name(name);
        if partial.exists() {
            // Of a copy that did not come to its end.
            fs::remove_dir_all(&partial).map_err(failed(&partial))?;
        }
        fs::create_dir_all(partial.join("runs")).map_err(failed(&partial))?;
        let catalogue = SyncedDb::open(&partial.join("catalogue"), CACHE_BYTES)?;
        Ok(Self { target: target.to_owned(), partial, catalogue, run: None, runs: 0 })
    }

    /// Adds a part. Blocks.
    ///
    /// # Errors
    ///
    /// When the disk does not take it, or a file's place is not below the data folder.
    pub fn add(&mut self, part: CopyPart) -> Result<(), StoreError> {
        match part {
            CopyPart::Catalogue(entries) => put(&self.catalogue, entries),
            CopyPart::Run(run, entries) => {
                if self.run.as_ref().is_none_or(|(open, _)| *open != run) {
                    self.close_run()?;
                    let path = self.partial.join("runs").join(run.to_string());
                    self.run = Some((run, SyncedDb::open(&path, CACHE_BYTES)?));
                    self.runs += 1;
                }
                match &self.run {
                    Some((_, db)) => put(db, entries),
                    None => Ok(()),
                }
            }
            CopyPart::File { path, offset, data } => {
                let to = self.partial.join(&path);
                let is_below = path.components().all(|part| matches!(part, Component::Normal(_)))
                    && ["artifacts", BUILDS].iter().any(|folder| path.starts_with(folder));
                let written = if is_below {
                    write_piece(&to, offset, &data)
                } else {
                    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a place for a raw file"))
                };
                written.map_err(|source| StoreError::Io { doing: "write", path: to, source })
            }
        }
    }

    fn close_run(&mut self) -> Result<(), StoreError> {
        match self.run.take() {
            Some((_, db)) => db.sync(),
            None => Ok(()),
        }
    }

    /// Syncs everything and gives the folder its name; how many runs have evidence in it. Blocks.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.close_run()?;
        catalogue::raise_fence(&self.catalogue)?;
        self.catalogue.sync()?;
        let Self { target, partial, catalogue, runs, .. } = self;
        drop(catalogue);
        let named = sync_below(&partial)
            .and_then(|()| fs::rename(&partial, &target))
            .and_then(|()| sync_folder(&target));
        named.map_err(|source| StoreError::Io { doing: "finish", path: target, source })?;
        Ok(runs)
    }
}

fn put(db: &SyncedDb, entries: Entries) -> Result<(), StoreError> {
    let mut batch = sled::Batch::default();
    for (key, value) in entries {
        batch.insert(key, value);
    }
    db.db.apply_batch(batch).map_err(|source| db.error("write", source))
}

fn write_piece(path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() != offset {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a piece is missing before this one",
        ));
    }
    file.write_all(data)
}

/// Syncs every file and folder below.
fn sync_below(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?;
        }
    }
    sync_folder(folder)
}
