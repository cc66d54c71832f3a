//! TOML tables read key by key, with every problem kept: its line, its key, and the nearest known one.
//!
//! Used by the parsers of workloads and plans. A reader goes on after a problem, so that people see all of them at once;
//! a value that is wrong reads as absent, and the file is refused in the end because problems are there.

use crate::file_error::FileError;
use crate::file_error::hint;
use crate::quantity::InvalidQuantity;
use crate::quantity::bytes;
use crate::quantity::fractional_bytes;
use crate::quantity::time;
use serde_spanned::Spanned;
use std::{cell::RefCell, fmt::Display, ops::Range, time::Duration};
use toml::de::{DeTable, DeValue};

/// A file and what is wrong with it so far.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// Offsets of the line ends, rising.
    line_ends: Vec<usize>,
    problems: RefCell<Vec<FileError>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let line_ends = text.match_indices('\n').map(|(offset, _)| offset).collect();
        Self { file, text, line_ends, problems: RefCell::default() }
    }

    /// The top table; `None` when the text is no TOML (the problem is kept).
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'a>>> {
        if self.text.len() > MAX_FILE_BYTES {
            self.problem(0, format!("is larger than {} MB", MAX_FILE_BYTES / 1_000_000));
            return None;
        }
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let line = error.span().map_or(0, |span| self.line(span.start));
                let message: Vec<_> = error.message().lines().map(str::trim).collect();
                self.problem(line, format!("not TOML: {}", message.join("; ")));
                None
            }
        }
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    /// The file's line of line `line` of a text value: exact for `"""` and `'''` texts, else the line where the value starts.
    pub(crate) fn line_inside(&self, span: &Range<usize>, line: usize) -> usize {
        let first = self.line(span.start);
        let raw = self.text.get(span.clone()).unwrap_or("");
        let opened = raw.strip_prefix("\"\"\"").or_else(|| raw.strip_prefix("'''"));
        match opened {
            None => first,
            // A line end right after the opening belongs to no line of the value.
            Some(rest) if rest.starts_with(['\n', '\r']) => first + line,
            Some(_) => first + line - 1,
        }
    }

    pub(crate) fn problem(&self, line: usize, problem: impl Into<String>) {
        let (file, problem) = (self.file.to_owned(), problem.into());
        self.problems.borrow_mut().push(FileError { file, line, problem });
    }

    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// All problems, by line.
    pub(crate) fn into_problems(self) -> Vec<FileError> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        problems
    }

    /// The file's name without folders and ending.
    pub(crate) fn stem(&self) -> &'a str {
        let name = self.file.rsplit('/').next().unwrap_or(self.file);
        name.strip_suffix(".toml").unwrap_or(name)
    }
}

/// Largest file that is read; a plan or workload is text that people write.
const MAX_FILE_BYTES: usize = 4_000_000;

/// Most phases, jobs, workloads or tools of one list.
const MOST_ITEMS: usize = 1_000;

/// One table of the file.
#[derive(Clone, Copy)]
pub(crate) struct Table<'s, 'a> {
    pub(crate) source: &'s Source<'a>,
    table: &'s DeTable<'a>,
    /// Line where it starts.
    pub(crate) line: usize,
}

/// A value with its key.
#[derive(Clone)]
pub(crate) struct Entry<'s, 'a> {
    pub(crate) source: &'s Source<'a>,
    pub(crate) key: &'s str,
    pub(crate) line: usize,
    pub(crate) span: Range<usize>,
    value: &'s DeValue<'a>,
}

impl<'s, 'a> Table<'s, 'a> {
    /// `root` of the file.
    pub(crate) fn root(source: &'s Source<'a>, root: &'s Spanned<DeTable<'a>>) -> Self {
        Self { source, table: root.get_ref(), line: 1 }
    }

