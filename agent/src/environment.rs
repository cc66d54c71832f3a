//! The host that a job runs on: what the first frame of an attempt and the agent's capabilities say of it.
//!
//! Read once, so by the procfs crate. What cannot be read is empty or zero, never an error: no job should fail for want of
//! the name of a processor.

use pgsoak_proto::evidence::AttemptStarted;
use procfs::Current;
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// The host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Environment {
    /// Its name.
    pub host: String,
    /// As in `uname -r`.
    pub kernel: String,
    /// As in /proc/cpuinfo; empty where that has no names.
    pub cpu_model: String,
    /// Usable by this process: affinity and cgroup quota are taken off. At least 1.
    pub cores: u32,
    /// MemTotal; 0: unknown.
    pub memory_bytes: u64,
}

// === impl Environment ===

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        let cpus = procfs::CpuInfo::current().ok();
        let cpu_model =
            cpus.as_ref().and_then(|cpus| cpus.model_name(0)).unwrap_or_default().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            host: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu_model,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            memory_bytes: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total),
        }
    }

    /// The host's part of an attempt's first frame, with the wall clock of now; the rest is empty.
    pub fn attempt_started(&self) -> AttemptStarted {
        let Self { host, kernel, cpu_model, cores, memory_bytes } = self.clone();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        AttemptStarted {
            started_at_unix_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX),
            host,
            kernel,
            cpu_model,
            cores,
            memory_bytes,
            ..AttemptStarted::default()
        }
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name_a_kernel_cores_and_memory() {
        let environment = Environment::read();
        assert!(!environment.host.is_empty() && !environment.kernel.is_empty(), "{environment:?}");
        assert!(environment.cores >= 1);
        assert!(environment.memory_bytes > 64 << 20);
        let started = environment.attempt_started();
        assert_eq!(started.kernel, environment.kernel);
        // After the first commit of this file.
        assert!(started.started_at_unix_us > 1_760_000_000_000_000);
    }
}
