//! What the server wrote: its last lines, the crash in them, and a limit on the file.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Most bytes of a tail; the evidence takes no more.
pub const TAIL_BYTES: u64 = 16 << 10;
/// A log that grows past this is cut; an extension that warns with every statement would fill the disk in a day.
pub const MAX_LOG_BYTES: u64 = 256 << 20;

/// A process of the server that ended as none should.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crash {
    /// "client backend", "server process", "checkpointer process" …
    pub process: String,
    /// Its pid.
    pub pid: u32,
    /// "terminated by signal 11: Segmentation fault", "exited with exit code 2".
    pub how: String,
    /// The statement it ran, where the server knew it.
    pub statement: Option<String>,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (PID {}) {}", self.process, self.pid, self.how)?;
        if let Some(statement) = &self.statement {
            write!(f, " while it ran: {statement}")?;
        }
        Ok(())
    }
}

/// Last whole lines of the log, at most [`TAIL_BYTES`]; empty when there is no log.
pub fn tail(path: &Path) -> String {
    read_tail(path, TAIL_BYTES).unwrap_or_default()
}

/// The last crash that a piece of the log tells of. Ends of background workers that restart (exit code 0 or 1) are none.
pub fn last_crash(log: &str) -> Option<Crash> {
    let mut crash: Option<Crash> = None;
    for line in log.lines() {
        if let Some(found) = crash_in(line) {
            crash = Some(found);
        } else if let Some((_, statement)) = line.split_once("Failed process was running: ")
            && let Some(crash) = &mut crash
            && crash.statement.is_none()
        {
            crash.statement = Some(statement.chars().take(1_000).collect());
        }
    }
    crash
}

/// `… LOG:  server process (PID 12) was terminated by signal 11: Segmentation fault` (postmaster.c, `LogChildExit`).
fn crash_in(line: &str) -> Option<Crash> {
    let (_, said) = line.split_once("LOG:  ")?;
    let (process, rest) = said.split_once(" (PID ")?;
    let (pid, how) = rest.split_once(") ")?;
    let pid = pid.parse().ok()?;
    let how = how.strip_prefix("was ").unwrap_or(how);
    let code = how.strip_prefix("exited with exit code ");
    let crashed = how.starts_with("terminated by signal")
        || how.starts_with("terminated by exception")
        || code.is_some_and(|code| !matches!(code.trim(), "0" | "1"));
    crashed.then(|| Crash {
        process: process.to_owned(),
        pid,
        how: how.trim().to_owned(),
        statement: None,
    })
}

/// Cuts a log that has grown past [`MAX_LOG_BYTES`] to its last lines, which go to `<log>.cut`. The server writes on in append mode.
///
/// # Errors
/// The file cannot be read or cut.
pub fn limit(path: &Path) -> io::Result<bool> {
    limit_to(path, MAX_LOG_BYTES)
}

fn limit_to(path: &Path, most: u64) -> io::Result<bool> {
    if fs::metadata(path)?.len() <= most {
        return Ok(false);
    }
    let kept = read_tail(path, most / 16)?;
    fs::write(path.with_extension("log.cut"), kept)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)?;
    Ok(true)
}

/// What was written from this byte on, at most 4 MiB; all there is when the log was cut meanwhile. Empty when there is no log.
pub fn tail_from(path: &Path, from: u64) -> String {
    const MOST: u64 = 4 << 20;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let from = if file.metadata()?.len() < from { 0 } else { from };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

fn read_tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if from > 0
        && let Some((_, whole)) = text.split_once('\n')
    {
        text = whole.to_owned();
    }
    // Each byte that is no UTF-8 became three: the end counts.
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if let Some(over) = text.len().checked_sub(most) {
        let cut = (over..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(over);
        text = text.split_off(cut);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_read_with_its_statement() {
        let log = "2026-11-21 10:00:00.000 UTC [9] postmaster : LOG:  server process (PID 12) was terminated by signal 11: Segmentation fault\n\
                   2026-11-21 10:00:00.000 UTC [9] postmaster : DETAIL:  Failed process was running: SELECT boom()\n\
                   2026-11-21 10:00:00.001 UTC [9] postmaster : LOG:  terminating any other active server processes\n";
        let crash = last_crash(log).unwrap();
        assert_eq!(crash.pid, 12);
        assert_eq!(
            crash.to_string(),
            "server process (PID 12) terminated by signal 11: Segmentation fault while it ran: SELECT boom()"
        );
    }

    #[test]
    fn workers_that_end_as_they_should_are_no_crash() {
        let log = "x LOG:  background worker \"logical replication launcher\" (PID 5) exited with exit code 1\n\
                   x ERROR:  server process (PID 1) was terminated by signal 9: Killed\n";
        assert_eq!(last_crash(log), None);
        let log = "x LOG:  client backend (PID 7) exited with exit code 2\n";
        assert_eq!(last_crash(log).unwrap().process, "client backend");
    }

    #[test]
    fn a_tail_is_whole_lines_and_never_too_long() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("server.log");
        assert_eq!(tail(&path), "");
        fs::write(&path, "short\n").unwrap();
        assert_eq!(tail(&path), "short\n");
        fs::write(&path, "a line of the log\n".repeat(5_000)).unwrap();
        let text = tail(&path);
        assert!(text.len() <= 16 << 10 && text.len() > 16_000);
        assert!(text.lines().all(|line| line == "a line of the log"));
        fs::write(&path, vec![0xff; 40_000]).unwrap();
        assert!(tail(&path).len() <= 16 << 10);
    }

    #[test]
    fn a_log_past_its_limit_is_cut_and_its_end_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("server.log");
        fs::write(&path, "0123456789abcde\n".repeat(1_000)).unwrap();
        assert!(!limit_to(&path, 16_000).unwrap());
        assert!(limit_to(&path, 15_999).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let kept = fs::read_to_string(root.path().join("server.log.cut")).unwrap();
        assert!(kept.len() > 900 && kept.lines().all(|line| line == "0123456789abcde"));
    }
}
