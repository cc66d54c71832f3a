//! Kills by the kernel for want of memory: counted by the job's cgroup where there is one, and by the host.
//!
//! A killed process leaves no word of it; a counter that rose while a process of the server died by signal 9 tells it from any other
//! kill. Read at the attempt's start and after a server's end: a few small files.

use crate::probe::cgroup;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The counters as they were when an attempt began.
#[derive(Clone, Debug, Default)]
pub struct OomWatch {
    /// The folder of the cgroup, and its count.
    group: Option<(PathBuf, u64)>,
    host: Option<u64>,
}

/// Somebody was killed for want of memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OomKill {
    /// What there was to be had: the cgroup's limit; `None`: the host's memory ran out.
    pub limit_bytes: Option<u64>,
}

// === impl OomWatch ===

impl OomWatch {
    /// Reads the counters of the cgroup of `pid` and of the host.
    pub fn begin(pid: u32) -> Self {
        let group = cgroup::memory_file(pid).and_then(|file| {
            let folder = file.parent()?.to_owned();
            let count = group_kills(&folder)?;
            Some((folder, count))
        });
        Self { group, host: host_kills() }
    }

    /// Whether anybody of the cgroup or of the host was killed since then.
    pub fn kill(&self) -> Option<OomKill> {
        if let Some((folder, before)) = &self.group
            && group_kills(folder).is_some_and(|now| now > *before)
        {
            return Some(OomKill { limit_bytes: limit(folder) });
        }
        let rose = self.host.zip(host_kills()).is_some_and(|(before, now)| now > before);
        rose.then_some(OomKill { limit_bytes: None })
    }
}

/// `oom_kill N` in memory.events (v2) or memory.oom_control (v1, from Linux 4.13 on).
fn group_kills(folder: &Path) -> Option<u64> {
    ["memory.events", "memory.oom_control"]
        .iter()
        .find_map(|name| count(&fs::read_to_string(folder.join(name)).ok()?))
}

fn host_kills() -> Option<u64> {
    count(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The narrowest limit of the cgroup and those above it, as far as they are seen; `None`: there is none.
fn limit(folder: &Path) -> Option<u64> {
    let limits = folder.ancestors().map_while(|folder| {
        let text = ["memory.max", "memory.limit_in_bytes"]
            .iter()
            .find_map(|name| fs::read_to_string(folder.join(name)).ok())?;
        // v2 says "max" and v1 a huge number where there is no limit.
        Some(text.trim().parse::<u64>().ok().filter(|bytes| *bytes < 1 << 60))
    });
    limits.flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_rose_is_a_kill_with_the_narrowest_limit() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("job");
        fs::create_dir(&group).unwrap();
        fs::write(root.path().join("memory.max"), "1000\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        fs::write(group.join("memory.events"), "low 0\noom 7\noom_kill 2\n").unwrap();
        let watch = OomWatch { group: Some((group.clone(), 2)), host: None };
        assert_eq!(watch.kill(), None);
        fs::write(group.join("memory.events"), "low 0\noom 9\noom_kill 3\n").unwrap();
        assert_eq!(watch.kill(), Some(OomKill { limit_bytes: Some(1000) }));
    }

    #[test]
    fn version_1_has_other_files() {
        let group = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        file("memory.limit_in_bytes", "9223372036854771712\n");
        let watch = OomWatch { group: Some((group.path().to_owned(), 0)), host: None };
        assert_eq!(watch.kill(), Some(OomKill { limit_bytes: None }));
    }

    #[test]
    fn this_host_counts_and_nobody_was_killed_meanwhile() {
        let watch = OomWatch::begin(std::process::id());
        assert!(watch.host.is_some(), "Linux 4.13 and later count in /proc/vmstat");
        assert!(watch.kill().is_none_or(|kill| kill.limit_bytes.is_none()));
    }
}
