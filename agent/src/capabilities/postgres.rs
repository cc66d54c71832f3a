//! Every PostgreSQL of the host, by its `pg_config`.
//!
//! Looked for where people and packages put it. One server counts once, however many paths lead to it.

use crate::capabilities::Missing;
use crate::tree::Installation;
use pgsoak_proto::chain::chain;
use pgsoak_proto::session::PostgresFound;
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

const PG_CONFIG: &str = "pg_config";

/// Deepest folder of the cache that is searched; a wheel's server lies four down.
const MAX_DEPTH: u32 = 8;

/// The servers, newest first. Each of those that the agent's settings name must be one; whatever else turns out to be none is passed over.
pub(super) fn find(
    cache_dir: &Path,
    named: &[PathBuf],
    missing: &mut Vec<Missing>,
) -> Vec<PostgresFound> {
    let mut found: Vec<PostgresFound> = Vec::new();
    let mut seen = BTreeSet::new();
    let named = named.iter().map(|path| (path.clone(), true));
    let installed = candidates(cache_dir).into_iter().map(|path| (path, false));
    for (path, is_named) in named.chain(installed) {
        // A path that leads nowhere is told by the attempt to run it.
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if !seen.insert(real.clone()) {
            continue;
        }
        match Installation::inspect(&real) {
            Ok(installation) => {
                // Wrappers such as Debian's /usr/bin/pg_config answer for a server that has one of its own.
                let own = installation.program(PG_CONFIG);
                let own = fs::canonicalize(&own).unwrap_or(own);
                if own != real && own.exists() && !seen.insert(own) && !is_named {
                    continue;
                }
                found.push(PostgresFound {
                    major: installation.major,
                    version: installation.version,
                    pg_config: real,
                });
            }
            Err(error) if is_named => {
                missing.push(Missing {
                    what: format!("postgres {}", path.display()),
                    why: chain(&error),
                });
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), error = chain(&error), "not a server");
            }
        }
    }
    found.sort_by(|a, b| b.major.cmp(&a.major).then_with(|| a.pg_config.cmp(&b.pg_config)));
    found
}

/// Paths that may be a `pg_config`; those of servers before wrappers on the PATH.
fn candidates(cache_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in entries(Path::new("/usr/lib/postgresql")) {
        found.push(folder.join("bin").join(PG_CONFIG));
    }
    for folder in entries(Path::new("/usr")) {
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql-")) {
            found.push(folder.join("bin").join(PG_CONFIG));
        }
    }
    found.push(PathBuf::from("/usr/local/pgsql/bin").join(PG_CONFIG));
    search(&cache_dir.join("postgres"), MAX_DEPTH, &mut found);
    let path = env::var_os("PATH").unwrap_or_default();
    found.extend(
        env::split_paths(&path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(PG_CONFIG)),
    );
    found.retain(|path| path.is_file());
    found
}

/// `bin/pg_config` anywhere below, links not followed.
fn search(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let program = folder.join("bin").join(PG_CONFIG);
    if program.is_file() {
        found.push(program);
        return;
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in entries(folder) {
        if entry.is_dir() && !entry.is_symlink() {
            search(&entry, depth, found);
        }
    }
}

/// What a folder holds, sorted; nothing when it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn fake(root: &Path, version: &str) -> PathBuf {
        let folder = |name: &str| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let (bin, share) = (folder("bin"), folder("share"));
        folder("lib");
        for file in [bin.join("postgres"), bin.join("initdb"), share.join("postgres.bki")] {
            fs::write(file, "").unwrap();
        }
        let root = root.display();
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo '{version}';; --bindir) echo {root}/bin;; --sharedir) echo {root}/share;; *) echo {root}/lib;; esac\n"
        );
        let pg_config = bin.join(PG_CONFIG);
        fs::write(&pg_config, script).unwrap();
        fs::set_permissions(&pg_config, fs::Permissions::from_mode(0o755)).unwrap();
        pg_config
    }

    #[test]
    fn one_server_counts_once_and_a_named_one_that_is_none_is_told() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let deep = fake(&root.join("cache/postgres/wheel/x/y/install"), "PostgreSQL 18.4");
        let link = root.join("link");
        symlink(&deep, &link).unwrap();
        let mut missing = Vec::new();
        let found = find(&root.join("cache"), &[link, root.join("absent")], &mut missing);
        let ours: Vec<_> =
            found.iter().filter(|found| found.pg_config.starts_with(&root)).collect();
        assert_eq!(ours.len(), 1, "{found:?}");
        assert_eq!((ours[0].major, &ours[0].pg_config), (18, &deep));
        assert_eq!(ours[0].version, "PostgreSQL 18.4");
        assert_eq!(missing.len(), 1);
        assert!(missing[0].what.ends_with("absent"), "{missing:?}");
        // No server twice, whatever this host has.
        let paths: BTreeSet<_> = found.iter().map(|found| &found.pg_config).collect();
        assert_eq!(paths.len(), found.len());
    }
}
