//! Where things are kept when nobody says where.

use rustix::process::getuid;
use std::{
    env,
    path::{Path, PathBuf},
};

/// Data of `pgsoak run` and of the daemons: `/var/lib/pgsoak` for root (so that the unprivileged user that runs PostgreSQL
/// can reach it), else `$XDG_DATA_HOME/pgsoak` or `~/.local/share/pgsoak`.
pub fn default_data_dir() -> PathBuf {
    if getuid().is_root() {
        return PathBuf::from("/var/lib/pgsoak");
    }
    of_user("XDG_DATA_HOME", ".local/share")
}

/// Builds, PostgreSQL trees and cluster templates: `$PGSOAK_CACHE`, else `/var/cache/pgsoak` for root, else
/// `$XDG_CACHE_HOME/pgsoak` or `~/.cache/pgsoak`. The scripts of `deploy/` use the same.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os("PGSOAK_CACHE").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    if getuid().is_root() {
        return PathBuf::from("/var/cache/pgsoak");
    }
    of_user("XDG_CACHE_HOME", ".cache")
}

fn of_user(variable: &str, below_home: &str) -> PathBuf {
    let base = env::var_os(variable).filter(|dir| !dir.is_empty()).map_or_else(
        || env::var_os("HOME").map_or_else(env::temp_dir, PathBuf::from).join(below_home),
        PathBuf::from,
    );
    base.join("pgsoak")
}

/// The coordinator's folder below a data folder.
pub fn coordinator_dir(data: &Path) -> PathBuf {
    data.join("coordinator")
}

/// The agent's folder below a data folder.
pub fn agent_dir(data: &Path) -> PathBuf {
    data.join("agent")
}

/// The Unix socket of a coordinator. Paths of sockets are short (107 bytes): where the folder's own path is too long, the
/// socket lies in the folder for temporary files, named after a hash of the folder.
pub fn socket_of(coordinator: &Path) -> PathBuf {
    const LONGEST: usize = 100;
    let near = coordinator.join("socket");
    if near.as_os_str().len() <= LONGEST {
        return near;
    }
    // FNV-1a: the name only has to differ between folders.
    let hash = coordinator
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    env::temp_dir().join(format!("pgsoak-{hash:016x}.socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_is_never_too_long() {
        let deep = Path::new("/x").join("y".repeat(200));
        assert!(socket_of(&deep).as_os_str().len() < 107);
        assert_ne!(socket_of(&deep), socket_of(&deep.join("z")));
        assert_eq!(socket_of(Path::new("/d/c")), Path::new("/d/c/socket"));
    }
}
