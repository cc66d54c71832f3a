//! The host's memory, pressure and load, and the memory of the job's cgroup, by descriptors that stay open.

use crate::probe::{HostSample, cgroup, kernel, parse};
use rustix::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the host. What the host does not have stays `None` for good.
#[derive(Debug)]
pub(super) struct HostReader {
    meminfo: Option<OwnedFd>,
    pressure: Option<OwnedFd>,
    load: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
}

// === impl HostReader ===

impl HostReader {
    /// Opens the host's files and the memory file of `pid`'s cgroup.
    pub(super) fn open(pid: u32) -> Self {
        let open = |path: &str| kernel::open(path).ok().flatten();
        Self {
            meminfo: open("/proc/meminfo"),
            // Built in but switched off, the file opens or not by version of the kernel, and never reads.
            pressure: open("/proc/pressure/memory"),
            load: open("/proc/loadavg"),
            cgroup: cgroup::memory_file(pid)
                .as_deref()
                .and_then(std::path::Path::to_str)
                .and_then(open),
        }
    }

    /// Reads all of it.
    pub(super) fn read(&self, buffer: &mut [u8]) -> HostSample {
        let mut read = |file: &Option<OwnedFd>, parse: &dyn Fn(&[u8]) -> Option<u64>| {
            kernel::read_at(file.as_ref()?, buffer, 0).ok().flatten().and_then(parse)
        };
        HostSample {
            available_kib: read(&self.meminfo, &|text| parse::kib_line(text, b"MemAvailable:")),
            pressure_some_us: read(&self.pressure, &parse::pressure_some_us),
            load_centi: read(&self.load, &parse::load_centi),
            cgroup_kib: read(&self.cgroup, &parse::first_number).map(|bytes| bytes / 1024),
            clock_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| u64::try_from(since.as_millis()).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_memory_and_a_load() {
        let read = HostReader::open(std::process::id()).read(&mut vec![0; 16 << 10]);
        assert!(read.available_kib.unwrap() > 0);
        assert!(read.load_centi.is_some());
        assert!(read.clock_ms.unwrap() > 1_700_000_000_000);
    }
}
