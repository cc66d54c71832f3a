//! The folder of the server's socket.
//!
//! A socket's path has at most 107 bytes (`sun_path`), a data folder may be deeper. Then the socket lies in a private folder below the system's temporary one, and
//! the job's `run` is a link to it, so that whoever cleans up after a killed runner finds it.

use crate::cluster::PORT;
use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt, fs::symlink},
    path::{Path, PathBuf},
    process,
};

/// Longest path of a Unix socket without its closing null, in bytes.
const MAX_SOCKET_BYTES: usize = 107;
/// How many names are tried.
const ATTEMPTS: u32 = 100;

/// The folder, and the link to it where it lies elsewhere.
#[derive(Debug)]
pub struct SocketFolder {
    path: PathBuf,
    link: Option<PathBuf>,
}

// === impl SocketFolder ===

impl SocketFolder {
    /// Makes `wanted`, or a short folder and `wanted` as a link to it. What an earlier attempt left at `wanted` is removed.
    ///
    /// # Errors
    /// Neither can be made.
    pub(super) fn make(wanted: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(wanted) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(wanted)?,
            Ok(_) => fs::remove_file(wanted)?,
            Err(_) => {}
        }
        if socket_bytes(wanted) <= MAX_SOCKET_BYTES {
            private_folder(wanted)?;
            return Ok(Self { path: wanted.to_owned(), link: None });
        }
        let path = short_folder()?;
        tracing::info!(
            wanted = %wanted.display(), path = %path.display(),
            "the job's folder is too long for a Unix socket (107 bytes): the socket lies elsewhere"
        );
        let folder = Self { path, link: Some(wanted.to_owned()) };
        symlink(&folder.path, wanted)?;
        Ok(folder)
    }

    /// Where the socket lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder and what is in it.
    pub(super) fn remove(&self) {
        drop(fs::remove_dir_all(&self.path));
        if let Some(link) = &self.link {
            drop(fs::remove_file(link));
        }
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

fn socket_bytes(folder: &Path) -> usize {
    folder.join(format!(".s.PGSQL.{PORT}")).as_os_str().as_bytes().len()
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// A folder that did not exist before and that only this user can enter.
fn short_folder() -> io::Result<PathBuf> {
    let temporary = env::temp_dir();
    let base = if temporary.as_os_str().len() < 60 { temporary } else { PathBuf::from("/tmp") };
    let mut last = io::Error::other("no name tried");
    for attempt in 0..ATTEMPTS {
        let name = format!("pgsoak-{}-{attempt}", process::id());
        let path = base.join(OsStr::new(&name));
        match private_folder(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_used_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let folder = SocketFolder::make(&run).unwrap();
        assert_eq!(folder.path(), run);
        drop(folder);
        assert!(!run.exists());
    }

    #[test]
    fn a_long_path_becomes_a_link_to_a_short_folder_that_is_removed_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(100));
        fs::create_dir(&deep).unwrap();
        let run = deep.join("run");
        let folder = SocketFolder::make(&run).unwrap();
        let short = folder.path().to_owned();
        assert!(socket_bytes(&short) <= MAX_SOCKET_BYTES);
        assert_eq!(fs::read_link(&run).unwrap(), short);
        drop(folder);
        assert!(!short.exists() && fs::symlink_metadata(&run).is_err());
    }

    #[test]
    fn what_an_earlier_attempt_left_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join(".s.PGSQL.5432.lock"), "1").unwrap();
        let folder = SocketFolder::make(&run).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
