//! The log that memcheck writes for one process, from preamble to error summary.

use crate::valgrind::lines::{Block, OPEN_DESCRIPTOR, blocks, number, pid_of};
use crate::valgrind::{AddressMap, LeakSummary};
use pgsoak_proto::evidence::{LeakRecord, MemcheckError, StackFrame, SuppressionUse};
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
    /// Suppressions that hid something.
    pub suppressions: Vec<SuppressionUse>,
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
                    error.count = match count {
                        // The list at exit repeats what was printed when it happened first.
                        Some(count) => count,
                        None if error.what == OPEN_DESCRIPTOR => error.count.saturating_add(1),
                        None => error.count.max(1),
                    };
                }
            }
        }
    }
    log.suppressions = text.lines().filter_map(used_suppression).collect();
    log
}

/// `--123-- used_suppression:      2 lose /job/tool/plan.supp:12 suppressed: 2,000 bytes in 20 blocks`
fn used_suppression(line: &str) -> Option<SuppressionUse> {
    let (_, rest) = line.strip_prefix("--")?.split_once("-- used_suppression:")?;
    let (count, rest) = rest.trim().split_once(' ')?;
    let (rest, hidden) = match rest.split_once(" suppressed: ") {
        Some((rest, hidden)) => (rest, hidden.split_once(" bytes in ")),
        None => (rest, None),
    };
    let (name, place) = rest.trim().rsplit_once(' ')?;
    let (file, _) = place.rsplit_once(':')?;
    let source = match file.rsplit('/').next()? {
        "pgsoak.supp" => "pgsoak",
        "postgresql.supp" => "postgresql",
        "plan.supp" => "plan",
        _ => "",
    };
    let of_hidden = |text: &str| number(text.trim_end_matches(" blocks"));
    Some(SuppressionUse {
        name: name.trim().to_owned(),
        source: source.to_owned(),
        count: number(count)?.max(1),
        bytes: hidden.and_then(|(bytes, _)| of_hidden(bytes)).unwrap_or(0),
        blocks: hidden.and_then(|(_, blocks)| of_hidden(blocks)).unwrap_or(0),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
==7== FILE DESCRIPTORS: 5 open (3 std) at exit.
==7== Open file descriptor 5: /dev/null
==7==    at 0x4954011: open (open64.c:41)
==7==    by 0x1091AE: keep_descriptor (f.c:7)
==7== 
==7== Open file descriptor 4: /dev/null
==7==    at 0x4954011: open (open64.c:41)
==7==    by 0x1091AE: keep_descriptor (f.c:7)
==7== 
==7== Open AF_UNIX socket 3: /tmp/x
==7==    <inherited from parent>
==7== 
--7-- used_suppression:      1 hide lose /j/tool/plan.supp:2 suppressed: 2,000 bytes in 20 blocks
--7-- used_suppression:     12 wal_padding_write /j/tool/pgsoak.supp:9
--7-- used_suppression:      nonsense
==7== ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 13 from 2)
";

    #[test]
    fn descriptors_are_counted_and_suppressions_told() {
        let log = parse_log(LOG, &AddressMap::default());
        assert!(log.complete);
        assert_eq!(log.errors.len(), 1, "{:?}", log.errors);
        assert_eq!((log.errors[0].what.as_str(), log.errors[0].count), (OPEN_DESCRIPTOR, 2));
        assert_eq!(log.errors[0].stack[1].function, "keep_descriptor");
        let told: Vec<_> = log
            .suppressions
            .iter()
            .map(|s| (s.name.as_str(), s.source.as_str(), s.count, s.bytes, s.blocks))
            .collect();
        assert_eq!(
            told,
            [("hide lose", "plan", 1, 2000, 20), ("wal_padding_write", "pgsoak", 12, 0, 0)]
        );
    }
}
