//! Single readings: open, read, close. For readings at rest, and for asking whether a process still lives.

use crate::probe::{ProcessKey, kernel, parse};
use std::io;

/// RssAnon plus swap of `pid` now, in bytes; `None`: it has gone.
///
/// # Errors
///
/// Whatever the kernel says, except that the process does not exist.
pub fn rss_anon_now(pid: u32) -> io::Result<Option<u64>> {
    let text = read(pid, "status")?;
    let memory = text.as_deref().and_then(parse::status);
    Ok(memory
        .map(|memory| memory.rss_anon_kib.saturating_add(memory.swap_kib).saturating_mul(1024)))
}

/// Pss_Anon of `pid` now, in bytes; `None`: it has gone, or the kernel does not say. Expensive: see [`Probe::pss_anon_kib`](crate::probe::Probe::pss_anon_kib).
///
/// # Errors
///
/// As [`rss_anon_now`]; `PermissionDenied` for processes of another user.
pub fn pss_anon_now(pid: u32) -> io::Result<Option<u64>> {
    let text = read(pid, "smaps_rollup")?;
    let pss = text.as_deref().and_then(|text| parse::kib_line(text, b"Pss_Anon:"));
    Ok(pss.map(|kib| kib.saturating_mul(1024)))
}

/// Which process has this pid now; `None`: none, or one that has ended and is not waited for yet.
///
/// # Errors
///
/// As [`rss_anon_now`]; `InvalidData` when the kernel's text is not understood.
pub fn key_of(pid: u32) -> io::Result<Option<ProcessKey>> {
    let stat = stat_of(pid)?.filter(|stat| !stat.is_dead());
    Ok(stat.map(|stat| ProcessKey { pid, start_time_ticks: stat.start_time_ticks }))
}

/// The pid of the parent of `pid`; `None`: `pid` has gone.
///
/// # Errors
///
/// As [`key_of`].
pub fn parent_of(pid: u32) -> io::Result<Option<u32>> {
    Ok(stat_of(pid)?.map(|stat| stat.parent))
}

/// Whether this very process still lives. A zombie does not.
///
/// # Errors
///
/// As [`key_of`].
pub fn lives(key: ProcessKey) -> io::Result<bool> {
    Ok(key_of(key.pid)? == Some(key))
}

fn stat_of(pid: u32) -> io::Result<Option<parse::Stat>> {
    let Some(text) = read(pid, "stat")? else { return Ok(None) };
    parse::stat(&text).map(Some).ok_or_else(|| kernel::not_understood(pid, "stat"))
}

fn read(pid: u32, file: &str) -> io::Result<Option<Vec<u8>>> {
    let path = format!("/proc/{pid}/{file}");
    let Some(descriptor) = kernel::open(&path)? else { return Ok(None) };
    let mut buffer = vec![0; 16 << 10];
    let length = match kernel::read_at(&descriptor, &mut buffer, 0)? {
        Some(text) => text.len(),
        None => return Ok(None),
    };
    buffer.truncate(length);
    Ok(Some(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_process_lives_and_another_start_time_does_not() {
        let own = key_of(std::process::id()).unwrap().unwrap();
        assert!(lives(own).unwrap());
        let other = ProcessKey { start_time_ticks: own.start_time_ticks + 1, ..own };
        assert!(!lives(other).unwrap());
        assert!(rss_anon_now(own.pid).unwrap().unwrap() > 0);
        assert!(pss_anon_now(own.pid).unwrap().unwrap() > 0);
    }

    #[test]
    fn a_child_names_its_parent_and_a_zombie_has_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(parent_of(child.id()).unwrap(), Some(std::process::id()));
        let key = key_of(child.id()).unwrap().unwrap();
        child.kill().unwrap();
        while lives(key).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(rss_anon_now(child.id()).unwrap(), None);
        child.wait().unwrap();
        assert_eq!(parent_of(child.id()).unwrap(), None);
    }
}
