//! The last children of the runner: as a subreaper it inherits every process whose parent has died.
//!
//! Called once, when nothing of the job may live any more.

use crate::cluster::survivors;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::{fs, time::Duration};
use tokio::time::Instant;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills and reaps every child, and what it inherits meanwhile; gives the pids that had to be killed.
pub async fn end_all() -> Vec<u32> {
    let deadline = Instant::now() + PATIENCE;
    let mut killed = Vec::new();
    loop {
        let children = children();
        if children.is_empty() || Instant::now() >= deadline {
            return killed;
        }
        for pid in children {
            let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            // A zombie takes the signal as well, and is reaped below: only who still ran was killed.
            if !matches!(waitpid(Some(raw), WaitOptions::NOHANG), Ok(Some(_)))
                && kill_process(raw, Signal::KILL).is_ok()
                && !killed.contains(&pid)
            {
                killed.push(pid);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// For the watchdog: kills every child, without waiting for anything.
pub fn kill_now() {
    survivors::kill_all(&children());
}

/// Pids of the children of every thread of this process.
fn children() -> Vec<u32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}
