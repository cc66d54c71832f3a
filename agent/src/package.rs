//! An extension package: from a build's name to the files that a private tree gets.
//!
//! A package folder holds an extension's files under any prefix, as `cargo pgrx package` or `make install DESTDIR=` leave them.
//! Nothing outside the folder is read: a symbolic link counts only when it ends at a file inside. Whether the shared object
//! fits the server's major is said by the server itself when it loads it; only `build.json`, where there is one, is believed before.

use pgsoak_packages::digest::hex;
use pgsoak_proto::job::BuildRef;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What of a file is held at a time while its digest is made, bytes.
const PIECE: usize = 128 << 10;

/// Deepest folder below a package folder that is read.
const MAX_DEPTH: u32 = 32;
/// Most entries that are looked at; a package has a few hundred.
const MAX_ENTRIES: usize = 20_000;
/// Largest file of a package, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The files of one build.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Package {
    /// Sorted by name; names are unique. Empty for `system` and `vanilla`.
    pub files: Vec<PackageFile>,
    /// SHA-256 in hex over the sorted names and contents; empty for `system` and `vanilla`.
    pub digest: String,
    /// Where the files lie; `None` for `system` and `vanilla`.
    pub folder: Option<PathBuf>,
}

/// One file of a package.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackageFile {
    /// File name without folder.
    pub name: String,
    /// Where it lies; a regular file inside the package folder.
    pub path: PathBuf,
    /// Where it goes.
    pub kind: FileKind,
}

/// What a file of a package is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// `*.so`: goes to the library folder.
    Library,
    /// `*.control`: goes to the extension folder.
    Control,
    /// `*.sql`: goes to the extension folder.
    Script,
}

/// Why a build has no usable files.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The cache lacks the build.
    #[error(
        "no build {name}@{release} for PostgreSQL {major}: looked for {} {}; build it with: \
         deploy/build-extension.sh {name} {release}", folder.display(), others(built_for)
    )]
    NotBuilt {
        /// The extension.
        name: String,
        /// Its release.
        release: String,
        /// The server's major.
        major: u32,
        /// The folder that was looked for.
        folder: PathBuf,
        /// Majors for which the cache has the release.
        built_for: Vec<u32>,
    },
    /// The folder cannot be read.
    #[error("read the package folder {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something that the workload's extension needs is not there.
    #[error("the package {} lacks {what} (it holds {held})", folder.display())]
    Lacks {
        /// The package folder.
        folder: PathBuf,
        /// The missing file.
        what: String,
        /// What is there instead.
        held: String,
    },
    /// One name, two contents.
    #[error("the package holds two different files named {name}: {} and {}", first.display(), second.display())]
    Ambiguous {
        /// The name.
        name: String,
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// `build.json` names another major.
    #[error("the package {} was built for PostgreSQL {built_for}, the job's server is {major}", folder.display())]
    OtherMajor {
        /// The package folder.
        folder: PathBuf,
        /// The major it was built for.
        built_for: u32,
        /// The server's major.
        major: u32,
    },
    /// More than any package has.
    #[error("{} is no package folder: {why}", folder.display())]
    Unlikely {
        /// The folder.
        folder: PathBuf,
        /// What is too much.
        why: String,
    },
}

// === impl Package ===

impl Package {
    /// Finds the files of `build` for a server of `major`; `extension` is what the workload creates, if anything.
    ///
    /// # Errors
    /// The cache or the folder lacks the build, its shared object or its control file; or it cannot be read.
    pub fn resolve(
        build: &BuildRef,
        cache_dir: &Path,
        major: u32,
        extension: Option<&str>,
    ) -> Result<Self, PackageError> {
        match build {
            BuildRef::System | BuildRef::Vanilla => {
                Ok(Self { files: Vec::new(), digest: String::new(), folder: None })
            }
            BuildRef::Dir(folder) => Self::from_folder(folder, major, extension),
            BuildRef::Release { name, release } => {
                let releases = cache_dir.join("builds").join(name).join(release);
                let folder = releases.join(format!("pg{major}"));
                if folder.join(".complete").exists() {
                    return Self::from_folder(&folder, major, extension);
                }
                Err(PackageError::NotBuilt {
                    name: name.clone(),
                    release: release.clone(),
                    major,
                    folder,
                    built_for: majors_in(&releases),
                })
            }
        }
    }

