//! Packages that are packed and unpacked, and archives that somebody made to do harm.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use pgsoak_packages::archive::{Inspected, Refused, inspect, pack, unpack};
use pgsoak_packages::manifest::Manifest;
use proptest::prelude::*;
use std::{fs, path::PathBuf};

fn manifest() -> Manifest {
    Manifest {
        extension: "e".to_owned(),
        release: "1.0".to_owned(),
        postgres: 18,
        commit: "abc".to_owned(),
        ..Manifest::default()
    }
}

fn files(folder: &std::path::Path) -> Vec<(String, PathBuf)> {
    let texts =
        [("e.so", "not really"), ("e.control", "default_version = '1.0'"), ("e--1.0.sql", "")];
    texts
        .iter()
        .map(|(name, text)| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            ((*name).to_owned(), path)
        })
        .collect()
}

/// A header that says whatever it is told.
fn entry(kind: tar::EntryType, name: &[u8], link: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o777);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    header
}

/// A package with one more entry, which says that it has `size` bytes and has `data`.
fn with(kind: tar::EntryType, name: &[u8], link: &str, size: u64, data: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    let said = serde_json::to_vec(&manifest()).unwrap();
    for (name, data) in [("build.json", said.as_slice()), ("e.so", b"x"), ("e.control", b"y")] {
        let header = entry(tar::EntryType::Regular, name.as_bytes(), "", data.len() as u64);
        archive.append(&header, data).unwrap();
    }
    archive.append(&entry(kind, name, link, size), data).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let error = unpack(bytes, &target).unwrap_err();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
    let told = inspect(bytes).unwrap_err().to_string();
    assert_eq!(told, error.to_string(), "a look tells the same as unpacking");
    told
}

#[test]
fn the_same_files_give_the_same_bytes_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files(folder.path());
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let first = pack(&files, &manifest(), &a).unwrap();
    files.reverse();
    fs::set_permissions(&files[0].1, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(pack(&files, &manifest(), &b).unwrap(), first);
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    let target = folder.path().join("there");
    let Inspected { manifest: said, files: held, magic_major } =
        unpack(fs::File::open(&a).unwrap(), &target).unwrap();
    assert_eq!((said, magic_major), (manifest(), None));
    assert_eq!(held.len(), 4);
    assert_eq!(fs::read_to_string(target.join("e.so")).unwrap(), "not really");
    assert!(unpack(fs::File::open(&a).unwrap(), &target).is_err(), "never into what is there");
    let other = Manifest { commit: "def".to_owned(), ..manifest() };
    assert_ne!(pack(&files, &other, &b).unwrap(), first);
}

#[test]
fn what_is_no_plain_file_is_refused() {
    use tar::EntryType as Kind;
    for (kind, link) in [
        (Kind::Symlink, "/etc/passwd"),
        (Kind::Symlink, "e.so"),
        (Kind::Link, "e.so"),
        (Kind::Directory, ""),
        (Kind::Fifo, ""),
        (Kind::Char, ""),
        (Kind::Block, ""),
        (Kind::GNUSparse, ""),
        (Kind::GNULongName, ""),
        (Kind::XHeader, ""),
        (Kind::XGlobalHeader, ""),
        (Kind::Continuous, ""),
    ] {
        let told = refused(&with(kind, b"z.sql", link, 0, b""));
        assert!(
            told.contains("is no regular file") || told.contains("no package file"),
            "{kind:?}: {told}"
        );
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        b"../z.sql".as_slice(),
        b"/z.sql",
        b"a/z.sql",
        b"..\\z.sql",
        b".hidden.sql",
        b"..",
        b"a\nb.sql",
        b"\xff.sql",
        b"z.sh",
        b"e",
    ] {
        let told = refused(&with(tar::EntryType::Regular, name, "", 1, b"x"));
        assert!(told.contains("is no plain file name") || told.contains("is none of"), "{told}");
    }
    assert!(refused(&with(tar::EntryType::Regular, b"e.so", "", 1, b"x")).contains("twice"));
}

#[test]
fn sizes_that_lie_are_refused() {
    // Says more than it has: the archive is cut off there.
    refused(&with(tar::EntryType::Regular, b"z.sql", "", 100_000, b"x"));
    let told = refused(&with(tar::EntryType::Regular, b"z.sql", "", (1 << 30) + 1, b"x"));
    assert!(told.contains("bytes"), "{told}");
    // A small file that unpacks to gigabytes of zeros behind an entry.
    let mut bomb = zstd::Encoder::new(Vec::new(), 19).unwrap();
    std::io::Write::write_all(&mut bomb, &vec![0; 64 << 20]).unwrap();
    let told = refused(&bomb.finish().unwrap());
    assert!(told.contains("lacks its build.json"), "{told}");
}

#[test]
fn a_package_without_its_parts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let all = files(folder.path());
    let to = folder.path().join("p");
    for (missing, says) in [("e.so", "shared object"), ("e.control", "e.control")] {
        let some: Vec<_> = all.iter().filter(|(name, _)| name != missing).cloned().collect();
        let error = pack(&some, &manifest(), &to).unwrap_err();
        let told = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(told.contains(says) || error.to_string().contains(says), "{error}: {told}");
    }
}

#[test]
fn a_shared_object_of_another_major_is_told() {
    // Of this host's own servers, where there is a module of PostgreSQL 15 that everybody has.
    let module = PathBuf::from("/usr/lib/postgresql/15/lib/plpgsql.so");
    if !module.exists() {
        panic!("postgresql-15 is not installed: deploy/setup.sh installs it");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut all = files(folder.path());
    all[0].1 = module;
    let to = folder.path().join("p");
    let told = pack(&all, &manifest(), &to).unwrap_err();
    let told = format!("{told}: {:?}", std::error::Error::source(&told).map(ToString::to_string));
    assert!(told.contains("PostgreSQL 15"), "{told}");
    let fits = Manifest { postgres: 15, ..manifest() };
    pack(&all, &fits, &to).unwrap();
    assert_eq!(inspect(fs::File::open(&to).unwrap()).unwrap().magic_major, Some(15));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_is_an_error_and_never_a_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let good = with(tar::EntryType::Regular, b"z.sql", "", 5, b"hello");
        prop_assert!(inspect(good.as_slice()).is_ok());
        let mut flipped = good.clone();
        let at = at.index(flipped.len());
        flipped[at] ^= byte;
        let _ = inspect(flipped.as_slice());
        let cut = &good[..cut.index(good.len())];
        let is_told = matches!(
            inspect(cut),
            Err(Refused::Malformed(_) | Refused::Lacks(_) | Refused::Entry { .. } | Refused::Write { .. })
        );
        prop_assert!(is_told);
    }

    #[test]
    fn no_bytes_are_a_package(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(inspect(bytes.as_slice()).is_err());
    }
}
