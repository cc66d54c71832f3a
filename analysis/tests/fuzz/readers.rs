//! Every reader of bytes that come from outside, by name, with real files to begin from.

use pgsoak_analysis::heap::{self, SymbolCache};
use pgsoak_analysis::judge;
use pgsoak_analysis::massif;
use pgsoak_analysis::stack;
use pgsoak_analysis::valgrind::{AddressMap, parse_leak_check, parse_log};
use pgsoak_proto::evidence::StackFrame;
use pgsoak_workloads::{plan::Plan, suppression, workload::Workload};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One reader.
pub struct Reader {
    /// Its name; inputs that once broke it lie in `tests/golden/fuzz/<name>/`.
    pub name: &'static str,
    /// Real files and what broke it before.
    pub corpus: Vec<Vec<u8>>,
    /// Reads; must come back, whatever it is given.
    pub read: fn(&[u8], &mut Desk),
}

/// What readers of files need: a file to put the input into, and symbols that all inputs share.
pub struct Desk {
    folder: PathBuf,
    symbols: SymbolCache,
}

impl Desk {
    /// With a folder of its own.
    pub fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("pgsoak-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, symbols: SymbolCache::default() })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        // A full disk would be found by the reader: it then reads what was there before.
        let _ = fs::write(&path, bytes);
        path
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All of them.
pub fn readers() -> io::Result<Vec<Reader>> {
    let raw = |name: &str| golden("heap", name).and_then(|bytes| unpacked(&bytes));
    let packed = |name: &str| golden("heap", name);
    let small_interpreted = raw("small.interpreted.zst")?;
    Ok(vec![
        reader(
            "heap_raw",
            vec![raw("small.raw.zst")?, raw("postgres.raw.zst")?],
            |bytes, desk| {
                heap(bytes, "input", desk);
            },
        )?,
        reader("heap_interpreted", vec![small_interpreted], |bytes, desk| {
            heap(bytes, "input", desk);
        })?,
        reader(
            "heap_packed",
            vec![packed("small.raw.zst")?, packed("small.interpreted.zst")?],
            |bytes, desk| heap(bytes, "input.zst", desk),
        )?,
        reader("massif", vec![golden("massif", "small.out")?], |bytes, _| {
            if let Ok(digest) = massif::read(&String::from_utf8_lossy(bytes)) {
                let _ = massif::condensed(1, Some(1), &digest);
            }
        })?,
        reader(
            "memcheck_log",
            vec![
                golden("valgrind", "process.log")?,
                golden("valgrind", "with_list.log")?,
                golden("valgrind/postgres", "process.log")?,
            ],
            |bytes, _| drop(parse_log(&String::from_utf8_lossy(bytes), &AddressMap::default())),
        )?,
        reader(
            "leak_check",
            vec![
                golden("valgrind", "leak_check_1.txt")?,
                golden("valgrind/postgres", "leak_check_2.txt")?,
            ],
            |bytes, _| {
                drop(parse_leak_check(&String::from_utf8_lossy(bytes), &AddressMap::default()));
            },
        )?,
        reader("maps", vec![golden("valgrind", "maps.txt")?], |bytes, _| {
            let text = String::from_utf8_lossy(bytes);
            let map = AddressMap::from_maps(&text);
            let _ = (map.module_of(0), map.module_of(0x40_0000), map.module_of(u64::MAX));
        })?,
        reader("series", vec![series()], |bytes, desk| {
            let path = desk.file("series.csv", bytes);
            let _ = judge::judge_path(&path);
        })?,
        reader("stacks", vec![symbols()], |bytes, _| {
            let text = String::from_utf8_lossy(bytes);
            let frame = |line: &str| StackFrame {
                function: line.to_owned(),
                module: line.chars().rev().take(20).collect(),
                file: line.to_owned(),
                line: 0,
            };
            let frames: Vec<StackFrame> = text.lines().take(200).map(frame).collect();
            let _ = (stack::fingerprint(&frames), stack::normal_stack(&frames));
            for frame in &frames {
                let _ = stack::short_file(&frame.file);
            }
        })?,
        reader(
            "suppressions",
            vec![fs::read(root().join("../agent/src/tools/postgres.supp"))?],
            |bytes, _| {
                let _ = suppression::suppressions(&String::from_utf8_lossy(bytes));
            },
        )?,
        reader(
            "plan",
            vec![fs::read(root().join("../workloads/plans/release.toml"))?],
            |bytes, _| {
                let _ = Plan::parse("plan.toml", &String::from_utf8_lossy(bytes));
            },
        )?,
        reader(
            "workload",
            vec![fs::read(root().join("../workloads/library/tview_dml.toml"))?],
            |bytes, _| {
                let _ = Workload::parse("workload.toml", &String::from_utf8_lossy(bytes));
            },
        )?,
    ])
}

/// Where inputs that broke a reader are kept.
pub fn seeds(name: &str) -> PathBuf {
    root().join("tests/golden/fuzz").join(name)
}

fn reader(
    name: &'static str,
    mut corpus: Vec<Vec<u8>>,
    read: fn(&[u8], &mut Desk),
) -> io::Result<Reader> {
    let folder = seeds(name);
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            corpus.push(fs::read(entry?.path())?);
        }
    }
    Ok(Reader { name, corpus, read })
}

/// As the runner reads a file: with marks; and what is made of a digest afterwards.
fn heap(bytes: &[u8], name: &str, desk: &mut Desk) {
    let path = desk.file(name, bytes);
    let _ = heap::read_totals(&path);
    let marks = [100, 2_000, 2_000, 50_000];
    if let Ok(digest) = heap::read_with_marks(&path, &marks, &mut desk.symbols) {
        let _ = heap::condensed(1, Some(1), &digest, &[]);
        let _ = heap::condensed(1, None, &digest, &[]);
        let _ = heap::diff::diff(&digest, &digest);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden(folder: &str, name: &str) -> io::Result<Vec<u8>> {
    fs::read(root().join("tests/golden").join(folder).join(name))
}

fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::decode_all(bytes)
}

/// A series as `pgsoak samples --csv` and the corpus write it.
fn series() -> Vec<u8> {
    let mut text = String::from("t_s,ops,rows,b00,b00_pid,b01,b01_pid\n");
    for second in 0..600 {
        let (one, other) = (4_000 + second * 3 + second % 7, 5_000 + second % 13);
        text.push_str(&format!(
            "{second},{},100,{one},7,{other},{}\n",
            second * 20,
            8 + second / 300
        ));
    }
    text.into_bytes()
}

/// Names as linkers and tools write them.
fn symbols() -> Vec<u8> {
    b"_ZN9pg_tviews7refresh4main17h0123456789abcdefE\n_RNvCs6DXkGYLi8lr_9pg_tviews7refresh\n<alloc::vec::Vec<u8> as core::ops::Drop>::drop\n_ZNSt6vectorIiSaIiEE9push_backEOi\n/rustc/abc/library/alloc/src/alloc.rs\n/root/.cargo/registry/src/index-1/pgrx-0.17.0/src/spi.rs\nExecScan.constprop.0\nputs@@GLIBC_2.2.5\n0x7f00\nlibc-2.36.so\n"
        .to_vec()
}
