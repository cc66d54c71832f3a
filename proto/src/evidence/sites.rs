//! What heaptrack and massif saw of one process, in short.

use crate::evidence::StackFrame;
use crate::job::Tool;
use serde::{Deserialize, Serialize};

/// Most sites of one digest.
pub const MAX_SITES: usize = 200;

/// Most marks of one digest.
pub const MAX_SITE_MARKS: usize = 64;

/// Most points of one digest's series.
pub const MAX_SITE_POINTS: usize = 256;

/// What heaptrack or massif saw of one process over its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteDigest {
    /// Number of the process.
    pub process: u32,
    /// The workload's session that it served; `None`: none, and then there are totals alone.
    pub session: Option<u32>,
    /// `Heaptrack` or `Massif`.
    pub tool: Tool,
    /// Calls; 0 under massif, which does not count them.
    pub allocations: u64,
    /// Of these, freed before the next allocation.
    pub temporary: u64,
    /// Most bytes live at once.
    pub peak_bytes: u64,
    /// When, in `time_unit` since the process was first seen.
    pub peak_at: u64,
    /// Live at the end.
    pub end_bytes: u64,
    /// In `time_unit`.
    pub duration: u64,
    /// "ms"; massif: "i" (instructions), "ms" or "B" (bytes allocated).
    pub time_unit: String,
    /// The tool's file ends in the middle.
    pub truncated: bool,
    /// Distinct stacks in the tool's file, of which `sites` are some.
    pub sites_in_all: u32,
    /// In order of time; at most [`MAX_SITE_MARKS`].
    pub marks: Vec<SiteMark>,
    /// At most [`MAX_SITES`]; those that grew most between the marks, and those that hold most at the peak.
    pub sites: Vec<AllocationSite>,
    /// Bytes live over time; at most [`MAX_SITE_POINTS`].
    pub series: Vec<SitePoint>,
}

/// A moment at rest at which the live bytes of every site are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SiteMark {
    /// Place of the phase.
    pub phase: u32,
    /// 0: before the phase's first operation; once phases have 0 and 1.
    pub round: u32,
    /// Done by the process's session in this phase so far.
    pub operations: u64,
    /// Of the whole process.
    pub live_bytes: u64,
}

/// What one stack allocated.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct AllocationSite {
    /// Innermost first.
    pub stack: Vec<StackFrame>,
    /// Calls.
    pub allocations: u64,
    /// Of these, freed before the next allocation.
    pub temporary: u64,
    /// Live when the whole process was at its peak.
    pub peak_bytes: u64,
    /// Live at the end.
    pub end_bytes: u64,
    /// Live at each of the digest's marks; one for each.
    pub marked_bytes: Vec<u64>,
}

/// One point of the series.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SitePoint {
    /// In the digest's `time_unit`.
    pub at: u64,
    /// Most bytes live since the point before.
    pub bytes: u64,
}
