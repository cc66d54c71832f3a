//! What a heaptrack file comes to.

use pgsoak_proto::evidence::StackFrame;
use serde::{Deserialize, Serialize};

/// The digest of one process's heap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeapDigest {
    /// Calls of allocation functions.
    pub allocations: u64,
    /// Of these, freed before the next allocation.
    pub temporary: u64,
    /// Most bytes live at once.
    pub peak_bytes: u64,
    /// Milliseconds since the process was first seen.
    pub peak_ms: u64,
    /// Bytes live at the end.
    pub leaked_bytes: u64,
    /// Milliseconds from the first to the last time stamp.
    pub duration_ms: u64,
    /// Largest resident set that heaptrack saw, bytes; 0: not recorded.
    pub peak_rss_bytes: u64,
    /// What was run, as heaptrack recorded it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// The file ends in the middle.
    pub truncated: bool,
    /// By bytes at the peak, then by allocations; one for each distinct stack.
    pub sites: Vec<HeapSite>,
    /// Bytes live over time; at most 2,048 points.
    pub series: Vec<HeapPoint>,
    /// Bytes live at each mark that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked_bytes: Vec<u64>,
    /// Every frame of the sites, once. Not in a digest that was stored.
    #[serde(skip)]
    pub frames: Vec<StackFrame>,
}

/// What one stack allocated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeapSite {
    /// Innermost function; an address where it is unknown.
    pub function: String,
    /// Path of the object it lies in; may be empty.
    pub module: String,
    /// Source file; may be empty.
    pub file: String,
    /// 0: unknown.
    pub line: u32,
    /// Calls.
    pub allocations: u64,
    /// Bytes live when the whole heap was at its peak.
    pub peak_bytes: u64,
    /// Bytes live at the end.
    pub leaked_bytes: u64,
    /// Calls whose block was freed before the next allocation.
    pub temporary: u64,
    /// Innermost first: `function (file:line)` or `function (module)`.
    pub stack: Vec<String>,
    /// Names the stack over builds, releases, hosts and tools: 16 hex digits; empty in digests of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Bytes live at each mark that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked_bytes: Vec<u64>,
    /// The stack as indexes into the digest's `frames`. Not in a digest that was stored.
    #[serde(skip)]
    pub frames: Vec<u32>,
}

/// One point of the series.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct HeapPoint {
    /// Milliseconds since the process was first seen.
    pub ms: u64,
    /// Most bytes live in the interval that ends here.
    pub bytes: u64,
}
