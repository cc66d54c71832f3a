//! massif's files (`massif.out.PID`) become digests: the peak by stack, a time series, heap against stacks.
//!
//! The format is that of valgrind's `ms_print`: headers, then snapshots, some with a tree of allocations. A file that stops in the
//! middle gives what is there, flagged.

use crate::heap::cut_to;
use crate::stack;
use crate::valgrind::AddressMap;
use crate::valgrind::frame_at;
use pgsoak_proto::convert::MAX_STACK_DEPTH;
use pgsoak_proto::evidence::{
    AllocationSite, MAX_SITE_POINTS, MAX_SITES, SiteDigest, SitePoint, StackFrame,
};
use pgsoak_proto::job::Tool;
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
    /// Sites of the peak snapshot, largest first; where it has no tree, of the largest that has one.
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
    /// Names the stack over builds, releases, hosts and tools: 16 hex digits.
    #[serde(default)]
    pub fingerprint: String,
    /// The same, with the module of every address that is mapped.
    #[serde(skip)]
    pub frames: Vec<StackFrame>,
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
    address: u64,
    name: &'a str,
}

/// Reads a massif file.
///
/// # Errors
///
/// When the text does not begin as massif's do, or a line in the middle cannot be.
pub fn read(text: &str) -> Result<MassifDigest, MassifError> {
    read_with_map(text, &AddressMap::default())
}

/// As [`read`], and finds the objects of frames in the mappings of the process: massif names the source or the object, never both.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_map(text: &str, modules: &AddressMap) -> Result<MassifDigest, MassifError> {
    let mut digest = MassifDigest::default();
    if !text.starts_with("desc:") {
        let first = text.lines().next().unwrap_or_default();
        // Any file may have been named: what it holds must not reach the terminal as it is.
        let shown: String = first.chars().take(40).flat_map(char::escape_debug).collect();
        return Err(MassifError {
            line: 1,
            problem: format!("it begins with '{shown}', not with 'desc:' as massif's files do"),
        });
    }
    let mut now = MassifPoint::default();
    let mut is_open = false;
    let mut marked = false;
    let mut tree: Vec<Node<'_>> = Vec::new();
    let mut highest = Highest::default();
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
                        close(&mut digest, now, &tree, marked, &mut highest, modules);
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
        close(&mut digest, now, &tree, marked, &mut highest, modules);
    }
    Ok(digest)
}

/// The snapshots that count so far.
#[derive(Default)]
struct Highest {
    peak: Option<MassifPoint>,
    /// The one whose tree the sites are of.
    tree: Option<MassifPoint>,
    is_marked: bool,
}

/// A snapshot is over: keeps it, and its tree where it is the peak so far. massif marks no other peak until the marked one
/// is exceeded by a hundredth: later snapshots that are a little higher have no tree, and do not count.
fn close(
    digest: &mut MassifDigest,
    now: MassifPoint,
    tree: &[Node<'_>],
    marked: bool,
    highest: &mut Highest,
    modules: &AddressMap,
) {
    digest.series.push(now);
    let size = |point: &MassifPoint| {
        point.heap_bytes.saturating_add(point.extra_bytes).saturating_add(point.stacks_bytes)
    };
    let is_higher = |than: &Option<MassifPoint>| {
        marked || (!highest.is_marked && than.as_ref().is_none_or(|known| size(&now) > size(known)))
    };
    let (is_peak, is_tree) = (is_higher(&highest.peak), is_higher(&highest.tree));
    if is_peak {
        highest.peak = Some(now);
        digest.peak_bytes = now.heap_bytes;
        digest.peak_extra_bytes = now.extra_bytes;
        digest.peak_stacks_bytes = now.stacks_bytes;
        digest.peak_time = now.time;
    }
    if is_tree && !tree.is_empty() {
        highest.tree = Some(now);
        digest.sites = sites(tree, modules);
    }
    highest.is_marked |= marked;
}

/// `  n2: 50100 0x109154: lose (t.c:3)`
fn node(line: &str) -> Option<Node<'_>> {
    let text = line.trim_start_matches(' ');
    let depth = line.len() - text.len();
    let (children, rest) = text.strip_prefix('n')?.split_once(": ")?;
    let (bytes, name) = rest.split_once(' ')?;
    let (address, name) = match name.split_once(": ") {
        Some((address, name)) if address.starts_with("0x") => {
            let digits = address.trim_start_matches("0x");
            (u64::from_str_radix(digits, 16).unwrap_or(0), name)
        }
        _ => (0, name),
    };
    let (children, bytes) = (children.parse().ok()?, bytes.parse().ok()?);
    Some(Node { depth, children, bytes, address, name })
}

