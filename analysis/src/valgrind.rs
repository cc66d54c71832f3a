//! memcheck's text output → leak records and errors: the logs of processes, and the answers of vgdb to a leak check.
//!
//! Tried with valgrind 3.19. Text and not XML, because after a fork all processes write into one XML file, interleaved. A text log whose
//! process was killed has no end: what is there is taken, and [`ProcessLog::complete`] says so. The parser never fails: lines that it does
//! not know are passed over.
//!
//! Text frames name the source *or* the object, never both, so the module of a frame with a source line is looked up by its address in
//! an [`AddressMap`] that the caller reads from `/proc/PID/maps` of the process (memory layout does not change under a loaded library, so any time
//! after the extension was loaded will do; at the time of the check is best).

mod address_map;
mod defined;
mod lines;
mod log;

pub use address_map::{AddressMap, Sources};
pub use defined::DefinedFunctions;
pub use lines::OPEN_DESCRIPTOR;
pub(crate) use lines::frame_at;
pub use log::{ProcessLog, parse_log};

use crate::valgrind::lines::Block;
use pgsoak_proto::evidence::{LeakKind, LeakRecord};

/// What to ask of vgdb at a check: `vgdb --pid=PID leak_check full kinds all increased` (each word an argument of its own).
///
/// One check per round with all kinds in it, because `increased` means since the last check of *any* kind. It prints only records that grew,
/// each with `(+N)` for bytes and blocks, and a summary. The first check of a process prints every record with its whole size as increase:
/// it is the ground (round 0) that later ones are held against, and must be taken.
pub const LEAK_CHECK_COMMAND: &[&str] = &["leak_check", "full", "kinds", "all", "increased"];

/// Options of valgrind that the parser counts on, beside `--trace-children=yes`, `--log-file=` and the vgdb options.
///
/// `-s` prints at exit how often each error happened and what suppressions hid; `--track-fds` names the descriptors that are left open; `--error-limit=no` keeps counting; 40 callers reach from an allocation through
/// PostgreSQL's executor into the extension and out again; definite and possible losses at exit are listed, the reachable 1.2 MB of
/// every backend are not.
pub const MEMCHECK_OPTIONS: &[&str] = &[
    "--tool=memcheck",
    "--leak-check=full",
    "--show-leak-kinds=definite,possible",
    "--errors-for-leak-kinds=none",
    "--error-limit=no",
    "--num-callers=40",
    "--track-fds=yes",
    "-s",
];

/// Most frames of a stack that are kept; the wire takes as many.
pub const MOST_FRAMES: usize = 64;

/// vgdb's answer to a leak check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeakAnswer {
    /// In the order of valgrind, which is by size, smallest first.
    pub records: Vec<LeakRecord>,
    /// The summary over all records, grown or not.
    pub summary: LeakSummary,
    /// The summary, or valgrind's word that no block is left, was there. Without it the answer was cut short: do not trust it.
    pub complete: bool,
}

/// All blocks of a process by kind, each with its increase since the check before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakSummary {
    /// No pointer is left.
    pub definite: LeakTotal,
    /// Reached only through lost blocks.
    pub indirect: LeakTotal,
    /// Only interior pointers are left.
    pub possible: LeakTotal,
    /// Still reachable.
    pub reachable: LeakTotal,
    /// Named by a suppression.
    pub suppressed: LeakTotal,
}

/// Bytes and blocks, and by how much they grew since the check before (0 where valgrind does not say).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakTotal {
    /// Bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Increase in bytes.
    pub bytes_delta: i64,
    /// Increase in blocks.
    pub blocks_delta: i64,
}

impl LeakSummary {
    /// The total of a kind.
    pub fn of(&self, kind: LeakKind) -> LeakTotal {
        match kind {
            LeakKind::Definite => self.definite,
            LeakKind::Indirect => self.indirect,
            LeakKind::Possible => self.possible,
            LeakKind::Reachable => self.reachable,
        }
    }
}

/// Reads vgdb's answer to [`LEAK_CHECK_COMMAND`].
///
/// `bytes` of a definitely lost record are its own: what is lost through it stands in the `indirect` records of the same answer.
pub fn parse_leak_check(answer: &str, modules: &AddressMap) -> LeakAnswer {
    let mut read = LeakAnswer::default();
    for block in lines::blocks(answer, modules) {
        match block {
            Block::Leak(record) => read.records.push(record),
            Block::Summary(summary) => {
                read.summary = summary;
                read.complete = true;
            }
            Block::NoLeaks => read.complete = true,
            _ => {}
        }
    }
    read
}
