//! What the source tree of a crate must look like; each crate's `tests/shape.rs` calls [`offences`] for itself.
//!
//! The floors are read from the header of `lib.rs` (or `main.rs`), so that what is drawn there is what holds. This reads text: a doc
//! link upwards counts as leaning too, and `use crate::{…}` is refused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What stands before the floors in the header.
const DRAWN: &str = "Floors, lowest first:";

/// What a pure module does not name.
const IMPURE: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "tokio::",
    "std::fs",
    "std::io",
    "async fn",
    "Uuid::now",
    "Timestamp::now",
];

/// What holds in a crate beyond headers and floors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Modules without clock, chance and I/O.
    pub pure: &'static [&'static str],
    /// Lines that no file exceeds: past this it holds a second idea. 0: no limit.
    pub most_lines: usize,
}

/// A source file of a crate.
struct Source {
    /// Below `src`.
    path: PathBuf,
    text: String,
}

/// What is wrong with the crate in this folder, a sentence each, with file and line.
///
/// # Errors
///
/// When its sources cannot be read.
pub fn offences(crate_dir: &str, rules: Rules) -> io::Result<Vec<String>> {
    let src = Path::new(crate_dir).join("src");
    let mut sources = Vec::new();
    read(&src, &src, &mut sources)?;
    let mut found = Vec::new();
    if sources.is_empty() {
        found.push(format!("{}: no sources", src.display()));
    }
    let root = sources
        .iter()
        .find(|source| source.path.as_os_str() == "lib.rs")
        .or_else(|| sources.iter().find(|source| source.path.as_os_str() == "main.rs"));
    let floors = root.map(|root| floors(&root.text)).unwrap_or_default();
    if floors.len() < 2 {
        found.push(format!("{}: lib.rs draws no floors (`{DRAWN} …`)", src.display()));
    }
    for source in &sources {
        told(source, rules, &mut found);
        leaning(source, &floors, &mut found);
    }
    Ok(found)
}

fn read(dir: &Path, src: &Path, found: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, src, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(src).map_or(path.clone(), Path::to_owned);
            found.push(Source { path, text });
        }
    }
    Ok(())
}

/// Lowest first: the modules in backticks between [`DRAWN`] and the end of that sentence, floors parted by a middle dot.
fn floors(root: &str) -> Vec<Vec<String>> {
    let header: String = root
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let Some((_, drawn)) = header.split_once(DRAWN) else { return Vec::new() };
    let drawn = drawn.split_once("`.").map_or(drawn, |(floors, _)| floors);
    let names = |floor: &str| floor.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    drawn.split('·').map(names).collect()
}

/// The first part of the path: the module that stands on a floor.
fn module(path: &Path) -> &str {
    let first = path.iter().next().and_then(|name| name.to_str()).unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Every `crate::module` in the text, with its line number. The crate's own constants are no modules.
fn uses(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split("crate::").skip(1).filter_map(move |rest| {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let name = rest.get(..end)?;
            (!name.starts_with(char::is_uppercase)).then_some((index + 1, name))
        })
    })
}

/// A file says what it is, is no `mod.rs`, is not too long, and is pure where its module is.
fn told(source: &Source, rules: Rules, found: &mut Vec<String>) {
    let file = source.path.display();
    if !source.text.starts_with("//! ") {
        found.push(format!("{file} does not open with `//!`"));
    }
    if source.path.file_name().is_some_and(|name| name == "mod.rs") {
        found.push(format!("{file}: foo.rs beside foo/, not foo/mod.rs"));
    }
    let lines = source.text.lines().count();
    if rules.most_lines > 0 && lines > rules.most_lines {
        found.push(format!("{file} has {lines} lines: which is its second idea?"));
    }
    if rules.pure.contains(&module(&source.path)) {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(impure) = IMPURE.iter().find(|impure| line.contains(**impure)) {
                found.push(format!("{file}:{}: {impure} in a pure module", index + 1));
            }
        }
    }
}

/// A module uses those of lower floors alone.
fn leaning(source: &Source, floors: &[Vec<String>], found: &mut Vec<String>) {
    let own_module = module(&source.path);
    if matches!(own_module, "main" | "lib") {
        return;
    }
    let floor_of =
        |module: &str| floors.iter().position(|floor| floor.iter().any(|name| name == module));
    let Some(own) = floor_of(own_module) else {
        found.push(format!("{own_module}: on no floor; draw it in the header of lib.rs"));
        return;
    };
    for (line, used) in uses(&source.text).filter(|(_, used)| *used != own_module) {
        if floor_of(used).is_none_or(|floor| floor >= own) {
            found.push(format!("{}:{line}: {own_module} uses {used}", source.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! A crate.\n//!\n//! Floors, lowest first: `low`, `beside` (two of them) ·\n//! `high`. `app` is no floor.\n\npub mod low;\n";

    fn told_of(files: &[(&str, &str)], rules: Rules) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files.iter().chain(&[("lib.rs", LIB)]) {
            let path = dir.path().join("src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut told = offences(dir.path().to_str().unwrap(), rules).unwrap();
        told.sort();
        told
    }

    #[test]
    fn floors_are_read_from_the_header() {
        assert_eq!(floors(LIB), [vec!["low", "beside"], vec!["high"]]);
        assert!(floors("//! Nothing drawn.\n").is_empty());
    }

    #[test]
    fn a_sound_crate_has_no_offences() {
        let files = [
            ("high/part.rs", "//! a\nuse crate::low::X;\nuse crate::high::Y;\ncrate::LIMIT;"),
            ("high.rs", "//! b\n"),
            ("low.rs", "//! c\n"),
        ];
        assert!(told_of(&files, Rules::default()).is_empty());
    }

    #[test]
    fn leaning_upwards_sideways_or_on_everything_is_told() {
        let files = [
            ("low.rs", "//! x\nuse crate::high::X;"),
            ("beside.rs", "//! x\nuse crate::low::X;"),
            ("high.rs", "//! x\nuse crate::{low, beside};"),
            ("stray.rs", "//! x"),
        ];
        assert_eq!(
            told_of(&files, Rules::default()),
            [
                "beside.rs:2: beside uses low",
                "high.rs:2: high uses ",
                "low.rs:2: low uses high",
                "stray: on no floor; draw it in the header of lib.rs",
            ]
        );
    }

    #[test]
    fn files_without_header_long_ones_and_clocks_are_told() {
        let files = [("low.rs", "use std::fs;\n"), ("high/mod.rs", "//! x\n1\n2\n3\n4\n5\n6\n7\n")];
        let rules = Rules { pure: &["low"], most_lines: 7 };
        assert_eq!(
            told_of(&files, rules),
            [
                "high/mod.rs has 8 lines: which is its second idea?",
                "high/mod.rs: foo.rs beside foo/, not foo/mod.rs",
                "low.rs does not open with `//!`",
                "low.rs:1: std::fs in a pure module",
            ]
        );
    }
}
