//! Packs the files of a package into one file, and takes such a file apart again, whoever made it.
//!
//! An archive from elsewhere is hostile until it is read to its end: only regular files with plain names and known endings are
//! taken, each once, within limits of number and size that count unpacked bytes; links, folders, devices, sparse files and extensions
//! of the format are refused. Files are made with modes of our own in a folder that did not exist.

use crate::digest;
use crate::magic;
use crate::manifest::{self, Manifest};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// zstd's level: packed once, sent to every agent.
const LEVEL: i32 = 9;
/// Most files; a package has a few hundred.
pub const MAX_FILES: usize = 20_000;
/// Largest file, unpacked.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// All files, unpacked.
pub const MAX_TOTAL_BYTES: u64 = 4 << 30;
/// Largest package file. A shared object with its debug information packs to some tens of MB.
pub const MAX_PACKED_BYTES: u64 = 1 << 30;
/// Memory that a package file may ask of its reader, as a power of two: zstd's levels ask for less.
const WINDOW_LOG: u32 = 27;

/// Why a package cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read, or the archive not be written.
    #[error("pack {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would not be taken anywhere.
    #[error("the package cannot be used: {0}")]
    Unusable(#[from] Refused),
}

/// Why a package is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The bytes are no such archive.
    #[error("it is no package file, or cut off")]
    Malformed(#[source] io::Error),
    /// An entry that a package has no use for.
    #[error("entry '{name}' {problem}")]
    Entry {
        /// Its name, shortened.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More than a package has.
    #[error("it holds {0}")]
    TooMuch(String),
    /// Something that every package has is not there.
    #[error("it lacks {0}")]
    Lacks(String),
    /// It was built for another server than it says.
    #[error("{library} was built for PostgreSQL {found}, and the package says {said}")]
    OtherMajor {
        /// The shared object.
        library: String,
        /// By its magic block.
        found: u32,
        /// By `build.json`.
        said: u32,
    },
    /// The folder cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What a package file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Names and sizes of its files, by name.
    pub files: Vec<(String, u64)>,
    /// The major by the magic block of its shared objects; `None`: none could be read.
    pub magic_major: Option<u32>,
}

/// Packs files (name and place) with what is to be known of them into `to`; the digest of the package file. The same files and
/// the same manifest give the same bytes.
///
/// # Errors
///
/// When a file cannot be read, or the result would be refused by [`inspect`].
pub fn pack(
    files: &[(String, PathBuf)],
    manifest: &Manifest,
    to: &Path,
) -> Result<String, PackError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PackError::Io { path, source }
    };
    let mut files: Vec<&(String, PathBuf)> =
        files.iter().filter(|(name, _)| name != manifest::FILE).collect();
    files.sort();
    let out = File::create(to).map_err(failed(to))?;
    let mut packer = zstd::Encoder::new(out, LEVEL).map_err(failed(to))?;
    packer.include_checksum(true).map_err(failed(to))?;
    let mut archive = tar::Builder::new(packer);
    let said = serde_json::to_vec(manifest).map_err(|error| failed(to)(error.into()))?;
    let length = u64::try_from(said.len()).unwrap_or(u64::MAX);
    archive
        .append_data(&mut header(length), manifest::FILE, said.as_slice())
        .map_err(failed(to))?;
    for (name, path) in files {
        let file = File::open(path).map_err(failed(path))?;
        let length = file.metadata().map_err(failed(path))?.len();
        archive.append_data(&mut header(length), name, file.take(length)).map_err(failed(path))?;
    }
    let packer = archive.into_inner().map_err(failed(to))?;
    let out = packer.finish().map_err(failed(to))?;
    out.sync_all().map_err(failed(to))?;
    inspect(File::open(to).map_err(failed(to))?)?;
    digest::of_file(to).map_err(failed(to))
}

/// Nothing of the host that packs is in it.
fn header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(length);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Reads a package file to its end and says what it holds; nothing is written.
///
/// # Errors
///
/// When it is not one that can be used.
pub fn inspect(packed: impl Read) -> Result<Inspected, Refused> {
    read(packed, |_, content| io::copy(content, &mut io::sink()))
}

/// Unpacks a package file into `folder`, which must not exist; it is there, whole and readable for everybody, or not at all.
///
/// # Errors
///
/// When the package is not one that can be used, or the disk does not take it.
pub fn unpack(packed: impl Read, folder: &Path) -> Result<Inspected, Refused> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Refused::Write { path, source }
    };
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = folder.with_file_name(name);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed(&partial))?;
    }
    fs::create_dir_all(&partial).map_err(failed(&partial))?;
    let result = fill(packed, &partial).and_then(|inspected| {
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))
            .and_then(|()| File::open(&partial)?.sync_all())
            .and_then(|()| fs::rename(&partial, folder))
            .map_err(failed(folder))?;
        Ok(inspected)
    });
    if result.is_err() {
        // What is left of it is in nobody's way but takes space.
        let _ = fs::remove_dir_all(&partial);
    }
    result
}