    /// `default_version` of the control file of `extension`; `None` when there is no such file or line.
    pub fn default_version(&self, extension: &str) -> Option<String> {
        let name = format!("{extension}.control");
        let file = self.files.iter().find(|file| file.name == name)?;
        default_version(&fs::read_to_string(&file.path).ok()?)
    }

    /// Names of the extensions that the package has control files for.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.name.strip_suffix(".control"))
    }

    fn from_folder(
        folder: &Path,
        major: u32,
        extension: Option<&str>,
    ) -> Result<Self, PackageError> {
        let read = |source| PackageError::Read { path: folder.to_owned(), source };
        let root = fs::canonicalize(folder).map_err(read)?;
        let mut found = BTreeMap::new();
        let mut seen = 0;
        walk(&root, &root, 0, &mut seen, &mut found)?;

        let files: Vec<PackageFile> = found.into_values().collect();
        if let Some(built_for) = declared_major(&root)
            && built_for != major
        {
            return Err(PackageError::OtherMajor { folder: root, built_for, major });
        }
        let package = Self { digest: digest(&files)?, files, folder: Some(root) };
        package.require(folder, extension)?;
        Ok(package)
    }

    fn require(&self, folder: &Path, extension: Option<&str>) -> Result<(), PackageError> {
        let lacks = |what: String| PackageError::Lacks {
            folder: folder.to_owned(),
            what,
            held: summary(&self.files),
        };
        if !self.files.iter().any(|file| file.kind == FileKind::Library) {
            return Err(lacks("a shared object (*.so)".to_owned()));
        }
        let wanted = match extension {
            Some(extension) => format!("{extension}.control"),
            None => return Ok(()),
        };
        if !self.files.iter().any(|file| file.name == wanted) {
            return Err(lacks(format!("the control file {wanted}")));
        }
        Ok(())
    }
}

/// `default_version` as PostgreSQL's control files write it: `key = 'value'`, comments behind `#`.
pub fn default_version(control: &str) -> Option<String> {
    control.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if key.trim() != "default_version" {
            return None;
        }
        let value = value.trim();
        let version = match value.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next()?,
            None => value.split(['#', ' ', '\t']).next()?,
        };
        (!version.is_empty()).then(|| version.to_owned())
    })
}

/// Gathers the files below `folder` into `found`, by name.
fn walk(
    root: &Path,
    folder: &Path,
    depth: u32,
    seen: &mut usize,
    found: &mut BTreeMap<String, PackageFile>,
) -> Result<(), PackageError> {
    let read = |source| PackageError::Read { path: folder.to_owned(), source };
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        *seen += 1;
        if *seen > MAX_ENTRIES {
            return Err(PackageError::Unlikely {
                folder: root.to_owned(),
                why: format!("it holds more than {MAX_ENTRIES} entries"),
            });
        }
        let kind = entry.file_type().map_err(read)?;
        if kind.is_dir() {
            walk(root, &entry.path(), depth + 1, seen, found)?;
        } else if let Some(file) = candidate(root, &entry.path())? {
            insert(found, file)?;
        }
    }
    Ok(())
}

/// The file at `path`, when it is one of a package's: a regular file inside `root` with a known ending.
fn candidate(root: &Path, path: &Path) -> Result<Option<PackageFile>, PackageError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let kind = match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        Some("so") => FileKind::Library,
        Some("control") => FileKind::Control,
        Some("sql") => FileKind::Script,
        _ => return Ok(None),
    };
    // A link may dangle, loop or lead out; a socket or a pipe would block whoever reads it.
    let Ok(real) = fs::canonicalize(path) else { return Ok(None) };
    let Ok(metadata) = fs::metadata(&real) else { return Ok(None) };
    if !metadata.is_file() || !real.starts_with(root) {
        return Ok(None);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(PackageError::Unlikely {
            folder: root.to_owned(),
            why: format!("{name} has {} bytes", metadata.len()),
        });
    }
    Ok(Some(PackageFile { name: name.to_owned(), path: real, kind }))
}

