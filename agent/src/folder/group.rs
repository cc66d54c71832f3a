//! A cgroup for each job, where the daemon may make one: nobody leaves it by forking, whatever session, folder or environment they
//! give themselves.
//!
//! Counts and limits nothing: under version 1 it lies in a hierarchy without a memory controller, so that the limits of the group
//! above go on to hold. Its path stands in the job's folder, for the next daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// In the job's folder: the path of its cgroup.
const FILE: &str = "cgroup";

/// Of version 1, in the order of preference.
const HIERARCHIES: [&str; 3] = ["pids", "freezer", "name=systemd"];

/// Makes a cgroup for the job in this folder, below the daemon's own; `None`: the daemon may not, or the host has none.
pub fn make(folder: &Path) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let name = format!("pgsoak-{}", folder.file_name()?.to_str()?);
    let made =
        places(&groups, &mounts).into_iter().map(|place| place.join(&name)).find(|group| {
            match fs::create_dir(group) {
                Ok(()) => true,
                // Of an attempt whose start was cut off: nobody is in it.
                Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
            }
        })?;
    if fs::write(folder.join(FILE), made.as_os_str().as_encoded_bytes()).is_err() {
        remove(&made);
        return None;
    }
    Some(made)
}

/// Puts a process into it, with everything that it starts from now on. False: it does not go in, or is gone.
pub fn enter(group: &Path, pid: u32) -> bool {
    fs::write(group.join("cgroup.procs"), pid.to_string()).is_ok()
}

/// Pids of everybody in the cgroup of the job in this folder; empty where there is none.
pub fn members(folder: &Path) -> Vec<u32> {
    let Some(group) = of(folder) else { return Vec::new() };
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Removes the cgroup of the job in this folder, when nobody is in it any more.
pub fn remove_of(folder: &Path) {
    if let Some(group) = of(folder) {
        remove(&group);
    }
}

fn of(folder: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(folder.join(FILE)).ok()?;
    let name = Path::new(&text).file_name()?.to_str()?;
    // What somebody else wrote there is none of ours.
    let is_ours = name.strip_prefix("pgsoak-")? == folder.file_name()?.to_str()?;
    is_ours.then(|| PathBuf::from(text))
}

fn remove(group: &Path) {
    if let Err(error) = fs::remove_dir(group)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(group = %group.display(), %error, "the job's cgroup is still there");
    }
}

/// The daemon's own cgroups where they are mounted, best first. `groups`: /proc/self/cgroup; `mounts`: /proc/self/mountinfo.
fn places(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let lines: Vec<(&str, &str, &str)> = groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
        .collect();
    for wanted in std::iter::once("").chain(HIERARCHIES) {
        let group = lines.iter().find(|(number, controllers, _)| match wanted {
            "" => *number == "0" && controllers.is_empty(),
            wanted => controllers.split(',').any(|controller| controller == wanted),
        });
        let Some((_, _, group)) = group else { continue };
        let place = mounts.lines().find_map(|mount| {
            let (fields, kind) = mount.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (fs_type, options) = (kind.next()?, kind.nth(1)?);
            let fits = match wanted {
                "" => fs_type == "cgroup2",
                wanted => fs_type == "cgroup" && options.split(',').any(|option| option == wanted),
            };
            let mut fields = fields.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let below =
                Path::new(group).strip_prefix(root).or_else(|_| Path::new(group).strip_prefix("/"));
            fits.then_some(Path::new(point).join(below.ok()?))
        });
        found.extend(place);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_own_group_is_found_below_each_mount() {
        let groups = "8:pids:/a.slice/x\n4:memory:/m\n1:name=systemd:/s\n0::/u/v\n";
        let mounts = "31 30 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
                      40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      42 31 0:39 /u /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let places: Vec<String> =
            places(groups, mounts).iter().map(|place| place.display().to_string()).collect();
        assert_eq!(places, ["/sys/fs/cgroup/unified/v", "/sys/fs/cgroup/pids/a.slice/x"]);
        assert_eq!(super::places("", "x"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_folder_without_a_cgroup_has_no_members() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(members(dir.path()), Vec::<u32>::new());
        fs::write(dir.path().join(FILE), "/sys/fs/cgroup/somebody-elses").unwrap();
        assert_eq!(of(dir.path()), None);
    }
}