fn fill(packed: impl Read, folder: &Path) -> Result<Inspected, Refused> {
    read(packed, |name, content| {
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        let written = io::copy(content, &mut file)?;
        // The umask may be narrow, and jobs run as another user.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.flush()?;
        file.sync_all()?;
        Ok(written)
    })
}

/// Reads every entry once, in order; `each` gets checked names and content of bounded size.
fn read(
    packed: impl Read,
    mut each: impl FnMut(&str, &mut dyn Read) -> io::Result<u64>,
) -> Result<Inspected, Refused> {
    let mut unpacker = zstd::Decoder::new(packed).map_err(Refused::Malformed)?;
    unpacker.window_log_max(WINDOW_LOG).map_err(Refused::Malformed)?;
    // Whatever the entries claim: more than this is never read. Headers and padding are some bytes an entry.
    let slack = 2_048 * u64::try_from(MAX_FILES).unwrap_or(0);
    let mut archive = tar::Archive::new(unpacker.take(MAX_TOTAL_BYTES + slack));
    let mut files: Vec<(String, u64)> = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut total, mut said, mut magic_majors) = (0_u64, None, Vec::new());
    // Raw: names as long as the format's extensions make them are none of a package's.
    for entry in archive.entries().map_err(Refused::Malformed)?.raw(true) {
        let mut entry = entry.map_err(Refused::Malformed)?;
        let name = checked_name(&entry)?;
        let size = entry.size();
        total = total.saturating_add(size);
        if size > MAX_FILE_BYTES || total > MAX_TOTAL_BYTES {
            return Err(Refused::TooMuch(format!(
                "more than {MAX_TOTAL_BYTES} bytes, or a file of {size}"
            )));
        }
        if files.len() >= MAX_FILES {
            return Err(Refused::TooMuch(format!("more than {MAX_FILES} files")));
        }
        if !seen.insert(name.clone()) {
            return Err(bad(&name, "is there twice"));
        }
        let mut content = Vec::new();
        let is_library = name.ends_with(".so");
        if is_library || name == manifest::FILE {
            (&mut entry)
                .take(MAX_FILE_BYTES)
                .read_to_end(&mut content)
                .map_err(Refused::Malformed)?;
        }
        let taken = if content.is_empty() {
            each(&name, &mut entry)
        } else {
            each(&name, &mut content.as_slice())
        };
        let taken =
            taken.map_err(|source| Refused::Write { path: PathBuf::from(&name), source })?;
        if taken != size {
            return Err(bad(&name, "is shorter than it says"));
        }
        if is_library {
            magic_majors.extend(magic::major(&content).map(|major| (name.clone(), major)));
        }
        if name == manifest::FILE {
            let manifest: Manifest = serde_json::from_slice(&content)
                .map_err(|error| bad(&name, &format!("does not parse: {error}")))?;
            said = Some(manifest);
        }
        files.push((name, size));
    }
    let manifest = said.ok_or_else(|| Refused::Lacks(format!("its {}", manifest::FILE)))?;
    check(&manifest, &files, &magic_majors)?;
    files.sort();
    Ok(Inspected { manifest, files, magic_major: magic_majors.first().map(|(_, major)| *major) })
}

fn check(
    manifest: &Manifest,
    files: &[(String, u64)],
    majors: &[(String, u32)],
) -> Result<(), Refused> {
    if !files.iter().any(|(name, _)| name.ends_with(".so")) {
        return Err(Refused::Lacks("a shared object (*.so)".to_owned()));
    }
    let control = format!("{}.control", manifest.extension);
    if !files.iter().any(|(name, _)| *name == control) {
        return Err(Refused::Lacks(format!("the control file {control}")));
    }
    match majors.iter().find(|(_, major)| *major != manifest.postgres) {
        None => Ok(()),
        Some((library, found)) => Err(Refused::OtherMajor {
            library: library.clone(),
            found: *found,
            said: manifest.postgres,
        }),
    }
}

fn bad(name: &str, problem: &str) -> Refused {
    Refused::Entry { name: name.chars().take(100).collect(), problem: problem.to_owned() }
}

/// The name of an entry that a package may have: a plain file name with a known ending.
fn checked_name(entry: &tar::Entry<'_, impl Read>) -> Result<String, Refused> {
    let raw = entry.path_bytes();
    let name = String::from_utf8_lossy(&raw).into_owned();
    let kind = entry.header().entry_type();
    if kind != tar::EntryType::Regular {
        return Err(bad(&name, &format!("is no regular file but {kind:?}")));
    }
    let is_plain = std::str::from_utf8(&raw).is_ok()
        && (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control);
    if !is_plain {
        return Err(bad(&name, "is no plain file name"));
    }
    let is_known = name == manifest::FILE
        || [".so", ".control", ".sql"].iter().any(|ending| name.ends_with(ending));
    if !is_known {
        return Err(bad(&name, "is none of *.so, *.control, *.sql and build.json"));
    }
    Ok(name)
}
