//! CPU and memory of a process, from /proc.

use std::{fs, time::Duration};

/// User and system time so far; ticks of 10 ms.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

/// A line of /proc/PID/status in bytes.
pub fn memory(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes below a folder, and on the disk.
pub fn disk(folder: &std::path::Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let of = entry.metadata().unwrap();
        let (bytes, blocks) =
            if of.is_dir() { disk(&entry.path()) } else { (of.len(), of.blocks() * 512) };
        sum = (sum.0 + bytes, sum.1 + blocks);
    }
    sum
}
