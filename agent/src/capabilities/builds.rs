//! The packages of the build cache: `<cache>/builds/NAME/RELEASE/pgMAJOR/`, each complete when it holds `.complete`.

use crate::capabilities::postgres::entries;
use pgsoak_proto::job::BuildRef;
use pgsoak_proto::session::BuildFound;
use std::path::Path;

/// Every complete package, by name, release and major. Folders with other names are no packages.
pub(super) fn find(cache_dir: &Path) -> Vec<BuildFound> {
    let mut found = Vec::new();
    for extension in entries(&cache_dir.join("builds")) {
        for release in entries(&extension) {
            for package in entries(&release) {
                found.extend(build(&extension, &release, &package));
            }
        }
    }
    found
}

fn build(extension: &Path, release: &Path, package: &Path) -> Option<BuildFound> {
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let postgres_major = name(package)?
        .strip_prefix("pg")?
        .parse()
        .ok()
        .filter(|major| (10..=99).contains(major))?;
    let build = format!("{}@{}", name(extension)?, name(release)?).parse().ok()?;
    let is_release = matches!(build, BuildRef::Release { .. });
    (is_release && package.join(".complete").is_file())
        .then_some(BuildFound { build, postgres_major })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_complete_packages_with_proper_names_count() {
        let cache = tempfile::tempdir().unwrap();
        for (package, is_complete) in [
            ("pg_tviews/0.1.0-beta.34/pg18", true),
            ("pg_tviews/0.1.0-beta.34/pg15", false),
            ("pg_tviews/0.1.0-beta.20/pg18", true),
            ("pg_tviews/0.1.0-beta.20/pg18.partial", true),
            ("bad name/1/pg18", true),
        ] {
            let folder = cache.path().join("builds").join(package);
            fs::create_dir_all(&folder).unwrap();
            if is_complete {
                fs::write(folder.join(".complete"), "").unwrap();
            }
        }
        let found: Vec<_> = find(cache.path())
            .into_iter()
            .map(|found| (found.build.to_string(), found.postgres_major))
            .collect();
        let expected = [
            ("pg_tviews@0.1.0-beta.20".to_owned(), 18),
            ("pg_tviews@0.1.0-beta.34".to_owned(), 18),
        ];
        assert_eq!(found, expected);
        assert!(find(Path::new("/nowhere")).is_empty());
    }
}
