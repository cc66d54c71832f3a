//! Raw output of a tool, compressed for keeping.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

/// zstd's level: raw files are large and repetitive; 3 reads some 200 MB a second.
const LEVEL: i32 = 3;

/// Writes `source` as `<folder>/<file name>.zst`, whole or not at all, and gives its path.
///
/// # Errors
/// The file cannot be read, or the copy cannot be written; nothing is left behind then.
pub fn keep(source: &Path, folder: &Path) -> io::Result<PathBuf> {
    let name = source.file_name().ok_or_else(|| io::Error::other("a path without a file name"))?;
    let mut kept = folder.join(name).into_os_string();
    kept.push(".zst");
    let kept = PathBuf::from(kept);
    let partial = kept.with_extension("partial");

    fs::create_dir_all(folder)?;
    let written = (|| {
        let reader = BufReader::new(File::open(source)?);
        let file = File::create(&partial)?;
        zstd::stream::copy_encode(reader, BufWriter::new(&file), LEVEL)?;
        file.sync_all()?;
        fs::rename(&partial, &kept)
    })();
    if let Err(error) = written {
        drop(fs::remove_file(&partial));
        return Err(error);
    }
    Ok(kept)
}

/// What became of a folder's files.
#[derive(Debug, Default)]
pub struct Kept {
    /// The compressed copies.
    pub paths: Vec<PathBuf>,
    /// Files that could not be kept, and why.
    pub failed: Vec<(PathBuf, io::Error)>,
}

/// Keeps every regular file of `from` that `wanted` names, in the order of their names; goes on past a file that cannot be kept.
///
/// # Errors
/// `from` cannot be read.
pub fn keep_all(from: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Kept> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(&wanted) {
            sources.push(entry.path());
        }
    }
    sources.sort();
    let mut kept = Kept::default();
    for source in sources {
        match keep(&source, folder) {
            Ok(path) => kept.paths.push(path),
            Err(error) => kept.failed.push((source, error)),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_nothing_partial_is_left() {
        let root = tempfile::tempdir().unwrap();
        let (raw, kept) = (root.path().join("tool"), root.path().join("artifacts"));
        fs::create_dir(&raw).unwrap();
        fs::write(raw.join("12.log"), "words ".repeat(10_000)).unwrap();
        fs::write(raw.join("vgdb-12"), "").unwrap();
        let Kept { paths, failed } = keep_all(&raw, &kept, |name| name.ends_with(".log")).unwrap();
        assert_eq!(paths, [kept.join("12.log.zst")]);
        assert!(failed.is_empty());
        let back = zstd::decode_all(File::open(&paths[0]).unwrap()).unwrap();
        assert_eq!(back, "words ".repeat(10_000).into_bytes());
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    }
}