fn tree_is_cut(tree: &[Node<'_>]) -> bool {
    // Every node announces its children; the sum over all must be the number of nodes less the root.
    let announced = tree.iter().fold(0_u64, |sum, node| sum.saturating_add(node.children));
    !tree.is_empty() && announced != u64::try_from(tree.len() - 1).unwrap_or(u64::MAX)
}

/// The leaves, with the path to each. massif's trees go from the allocating function outwards.
fn sites(tree: &[Node<'_>], modules: &AddressMap) -> Vec<MassifSite> {
    let mut path: Vec<(usize, String, StackFrame)> = Vec::new();
    let mut sites = Vec::new();
    for (index, node) in tree.iter().enumerate() {
        while path.last().is_some_and(|(depth, ..)| *depth >= node.depth) {
            path.pop();
        }
        // The root names the allocation functions, not a place.
        if node.depth > 0 {
            let frame = frame_at(node.address, node.name, modules);
            path.push((node.depth, shown(node.name), frame));
        }
        let is_leaf = tree.get(index + 1).is_none_or(|next| next.depth <= node.depth);
        if is_leaf && node.bytes > 0 && !path.is_empty() {
            let stack: Vec<String> = path.iter().map(|(_, name, _)| name.clone()).collect();
            let frames: Vec<StackFrame> = path.iter().map(|(.., frame)| frame.clone()).collect();
            let fingerprint = stack::fingerprint(&frames);
            let first = stack.first().cloned().unwrap_or_default();
            let function =
                first.rsplit_once(" (").map_or(first.as_str(), |(name, _)| name).to_owned();
            sites.push(MassifSite { function, bytes: node.bytes, stack, fingerprint, frames });
        }
    }
    sites.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.stack.cmp(&b.stack)));
    sites
}

/// What of a digest goes into the evidence; without a `session` totals alone.
pub fn condensed(process: u32, session: Option<u32>, digest: &MassifDigest) -> SiteDigest {
    let size = |point: &MassifPoint| point.heap_bytes;
    let step = digest.series.len().div_ceil(MAX_SITE_POINTS).max(1);
    let highest = |group: &[MassifPoint]| {
        let highest = group.iter().max_by_key(|point| size(point))?;
        Some(SitePoint { at: highest.time, bytes: size(highest) })
    };
    let site = |site: &MassifSite| AllocationSite {
        stack: site.frames.iter().take(MAX_STACK_DEPTH).cloned().collect(),
        peak_bytes: site.bytes,
        ..AllocationSite::default()
    };
    let is_whole = session.is_some();
    let mut condensed = SiteDigest {
        process,
        session,
        tool: Tool::Massif,
        allocations: 0,
        temporary: 0,
        peak_bytes: digest.peak_bytes,
        peak_at: digest.peak_time,
        end_bytes: digest.series.last().map_or(0, size),
        duration: digest.series.last().map_or(0, |point| point.time),
        time_unit: digest.time_unit.chars().take(8).collect(),
        truncated: digest.truncated,
        sites_in_all: u32::try_from(digest.sites.len()).unwrap_or(u32::MAX),
        marks: Vec::new(),
        sites: digest.sites.iter().take(if is_whole { MAX_SITES } else { 0 }).map(site).collect(),
        series: digest.series.chunks(step).filter(|_| is_whole).filter_map(highest).collect(),
    };
    cut_to(&mut condensed, crate::heap::MAX_DIGEST_BYTES);
    condensed
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
    fn the_evidence_gets_frames_with_their_objects() {
        let map = AddressMap::from_maps("00109000-0010a000 r-xp 00001000 fe:00 1 /tmp/w/small\n");
        let digest = read_with_map(SMALL, &map).unwrap();
        let short = condensed(3, Some(1), &digest);
        assert_eq!((short.peak_bytes, short.tool), (1_129_231, Tool::Massif));
        let lose = &short.sites[1].stack[0];
        assert_eq!((lose.function.as_str(), lose.file.as_str(), lose.line), ("lose", "t.c", 3));
        assert_eq!(lose.module, "small");
        assert!(!short.series.is_empty());
        assert!(condensed(3, None, &digest).sites.is_empty());
    }

    #[test]
    fn later_snapshots_without_a_tree_do_not_hide_the_sites() {
        let later = "#-----------\nsnapshot=900\n#-----------\ntime=99999999\nmem_heap_B=1129300\nmem_heap_extra_B=99999\nmem_stacks_B=0\nheap_tree=empty\n";
        let marked = read(&format!("{SMALL}{later}")).unwrap();
        assert_eq!(marked.peak_bytes, 1_129_231, "the marked one");
        assert_eq!(marked.sites.len(), read(SMALL).unwrap().sites.len());
        let unmarked = SMALL.replace("heap_tree=peak", "heap_tree=detailed");
        let digest = read(&format!("{unmarked}{later}")).unwrap();
        assert_eq!(digest.peak_bytes, 1_129_300, "the highest");
        assert_eq!(digest.sites[0].stack, ["main (t.c:6)"], "of the highest with a tree");
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
