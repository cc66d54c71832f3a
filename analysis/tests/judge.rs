//! Folders and files of series from anywhere: what is read, what is refused, and the line that comes out.

#![allow(clippy::unwrap_used)] // a test may

use pgsoak_analysis::{
    judge::{JudgeError, judge_path},
    result::Verdict,
};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgsoak-judge-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, file: &str, text: &str) -> Self {
        fs::write(self.0.join(file), text).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A host of two slots over four hours; `leak` bytes per second in the second.
fn host(leak: u64) -> String {
    let mut text = "t_s,ops,rows,b00,b00_pid,b01,b01_pid\n".to_owned();
    for k in 0..481_u64 {
        let (t, noise) = (30 * k, 4_096 * (k * 7_919 % 13));
        let missed = if k % 97 == 3 { String::new() } else { (9_000_000 + noise).to_string() };
        let grown = (9_000_000 + noise + leak * t) / 4_096 * 4_096;
        writeln!(text, "{t}.250,{},{},{missed},100,{grown},101", 120 * t, 1_000).unwrap();
    }
    text
}

fn refused(path: &Path) -> String {
    let error = judge_path(path).unwrap_err();
    let shown = error.to_string();
    shown.rsplit('/').next().unwrap_or(&shown).to_owned()
}

#[test]
fn a_folder_comes_to_one_line() {
    let meta = r#"{"allow_bytes_per_row": 0.0, "mem_limit_bytes": 1000000000.0}"#;
    let folder = Folder::new("line")
        .with("host1.csv", &host(2_000))
        .with("host0.csv", &host(0))
        .with("meta.json", meta);
    let judged = judge_path(&folder.0).unwrap();
    assert_eq!(judged.verdict, Verdict::Fail);
    assert_eq!(judged.guilty, ["host1/b01"]);
    let line = serde_json::to_string(&judged).unwrap();
    let keys = [
        "\"run\":",
        "\"verdict\":\"fail\"",
        "\"bytes_per_second\":",
        "\"low\":",
        "\"high\":",
        "\"guilty\":[\"host1/b01\"]",
        "\"detects_bytes_per_second\":",
        "\"reason\":",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| line.find(key).unwrap_or_else(|| panic!("{key} in {line}")))
        .collect();
    assert!(places.is_sorted() && !line.contains('\n'), "{line}");
    assert!(judged.run.ends_with("-line"));
    let pass = Folder::new("pass").with("host0.csv", &host(0));
    assert_eq!(judge_path(&pass.0).unwrap().verdict, Verdict::Pass);
}

#[test]
fn what_is_no_table_is_refused_with_file_and_line() {
    let one = |name: &str, text: &str| refused(&Folder::new(name).with("host0.csv", text).0);
    assert_eq!(
        one("void", ""),
        "host0.csv:1: the header has no column 't_s' (seconds since the start)"
    );
    assert_eq!(one("ragged", "t_s,b00\n0,1\n1\n"), "host0.csv:3: 1 cells, the header has 2");
    assert_eq!(one("long", "t_s,b00\n0,1,2\n"), "host0.csv:2: 3 cells, the header has 2");
    assert_eq!(
        one("words", "t_s,b00\n0,many\n"),
        "host0.csv:2: column 2: 'many' is no number of bytes"
    );
    assert_eq!(
        one("minus", "t_s,b00\n0,-1\n"),
        "host0.csv:2: column 2: '-1' is no number of bytes"
    );
    assert_eq!(
        one("huge", "t_s,b00\n0,inf\n"),
        "host0.csv:2: column 2: 'inf' is no number of bytes"
    );
    assert_eq!(one("timeless", "t_s,b00\n,1\n"), "host0.csv:2: column 1: '' is no time in seconds");
    assert_eq!(
        one("twice", "t_s,b00,b00\n0,1,1\n"),
        "host0.csv:1: column 'b00' stands in the header twice"
    );
    assert_eq!(
        one("pid", "t_s,b00,b00_pid\n0,1,x\n"),
        "host0.csv:2: column 3: 'x' is no process id"
    );
    assert_eq!(
        one("binary", "t_s,b00\n0,\u{fffd}\u{0}\n"),
        "host0.csv:2: column 2: '\u{fffd}\u{0}' is no number of bytes"
    );
    let crowd: String = (0..1_000_000).map(|k| format!(",b{k}")).collect();
    assert_eq!(
        one("crowd", &format!("t_s{crowd}\n0\n")),
        "host0.csv:1: 1000000 processes; at most 100000 are judged"
    );
    let meta = Folder::new("meta")
        .with("host0.csv", &host(0))
        .with("meta.json", "{\"allow_bytes_per_row\": -1}");
    assert_eq!(refused(&meta.0), "meta.json: allow_bytes_per_row must be a number of at least 0");
    let empty = Folder::new("hostless");
    assert!(matches!(judge_path(&empty.0), Err(JudgeError::NoHost { .. })));
    assert!(matches!(judge_path(&empty.0.join("absent")), Err(JudgeError::Read { .. })));
}

#[test]
fn a_table_without_evidence_is_inconclusive() {
    let whole = host(0);
    let lines: Vec<_> = whole.lines().collect();
    let part = |lines: &[&str]| lines.join("\n");
    let mut shuffled = lines.clone();
    shuffled[1..].reverse();
    let mut doubled = lines.clone();
    doubled.insert(200, lines[199]);
    let constant = lines[1..].iter().map(|line| {
        let t = line.split(',').next().unwrap();
        format!("{t},0,0,9000000,1,9000000,2")
    });
    let constant =
        std::iter::once(lines[0].to_owned()).chain(constant).collect::<Vec<_>>().join("\n");
    for (name, text) in [
        ("header", lines[0].to_owned()),
        ("one", part(&lines[..2])),
        ("short", part(&lines[..100])),
        ("reversed", part(&shuffled)),
        ("doubled", part(&doubled)),
        ("slotless", "t_s,ops\n0,1\n1,2\n".to_owned()),
        ("constant", constant),
        ("crowd", format!("t_s{}\n", (0..90_000).map(|k| format!(",b{k}")).collect::<String>())),
        ("nan", whole.replace(",90", ",nan").replace(",91", ",NaN")),
    ] {
        let folder = Folder::new(name).with("host0.csv", &text);
        match judge_path(&folder.0) {
            Ok(judged) => {
                assert_eq!(judged.verdict, Verdict::Inconclusive, "{name}: {}", judged.reason);
            }
            Err(error) => assert_eq!(name, "nan", "{error}"),
        }
    }
}

#[test]
fn the_csv_of_a_script_is_taken() {
    let rows = |slope: u64, heap: &dyn Fn(u64) -> String| {
        (0..288_u64).fold("timestamp,rss_kb,vsz_kb,heap_mb\n".to_owned(), |mut text, k| {
            let (t, rss) = (1_700_000_000 + 300 * k, 40_000 + k * 37 % 11 * 4 + slope * k);
            writeln!(text, "{t},{rss},250000,{}", heap(k)).unwrap();
            text
        })
    };
    let none = |_| String::new();
    let level = |k: u64| format!("12.{}", k * 7 % 10);
    let growing = |k: u64| format!("{}.{}", 12 + k / 7, k * 10 / 7 % 10);
    let folder = Folder::new("script")
        .with("leaky.csv", &rows(150, &none))
        .with("level.csv", &rows(0, &none))
        .with("still.csv", &rows(150, &|_| "12".to_owned()))
        .with("shared.csv", &rows(150, &level))
        .with("heap.csv", &rows(0, &growing))
        .with("other.csv", "time,memory\n1,2\n");
    let judged = judge_path(&folder.0.join("leaky.csv")).unwrap();
    assert_eq!((judged.run.as_str(), judged.verdict), ("leaky", Verdict::Fail));
    assert!((judged.bytes_per_second.unwrap() - 512.0).abs() < 10.0, "{judged:?}");
    assert!(judged.reason.contains("RSS"), "{}", judged.reason);
    assert_eq!(judge_path(&folder.0.join("level.csv")).unwrap().verdict, Verdict::Pass);
    let verdict = |file: &str| judge_path(&folder.0.join(file)).unwrap().verdict;
    // A heap column that never changes tells nothing.
    assert_eq!(verdict("still.csv"), Verdict::Fail);
    assert_eq!(verdict("shared.csv"), Verdict::Inconclusive);
    assert_eq!(judge_path(&folder.0.join("heap.csv")).unwrap().guilty, ["host0/heap_mb"]);
    assert_eq!(
        refused(&folder.0.join("other.csv")),
        "other.csv:1: the header must be timestamp,rss_kb,vsz_kb,heap_mb"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), header in proptest::prelude::any::<bool>()) {
        let mut text = if header { b"t_s,ops,rows,b00,b00_pid\n".to_vec() } else { Vec::new() };
        text.extend(bytes);
        let folder = Folder::new("fuzz");
        fs::write(folder.0.join("host0.csv"), &text).unwrap();
        for path in [folder.0.clone(), folder.0.join("host0.csv")] {
            if let Ok(judged) = judge_path(&path) {
                proptest::prop_assert_eq!(judged.verdict, Verdict::Inconclusive);
            }
        }
    }
}
