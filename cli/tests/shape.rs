//! The shape of this crate: every file says what it is, and modules lean downwards only.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lowest floor first; modules that share a floor may not use each other.
const FLOORS: &[&[&str]] = &[
    &["exit", "folders", "args"],
    &["connect", "plan_files"],
    &["embedded"],
    &["show"],
    &["verbs"],
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Every `crate::name` in the file, with its line number.
fn uses(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split("crate::").skip(1).map(move |rest| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (index + 1, &rest[..end])
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
    assert!(!files.is_empty());
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
    }
}

#[test]
fn modules_lean_downwards_only() {
    let mut offences = Vec::new();
    for (relative, text) in sources() {
        let first = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if first == "main" {
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
