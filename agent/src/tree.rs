//! A private PostgreSQL installation per job, in which the job's build is the only one of its extension.
//!
//! PostgreSQL finds its folders relative to its own program as long as the compiled-in relation of the two holds
//! (`make_relative_path` in src/port/path.c). So the tree repeats that relation: the server's program is **copied**, since it resolves links to
//! itself; everything else is linked file by file; the package's files are copied in. Nothing installed is touched.

use crate::package::FileKind;
use crate::package::Package;
use crate::package::default_version;
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// An installed PostgreSQL, as its `pg_config` describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installation {
    /// The `pg_config` that was asked.
    pub pg_config: PathBuf,
    /// As in `pg_config --version`: "PostgreSQL 18.4".
    pub version: String,
    /// 15, 18 …
    pub major: u32,
    /// Holds `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// Holds the shared objects that the server loads (`--pkglibdir`).
    pub library_dir: PathBuf,
    /// Holds `extension/` (`--sharedir`).
    pub share_dir: PathBuf,
    /// Holds libpq (`--libdir`).
    pub client_library_dir: PathBuf,
}

/// A private installation inside a job's folder.
#[derive(Clone, Debug)]
pub struct Tree {
    /// What it was made from.
    pub installation: Installation,
    /// The server's program.
    pub postgres: PathBuf,
    /// The private `--pkglibdir`.
    pub library_dir: PathBuf,
    /// The private `--sharedir`.
    pub share_dir: PathBuf,
    /// `LD_LIBRARY_PATH` that the server needs; `None`: none.
    pub library_path: Option<OsString>,
}