fn insert(
    found: &mut BTreeMap<String, PackageFile>,
    file: PackageFile,
) -> Result<(), PackageError> {
    if let Some(first) = found.get(&file.name) {
        if first.path != file.path && content(&first.path)? != content(&file.path)? {
            return Err(PackageError::Ambiguous {
                name: file.name,
                first: first.path.clone(),
                second: file.path,
            });
        }
        return Ok(());
    }
    found.insert(file.name.clone(), file);
    Ok(())
}

fn content(path: &Path) -> Result<Vec<u8>, PackageError> {
    fs::read(path).map_err(|source| PackageError::Read { path: path.to_owned(), source })
}

/// Lengths stand before names and contents, so that no two packages run together into the same bytes. A shared object with its debug
/// information has tens of megabytes: it goes by in pieces, or it would be the peak of the runner's memory.
fn digest(files: &[PackageFile]) -> Result<String, PackageError> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    for file in files {
        hasher.update(u64::try_from(file.name.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(file.name.as_bytes());
        add_content(&mut hasher, &mut piece, &file.path)
            .map_err(|source| PackageError::Read { path: file.path.clone(), source })?;
    }
    Ok(hex(&hasher.finalize()))
}

fn add_content(hasher: &mut Sha256, piece: &mut [u8], path: &Path) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    hasher.update(length.to_le_bytes());
    let mut came: u64 = 0;
    loop {
        let read = match file.read(piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(piece.get(..read).unwrap_or_default());
        came = came.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if came == length {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "it changed while it was read: {came} bytes of {length} came"
        )))
    }
}

/// The major in `build.json`, which `deploy/build-extension.sh` writes.
fn declared_major(root: &Path) -> Option<u32> {
    let text = fs::read(root.join("build.json")).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    u32::try_from(value.get("postgres")?.as_u64()?).ok()
}

/// Majors with a complete build below `releases`.
fn majors_in(releases: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(releases) else { return Vec::new() };
    let mut majors: Vec<u32> = entries
        .flatten()
        .filter(|entry| entry.path().join(".complete").exists())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("pg")?.parse().ok())
        .collect();
    majors.sort_unstable();
    majors
}

fn others(built_for: &[u32]) -> String {
    if built_for.is_empty() {
        return "(no other major of it is there)".to_owned();
    }
    let majors: Vec<String> = built_for.iter().map(u32::to_string).collect();
    format!("(it is there for PostgreSQL {})", majors.join(", "))
}

