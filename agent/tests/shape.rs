//! What the source tree must look like. Each failure names the file and line.
//!
//! The floors are read from the header of `lib.rs`, so that what is drawn there is what holds. This reads text: a doc link upwards
//! counts as leaning too, and `use crate::{…}` is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of a test; a failure here is the report"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every file of this crate: its path below `src`, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files
        .into_iter()
        .map(|file| {
            (file.strip_prefix(&src).unwrap().to_owned(), fs::read_to_string(&file).unwrap())
        })
        .collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lowest first: the modules named in backticks between "Floors, lowest first:" and the end of that sentence, floors parted by
/// a middle dot.
fn floors(lib: &str) -> Vec<Vec<String>> {
    let header: String = lib
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let drawn = header.split("Floors, lowest first:").nth(1).expect("lib.rs draws no floors");
    let drawn = drawn.split_once("`.").map_or(drawn, |(floors, _)| floors);
    let names = |floor: &str| floor.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    drawn.split('·').map(names).collect()
}

/// Every `crate::name` in the text, with its line number.
fn uses(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split("crate::").skip(1).map(move |rest| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (index + 1, &rest[..end])
        })
    })
}

/// What leans upwards or sideways, or stands on no floor.
fn offences(floors: &[Vec<String>], sources: &[(PathBuf, String)]) -> Vec<String> {
    let floor_of =
        |module: &str| floors.iter().position(|floor| floor.iter().any(|name| name == module));
    let mut offences = Vec::new();
    for (relative, text) in sources {
        let first = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(first, "main" | "lib") {
            continue;
        }
        let Some(own) = floor_of(first) else {
            offences.push(format!("{first}: on no floor; draw it in the header of lib.rs"));
            continue;
        };
        for (line, used) in uses(text).filter(|(_, used)| *used != first) {
            if floor_of(used).is_none_or(|floor| floor >= own) {
                offences.push(format!("{}:{line}: {first} uses {used}", relative.display()));
            }
        }
    }
    offences
}

fn lib() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap()
}

#[test]
fn every_file_says_what_it_is() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with `//!`", file.display());
    }
}

#[test]
fn modules_lean_downwards_only() {
    let floors = floors(&lib());
    assert!(floors.len() > 5, "{floors:?}");
    let offences = offences(&floors, &sources());
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_module_of_the_library_is_on_a_floor() {
    let lib = lib();
    let floors = floors(&lib);
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(
            floors.iter().flatten().any(|name| name == module),
            "{module} is on no floor of lib.rs"
        );
    }
}

#[test]
fn leaning_upwards_sideways_or_on_everything_is_told() {
    let floors = floors(
        "//! Floors, lowest first: `low`, `beside` · `high`. `app` is not a floor.\n\npub mod low;",
    );
    assert_eq!(floors, [vec!["low", "beside"], vec!["high"]]);
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let fine = [
        file("high/part.rs", "use crate::low::X;\nuse crate::high::Y;"),
        file("low.rs", "//! nothing"),
    ];
    assert!(offences(&floors, &fine).is_empty());
    let bad = [
        file("low.rs", "//! x\nuse crate::high::X;"),
        file("beside.rs", "use crate::low::X;"),
        file("high.rs", "use crate::{low, beside};"),
        file("stray.rs", ""),
    ];
    let told = offences(&floors, &bad);
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[0], "low.rs:2: low uses high");
}
