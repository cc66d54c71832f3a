//! massif's files (`massif.out.PID`) become digests: the peak by stack, a time series, heap against stacks.
//!
//! The format is that of valgrind's `ms_print`: headers, then snapshots, some with a tree of allocations. A file that stops in the
//! middle gives what is there, flagged.

use crate::stack;
use serde::{Deserialize, Serialize};

/// What one process's massif file comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MassifDigest {
    /// What was run.
    pub command: String,
    /// What `time` counts: `i` (instructions), `ms` or `B` (bytes allocated).
    pub time_unit: String,
    /// Useful heap bytes at the peak snapshot (the largest snapshot where none is marked).
    pub peak_bytes: u64,
    /// Bytes that the allocator adds at the peak.
    pub peak_extra_bytes: u64,
    /// Bytes of stacks at the peak; 0 unless `--stacks=yes`.
    pub peak_stacks_bytes: u64,
    /// When, in `time_unit`.
    pub peak_time: u64,
    /// The file ends in the middle.
    pub truncated: bool,
    /// Sites of the peak snapshot, largest first.
    pub sites: Vec<MassifSite>,
    /// Every snapshot.
    pub series: Vec<MassifPoint>,
}

/// What one stack holds at the peak.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MassifSite {
    /// Innermost function.
    pub function: String,
    /// Bytes.
    pub bytes: u64,
    /// Innermost first, `function (file:line)` or `function (in module)`. Cut where massif aggregates below its threshold.
    pub stack: Vec<String>,
}

/// One snapshot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct MassifPoint {
    /// In `time_unit`.
    pub time: u64,
    /// Useful heap bytes.
    pub heap_bytes: u64,
    /// Bytes that the allocator adds.
    pub extra_bytes: u64,
    /// Bytes of stacks.
    pub stacks_bytes: u64,
}

/// A text that is no massif file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct MassifError {
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// One node of a tree.
struct Node<'a> {
    depth: usize,
    children: u64,
    bytes: u64,
    name: &'a str,
}

/// Reads a massif file.
///
/// # Errors
///
/// When the text does not begin as massif's do, or a line in the middle cannot be.
pub fn read(text: &str) -> Result<MassifDigest, MassifError> {
    let mut digest = MassifDigest::default();
    if !text.starts_with("desc:") {
        let shown: String = text.lines().next().unwrap_or_default().chars().take(40).collect();
        return Err(MassifError {
            line: 1,
            problem: format!("it begins with '{shown}', not with 'desc:' as massif's files do"),
        });
    }
    let mut now = MassifPoint::default();
    let mut is_open = false;
    let mut marked = false;
    let mut tree: Vec<Node<'_>> = Vec::new();
    let mut best: Option<MassifPoint> = None;
    let last = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        let bad = |problem: String| MassifError { line: index + 1, problem };
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.contains(' ')) {
            match key {
                "snapshot" => {
                    if is_open {
                        close(&mut digest, now, &tree, marked, &mut best);
                    }
                    (now, is_open, marked) = (MassifPoint::default(), true, false);
                    tree.clear();
                }
                "time" | "mem_heap_B" | "mem_heap_extra_B" | "mem_stacks_B" => {
                    let Ok(number) = value.trim().parse::<u64>() else {
                        if index + 1 == last {
                            digest.truncated = true;
                            break;
                        }
                        return Err(bad(format!("'{value}' is no number")));
                    };
                    match key {
                        "time" => now.time = number,
                        "mem_heap_B" => now.heap_bytes = number,
                        "mem_heap_extra_B" => now.extra_bytes = number,
                        _ => now.stacks_bytes = number,
                    }
                }
                "heap_tree" => marked = value == "peak",
                _ => {}
            }
        } else if let Some(command) = line.strip_prefix("cmd: ") {
            command.clone_into(&mut digest.command);
        } else if let Some(unit) = line.strip_prefix("time_unit: ") {
            unit.clone_into(&mut digest.time_unit);
        } else if line.trim_start().starts_with('n') {
            match node(line) {
                Some(node) => tree.push(node),
                None if index + 1 == last => digest.truncated = true,
                None => return Err(bad("a line of a tree that cannot be".to_owned())),
            }
        }
    }
    // The last snapshot is whole when its tree is: a tree that lacks children was cut.
    let missing = tree_is_cut(&tree);
    digest.truncated |= missing || !text.ends_with('\n');
    if is_open {
        close(&mut digest, now, &tree, marked, &mut best);
    }
    Ok(digest)
}

