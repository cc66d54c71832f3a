//! Who the jobs run as: a server refuses to run as root, so an agent that is root needs an unprivileged user.
//!
//! Reads /etc/passwd itself: users that only a directory service knows are not found. Judges paths by their mode bits; access
//! lists may say otherwise, in which case the server's own message is the last word.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// In order of preference: the one that PostgreSQL's packages make, and the one that is everywhere.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// A user of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Never 0.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that jobs run as when the agent is root; `None`: the host has neither `postgres` nor `nobody`.
pub fn unprivileged_user() -> Option<User> {
    let passwd = fs::read("/etc/passwd").ok()?;
    let passwd = String::from_utf8_lossy(&passwd);
    CANDIDATES.iter().find_map(|name| user_in(&passwd, name))
}

/// Whether `user` can enter every folder down to `path` and read `path` itself. What does not exist yet blocks nobody.
///
/// # Errors
///
/// The folder or file that blocks: the outermost one.
pub fn reachable_by(user: &User, path: &Path) -> Result<(), PathBuf> {
    let absolute = std::path::absolute(path).map_err(|_| path.to_owned())?;
    // The way as written, and the way that links lead to.
    for way in [Some(absolute.clone()), fs::canonicalize(&absolute).ok()].into_iter().flatten() {
        let mut folders: Vec<&Path> = way.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders {
            if !allows(user, folder, ENTER)? {
                return Err(folder.to_owned());
            }
        }
        let wanted = if way.is_dir() { READ | ENTER } else { READ };
        if !allows(user, &way, wanted)? {
            return Err(way);
        }
    }
    Ok(())
}

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

fn allows(user: &User, path: &Path, wanted: u32) -> Result<bool, PathBuf> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(_) => return Err(path.to_owned()),
    };
    let shift = if found.uid() == user.uid {
        6
    } else if found.gid() == user.gid {
        3
    } else {
        0
    };
    Ok((found.mode() >> shift) & wanted == wanted)
}

/// The user's line of a passwd file: `name:password:uid:gid:…`. Root by another name is none.
fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (found && uid != 0).then(|| User { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn stranger() -> User {
        User { name: "stranger".to_owned(), uid: 4_000_000, gid: 4_000_000 }
    }

    #[test]
    fn postgres_is_preferred_and_root_is_never_taken() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(
            user_in(passwd, "postgres"),
            Some(User { name: "postgres".to_owned(), uid: 101, gid: 104 })
        );
        assert_eq!(user_in(passwd, "root"), None);
        assert_eq!(user_in(passwd, "nobody"), None);
        assert_eq!(user_in("postgres:x:many:104:", "postgres"), None);
    }

    #[test]
    fn the_outermost_folder_that_blocks_is_named() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (outer, inner) = (root.path().join("outer"), root.path().join("outer/inner"));
        fs::create_dir_all(&inner).unwrap();
        let file = inner.join("file");
        fs::write(&file, "x").unwrap();
        for (path, mode) in [(root.path(), 0o755), (&outer, 0o711), (&inner, 0o755), (&file, 0o644)]
        {
            set(path, mode);
        }
        assert_eq!(reachable_by(&stranger(), &file), Ok(()));
        assert_eq!(reachable_by(&stranger(), &inner.join("not/there/yet")), Ok(()));
        set(&file, 0o600);
        assert_eq!(reachable_by(&stranger(), &file), Err(file.clone()));
        set(&outer, 0o700);
        assert_eq!(reachable_by(&stranger(), &file), Err(outer.clone()));
        // The owner passes.
        let found = fs::metadata(&file).unwrap();
        let owner = User { name: "owner".to_owned(), uid: found.uid(), gid: found.gid() };
        assert_eq!(reachable_by(&owner, &file), Ok(()));
        set(&outer, 0o755);
    }

    #[test]
    fn a_link_is_followed_to_where_it_leads() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(root.path(), 0o755);
        let hidden = root.path().join("hidden");
        fs::create_dir_all(hidden.join("data")).unwrap();
        set(&hidden, 0o700);
        let link = root.path().join("link");
        std::os::unix::fs::symlink(hidden.join("data"), &link).unwrap();
        let blocks = reachable_by(&stranger(), &link);
        assert_eq!(blocks, Err(fs::canonicalize(&hidden).unwrap()));
        set(&hidden, 0o755);
    }
}
