//! Raw files for keeping: what the server and the tools wrote, compressed and bounded.
//!
//! Runs once, at the end of an attempt, on a blocking thread. A log too large keeps its beginning and its end; any other
//! file keeps its beginning (readers of profiles take what is there). Nothing here decides a verdict.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Most bytes of one raw file that are kept.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// Most raw bytes that one attempt keeps.
pub const MAX_TOTAL_BYTES: u64 = 512 << 20;

/// zstd's level: logs shrink to a twentieth at little cost.
const LEVEL: i32 = 3;

/// A raw file could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("keep {} as {}", from.display(), to.display())]
pub struct KeepError {
    from: PathBuf,
    to: PathBuf,
    #[source]
    source: io::Error,
}

/// Compresses `files` into `artifacts` as `NAME.zst`, in their order, until the attempt's bound is reached.
/// Returns how many files were left out for it, and what failed.
pub fn keep(files: &[PathBuf], artifacts: &Path) -> (usize, Vec<KeepError>) {
    let (mut total, mut left_out, mut failed) = (0_u64, 0, Vec::new());
    if let Err(source) = std::fs::create_dir_all(artifacts) {
        let to = artifacts.to_owned();
        failed.push(KeepError { from: to.clone(), to, source });
        return (left_out, failed);
    }
    for from in files {
        let Some(name) = from.file_name() else { continue };
        let bytes = from.metadata().map(|meta| meta.len().min(MAX_FILE_BYTES)).unwrap_or(0);
        if bytes == 0 {
            continue;
        }
        if total.saturating_add(bytes) > MAX_TOTAL_BYTES {
            left_out += 1;
            continue;
        }
        let mut to = artifacts.join(name);
        to.as_mut_os_string().push(".zst");
        match compress(from, &to, MAX_FILE_BYTES) {
            Ok(()) => total += bytes,
            Err(source) => failed.push(KeepError { from: from.clone(), to, source }),
        }
    }
    (left_out, failed)
}

/// Compresses one file, at most `bound` bytes of it; a name without its end never stays.
fn compress(from: &Path, to: &Path, bound: u64) -> io::Result<()> {
    let mut source = File::open(from)?;
    let bytes = source.metadata()?.len();
    let mut partial = to.to_owned();
    partial.as_mut_os_string().push(".partial");
    let mut target = zstd::Encoder::new(File::create(&partial)?, LEVEL)?;
    let is_log = from.extension().is_some_and(|extension| extension == "log");
    if bytes <= bound {
        io::copy(&mut (&source).take(bound), &mut target)?;
    } else if is_log {
        let half = bound / 2;
        io::copy(&mut (&source).take(half), &mut target)?;
        writeln!(target, "\n[pgsoak: {} bytes left out here]", bytes - 2 * half)?;
        source.seek(SeekFrom::Start(bytes - half))?;
        io::copy(&mut source.take(half), &mut target)?;
    } else {
        io::copy(&mut source.take(bound), &mut target)?;
    }
    target.finish()?.sync_all()?;
    std::fs::rename(partial, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(to: &Path) -> String {
        let raw = zstd::decode_all(File::open(to).unwrap()).unwrap();
        String::from_utf8(raw).unwrap()
    }

    #[test]
    fn a_file_is_kept_whole_when_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let (log, empty) = (dir.path().join("server.log"), dir.path().join("empty.log"));
        std::fs::write(&log, "one\ntwo\n").unwrap();
        std::fs::write(&empty, "").unwrap();
        let missing = dir.path().join("missing.log");
        let to = dir.path().join("artifacts");
        let (left_out, failed) = keep(&[log, empty, missing], &to);
        assert!(left_out == 0 && failed.is_empty(), "{failed:?}");
        assert_eq!(kept(&to.join("server.log.zst")), "one\ntwo\n");
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn a_log_too_large_keeps_both_ends_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (log, raw) = (dir.path().join("a.log"), dir.path().join("a.raw"));
        for file in [&log, &raw] {
            std::fs::write(file, "abcdefghij".repeat(10)).unwrap();
        }
        let to = dir.path().join("to.zst");
        compress(&log, &to, 20).unwrap();
        assert_eq!(kept(&to), "abcdefghij\n[pgsoak: 80 bytes left out here]\nabcdefghij");
        compress(&raw, &to, 20).unwrap();
        assert_eq!(kept(&to), "abcdefghijabcdefghij");
    }
}