/// A snapshot is over: keeps it, and its tree where it is the peak so far. A marked peak beats unmarked ones of its size.
fn close(
    digest: &mut MassifDigest,
    now: MassifPoint,
    tree: &[Node<'_>],
    marked: bool,
    best: &mut Option<MassifPoint>,
) {
    digest.series.push(now);
    let size = |point: &MassifPoint| point.heap_bytes + point.extra_bytes + point.stacks_bytes;
    let is_higher = best.as_ref().is_none_or(|best| size(&now) > size(best));
    if is_higher || marked {
        *best = Some(now);
        digest.peak_bytes = now.heap_bytes;
        digest.peak_extra_bytes = now.extra_bytes;
        digest.peak_stacks_bytes = now.stacks_bytes;
        digest.peak_time = now.time;
        digest.sites = sites(tree);
    }
}

/// `  n2: 50100 0x109154: lose (t.c:3)`
fn node(line: &str) -> Option<Node<'_>> {
    let text = line.trim_start_matches(' ');
    let depth = line.len() - text.len();
    let (children, rest) = text.strip_prefix('n')?.split_once(": ")?;
    let (bytes, name) = rest.split_once(' ')?;
    let name = match name.split_once(": ") {
        Some((address, name)) if address.starts_with("0x") => name,
        _ => name,
    };
    Some(Node { depth, children: children.parse().ok()?, bytes: bytes.parse().ok()?, name })
}

fn tree_is_cut(tree: &[Node<'_>]) -> bool {
    // Every node announces its children; the sum over all must be the number of nodes less the root.
    let announced = tree.iter().fold(0_u64, |sum, node| sum.saturating_add(node.children));
    !tree.is_empty() && announced != u64::try_from(tree.len() - 1).unwrap_or(u64::MAX)
}

/// The leaves, with the path to each. massif's trees go from the allocating function outwards.
fn sites(tree: &[Node<'_>]) -> Vec<MassifSite> {
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut sites = Vec::new();
    for (index, node) in tree.iter().enumerate() {
        while path.last().is_some_and(|(depth, _)| *depth >= node.depth) {
            path.pop();
        }
        // The root names the allocation functions, not a place.
        if node.depth > 0 {
            path.push((node.depth, shown(node.name)));
        }
        let is_leaf = tree.get(index + 1).is_none_or(|next| next.depth <= node.depth);
        if is_leaf && node.bytes > 0 && !path.is_empty() {
            let stack: Vec<String> = path.iter().map(|(_, name)| name.clone()).collect();
            let first = stack.first().cloned().unwrap_or_default();
            let function =
                first.rsplit_once(" (").map_or(first.as_str(), |(name, _)| name).to_owned();
            sites.push(MassifSite { function, bytes: node.bytes, stack });
        }
    }
    sites.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.stack.cmp(&b.stack)));
    sites
}

/// `lose (t.c:3)` with its function demangled.
fn shown(name: &str) -> String {
    match name.rsplit_once(" (") {
        Some((function, place)) => format!("{} ({place}", stack::demangle(function)),
        None => stack::demangle(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: &str = include_str!("../tests/golden/massif/small.out");

    #[test]
    fn a_real_file_gives_its_peak_by_stack() {
        let digest = read(SMALL).unwrap();
        assert_eq!(digest.command, "./small");
        assert_eq!(digest.time_unit, "i");
        assert_eq!(digest.peak_bytes, 1_129_231);
        assert!(!digest.truncated);
        assert_eq!(digest.sites[0].stack, ["main (t.c:6)"]);
        assert_eq!(digest.sites[0].bytes, 1_048_576);
        assert_eq!(digest.sites[1].stack, ["lose (t.c:3)", "main (t.c:6)"]);
        assert_eq!(digest.sites[1].function, "lose");
        let sum: u64 = digest.sites.iter().map(|site| site.bytes).sum();
        assert_eq!(sum, digest.peak_bytes, "the leaves are the whole peak");
        assert_eq!(digest.series.len(), SMALL.matches("snapshot=").count());
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_is_there() {
        for cut in (0..SMALL.len()).step_by(97) {
            match read(&SMALL[..cut]) {
                Ok(digest) => assert!(digest.series.len() <= SMALL.matches("snapshot=").count()),
                Err(error) => assert!(cut < 5, "{cut}: {error}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(desc: .*\n)?((snapshot|time|mem_heap_B|heap_tree)=.{0,8}\n| *n[0-9]{1,3}: [0-9]{1,20} .{0,12}\n|.{0,20}\n){0,30}") {
            let _ = read(&text);
        }
    }
}
