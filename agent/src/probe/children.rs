//! Finding the children of a process: by the kernel's `children` file, else by a look at every process.
//!
//! The file needs CONFIG_PROC_CHILDREN and costs some 18 µs; the look at every process costs milliseconds and is done by the
//! procfs crate. A `children` file lists what its one thread has forked; the postmaster has one thread.

use crate::probe::{kernel, parse};
use rustix::fd::OwnedFd;
use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Between two looks at every process.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// How the children of one process are found.
#[derive(Debug)]
pub(super) enum Children {
    /// Not asked yet.
    Unopened,
    /// `/proc/PID/task/PID/children`, kept open.
    File(OwnedFd),
    /// This kernel has no such file.
    Scan,
}

/// The last look at every process, shared by all who need it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    taken_at: Option<Instant>,
    /// Parent and child.
    pairs: Vec<(u32, u32)>,
}

// === impl Children ===

impl Children {
    /// Appends the children of `pid`.
    pub(super) fn read(
        &mut self,
        pid: u32,
        buffer: &mut [u8],
        scan: &mut Scan,
        found: &mut Vec<u32>,
    ) -> io::Result<()> {
        if matches!(self, Self::Unopened) {
            let thread = format!("/proc/{pid}/task/{pid}");
            *self = match kernel::open(&format!("{thread}/children"))? {
                Some(file) => Self::File(file),
                None if Path::new(&thread).exists() => Self::Scan,
                None => return Ok(()),
            };
        }
        match self {
            Self::Unopened => Ok(()),
            Self::File(file) => read_file(file, buffer, found),
            Self::Scan => scan.read(pid, found),
        }
    }
}

// === impl Scan ===

impl Scan {
    /// Appends the children of `pid` as they were a second ago at most.
    fn read(&mut self, pid: u32, found: &mut Vec<u32>) -> io::Result<()> {
        if self.taken_at.is_none_or(|at| at.elapsed() >= SCAN_EVERY) {
            self.take()?;
        }
        found.extend(
            self.pairs.iter().filter(|&&(parent, _)| parent == pid).map(|&(_, child)| child),
        );
        Ok(())
    }

    fn take(&mut self) -> io::Result<()> {
        self.pairs.clear();
        for process in procfs::process::all_processes().map_err(io::Error::other)? {
            // A process that ended while we looked is nobody's child any more.
            let Ok(stat) = process.and_then(|process| process.stat()) else { continue };
            if let (Ok(parent), Ok(child)) = (u32::try_from(stat.ppid), u32::try_from(stat.pid)) {
                self.pairs.push((parent, child));
            }
        }
        self.taken_at = Some(Instant::now());
        Ok(())
    }
}

/// The kernel gives at most a page per read, and ends each read between two pids.
fn read_file(file: &OwnedFd, buffer: &mut [u8], found: &mut Vec<u32>) -> io::Result<()> {
    let mut offset = 0_u64;
    loop {
        let text = match kernel::read_at(file, buffer, offset)? {
            Some(text) if !text.is_empty() => text,
            _ => return Ok(()),
        };
        // A pid that the end of the buffer cut in two is read again whole.
        let whole =
            text.iter().rposition(u8::is_ascii_whitespace).map_or(text.len(), |last| last + 1);
        found.extend(parse::pids(text.get(..whole).unwrap_or(text)));
        offset = offset.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_a_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        // The test runs on a thread of its own, so that the child is not the main thread's: ask that thread.
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let mut by_file = Vec::new();
        let file = kernel::open(&format!("/proc/{own}/task/{thread}/children")).unwrap();
        if let Some(file) = file {
            read_file(&file, &mut [0; 16], &mut by_file).unwrap();
            assert!(by_file.contains(&child.id()), "{by_file:?}");
        }
        let mut by_scan = Vec::new();
        Scan::default().read(own, &mut by_scan).unwrap();
        assert!(by_scan.contains(&child.id()), "{by_scan:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
