//! heaptrack's and massif's files, once the server is gone, become digests in the evidence; whole ones are left for keeping.
//!
//! Runs before the private tree goes, since heaptrack's files hold addresses and the names are in the tree's own modules. Sessions of the
//! workload get sites; other processes get totals. A process counts as seen when its file could be read and holds something.

use crate::runner::instruments::Instruments;
use crate::runner::record::Life;
use crate::tools::Tooling;
use pgsoak_analysis::heap;
use pgsoak_analysis::heap::SymbolCache;
use pgsoak_analysis::heap::digest::HeapDigest;
use pgsoak_analysis::massif;
use pgsoak_analysis::stack::allocates_in_contexts;
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{SiteDigest, SiteMark};
use pgsoak_proto::job::Tool;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Digests of processes that are no session of the workload, and processes that only the tool saw.
pub(super) const MOST_OTHERS: usize = 500;

/// Sites of a whole digest that is left for keeping.
const WHOLE_SITES: usize = 4_000;

/// Types of processes that run nothing but the server's own code.
const SERVERS_OWN: [&str; 13] = [
    "archiver",
    "autovacuum launcher",
    "background writer",
    "checkpointer",
    "io worker",
    "logger",
    "logical replication launcher",
    "postmaster",
    "slotsync worker",
    "startup",
    "walreceiver",
    "walsummarizer",
    "walwriter",
];

/// What the tool's files come to.
#[derive(Debug, Default)]
pub struct Profiles {
    /// In the order of the processes' numbers.
    pub digests: Vec<SiteDigest>,
    /// Pids whose file could be read.
    pub seen: BTreeSet<u32>,
    /// Of these, the sessions whose file shows a block of a memory context: every backend makes some.
    pub alive: BTreeSet<u32>,
}

/// Reads the files of heaptrack or massif; nothing under other tools.
pub fn profiles(tooling: &Tooling, instruments: Option<&Instruments>, lives: &[&Life]) -> Profiles {
    let mut profiles = Profiles::default();
    if !matches!(tooling.tool, Tool::Heaptrack | Tool::Massif) {
        return profiles;
    }
    let reports = match tooling.reports() {
        Ok(reports) => reports,
        Err(error) => {
            tracing::warn!(%error, "cannot list the tool's reports");
            return profiles;
        }
    };
    let mut symbols = SymbolCache::default();
    let mut others = 0;
    for life in lives {
        let Some(file) = reports.get(&life.who.pid) else { continue };
        let read = match tooling.tool {
            Tool::Massif => of_massif(file, life, instruments, tooling.counts_pages()),
            _ => of_heaptrack(file, life, instruments, &mut symbols),
        };
        match read {
            Ok((digest, _)) if digest.peak_bytes == 0 => {
                tracing::warn!(pid = life.who.pid, "the tool's file is empty");
            }
            Ok((digest, is_alive)) => {
                profiles.seen.insert(life.who.pid);
                if is_alive {
                    profiles.alive.insert(life.who.pid);
                }
                others += usize::from(digest.session.is_none());
                if digest.session.is_some() || others <= MOST_OTHERS {
                    profiles.digests.push(digest);
                }
            }
            Err(error) => {
                tracing::warn!(pid = life.who.pid, error, "cannot read the tool's file");
            }
        }
    }
    profiles
}

fn of_heaptrack(
    file: &Path,
    life: &Life,
    instruments: Option<&Instruments>,
    symbols: &mut SymbolCache,
) -> Result<(SiteDigest, bool), String> {
    let (process, session) = (life.who.process, life.who.session);
    if session.is_none() {
        // A process of the server's own has totals; any other can run the extension's code: a background worker, a parallel worker.
        let digest = match SERVERS_OWN.contains(&life.who.backend_type.as_str()) {
            true => heap::read_totals(file),
            false => heap::read_with_marks(file, &[], symbols),
        };
        let digest = digest.map_err(|error| chain(&error))?;
        return Ok((heap::condensed(process, None, &digest, &[]), false));
    }
    let marks = instruments.map(|known| known.marks_of(life.who.pid)).unwrap_or_default();
    let (offsets, marks): (Vec<u64>, Vec<SiteMark>) = marks.into_iter().unzip();
    let digest = heap::read_with_marks(file, &offsets, symbols).map_err(|error| chain(&error))?;
    if let Err(error) = leave_whole(&digest, &file.with_extension("json")) {
        tracing::warn!(pid = life.who.pid, %error, "the whole digest is not kept");
    }
    let is_alive = digest.frames.iter().any(|frame| allocates_in_contexts(&frame.function));
    Ok((heap::condensed(process, session, &digest, &marks), is_alive))
}

/// A function of the dynamic loader: every process has its program and libraries mapped.
fn maps_programs(function: &str) -> bool {
    function == "dl_main" || function.starts_with("_dl_")
}

/// With names in it: the raw file alone cannot be read any more when the tree is gone.
fn leave_whole(digest: &HeapDigest, to: &PathBuf) -> io::Result<()> {
    let whole = HeapDigest {
        sites: digest.sites.iter().take(WHOLE_SITES).cloned().collect(),
        frames: Vec::new(),
        series: digest.series.clone(),
        marked_bytes: digest.marked_bytes.clone(),
        command: digest.command.clone(),
        ..*digest
    };
    let mut file = io::BufWriter::new(fs::File::create(to)?);
    serde_json::to_writer(&mut file, &whole)?;
    io::Write::flush(&mut file)
}

fn of_massif(
    file: &Path,
    life: &Life,
    instruments: Option<&Instruments>,
    counts_pages: bool,
) -> Result<(SiteDigest, bool), String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let map = instruments.map(|known| known.map_of(life.who.pid)).unwrap_or_default();
    let digest = massif::read_with_map(&String::from_utf8_lossy(&text), &map)
        .map_err(|error| error.to_string())?;
    let frames = digest.sites.iter().flat_map(|site| &site.frames);
    // A session that finds room in pages which the postmaster mapped asks for none itself.
    let is_alive = frames.into_iter().any(|frame| {
        allocates_in_contexts(&frame.function) || (counts_pages && maps_programs(&frame.function))
    });
    Ok((massif::condensed(life.who.process, life.who.session, &digest), is_alive))
}