    /// Refuses every key that is not known. `what` names the table in messages.
    pub(crate) fn known(&self, what: &str, known: &[&str]) {
        for (key, _) in self.table {
            let written: &str = key.get_ref();
            if !known.contains(&written) {
                let hint = hint(written, known.iter().copied());
                let line = self.source.line(key.span().start);
                self.source
                    .problem(line, format!("unknown key '{}' in {what}{hint}", cut(written)));
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry<'s, 'a>> {
        let (key, value) = self.table.get_key_value(key)?;
        Some(Entry::new(self.source, key, value))
    }

    /// Every key with its value, by the key's place in the file.
    pub(crate) fn entries(&self) -> Vec<Entry<'s, 'a>> {
        let mut entries: Vec<_> =
            self.table.iter().map(|(key, value)| Entry::new(self.source, key, value)).collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }
}

impl<'s, 'a> Entry<'s, 'a> {
    fn new(
        source: &'s Source<'a>,
        key: &'s Spanned<std::borrow::Cow<'a, str>>,
        value: &'s Spanned<DeValue<'a>>,
    ) -> Self {
        let line = source.line(key.span().start);
        Self { source, key: key.get_ref(), line, span: value.span(), value: value.get_ref() }
    }

    /// Keeps a problem with this key.
    pub(crate) fn refuse(&self, problem: impl Display) {
        self.source.problem(self.line, format!("`{}`: {problem}", self.key));
    }

    fn wanted(&self, what: &str) {
        let is = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format_args!("must be {what}, is {is}"));
    }

    pub(crate) fn text(&self) -> Option<&'s str> {
        if let DeValue::String(text) = self.value {
            if !text.contains('\0') {
                return Some(text);
            }
            self.refuse("holds a zero byte");
        } else {
            self.wanted("a text");
        }
        None
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wanted("true or false");
        }
        flag
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let Some(integer) = self.value.as_integer() else {
            self.wanted("a whole number");
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()).map(u64::try_from) {
            Ok(Ok(number)) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.refuse(format_args!(
                    "must be {least} to {most}, is {}",
                    cut(integer.as_str())
                ));
                None
            }
        }
    }

    /// A whole number that fits 32 bits, from `least` to `most`.
    pub(crate) fn small(&self, least: u32, most: u32) -> Option<u32> {
        self.whole(least.into(), most.into()).and_then(|number| u32::try_from(number).ok())
    }

    /// A number of either kind that is finite.
    pub(crate) fn number(&self) -> Option<f64> {
        let number = match self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            #[allow(clippy::cast_precision_loss)]
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|i| i as f64)
            }
            _ => {
                self.wanted("a number");
                return None;
            }
        };
        let number = number.filter(|number| number.is_finite());
        if number.is_none() {
            self.refuse("must be a finite number");
        }
        number
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self.value, DeValue::Integer(_) | DeValue::Float(_))
    }

    pub(crate) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// A setting of the server: texts as they are, flags as on and off, numbers as digits.
    pub(crate) fn setting(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Boolean(flag) => Some(if *flag { "on" } else { "off" }.to_owned()),
            DeValue::Integer(_) | DeValue::Float(_) => Some(self.number()?.to_string()),
            _ => {
                self.wanted("a text, a number or true or false");
                None
            }
        }
    }

    fn quantity<T>(&self, what: &str, read: fn(&str) -> Result<T, InvalidQuantity>) -> Option<T> {
        let DeValue::String(text) = self.value else {
            self.wanted(what);
            return None;
        };
        read(text).map_err(|error| self.refuse(error)).ok()
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        self.quantity("a size with its unit, such as \"5 MB\"", bytes)
    }

    pub(crate) fn fractional_bytes(&self) -> Option<f64> {
        self.quantity("a size with its unit, such as \"1 B\"", fractional_bytes)
    }

    /// A time from `least` to `most`.
    pub(crate) fn time(&self, least: Duration, most: Duration) -> Option<Duration> {
        let time = self.quantity("a time, such as \"90s\" or \"24h\"", time)?;
        if (least..=most).contains(&time) {
            return Some(time);
        }
        let (least, most) =
            (crate::quantity::HumanDuration(least), crate::quantity::HumanDuration(most));
        self.refuse(format_args!("must be {least} to {most}"));
        None
    }

    pub(crate) fn table(&self) -> Option<Table<'s, 'a>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.wanted("a table");
        }
        Some(Table { source: self.source, table: table?, line: self.line })
    }

    /// One text, or a list of them.
    pub(crate) fn texts(&self) -> Option<Vec<Entry<'s, 'a>>> {
        match self.value {
            DeValue::String(_) => Some(vec![self.clone()]),
            DeValue::Array(list) if list.len() <= MOST_ITEMS => {
                Some(list.iter().map(|item| self.item(item)).collect())
            }
            DeValue::Array(list) => {
                self.too_many(list.len());
                None
            }
            _ => {
                self.wanted("a text or a list of texts");
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&self) -> Option<Vec<Table<'s, 'a>>> {
        let Some(list) = self.value.as_array() else {
            self.refuse(format_args!("write it as [[{}]]", self.key));
            return None;
        };
        if list.len() > MOST_ITEMS {
            self.too_many(list.len());
            return None;
        }
        list.iter().map(|item| self.item(item).table()).collect()
    }

    fn too_many(&self, items: usize) {
        self.refuse(format_args!("holds {items} items, at most {MOST_ITEMS} are taken"));
    }

    fn item(&self, item: &'s Spanned<DeValue<'a>>) -> Self {
        Self {
            source: self.source,
            key: self.key,
            line: self.source.line(item.span().start),
            span: item.span(),
            value: item.get_ref(),
        }
    }
}

/// What people wrote, short enough for a message.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
