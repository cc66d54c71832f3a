//! Processes by pid and start time, and those that have to do with a folder.

use crate::folder::group;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A process that cannot be mistaken for a later one with the same pid. The content of `runner.json`.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Its pid.
    pub pid: u32,
    /// Clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_time_ticks: u64,
    /// Of the kernel that it ran under: /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}

/// Between two looks at processes that were killed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a killed process may take to go: one in uninterruptible sleep takes as long as its disk.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

// === impl ProcessKey ===

impl ProcessKey {
    /// The process that has this pid now; `None`: none has, or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let start_time_ticks = start_time(pid)?;
        Some(Self { pid, start_time_ticks, boot_id: boot_id() })
    }

    /// Whether it runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time_ticks) && self.boot_id == boot_id()
    }

    /// Sends a signal to it and to nobody else; false: it is gone, or is not ours to signal.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        // The descriptor is of one process: the check that follows holds until the signal is sent.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(process, signal).is_ok()
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of /proc/PID/stat; `None` for a zombie. The name in field 2 may hold anything, so fields count from its end.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The environment of a job's processes holds the job's folder under this name, so that one that has left session, folder and
/// parent is still known.
pub const MARK: &str = "PGSOAK_JOB";

/// Every process of the job in `dir`; this process excepted: whose working folder, program or root lies there, whose environment
/// names it, or who is in its cgroup. As root all are seen, else those of the same user.
pub fn processes_left(dir: &Path) -> Vec<ProcessKey> {
    // The kernel's links hold no links.
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_bytes()].concat();
    let members = group::members(&dir);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| members.contains(pid) || works_in(*pid, &dir) || is_marked(*pid, &mark))
        .filter(|pid| *pid != std::process::id())
        .filter_map(ProcessKey::of)
        .collect()
}

fn is_marked(pid: u32, mark: &[u8]) -> bool {
    // Of another user, or a thread of the kernel: not ours.
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark))
}

fn works_in(pid: u32, dir: &Path) -> bool {
    ["cwd", "exe", "root"].iter().any(|link| {
        fs::read_link(format!("/proc/{pid}/{link}"))
            .is_ok_and(|path| present(path).starts_with(dir))
    })
}

/// Without what the kernel adds to the path of a file that was removed.
fn present(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())),
        None => path,
    }
}

/// Kills every process of [`processes_left`], and what they start meanwhile, and waits until they are gone; gives those that
/// will not go. Blocks up to ten seconds.
pub fn kill_left(dir: &Path) -> Vec<ProcessKey> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = processes_left(dir);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        for process in left {
            process.signal(Signal::KILL);
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_in_a_folder_are_found_and_killed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("data");
        fs::create_dir(&inner).unwrap();
        let program = dir.path().join("sleep");
        fs::copy("/bin/sleep", &program).unwrap();
        let sleep = |program: &Path, cwd: &Path| {
            Command::new(program).arg("600").current_dir(cwd).spawn().unwrap()
        };
        let mut by_cwd = sleep(Path::new("/bin/sleep"), &inner);
        let mut by_exe = sleep(&program, Path::new("/"));
        let mut other = sleep(Path::new("/bin/sleep"), Path::new("/"));
        fs::remove_file(&program).unwrap();
        let mut pids: Vec<u32> = Vec::new();
        for _ in 0..200 {
            pids = processes_left(dir.path()).iter().map(|process| process.pid).collect();
            if pids.len() == 2 {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        pids.sort_unstable();
        let mut expected = [by_cwd.id(), by_exe.id()];
        expected.sort_unstable();
        assert_eq!(pids, expected);
        assert_eq!(kill_left(dir.path()), []);
        assert!(!by_cwd.wait().unwrap().success());
        assert!(!by_exe.wait().unwrap().success());
        let alive = ProcessKey::of(other.id()).unwrap();
        assert!(alive.is_alive());
        assert!(alive.signal(Signal::TERM));
        other.wait().unwrap();
        assert!(!alive.is_alive());
        assert!(!alive.signal(Signal::TERM), "nobody is there");
    }

    #[test]
    fn a_process_that_left_session_and_folder_is_known_by_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let place = fs::canonicalize(dir.path()).unwrap();
        let mut escaped = Command::new("setsid")
            .args(["sleep", "600"])
            .current_dir("/")
            .env(MARK, &place)
            .spawn()
            .unwrap();
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        for _ in 0..200 {
            if processes_left(dir.path()).len() == 1 {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        assert_eq!(processes_left(&other), [], "a folder inside is another one");
        assert_eq!(processes_left(dir.path()).len(), 1);
        assert_eq!(kill_left(dir.path()), []);
        assert!(!escaped.wait().unwrap().success());
    }

    #[test]
    fn a_pid_that_was_given_again_is_another_process() {
        let own = ProcessKey::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        let earlier = ProcessKey { start_time_ticks: own.start_time_ticks - 1, ..own.clone() };
        assert!(!earlier.is_alive());
        let before_boot = ProcessKey { boot_id: "x".into(), ..own };
        assert!(!before_boot.is_alive());
    }
}
