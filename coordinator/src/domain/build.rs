//! A build that the coordinator keeps: its package file, where it comes from, which PostgreSQL it fits.

use crate::domain::time::UnixUs;
use pgsoak_packages::manifest::Manifest;
use pgsoak_proto::job::{BuildRef, JobSpec};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

/// A kept package file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// SHA-256 (hex) of the package file, and its name on disk.
    pub digest: String,
    /// Of the package file.
    pub bytes: u64,
    /// What it says of itself: name, release, major, provenance.
    pub manifest: Manifest,
    /// Names and sizes of its files, by name.
    pub files: Vec<(String, u64)>,
    /// The major was read from a shared object, too.
    pub is_major_proven: bool,
    /// When it came.
    pub pushed_at: UnixUs,
    /// Handed to no run that is submitted from now on.
    #[serde(default)]
    pub is_removed: bool,
}

/// A package that a run was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPackage {
    /// The build that it stands for.
    pub build: BuildRef,
    /// The major of PostgreSQL.
    pub postgres: u32,
    /// SHA-256 (hex) of the package file.
    pub digest: String,
}

// === impl BuildRecord ===

impl BuildRecord {
    /// As plans name it.
    pub fn build(&self) -> BuildRef {
        BuildRef::Release {
            name: self.manifest.extension.clone(),
            release: self.manifest.release.clone(),
        }
    }
}

/// All builds that are kept, for whoever gives them to runs. Cheap to clone; the store alone changes it.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<RwLock<Vec<BuildRecord>>>);

impl Shelf {
    /// Puts all builds there are in place of those that were.
    pub fn set(&self, builds: Vec<BuildRecord>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = builds;
    }

    /// The packages of all builds that the jobs name; builds that were never pushed are the agents' own.
    pub fn packages(&self, specs: &[JobSpec]) -> Vec<PinnedPackage> {
        let named: BTreeSet<String> = specs
            .iter()
            .filter(|spec| matches!(spec.build, BuildRef::Release { .. }))
            .map(|spec| spec.build.to_string())
            .collect();
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let builds = named.iter().filter_map(|name| name.parse::<BuildRef>().ok());
        builds.flat_map(|build| pinned(&build, records.iter())).collect()
    }

    /// What tells one state of a build from another: its name, and what its packages hold. Of builds that were never pushed the
    /// name alone.
    pub fn identity(&self, build: &BuildRef) -> String {
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let packages = pinned(build, records.iter());
        let parts = packages.iter().map(|of| format!(" {}:{}", of.postgres, of.digest));
        parts.fold(build.to_string(), |all, part| all + &part)
    }
}

/// What runs are given for a build: the newest package of each major that is not removed.
pub fn pinned<'a>(
    build: &BuildRef,
    records: impl Iterator<Item = &'a BuildRecord>,
) -> Vec<PinnedPackage> {
    let mut found: Vec<&BuildRecord> =
        records.filter(|record| !record.is_removed && record.build() == *build).collect();
    found.sort_by_key(|record| (record.manifest.postgres, std::cmp::Reverse(record.pushed_at)));
    found.dedup_by_key(|record| record.manifest.postgres);
    found
        .into_iter()
        .map(|record| PinnedPackage {
            build: build.clone(),
            postgres: record.manifest.postgres,
            digest: record.digest.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(release: &str, postgres: u32, at: u64, digest: &str) -> BuildRecord {
        BuildRecord {
            digest: digest.to_owned(),
            bytes: 1,
            manifest: Manifest {
                extension: "e".to_owned(),
                release: release.to_owned(),
                postgres,
                ..Manifest::default()
            },
            files: Vec::new(),
            is_major_proven: false,
            pushed_at: UnixUs(at),
            is_removed: digest == "gone",
        }
    }

    #[test]
    fn a_build_that_is_pushed_again_is_another_one() {
        let shelf = Shelf::default();
        let build: BuildRef = "e@1".parse().unwrap();
        assert_eq!(shelf.identity(&build), "e@1");
        shelf.set(vec![
            record("1", 18, 5, "old"),
            record("1", 16, 1, "y"),
            record("2", 18, 1, "z"),
        ]);
        assert_eq!(shelf.identity(&build), "e@1 16:y 18:old");
        shelf.set(vec![record("1", 18, 5, "old"), record("1", 18, 6, "new")]);
        assert_eq!(shelf.identity(&build), "e@1 18:new");
    }

    #[test]
    fn the_newest_of_each_major_is_given() {
        let records = [
            record("1", 18, 5, "old"),
            record("1", 18, 6, "new"),
            record("1", 18, 7, "gone"),
            record("1", 16, 1, "other major"),
            record("2", 18, 9, "other release"),
        ];
        let given = pinned(&"e@1".parse().unwrap(), records.iter());
        let digests: Vec<(u32, &str)> =
            given.iter().map(|of| (of.postgres, of.digest.as_str())).collect();
        assert_eq!(digests, [(16, "other major"), (18, "new")]);
    }
}
