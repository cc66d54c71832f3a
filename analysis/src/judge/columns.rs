//! A host's table: `t_s, ops, rows, b00, b00_pid, b01, …`. An empty cell is a missed reading.
//!
//! Cells are split by hand: a day of 18 processes at 1 Hz is four million of them, and quotes have no place in numbers.

use super::JudgeError;
use crate::trend::Covariates;
use std::{collections::HashMap, fs, path::Path};

/// Most processes of a host. What a server has is a hundredth of it; what has more is no table of a host.
const MOST_SLOTS: usize = 100_000;

/// A host's series.
pub(super) struct Host {
    /// Its clock, operations and rows; a column that is absent is empty.
    pub(super) covariates: Covariates,
    /// In the order of the table.
    pub(super) slots: Vec<Slot>,
}

/// One slot's columns, one value per row.
pub(super) struct Slot {
    pub(super) name: String,
    /// Bytes; NaN: missed.
    pub(super) bytes: Vec<f64>,
    /// Empty: the table does not say.
    pub(super) pid: Vec<u64>,
}

/// What a column feeds.
#[derive(Clone, Copy)]
enum Role {
    Time,
    Operations,
    Rows,
    Bytes(usize),
    Pid(usize),
    Ignored,
}

impl Host {
    pub(super) fn read(path: &Path) -> Result<Self, JudgeError> {
        let text =
            fs::read(path).map_err(|source| JudgeError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, problem)| JudgeError::Table {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    fn parse(text: &[u8]) -> Result<Self, (u64, String)> {
        let mut lines = (1..).zip(text.split(|byte| *byte == b'\n'));
        let header = lines.next().map_or(&[][..], |(_, line)| trimmed(line));
        let mut host = Self { covariates: Covariates::default(), slots: Vec::new() };
        let roles = host.roles(header).map_err(|problem| (1, problem))?;
        for (number, line) in lines {
            let line = trimmed(line);
            if !line.is_empty() {
                host.row(line, &roles).map_err(|problem| (number, problem))?;
            }
        }
        Ok(host)
    }

    fn roles(&mut self, header: &[u8]) -> Result<Vec<Role>, String> {
        let names: Vec<String> = header
            .split(|byte| *byte == b',')
            .map(|name| String::from_utf8_lossy(trimmed(name)).into_owned())
            .collect();
        let mut roles = vec![Role::Ignored; names.len()];
        let mut known = HashMap::with_capacity(names.len());
        for (name, role) in names.iter().zip(roles.iter_mut()) {
            *role = match name.as_str() {
                "t_s" => Role::Time,
                "ops" => Role::Operations,
                "rows" => Role::Rows,
                slot if is_slot(slot) => {
                    let slot = Slot { name: name.clone(), bytes: Vec::new(), pid: Vec::new() };
                    self.slots.push(slot);
                    Role::Bytes(self.slots.len() - 1)
                }
                _ => Role::Ignored,
            };
            if known.insert(name.as_str(), *role).is_some() {
                return Err(format!("column '{}' stands in the header twice", cut(name)));
            }
        }
        if !known.contains_key("t_s") {
            return Err("the header has no column 't_s' (seconds since the start)".to_owned());
        }
        if self.slots.len() > MOST_SLOTS {
            return Err(format!("{} processes; at most {MOST_SLOTS} are judged", self.slots.len()));
        }
        for (name, role) in names.iter().zip(roles.iter_mut()) {
            if let Some(slot) = name.strip_suffix("_pid")
                && let Some(Role::Bytes(place)) = known.get(slot)
            {
                *role = Role::Pid(*place);
            }
        }
        Ok(roles)
    }

    fn row(&mut self, line: &[u8], roles: &[Role]) -> Result<(), String> {
        let mut cells = 0;
        for (column, cell) in line.split(|byte| *byte == b',').enumerate() {
            cells += 1;
            let cell = trimmed(cell);
            let wrong = |what: &str| {
                let shown = String::from_utf8_lossy(cell);
                format!("column {}: '{}' {what}", column + 1, cut(&shown))
            };
            let slots = &mut self.slots;
            match roles.get(column) {
                None => break,
                Some(Role::Ignored) => {}
                Some(Role::Time) => {
                    let time = number(cell).filter(|time| time.is_finite());
                    self.covariates.t_s.push(time.ok_or_else(|| wrong("is no time in seconds"))?);
                }
                Some(Role::Operations) => {
                    self.covariates.ops.push(number(cell).ok_or_else(|| wrong("is no number"))?);
                }
                Some(Role::Rows) => {
                    self.covariates.rows.push(number(cell).ok_or_else(|| wrong("is no number"))?);
                }
                Some(Role::Bytes(slot)) => {
                    let bytes = number(cell).ok_or_else(|| wrong("is no number of bytes"))?;
                    if bytes < 0.0 || bytes.is_infinite() {
                        return Err(wrong("is no number of bytes"));
                    }
                    if let Some(slot) = slots.get_mut(*slot) {
                        slot.bytes.push(bytes);
                    }
                }
                Some(Role::Pid(slot)) => {
                    if let Some(slot) = slots.get_mut(*slot) {
                        let before = slot.pid.last().copied();
                        let pid = if cell.is_empty() { before.or(Some(0)) } else { pid(cell) };
                        slot.pid.push(pid.ok_or_else(|| wrong("is no process id"))?);
                    }
                }
            }
        }
        if cells == roles.len() {
            return Ok(());
        }
        let found = line.split(|byte| *byte == b',').count();
        Err(format!("{found} cells, the header has {}", roles.len()))
    }
}

/// `b` and digits.
fn is_slot(name: &str) -> bool {
    name.strip_prefix('b')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A number; NaN for an empty cell or one that says so.
pub(super) fn number(cell: &[u8]) -> Option<f64> {
    if cell.is_empty() {
        return Some(f64::NAN);
    }
    // Whole numbers are the rule, and exact up to 2⁵³.
    if cell.len() <= 15 && cell.iter().all(u8::is_ascii_digit) {
        let whole = cell.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        return Some(crate::stats::bytes(whole));
    }
    std::str::from_utf8(cell).ok()?.parse().ok()
}

fn pid(cell: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(cell).ok()?;
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// What somebody wrote, short enough for a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
