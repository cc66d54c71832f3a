//! `malloc_trim(0)` in a living backend, by gdb: tells memory that the allocator keeps from memory that is held.
//!
//! Done once, at the end of a plain job, to a backend at rest. Where gdb is missing or tracing is not permitted there is no answer, and
//! the verdict does without.

use crate::tools::bare_environment;
use crate::tools::find_program;
use std::{env, process::Stdio, time::Duration};
use tokio::process::Command;

/// gdb attaches, calls and detaches in about a second; symbols of a large extension take longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Has the allocator of `pid` give back what it can. `false`: not possible here. The backend goes on either way.
pub async fn malloc_trim(pid: u32) -> bool {
    let Some(gdb) = find_program("gdb") else { return false };
    let mut command = Command::new(gdb);
    command
        .args(["--batch", "--nx", "--quiet", "-ex", "set debuginfod enabled off"])
        .args(["-ex", "set auto-solib-add on", "-p"])
        .arg(pid.to_string())
        // A prototype, since libc carries no types; its answer is 1 when something was given back, else 0.
        .args(["-ex", "print ((int (*)(unsigned long)) malloc_trim)(0)", "-ex", "detach"])
        .env_clear()
        .envs(bare_environment(&env::temp_dir()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(Ok(output)) = tokio::time::timeout(LIMIT, command.output()).await else { return false };
    answered(&String::from_utf8_lossy(&output.stdout))
}

/// gdb numbers what it prints: `$1 = 1`.
fn answered(said: &str) -> bool {
    said.lines().any(|line| matches!(line.trim(), "$1 = 0" | "$1 = 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gdbs_answer_counts() {
        assert!(answered(
            "0x00007f in epoll_wait () from libc.so.6\n$1 = 1\n[Inferior 1 (process 5) detached]\n"
        ));
        assert!(!answered(
            "ptrace: Operation not permitted.\nNo symbol \"malloc_trim\" in current context.\n"
        ));
        assert!(!answered(""));
    }

    #[tokio::test]
    async fn a_process_that_is_gone_is_no_error() {
        assert!(!malloc_trim(u32::MAX).await);
    }
}