/// Why there is no private tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// `pg_config` does not run.
    #[error("run {} {argument}", pg_config.display())]
    Run {
        /// The program.
        pg_config: PathBuf,
        /// Its argument.
        argument: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// `pg_config` says something unusable.
    #[error("{} {argument} says '{said}', which is not {wanted}", pg_config.display())]
    Said {
        /// The program.
        pg_config: PathBuf,
        /// Its argument.
        argument: &'static str,
        /// Its answer.
        said: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// The installation lacks its server.
    #[error("{} has no server: {} is missing (is only the client installed?)", pg_config.display(), missing.display())]
    NoServer {
        /// The program that was asked.
        pg_config: PathBuf,
        /// The missing file.
        missing: PathBuf,
    },
    /// A file or folder of the tree cannot be made.
    #[error("make {}", path.display())]
    Make {
        /// The file, folder or link.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

// === impl Installation ===

impl Installation {
    /// Asks `pg_config`; takes a few milliseconds.
    ///
    /// # Errors
    /// It does not run, says something else than a PostgreSQL does, or the server's program is not there.
    pub fn inspect(pg_config: &Path) -> Result<Self, TreeError> {
        let version = ask(pg_config, "--version")?;
        let major = major_of(&version).ok_or_else(|| TreeError::Said {
            pg_config: pg_config.to_owned(),
            argument: "--version",
            said: version.clone(),
            wanted: "a version such as 'PostgreSQL 18.4'",
        })?;
        let folder = |argument| -> Result<PathBuf, TreeError> {
            let said = ask(pg_config, argument)?;
            let path = PathBuf::from(&said);
            if path.is_absolute() {
                return Ok(path);
            }
            let wanted = "an absolute path";
            Err(TreeError::Said { pg_config: pg_config.to_owned(), argument, said, wanted })
        };
        let installation = Self {
            pg_config: pg_config.to_owned(),
            version,
            major,
            bin_dir: folder("--bindir")?,
            library_dir: folder("--pkglibdir")?,
            share_dir: folder("--sharedir")?,
            client_library_dir: folder("--libdir")?,
        };
        for missing in [
            installation.program("postgres"),
            installation.program("initdb"),
            installation.share_dir.join("postgres.bki"),
        ] {
            if !missing.exists() {
                return Err(TreeError::NoServer { pg_config: pg_config.to_owned(), missing });
            }
        }
        Ok(installation)
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// PostgreSQL's own suppressions for memcheck, `src/tools/valgrind.supp` of its sources, where an installation keeps them.
    pub fn valgrind_suppressions(&self) -> Option<PathBuf> {
        const NAME: &str = "valgrind.supp";
        [
            self.share_dir.join(NAME),
            self.library_dir.join("pgxs/src/tools").join(NAME),
            self.bin_dir.join("../src/tools").join(NAME),
        ]
        .into_iter()
        .find(|path| path.is_file())
    }

    /// `default_version` of an extension that is installed here; `None`: it is not.
    pub fn default_version(&self, extension: &str) -> Option<String> {
        installed_version(&self.share_dir, extension)
    }

    /// `LD_LIBRARY_PATH` for a copy: its own libraries, when they are not where the loader looks anyway.
    /// A relocated installation often carries a dead run path.
    fn library_path(&self) -> Option<OsString> {
        let usual = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
        let place = &self.client_library_dir;
        let known = usual.iter().any(|folder| {
            place == Path::new(folder)
                || (place.starts_with(folder)
                    && place
                        .file_name()
                        .and_then(OsStr::to_str)
                        .is_some_and(|name| name.ends_with("-linux-gnu")))
        });
        (!known && place.is_dir()).then(|| place.clone().into_os_string())
    }
}

// === impl Tree ===

impl Tree {
    /// Builds the tree at `root`, which must not exist or be empty. Takes well under a second: some 200 links and one copy.
    ///
    /// # Errors
    /// A folder, link or copy cannot be made.
    pub fn build(
        installation: &Installation,
        package: &Package,
        root: &Path,
    ) -> Result<Self, TreeError> {
        let common = common_prefix(&[
            &installation.bin_dir,
            &installation.library_dir,
            &installation.share_dir,
        ]);
        let place = |folder: &Path| root.join(folder.strip_prefix(&common).unwrap_or(folder));
        let bin_dir = place(&installation.bin_dir);
        let tree = Self {
            installation: installation.clone(),
            postgres: bin_dir.join("postgres"),
            library_dir: place(&installation.library_dir),
            share_dir: place(&installation.share_dir),
            library_path: installation.library_path(),
        };
        let extension_dir = tree.share_dir.join("extension");
        for folder in [&bin_dir, &tree.library_dir, &tree.share_dir, &extension_dir] {
            make(folder, |folder| fs::create_dir_all(folder))?;
        }
        make(&tree.postgres, |copy| fs::copy(installation.program("postgres"), copy).map(drop))?;

        // What the package brings hides what is installed: its libraries, and every script of its extensions.
        let replaced_library = |name: &str| {
            package.files.iter().any(|file| file.kind == FileKind::Library && file.name == name)
        };
        let replaced_script = |name: &str| {
            package.files.iter().any(|file| file.name == name)
                || package.extensions().any(|extension| belongs_to(name, extension))
        };
        link_entries(&installation.library_dir, &tree.library_dir, replaced_library)?;
        link_entries(&installation.share_dir, &tree.share_dir, |name| name == "extension")?;
        let installed_extensions = installation.share_dir.join("extension");
        if installed_extensions.is_dir() {
            link_entries(&installed_extensions, &extension_dir, replaced_script)?;
        }
        for file in &package.files {
            let folder = match file.kind {
                FileKind::Library => &tree.library_dir,
                FileKind::Control | FileKind::Script => &extension_dir,
            };
            make(&folder.join(&file.name), |copy| fs::copy(&file.path, copy).map(drop))?;
        }
        Ok(tree)
    }

    /// `default_version` of an extension in the tree, from the package or installed; `None`: it is not there.
    pub fn default_version(&self, extension: &str) -> Option<String> {
        installed_version(&self.share_dir, extension)
    }
}

/// Whether a file of an extension folder is `extension`'s: `x.control`, `x--1.0.sql`, but not `x_y--1.0.sql`.
fn belongs_to(name: &str, extension: &str) -> bool {
    name.strip_prefix(extension).is_some_and(|rest| {
        rest.starts_with("--")
            || rest.ends_with(".control") && rest.starts_with('.')
            || rest == ".sql"
    })
}

fn installed_version(share_dir: &Path, extension: &str) -> Option<String> {
    let control = share_dir.join("extension").join(format!("{extension}.control"));
    default_version(&fs::read_to_string(control).ok()?)
}

/// Links every entry of `from` into `to`, except those that `skip` names. A folder is linked as a whole.
fn link_entries(from: &Path, to: &Path, skip: impl Fn(&str) -> bool) -> Result<(), TreeError> {
    let read = |source| TreeError::Make { path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if name.to_str().is_some_and(&skip) {
            continue;
        }
        make(&to.join(&name), |link| symlink(entry.path(), link))?;
    }
    Ok(())
}

fn make(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), TreeError> {
    how(path).map_err(|source| TreeError::Make { path: path.to_owned(), source })
}

/// The longest folder above all of `paths`.
fn common_prefix(paths: &[&Path]) -> PathBuf {
    let Some((first, rest)) = paths.split_first() else { return PathBuf::new() };
    let shared = |length: usize, path: &&Path| {
        first.components().zip(path.components()).take(length).take_while(|(a, b)| a == b).count()
    };
    let length = rest.iter().fold(first.components().count(), shared);
    first.components().take(length).collect::<Vec<Component<'_>>>().iter().collect()
}

/// One line of `pg_config`.
fn ask(pg_config: &Path, argument: &'static str) -> Result<String, TreeError> {
    let run = |source| TreeError::Run { pg_config: pg_config.to_owned(), argument, source };
    let output = Command::new(pg_config).arg(argument).output().map_err(run)?;
    if !output.status.success() {
        return Err(run(io::Error::other(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}

/// 18 of "PostgreSQL 18.4", "PostgreSQL 18beta1", "PostgreSQL 15.20 (Debian 15.20-0+deb12u1)".
pub fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|major| (10..=99).contains(major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_read_from_what_pg_config_says() {
        assert_eq!(major_of("PostgreSQL 18.4"), Some(18));
        assert_eq!(major_of("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("PostgreSQL 19devel"), Some(19));
        assert_eq!(major_of("PostgreSQL 9.6.24"), None);
        assert_eq!(major_of("EnterpriseDB"), None);
        assert_eq!(major_of("PostgreSQL é"), None);
    }

    #[test]
    fn the_relation_of_the_folders_is_kept_whatever_they_share() {
        let prefix = |paths: &[&str]| {
            common_prefix(&paths.iter().map(|path| Path::new(*path)).collect::<Vec<_>>())
        };
        let debian = [
            "/usr/lib/postgresql/15/bin",
            "/usr/lib/postgresql/15/lib",
            "/usr/share/postgresql/15",
        ];
        assert_eq!(prefix(&debian), Path::new("/usr"));
        assert_eq!(
            prefix(&["/opt/pg/bin", "/opt/pg/lib/postgresql", "/opt/pg/share"]),
            Path::new("/opt/pg")
        );
        assert_eq!(prefix(&["/a/bin", "/b/lib", "/c"]), Path::new("/"));
    }

    #[test]
    fn an_extension_owns_its_scripts_and_no_others() {
        assert!(belongs_to("x.control", "x"));
        assert!(belongs_to("x--1.0--1.1.sql", "x"));
        assert!(belongs_to("x.1.control", "x"));
        assert!(!belongs_to("x_more--1.0.sql", "x"));
        assert!(!belongs_to("xy.control", "x"));
    }

    #[test]
    fn what_is_no_pg_config_is_said_to_be_none() {
        let said = Installation::inspect(Path::new("/bin/true")).unwrap_err().to_string();
        assert!(said.starts_with("/bin/true --version says 'true (GNU coreutils)"), "{said}");
        let said = Installation::inspect(Path::new("/nowhere/pg_config")).unwrap_err().to_string();
        assert_eq!(said, "run /nowhere/pg_config --version");
    }
}
