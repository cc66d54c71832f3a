//! The log that memcheck writes for one process, from preamble to error summary.

use crate::valgrind::lines::{Block, blocks, pid_of};
use crate::valgrind::{AddressMap, LeakSummary};
use pgsoak_proto::evidence::{LeakRecord, MemcheckError, StackFrame};
use std::collections::BTreeMap;

/// What a process's log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessLog {
    /// Of the process; 0: the log is empty.
    pub pid: u32,
    /// Of its parent; 0: not said.
    pub parent_pid: u32,
    /// As in "Command: postgres -D …".
    pub command: String,
    /// One per kind of error and stack, in the order of their first time, with how often it happened (1 where the log has no list at its end).
    pub errors: Vec<MemcheckError>,
    /// Of the search at exit; increases are 0.
    pub leaks: Vec<LeakRecord>,
    /// Of the search at exit; `None`: the process never came to it.
    pub summary: Option<LeakSummary>,
    /// The signal that ended the process, as "signal 11 (SIGSEGV)"; empty: none.
    pub signal: String,
    /// The error summary at the end is there. Without it the process was killed and later errors are not known.
    pub complete: bool,
}

/// Reads a log; a truncated one gives what is there.
pub fn parse_log(text: &str, modules: &AddressMap) -> ProcessLog {
    let mut log =
        ProcessLog { pid: text.lines().find_map(pid_of).unwrap_or(0), ..ProcessLog::default() };
    let mut counts: BTreeMap<(String, Vec<StackFrame>), usize> = BTreeMap::new();
    for block in blocks(text, modules) {
        match block {
            Block::Leak(record) => log.leaks.push(record),
            Block::Summary(summary) => log.summary = Some(summary),
            Block::NoLeaks => log.summary = Some(LeakSummary::default()),
            Block::Line(line) => preamble_or_end(&line, &mut log),
            Block::Error { what, stack, count } => {
                if let Some(signal) =
                    what.strip_prefix("Process terminating with default action of ")
                {
                    log.signal = signal.trim_end_matches('.').to_owned();
                }
                let at = *counts.entry((what.clone(), stack.clone())).or_insert_with(|| {
                    log.errors.push(MemcheckError { what, count: 0, stack });
                    log.errors.len() - 1
                });
                if let Some(error) = log.errors.get_mut(at) {
                    // The list at exit repeats what was printed when it happened first.
                    error.count = count.unwrap_or(error.count.max(1));
                }
            }
        }
    }
    log
}

fn preamble_or_end(line: &str, log: &mut ProcessLog) {
    if let Some(command) = line.strip_prefix("Command: ") {
        log.command = command.to_owned();
    } else if let Some(pid) = line.strip_prefix("Parent PID: ") {
        log.parent_pid = pid.trim().parse().unwrap_or(0);
    } else if line.starts_with("ERROR SUMMARY: ") {
        log.complete = true;
    } else if let Some(signal) = line.strip_prefix("Process terminating with default action of ") {
        log.signal = signal.trim_end_matches('.').to_owned();
    }
}
