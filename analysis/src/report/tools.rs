//! What the tools of a run hid, and what they cannot see by their nature.

use crate::figures::{bytes_text, number_text};
use crate::report::Table;
use crate::result::RunResult;
use crate::stats::bytes;
use pgsoak_proto::job::Tool;
use std::collections::BTreeSet;

/// Title of the table of [`suppressions`].
pub(crate) const SUPPRESSIONS: &str = "What memcheck's suppressions hid";

/// Title of the table of [`unseen`].
pub(crate) const UNSEEN: &str = "What the tools of this run cannot see";

/// By source and name; stale ones say so.
pub fn suppressions(result: &RunResult) -> Table {
    let rows = result.suppressed.iter().map(|one| {
        let source = if one.source.is_empty() { "valgrind" } else { one.source.as_str() };
        let hid = match (one.count, one.blocks) {
            (0, _) => "nothing: stale, take it out of the plan".to_owned(),
            (count, 0) => format!("{} times", number_text(count)),
            (_, blocks) => {
                format!("{} in {} blocks", bytes_text(bytes(one.bytes)), number_text(blocks))
            }
        };
        vec![one.name.clone(), source.to_owned(), hid, number_text(one.processes)]
    });
    Table { columns: vec!["Suppression", "From", "Hid", "Processes"], rows: rows.collect() }
}

/// One line for each tool that ran jobs.
pub fn unseen(result: &RunResult) -> Table {
    let tools: BTreeSet<Tool> = result.jobs.iter().map(|job| job.tool).collect();
    let rows = tools.into_iter().map(|tool| vec![tool.to_string(), blind_spots(tool).to_owned()]);
    Table { columns: vec!["Tool", "By nature"], rows: rows.collect() }
}

/// By nature, not by what happened in a run.
pub const fn blind_spots(tool: Tool) -> &'static str {
    match tool {
        Tool::Plain => {
            "Where memory comes from: contexts by name, all else as one sum, no stack. Processes that live for one query (parallel workers). \
             Descriptors, and wrong reads and writes."
        }
        Tool::Memcheck => {
            "Anonymous mmap. What is palloc'd in a context that still lives, in builds without USE_VALGRIND: contexts show as blocks under whoever \
             asked first. Fragmentation. Time."
        }
        Tool::Massif => {
            "Growth: it shows who holds the peak, snapshot by snapshot, and knows no operations; stacks below 1 % of a snapshot are one line. \
             mmap, unless the job says pages_as_heap. Wrong reads and writes, descriptors."
        }
        Tool::Heaptrack => {
            "Anonymous mmap. The postmaster itself. Whether a block that lives can still be reached. Which user of a context grows: its blocks show \
             under whoever asked first. Wrong reads and writes, descriptors, fragmentation."
        }
    }
}