/// A few names for an error's reader.
fn summary(files: &[PackageFile]) -> String {
    const SHOWN: usize = 8;
    if files.is_empty() {
        return "no *.so, *.control or *.sql file".to_owned();
    }
    let shown: Vec<&str> = files.iter().take(SHOWN).map(|file| file.name.as_str()).collect();
    let more = files.len().saturating_sub(SHOWN);
    let tail = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{tail}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn package(root: &Path) {
        write(root, "usr/lib/postgresql/15/lib/x.so", "ELF");
        write(root, "usr/share/postgresql/15/extension/x.control", "default_version = '1.2'\n");
        write(root, "usr/share/postgresql/15/extension/x--1.2.sql", "SELECT 1;");
        write(root, "usr/share/doc/x/README", "not taken");
    }

    fn dir(root: &Path) -> BuildRef {
        BuildRef::Dir(root.to_owned())
    }

    #[test]
    fn files_are_found_under_any_prefix() {
        let root = tempfile::tempdir().unwrap();
        package(root.path());
        let found =
            Package::resolve(&dir(root.path()), Path::new("/nowhere"), 15, Some("x")).unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["x--1.2.sql", "x.control", "x.so"]);
        assert_eq!(found.default_version("x").as_deref(), Some("1.2"));
        assert_eq!(found.digest.len(), 64);
    }

    #[test]
    fn a_file_of_many_pieces_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        let bytes: Vec<u8> =
            (0..PIECE * 2 + 17).map(|at| u8::try_from(at % 251).unwrap()).collect();
        fs::write(&path, &bytes).unwrap();
        let file = PackageFile { path, name: "x.so".to_owned(), kind: FileKind::Library };
        let mut whole = Sha256::new();
        for part in [b"x.so".as_slice(), &bytes] {
            whole.update(u64::try_from(part.len()).unwrap().to_le_bytes());
            whole.update(part);
        }
        let whole = hex(&whole.finalize());
        assert_eq!(digest(&[file]).unwrap(), whole);
    }

    #[test]
    fn the_digest_follows_names_and_contents_but_not_the_place() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        package(one.path());
        write(two.path(), "lib/x.so", "ELF");
        write(two.path(), "ext/x.control", "default_version = '1.2'\n");
        write(two.path(), "ext/x--1.2.sql", "SELECT 1;");
        let digest_of = |root: &Path| {
            Package::resolve(&dir(root), Path::new("/nowhere"), 15, Some("x")).unwrap().digest
        };
        assert_eq!(digest_of(one.path()), digest_of(two.path()));
        write(two.path(), "ext/x--1.2.sql", "SELECT 2;");
        assert_ne!(digest_of(one.path()), digest_of(two.path()));
    }

    #[test]
    fn a_missing_build_names_the_folder_the_script_and_the_majors_that_are_there() {
        let cache = tempfile::tempdir().unwrap();
        write(cache.path(), "builds/x/1.0/pg15/.complete", "");
        write(cache.path(), "builds/x/1.0/pg16/half-built", "");
        let build: BuildRef = "x@1.0".parse().unwrap();
        let said = Package::resolve(&build, cache.path(), 18, Some("x")).unwrap_err().to_string();
        assert!(said.contains("builds/x/1.0/pg18"), "{said}");
        assert!(said.contains("deploy/build-extension.sh x 1.0"), "{said}");
        assert!(said.contains("it is there for PostgreSQL 15)"), "{said}");
    }

    #[test]
    fn a_package_without_shared_object_or_control_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "x.control", "");
        let refused = |extension| {
            Package::resolve(&dir(root.path()), Path::new("/nowhere"), 15, Some(extension))
                .unwrap_err()
                .to_string()
        };
        assert!(refused("x").contains("lacks a shared object"));
        write(root.path(), "x.so", "ELF");
        assert!(
            refused("y").contains("lacks the control file y.control (it holds x.control, x.so)")
        );
    }

    #[test]
    fn links_that_lead_out_dangle_or_loop_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        package(root.path());
        symlink("/etc/passwd", root.path().join("passwd.sql")).unwrap();
        symlink("nowhere", root.path().join("dangling.so")).unwrap();
        symlink(".", root.path().join("again")).unwrap();
        symlink("usr/lib/postgresql/15/lib/x.so", root.path().join("alias.so")).unwrap();
        fs::create_dir(root.path().join("folder.so")).unwrap();
        let found =
            Package::resolve(&dir(root.path()), Path::new("/nowhere"), 15, Some("x")).unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["alias.so", "x--1.2.sql", "x.control", "x.so"]);
    }

    #[test]
    fn one_name_with_two_contents_is_refused() {
        let root = tempfile::tempdir().unwrap();
        package(root.path());
        write(root.path(), "other/x.so", "another");
        let said = Package::resolve(&dir(root.path()), Path::new("/nowhere"), 15, Some("x"));
        assert!(matches!(said, Err(PackageError::Ambiguous { .. })));
    }

    #[test]
    fn a_package_for_another_major_is_refused() {
        let root = tempfile::tempdir().unwrap();
        package(root.path());
        write(root.path(), "build.json", r#"{"postgres":18}"#);
        let said = Package::resolve(&dir(root.path()), Path::new("/nowhere"), 15, Some("x"));
        assert!(matches!(said, Err(PackageError::OtherMajor { built_for: 18, major: 15, .. })));
    }

    #[test]
    fn control_files_are_read_as_postgresql_does() {
        assert_eq!(
            default_version("# default_version = '0'\ndefault_version='1'").as_deref(),
            Some("1")
        );
        assert_eq!(default_version("default_version = 2.0 # newest").as_deref(), Some("2.0"));
        assert_eq!(default_version("default_version = ''"), None);
        assert_eq!(default_version("comment = 'x'"), None);
    }
}
