//! After the runner: kills what it left, removes what nobody needs any more, and sees to it that there is a last frame.
//!
//! Blocking. May be done again at any point: a second time finds less to do.

use crate::cluster::survivors;
use crate::folder::{JobFolder, group};
use crate::link::runners::Runners;
use crate::spool::{SpoolLimits, SpoolWriter};
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{AttemptEnded, Body};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use pgsoak_proto::wire::frame;
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

/// What the runner removes when it ends by itself: trees, clusters, sockets and raw tool output.
const LEFT_OVERS: [&str; 5] = ["tree", "data", "run", "logs", "tool"];

/// Of a log, for the last frame.
const TAIL_BYTES: u64 = 4 << 10;

/// `how`: what is known of the runner's end. Gives the sequence of the last frame.
///
/// # Errors
/// When a process will not go, or the spool cannot be written to: to be tried again.
pub(super) fn wind_up(folder: &JobFolder, runners: &dyn Runners, how: &str) -> Result<u64, String> {
    let postmaster = postmaster(folder);
    let left = runners.kill_left(folder.path());
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        return Err(format!("processes {} do not go", pids.join(", ")));
    }
    if let Some((segment, creator)) = postmaster
        && !survivors::remove_shared_memory(segment, creator)
    {
        tracing::warn!(segment, "a shared memory segment is left: remove it with ipcrm -m");
    }
    let recovered = SpoolWriter::recover(&folder.spool(), SpoolLimits::default())
        .map_err(|error| chain(&error))?;
    if recovered.cut_bytes > 0 {
        tracing::warn!(bytes = recovered.cut_bytes, "cut the spool's torn tail");
    }
    let is_ended =
        matches!(&recovered.last, Some(wire::Frame { body: Some(frame::Body::Ended(_)), .. }));
    if !is_ended {
        let elapsed = recovered.last.as_ref().map_or(0, |frame| frame.elapsed_us);
        let body = last_words(folder, how);
        recovered
            .writer
            .append(Duration::from_micros(elapsed), Body::Ended(body))
            .map_err(|error| chain(&error))?;
    }
    let last = recovered.writer.last_sequence();
    recovered.writer.close()?;
    group::remove_of(folder.path());
    remove_linked(&folder.path().join("run"));
    for name in LEFT_OVERS {
        let path = folder.path().join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot be removed yet");
            }
            _ => {}
        }
    }
    Ok(last)
}

/// The socket's folder where it lies below the system's temporary one, since the job's is too long for a socket's path.
fn remove_linked(link: &Path) {
    let Ok(target) = fs::read_link(link) else { return };
    let is_ours = target.parent() == Some(&std::env::temp_dir())
        && target.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pgsoak"));
    if is_ours {
        // Gone already, most often.
        let _ = fs::remove_dir_all(&target);
        let _ = fs::remove_file(link);
    }
}

/// The server's shared memory segment and who made it, if a server is or was there.
fn postmaster(folder: &JobFolder) -> Option<(u64, u32)> {
    let data = folder.path().join("data");
    let segment = survivors::shared_memory(&data)?;
    let lock = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Some((segment, lock.lines().next()?.trim().parse().ok()?))
}

/// The last frame of a runner that did not write it.
fn last_words(folder: &JobFolder, how: &str) -> AttemptEnded {
    let (outcome, reason) = match folder.cancel_reason() {
        Some(why) => {
            let why = why.trim().to_owned();
            (Outcome::Cancelled, format!("cancelled ({why}); {how} before its last frame"))
        }
        None => (Outcome::Infrastructure, format!("{how} before its last frame")),
    };
    let runner_log = tail(&folder.path().join("runner.log"));
    let said = runner_log.trim().lines().last().unwrap_or_default();
    let reason = if said.is_empty() { reason } else { format!("{reason}; it said last: {said}") };
    AttemptEnded {
        server_log_tail: newest_log(&folder.path().join("logs")),
        ..AttemptEnded::bare(outcome, reason)
    }
}

/// The end of the log that was written to last; empty: there is none.
fn newest_log(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return String::new() };
    let newest = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, entry.path()))
        })
        .max_by_key(|(modified, _)| *modified);
    newest.map(|(_, path)| tail(&path)).unwrap_or_default()
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
