//! What the source tree must look like. Each failure names the file and line.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lowest floor first; modules that share a floor may not use each other.
const FLOORS: &[&[&str]] =
    &[&["config"], &["domain"], &["decide"], &["store"], &["engine"], &["rpc"], &["app"]];

/// Past this a file holds a second idea.
const MOST_LINES: usize = 560;

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Every `crate::name` in the file, with its line number.
fn uses(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split("crate::").skip(1).map(move |rest| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (index + 1, rest.get(..end).unwrap())
        })
    })
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every file of this crate: its path below `src`, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files
        .into_iter()
        .map(|file| {
            (file.strip_prefix(&src).unwrap().to_owned(), fs::read_to_string(&file).unwrap())
        })
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with `//!`", file.display());
        assert!(file.file_name().unwrap() != "mod.rs", "{}", file.display());
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", file.display());
    }
}

#[test]
fn modules_lean_downwards_only() {
    let mut offences = Vec::new();
    for (relative, text) in sources() {
        let first = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if first == "lib" {
            continue;
        }
        let Some(own) = floor_of(first) else {
            offences.push(format!("{first}: on no floor; add it to FLOORS"));
            continue;
        };
        for (line, used) in uses(&text).filter(|(_, used)| *used != first) {
            if floor_of(used).is_none_or(|floor| floor >= own) {
                offences.push(format!("{}:{line}: {first} uses {used}", relative.display()));
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn what_decides_has_no_clock_and_does_no_io() {
    const BANNED: &[&str] = &[
        "SystemTime::now",
        "Instant::now",
        "tokio::",
        "std::fs",
        "std::io",
        "async fn",
        "Uuid::now",
    ];
    for (file, text) in sources() {
        if !(file.starts_with("domain") || file.starts_with("decide")) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let found = BANNED.iter().find(|banned| line.contains(**banned));
            assert!(found.is_none(), "{}:{}: {}", file.display(), index + 1, found.unwrap_or(&""));
        }
    }
}
