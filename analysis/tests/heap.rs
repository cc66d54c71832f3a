//! heaptrack's files: what a real one says, and that no damage to one makes a panic or eats memory.

#![allow(clippy::unwrap_used, reason = "golden files; a failure here is the report")]

use pgsoak_analysis::heap::{SymbolCache, condensed, digest::HeapDigest, read, read_with_marks};
use pgsoak_proto::evidence::SiteMark;
use proptest::prelude::*;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Written by heaptrack 1.4 on a program that loses 1,000 × 100 bytes, keeps 1,000 × 58 to 64, and frees 1,002 blocks at once.
const INTERPRETED: &str = "small.interpreted.zst";
/// The same program as `heaptrack_inject` writes it.
const RAW: &str = "small.raw.zst";
/// A process of PostgreSQL 18 as the preload library has it profiled.
const POSTGRES: &str = "postgres.raw.zst";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/heap").join(name)
}

fn text(name: &str) -> Vec<u8> {
    zstd::decode_all(fs::File::open(golden(name)).unwrap()).unwrap()
}

/// A file of its own, removed at the end. Symbols are kept: a thousand damaged files name the same libraries.
struct Scratch(PathBuf, SymbolCache);

impl Scratch {
    fn new(name: &str) -> Self {
        let file = format!("pgsoak-heap-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file), SymbolCache::default())
    }

    fn read(&mut self, bytes: &[u8]) -> Result<HeapDigest, String> {
        fs::write(&self.0, bytes).unwrap();
        read_with_marks(&self.0, &[], &mut self.1).map_err(|error| error.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn both_kinds_of_file_say_the_same() {
    // As heaptrack_print says: 3002 calls, 1002 temporary, 1.20M at the peak, 161.00K leaked.
    let kept: u64 = (0..1000).map(|i| 58 + i % 7).sum();
    for name in [INTERPRETED, RAW] {
        let digest = read(&golden(name)).unwrap();
        assert_eq!((digest.allocations, digest.temporary), (3002, 1002), "{name}");
        assert_eq!(digest.leaked_bytes, 100_000 + kept, "{name}");
        assert_eq!(digest.peak_bytes / 1000, 1201, "{name}");
        assert!(!digest.truncated, "{name}");
        let sum = |of: fn(&pgsoak_analysis::heap::digest::HeapSite) -> u64| {
            digest.sites.iter().map(of).sum::<u64>()
        };
        assert_eq!(sum(|site| site.peak_bytes), digest.peak_bytes);
        assert_eq!(sum(|site| site.leaked_bytes), digest.leaked_bytes);
        assert_eq!(sum(|site| site.allocations), digest.allocations);
        assert_eq!(sum(|site| site.temporary), digest.temporary);
    }
    let digest = read(&golden(INTERPRETED)).unwrap();
    let lose = digest.sites.iter().find(|site| site.function == "lose").unwrap();
    assert_eq!((lose.allocations, lose.leaked_bytes), (1000, 100_000));
    assert_eq!(lose.stack[..2], ["lose (t.c:3)", "main (t.c:6)"]);
}

#[test]
fn a_mark_knows_what_was_live_when_so_much_was_written() {
    let raw = text(RAW);
    let lines: Vec<&[u8]> = raw.split_inclusive(|byte| *byte == b'\n').collect();
    // The offset after every thousandth allocation, and what was live there, counted the plain way.
    let (mut offset, mut live, mut seen) = (0_u64, std::collections::BTreeMap::new(), 0);
    let (mut marks, mut expected) = (Vec::new(), Vec::new());
    for line in lines {
        offset += line.len() as u64;
        let words: Vec<&str> = std::str::from_utf8(line).unwrap().split_whitespace().collect();
        match words[..] {
            ["+", bytes, _, pointer] => {
                live.insert(pointer.to_owned(), u64::from_str_radix(bytes, 16).unwrap());
                seen += 1;
                if seen % 1000 == 0 {
                    marks.push(offset);
                    expected.push(live.values().sum::<u64>());
                }
            }
            ["-", pointer] => {
                live.remove(pointer);
            }
            _ => {}
        }
    }
    marks.push(u64::MAX);
    expected.push(live.values().sum());
    let digest = read_with_marks(&golden(RAW), &marks, &mut SymbolCache::default()).unwrap();
    assert_eq!(digest.marked_bytes, expected);
    for (at, live) in expected.iter().enumerate() {
        let sum: u64 = digest.sites.iter().map(|site| site.marked_bytes[at]).sum();
        assert_eq!(sum, *live);
    }
    let places = vec![SiteMark::default(); marks.len()];
    let short = condensed(1, Some(1), &digest, &places);
    assert_eq!(short.marks.last().unwrap().live_bytes, digest.leaked_bytes);
    assert_eq!(short.sites[0].marked_bytes.len(), marks.len());
    assert!(!short.sites[0].stack.is_empty());
}

#[test]
fn a_stored_digest_is_read_again() {
    let mut scratch = Scratch::new("stored");
    let digest = read(&golden(INTERPRETED)).unwrap();
    let json = serde_json::to_vec(&digest).unwrap();
    for bytes in [json.clone(), gzip(&json), zstd::encode_all(&json[..], 1).unwrap()] {
        let mut again = scratch.read(&bytes).unwrap();
        again.frames.clone_from(&digest.frames);
        for (again, site) in again.sites.iter_mut().zip(&digest.sites) {
            again.frames.clone_from(&site.frames);
        }
        assert_eq!(again, digest);
    }
    assert!(scratch.read(b"{\"not\": \"one\"}").unwrap_err().contains("no stored digest"));
}

#[test]
fn a_file_cut_anywhere_gives_what_is_there() {
    let mut scratch = Scratch::new("cut");
    for name in [INTERPRETED, RAW, POSTGRES] {
        let plain = text(name);
        let whole = scratch.read(&plain).unwrap();
        for bytes in [plain.clone(), gzip(&plain), fs::read(golden(name)).unwrap()] {
            let step = if bytes.len() > 10_000 { 500 } else { 50 };
            let mut given = 0;
            for cut in (0..bytes.len()).step_by(step) {
                if let Ok(digest) = scratch.read(&bytes[..cut]) {
                    assert!(digest.allocations <= whole.allocations);
                    assert!(digest.peak_bytes <= whole.peak_bytes);
                    given += 1;
                }
            }
            // A compressed frame gives nothing until its first block is whole.
            assert!(given * 2 > bytes.len() / step || bytes.len() < 10_000, "{name}: {given}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_a_panic(
        name in prop::sample::select(vec![INTERPRETED, RAW, POSTGRES]),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        swaps in proptest::collection::vec(any::<[prop::sample::Index; 2]>(), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
        is_compressed: bool,
    ) {
        let mut scratch = Scratch::new("damaged");
        let mut bytes = text(name);
        let mut lines: Vec<Vec<u8>> =
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for [a, b] in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        bytes = lines.concat();
        if is_compressed {
            bytes = zstd::encode_all(&bytes[..], 1).unwrap();
        }
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(digest) = scratch.read(&bytes) {
            let short = condensed(1, Some(0), &digest, &[]);
            prop_assert!(short.sites.len() <= digest.sites.len());
        }
    }

    #[test]
    fn no_made_up_file_makes_a_panic(
        lines in proptest::collection::vec("[vxXIsimta+cRAS#-]( [0-9a-f]{1,17}){0,6}( x)?", 0..60),
        version in 0_u8..5,
    ) {
        let mut scratch = Scratch::new("made-up");
        let _ = scratch.read(format!("v 10400 {version}\n{}\n", lines.join("\n")).as_bytes());
    }
}
