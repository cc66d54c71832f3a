//! Reads what processes and the host use, from `/proc` and the cgroup file system.
//!
//! [`KernelProbe`] belongs to the sampler's thread: it keeps descriptors open and one buffer, and allocates nothing per
//! reading. The free functions here open, read once and close: for readings at rest and for asking whether a process lives.
//! Nothing here decides when to read; nothing here signals a process.

mod cgroup;
mod children;
mod host;
mod kernel;
mod once;
mod oom;
pub mod parse;
mod scripted;

pub use kernel::{KernelProbe, KernelProcess};
pub use once::{key_of, lives, parent_of, pss_anon_now, rss_anon_now};
pub use oom::{OomKill, OomWatch};
pub use scripted::{Script, ScriptedProbe, ScriptedProcess};

use std::io;

/// Names a process for as long as the host is up: pids are used again, pid and start time together are not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProcessKey {
    /// At least 1.
    pub pid: u32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_time_ticks: u64,
}

/// One reading of a process. Counters are since its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessSample {
    /// Anonymous resident memory: the one number that neither shared buffers nor files blur.
    pub rss_anon_kib: u64,
    /// File-backed resident memory.
    pub rss_file_kib: u64,
    /// Shared resident memory.
    pub rss_shmem_kib: u64,
    /// Swapped out.
    pub swap_kib: u64,
    /// VmData.
    pub data_kib: u64,
    /// VmHWM: the peak of RSS, shared memory included.
    pub peak_rss_kib: u64,
    /// User and system time.
    pub cpu_us: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Threads.
    pub threads: u64,
}

/// One reading of the host. `None`: the host has no such number, or it could not be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostSample {
    /// MemAvailable.
    pub available_kib: Option<u64>,
    /// Total of memory pressure "some", microseconds.
    pub pressure_some_us: Option<u64>,
    /// 1 minute load average, hundredths.
    pub load_centi: Option<u64>,
    /// Memory of the postmaster's cgroup, page cache included.
    pub cgroup_kib: Option<u64>,
    /// The wall clock, milliseconds since 1970. Nothing is timed by it: it tells the ledger of clocks that jump.
    pub clock_ms: Option<u64>,
}

/// Where readings come from: the kernel, or a script in a test.
///
/// A process that has gone is `Ok(None)` everywhere: news, no failure. A zombie has gone.
pub trait Probe: Send + 'static {
    /// An opened process; stays bound to it when its pid is used again.
    type Process: Send;

    /// Opens a process for readings.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says, except that the process does not exist.
    fn open(&mut self, pid: u32) -> io::Result<Option<Self::Process>>;

    /// Which process it is.
    fn key(process: &Self::Process) -> ProcessKey;

    /// Reads it once.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `InvalidData` when the kernel's text is not understood.
    fn sample(&mut self, process: &Self::Process) -> io::Result<Option<ProcessSample>>;

    /// Appends the pids of its children to `found`. A child may be missed while a sibling ends; it is there the next time.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]. A process that has gone has no children.
    fn children(&mut self, process: &mut Self::Process, found: &mut Vec<u32>) -> io::Result<()>;

    /// Its anonymous memory in KiB with shared pages counted by share. Expensive: 150 µs and up to 20 µs per resident MB, during which
    /// the process cannot map memory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `PermissionDenied` for processes of another user.
    fn pss_anon_kib(&mut self, process: &Self::Process) -> io::Result<Option<u64>>;

    /// Reads the host once.
    fn host(&mut self) -> HostSample;
}

// === impl ProcessSample ===

impl ProcessSample {
    /// RssAnon plus swap, in bytes: what is judged.
    pub const fn anonymous_bytes(&self) -> u64 {
        self.rss_anon_kib.saturating_add(self.swap_kib).saturating_mul(1024)
    }
}
