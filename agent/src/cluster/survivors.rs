//! What a server can leave behind: processes, and the one small segment of System V shared memory that locks its data folder.

use crate::folder::ProcessKey;
use crate::folder::processes_left;
use rustix::process::Signal;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed process may take to go; one in uninterruptible sleep takes as long as its disk.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a sweep found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Had to be killed.
    pub killed: Vec<u32>,
    /// Are still there.
    pub left: Vec<u32>,
}

/// Gives the processes that have to do with `folder` `patience` to end by themselves, then kills them.
pub async fn sweep(folder: &Path, patience: Duration) -> Swept {
    let deadline = Instant::now() + patience;
    let mut swept = Swept::default();
    while Instant::now() < deadline {
        if processes_left(folder).is_empty() {
            return swept;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    // A dying parent may have forked once more: kill until none is left.
    loop {
        swept.left = pids_left(folder);
        if swept.left.is_empty() || Instant::now() >= deadline {
            return swept;
        }
        kill_all(&swept.left);
        for pid in &swept.left {
            if !swept.killed.contains(pid) {
                swept.killed.push(*pid);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Pids of the processes that have to do with `folder`.
pub fn pids_left(folder: &Path) -> Vec<u32> {
    processes_left(folder).into_iter().map(|process| process.pid).collect()
}

/// SIGKILL to each, once; who is gone already is no error.
pub fn kill_all(pids: &[u32]) {
    for process in pids.iter().copied().filter_map(ProcessKey::of) {
        process.signal(Signal::KILL);
    }
}

/// Id of the server's System V segment: the second number of line 7 of `postmaster.pid` (miscadmin.h, `LOCK_FILE_LINE_SHMEM_KEY`).
pub fn shared_memory(data_dir: &Path) -> Option<u64> {
    let file = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    file.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
}

/// Sees to it that a segment which `creator` made is gone; `false`: it is still there.
pub fn remove_shared_memory(segment: u64, creator: u32) -> bool {
    if !segment_exists(segment, creator) {
        return true;
    }
    // There is no safe binding of shmctl(2) here; util-linux brings the program.
    let removed = Command::new("ipcrm")
        .args(["-m", &segment.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    removed.is_ok_and(|status| status.success()) && !segment_exists(segment, creator)
}

/// Columns of /proc/sysvipc/shm: key shmid perms size cpid …
fn segment_exists(segment: u64, creator: u32) -> bool {
    let Ok(table) = fs::read_to_string("/proc/sysvipc/shm") else { return false };
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let id = columns.next().and_then(|id| id.parse::<u64>().ok());
        let by = columns.nth(2).and_then(|pid| pid.parse::<u32>().ok());
        id == Some(segment) && by == Some(creator)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_is_read_from_the_lock_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(shared_memory(root.path()), None);
        let lines = "123\n/data\n1700000000\n5432\n/run\n\n  1234567   65539\nready   \n";
        fs::write(root.path().join("postmaster.pid"), lines).unwrap();
        assert_eq!(shared_memory(root.path()), Some(65_539));
    }

    #[tokio::test]
    async fn whoever_works_in_the_folder_is_found_and_killed() {
        let root = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(root.path()).unwrap();
        let mut child = Command::new("sleep").arg("60").current_dir(&folder).spawn().unwrap();
        assert_eq!(processes_left(&folder).len(), 1);
        let reaper = std::thread::spawn(move || (child.id(), child.wait().unwrap()));
        let swept = sweep(&folder, Duration::ZERO).await;
        let (pid, status) = reaper.join().unwrap();
        assert_eq!(swept, Swept { killed: vec![pid], left: Vec::new() });
        assert!(!status.success());
    }
}
