//! A living backend's allocator, asked by gdb: its own books (`malloc_info`), and to give back what it can (`malloc_trim`).
//!
//! The books place memory that no context holds: in use, or slack. Trimming, done once at the end of a plain job to a backend at rest, tells what
//! the allocator keeps from what is held. One visit takes half a second of CPU, mostly gdb's own start. Where gdb is missing or tracing is
//! not permitted there is no answer, and the verdict does without.

use crate::tools::bare_environment;
use crate::tools::find_program;
use pgsoak_analysis::malloc_info;
use pgsoak_proto::evidence::AllocatorUse;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// gdb attaches, calls and detaches in about a second; symbols of a large extension take longer, a busy host too.
const LIMIT: Duration = Duration::from_secs(60);

/// What a visit is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Visit {
    /// Ask for the books.
    pub books: bool,
    /// Then trim.
    pub trim: bool,
}

/// What came of a visit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Visited {
    /// Before any trimming; `None`: not asked, or not possible here.
    pub books: Option<AllocatorUse>,
    /// The allocator gave back what it could.
    pub is_trimmed: bool,
}

/// Visits the allocator of `pid`; it writes its books into a file in `folder`, which its user must be able to write. The backend goes on
/// either way.
pub async fn visit(pid: u32, folder: &Path, visit: Visit) -> Visited {
    let mut visited = Visited::default();
    if !visit.books && !visit.trim {
        return visited;
    }
    let Some(gdb) = find_program("gdb") else { return visited };
    let file = folder.join(format!("malloc-info.{pid}.xml"));
    let Some(script) = script(&file, visit) else { return visited };
    let began = Instant::now();
    let mut command = Command::new(gdb);
    command
        .args(["--batch", "--nx", "--quiet"])
        // Before it attaches: symbols of libc alone are needed.
        .args(["-iex", "set debuginfod enabled off", "-iex", "set auto-solib-add off", "-p"])
        .arg(pid.to_string())
        .args(["-ex", "sharedlibrary libc.so"])
        .args(script.iter().flat_map(|line| ["-ex", line.as_str()]))
        .args(["-ex", "detach"])
        .env_clear()
        .envs(bare_environment(&env::temp_dir()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    if let Ok(Ok(output)) = output {
        let said = String::from_utf8_lossy(&output.stdout);
        visited.is_trimmed = visit.trim && is_trimmed(&said);
    }
    if visit.books {
        let read = fs::read_to_string(&file).ok().and_then(|xml| malloc_info::parse(&xml));
        visited.books = read.map(|read| AllocatorUse {
            in_use_bytes: read.in_use,
            free_bytes: read.free,
            took_us,
        });
        // It may never have been made.
        let _ = fs::remove_file(&file);
    }
    visited
}

/// gdb's commands; `None`: the file's path cannot be written in them. Prototypes, since libc carries no types.
fn script(file: &Path, visit: Visit) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    if visit.books {
        let path = quotable(file)?;
        lines.extend([
            format!(
                "set $books = ((void *(*)(const char *, const char *)) fopen)(\"{path}\", \"we\")"
            ),
            // No stream, no call: gdb stops at the first error, and would leave out the rest.
            "call $books == 0 ? -1 : ((int (*)(int, void *)) malloc_info)(0, $books)".to_owned(),
            "call $books == 0 ? -1 : ((int (*)(void *)) fclose)($books)".to_owned(),
        ]);
    }
    if visit.trim {
        lines
            .push("printf \"trimmed %d\\n\", ((int (*)(unsigned long)) malloc_trim)(0)".to_owned());
    }
    Some(lines)
}

/// A path that stands in a C string as it is.
fn quotable(path: &Path) -> Option<String> {
    let text = PathBuf::from(path).into_os_string().into_string().ok()?;
    let is_plain = text.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    is_plain.then_some(text)
}

/// malloc_trim's answer is 1 when something was given back, else 0.
fn is_trimmed(said: &str) -> bool {
    said.lines().any(|line| matches!(line.trim(), "trimmed 0" | "trimmed 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allocators_answer_counts() {
        assert!(is_trimmed(
            "0x00007f in epoll_wait () from libc.so.6\ntrimmed 1\n[Inferior 1 (process 5) detached]\n"
        ));
        assert!(!is_trimmed(
            "ptrace: Operation not permitted.\nNo symbol \"malloc_trim\" in current context.\n"
        ));
        assert!(!is_trimmed(""));
    }

    #[test]
    fn a_path_that_would_break_the_script_asks_nothing() {
        let books = Visit { books: true, trim: false };
        assert_eq!(script(Path::new("/a b/x.xml"), books).unwrap().len(), 3);
        assert!(script(Path::new("/a\"b"), books).is_none());
        assert!(script(Path::new("/a\\b"), books).is_none());
    }

    #[tokio::test]
    async fn a_process_that_is_gone_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let both = Visit { books: true, trim: true };
        assert_eq!(visit(u32::MAX, folder.path(), both).await, Visited::default());
    }
}
