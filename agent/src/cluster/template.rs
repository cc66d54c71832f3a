//! The data folder: `initdb` once per server, then copies.
//!
//! Templates lie in `<cache>/templates/`, keyed by the server's version and place. Runners that need the same one at the same time wait
//! for each other on a lock; a template appears by a rename, whole or not at all. Where the cache cannot be written by this user, or holds a template that
//! it cannot read, the data folder is initialised directly.

use crate::tools::bare_environment;
use crate::tree::Installation;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Part of a template's key: changes with the options of `initdb`.
const OPTIONS_VERSION: u32 = 1;

/// Why there is no data folder.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// `initdb` does not run.
    #[error("run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("{} failed ({status}): {said}", program.display())]
    Initdb {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// Its last words.
        said: String,
    },
    /// A file or folder cannot be made.
    #[error("make {}", path.display())]
    Make {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The thread that copies is gone.
    #[error("the data folder was not made: {0}")]
    Interrupted(String),
}

/// Makes `data_dir`, which must not exist.
///
/// # Errors
/// `initdb` fails or the files cannot be written.
pub async fn instantiate(
    installation: &Installation,
    cache_dir: &Path,
    data_dir: &Path,
) -> Result<(), TemplateError> {
    let (installation, templates) = (installation.clone(), cache_dir.join("templates"));
    let data_dir = data_dir.to_owned();
    tokio::task::spawn_blocking(move || make(&installation, &templates, &data_dir))
        .await
        .map_err(|error| TemplateError::Interrupted(error.to_string()))?
}

fn make(
    installation: &Installation,
    templates: &Path,
    data_dir: &Path,
) -> Result<(), TemplateError> {
    match cached(installation, templates).and_then(|template| {
        copy_tree(&template, data_dir)
            .map_err(|source| TemplateError::Make { path: data_dir.to_owned(), source })
    }) {
        Ok(()) => return Ok(()),
        Err(error) => tracing::debug!(
            %error, templates = %templates.display(), "no template can be used; initialising in place"
        ),
    }
    if data_dir.exists() {
        fs::remove_dir_all(data_dir)
            .map_err(|source| TemplateError::Make { path: data_dir.to_owned(), source })?;
    }
    initdb(installation, data_dir)
}

/// The data folder of the template, made now if it has to be.
fn cached(installation: &Installation, templates: &Path) -> Result<PathBuf, TemplateError> {
    let make = |path: &Path, source| TemplateError::Make { path: path.to_owned(), source };
    let key = key(installation);
    let template = templates.join(&key);
    let data = template.join("data");
    if is_data_folder(&data) {
        return Ok(data);
    }
    fs::create_dir_all(templates).map_err(|source| make(templates, source))?;
    let lock_path = templates.join(format!("{key}.lock"));
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|source| make(&lock_path, source))?;
    // Given back when the file closes, also by a crash.
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| make(&lock_path, error.into()))?;
    if is_data_folder(&data) {
        return Ok(data);
    }
    let new = templates.join(format!("{key}.new"));
    for leftover in [&new, &template] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).map_err(|source| make(leftover, source))?;
        }
    }
    DirBuilder::new().mode(0o755).create(&new).map_err(|source| make(&new, source))?;
    initdb(installation, &new.join("data"))?;
    fs::rename(&new, &template).map_err(|source| make(&template, source))?;
    Ok(data)
}

fn is_data_folder(data: &Path) -> bool {
    data.join("PG_VERSION").is_file() && data.join("postgresql.conf").is_file()
}

/// `pg18-0123456789ab`.
fn key(installation: &Installation) -> String {
    let mut hasher = Sha256::new();
    hasher.update(OPTIONS_VERSION.to_le_bytes());
    hasher.update(installation.version.as_bytes());
    hasher.update([0]);
    hasher.update(installation.bin_dir.as_os_str().as_encoded_bytes());
    let digest = hasher.finalize();
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("pg{}-{short}", installation.major)
}

/// Trust is sound here: only this user can enter the socket's folder, and there is no other way in.
fn initdb(installation: &Installation, data_dir: &Path) -> Result<(), TemplateError> {
    let program = installation.program("initdb");
    let temporary = data_dir.parent().unwrap_or(Path::new("/tmp"));
    let output = Command::new(&program)
        .args([
            "--auth=trust",
            "--username=postgres",
            "--no-locale",
            "--encoding=UTF8",
            "--no-sync",
        ])
        .arg("--pgdata")
        .arg(data_dir)
        .env_clear()
        .envs(bare_environment(temporary))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| TemplateError::Run { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = said.lines().rev().filter(|line| !line.is_empty()).take(5).collect();
    last.reverse();
    Err(TemplateError::Initdb {
        program,
        status: output.status.to_string(),
        said: last.join("; ").chars().take(2_000).collect(),
    })
}

/// Copies folders, files and links with their modes. `fs::copy` shares blocks where the file system can.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    // PostgreSQL refuses a data folder that others can enter.
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_copy_has_the_files_their_modes_and_a_private_root() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::create_dir_all(from.join("base/1")).unwrap();
        fs::write(from.join("base/1/112"), "page").unwrap();
        fs::set_permissions(from.join("base/1/112"), fs::Permissions::from_mode(0o600)).unwrap();
        let to = root.path().join("to");
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("base/1/112")).unwrap(), b"page");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&to), mode(&to.join("base/1/112"))), (0o700, 0o600));
    }

    #[test]
    fn servers_of_other_places_or_versions_have_other_templates() {
        let one = Installation {
            pg_config: "/a/bin/pg_config".into(),
            version: "PostgreSQL 18.4".to_owned(),
            major: 18,
            bin_dir: "/a/bin".into(),
            library_dir: "/a/lib".into(),
            share_dir: "/a/share".into(),
            client_library_dir: "/a/lib".into(),
        };
        let elsewhere = Installation { bin_dir: "/b/bin".into(), ..one.clone() };
        let newer = Installation { version: "PostgreSQL 18.5".to_owned(), ..one.clone() };
        assert!(key(&one).starts_with("pg18-"));
        assert_ne!(key(&one), key(&elsewhere));
        assert_ne!(key(&one), key(&newer));
    }
}
