//! Reads a daemon's TOML file against its table of settings; keeps every problem with its line.

use crate::settings::Key;
use crate::settings::kind::Value;
use pgsoak_workloads::file_error::{FileError, hint};
use std::{collections::BTreeSet, ops::Range};
use toml::de::{DeTable, DeValue};

/// Larger than any file that people write.
const MAX_BYTES: usize = 1_000_000;

/// A setting that a file holds.
#[derive(Debug)]
pub struct Read {
    /// Tables and key, joined by points.
    pub path: String,
    /// Its line of the table.
    pub key: &'static Key,
    /// The value.
    pub value: Value,
    /// 1-based.
    pub line: usize,
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    keys: &'static [Key],
    read: Vec<Read>,
    problems: Vec<FileError>,
}

/// All settings of a file.
///
/// # Errors
///
/// Every problem, by line: unknown keys with the nearest known one, values that are none, tables that lack a key.
pub fn read(file: &str, text: &str, keys: &'static [Key]) -> Result<Vec<Read>, Vec<FileError>> {
    let mut reader = Reader { file, text, keys, read: Vec::new(), problems: Vec::new() };
    if text.len() > MAX_BYTES {
        reader.problem(0, format!("is larger than {} MB", MAX_BYTES / 1_000_000));
        return Err(reader.problems);
    }
    match DeTable::parse(text) {
        Ok(table) => reader.table(&[], table.get_ref(), &(0..0)),
        Err(error) => {
            let line = error.span().map_or(0, |span| reader.line(&span));
            let message: Vec<_> = error.message().lines().map(str::trim).collect();
            reader.problem(line, format!("not TOML: {}", message.join("; ")));
        }
    }
    if reader.problems.is_empty() {
        reader.read.sort_by_key(|read| read.line);
        return Ok(reader.read);
    }
    reader.problems.sort_by_key(|problem| problem.line);
    Err(reader.problems)
}

// === impl Reader ===

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }

    fn problem(&mut self, line: usize, problem: String) {
        self.problems.push(FileError { file: self.file.to_owned(), line, problem });
    }

    fn table(&mut self, path: &[&str], table: &DeTable<'_>, at: &Range<usize>) {
        for (key, value) in table {
            let line = self.line(&key.span());
            let mut deeper = path.to_vec();
            deeper.push(key.get_ref());
            let known = self.keys.iter().find(|known| known.is_at(&deeper));
            match (known, value.get_ref()) {
                (Some(known), value) => match known.kind.of_toml(value) {
                    Ok(value) => {
                        self.read.push(Read { path: deeper.join("."), key: known, value, line });
                    }
                    Err(problem) => {
                        self.problem(line, format!("`{}`: {problem}", deeper.join(".")));
                    }
                },
                (None, DeValue::Table(table)) if self.is_table(&deeper) => {
                    if self.is_chosen(path) && !is_name(key.get_ref()) {
                        let problem =
                            format!("'{}' is no name: 1 to 40 of a-z 0-9 _ -", key.get_ref());
                        self.problem(line, problem);
                    } else {
                        self.table(&deeper, table, &key.span());
                    }
                }
                (None, _) if self.is_table(&deeper) => {
                    self.problem(line, format!("`{}`: must be a table", deeper.join(".")));
                }
                (None, _) => {
                    let known: BTreeSet<_> = self
                        .keys
                        .iter()
                        .filter_map(|key| key.below(path))
                        .filter(|name| *name != "*")
                        .collect();
                    let written: String = key.get_ref().chars().take(60).collect();
                    let hint = hint(&written, known);
                    let place = if path.is_empty() {
                        String::new()
                    } else {
                        format!(" in [{}]", path.join("."))
                    };
                    self.problem(line, format!("unknown key '{written}'{place}{hint}"));
                }
            }
        }
        if path.len() > 1 {
            self.lacking(path, table, at);
        }
    }

    /// Keys that a table of a chosen name must have.
    fn lacking(&mut self, path: &[&str], table: &DeTable<'_>, at: &Range<usize>) {
        let required = self.keys.iter().filter(|key| {
            matches!(key.default, super::Default::Required { .. })
                && key
                    .below(path)
                    .is_some_and(|last| !table.contains_key(last) && key.name.ends_with(last))
        });
        let lacking: Vec<_> = required.filter_map(|key| key.below(path)).collect();
        let line = self.line(at);
        for name in lacking {
            self.problem(line, format!("[{}] lacks `{name}`", path.join(".")));
        }
    }

    fn is_table(&self, path: &[&str]) -> bool {
        self.keys.iter().any(|key| key.below(path).is_some())
    }

    /// Whether the names below `path` are chosen by people.
    fn is_chosen(&self, path: &[&str]) -> bool {
        self.keys.iter().any(|key| key.below(path) == Some("*"))
    }
}

/// A name that people choose for a table.
fn is_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    (1..=40).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Daemon;

    fn problems(text: &str) -> String {
        let problems = read("c.toml", text, Daemon::Coordinator.keys()).unwrap_err();
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn a_problem_names_file_line_and_nearest_key() {
        let said = problems(
            "# one\nlisen = \"127.0.0.1:1\"\nheartbeat_every = 5\n[http]\nlistem = \"off\"\n",
        );
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "c.toml:2: unknown key 'lisen'; did you mean 'listen'?");
        assert!(lines[1].starts_with("c.toml:3: `heartbeat_every`: must be a time"), "{said}");
        assert_eq!(lines[2], "c.toml:5: unknown key 'listem' in [http]; did you mean 'listen'?");
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        assert!(problems("listen = \"a\"\nlisten = \"b\"\n").starts_with("c.toml:2: not TOML: "));
        assert!(problems("http = 3\n").contains("c.toml:1: `http`: must be a table"));
    }
}
