//! Finds the file that says how much memory a process's cgroup uses, under cgroup v1 or v2.
//!
//! Done once per job, so by the procfs crate. The root cgroup is the host, not the job: it has no answer.

use std::path::{Path, PathBuf};

/// The file with the bytes in use by the cgroup of `pid`; `None`: in the root cgroup, or without a memory controller.
pub(super) fn memory_file(pid: u32) -> Option<PathBuf> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let groups = process.cgroups().ok()?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    let mounts: Vec<Mount> = mounts
        .into_iter()
        .map(|mount| Mount {
            is_v1_memory: mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"),
            is_v2: mount.fs_type == "cgroup2",
            root: mount.root,
            point: mount.mount_point,
        })
        .collect();
    for group in groups {
        let is_v1 = group.controllers.iter().any(|controller| controller == "memory");
        let is_v2 = group.hierarchy == 0;
        let Some(mount) =
            mounts.iter().find(|mount| (is_v1 && mount.is_v1_memory) || (is_v2 && mount.is_v2))
        else {
            continue;
        };
        let name = if is_v1 { "memory.usage_in_bytes" } else { "memory.current" };
        let Some(folder) = folder(mount, Path::new(&group.pathname)) else { continue };
        let file = folder.join(name);
        if file.exists() {
            return Some(file);
        }
    }
    None
}

struct Mount {
    is_v1_memory: bool,
    is_v2: bool,
    /// The part of the hierarchy that is mounted.
    root: String,
    point: PathBuf,
}

/// Where `group` (its path in the hierarchy) is seen in the file system.
fn folder(mount: &Mount, group: &Path) -> Option<PathBuf> {
    if group == Path::new("/") {
        return None;
    }
    // In a container without a cgroup namespace the mount shows only what lies below its own root.
    let below = group.strip_prefix(&mount.root).or_else(|_| group.strip_prefix("/")).ok()?;
    Some(mount.point.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str) -> Mount {
        Mount {
            is_v1_memory: true,
            is_v2: false,
            root: root.into(),
            point: "/sys/fs/cgroup/memory".into(),
        }
    }

    #[test]
    fn the_root_cgroup_is_no_job() {
        assert_eq!(folder(&mount("/"), Path::new("/")), None);
    }

    #[test]
    fn a_group_is_found_below_the_mount() {
        let found = folder(&mount("/"), Path::new("/system.slice/pgsoak.service"));
        assert_eq!(found, Some("/sys/fs/cgroup/memory/system.slice/pgsoak.service".into()));
        let found = folder(&mount("/docker/abc"), Path::new("/docker/abc/job"));
        assert_eq!(found, Some("/sys/fs/cgroup/memory/job".into()));
    }

    #[test]
    fn the_file_of_this_process_holds_a_number_when_there_is_one() {
        if let Some(file) = memory_file(std::process::id()) {
            let text = std::fs::read(&file).unwrap();
            assert!(crate::probe::parse::first_number(&text).unwrap() > 0, "{}", file.display());
        }
    }
}
