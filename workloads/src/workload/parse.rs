//! A workload's file, read and checked; every problem at once.

use super::budget::budget;
use super::{Cluster, EXTENSION_PHASE, Kind, Length, Loop, Phase, Reconnect, WarmUp, Workload};
use crate::file_error::FileError;
use crate::quantity::MAX_TIME;
use crate::quantity::time;
use crate::statement::closed;
use crate::statement::statements;
use crate::table::Entry;
use crate::table::Source;
use crate::table::Table;
use crate::template::Template;
use std::time::Duration;

const WORKLOAD_KEYS: [&str; 7] =
    ["name", "about", "extension", "cluster", "phase", "allow_bytes_per_row", "warm_up"];
const PHASE_KEYS: [&str; 14] = [
    "name",
    "kind",
    "sql",
    "control_sql",
    "check",
    "control_check",
    "rows",
    "budget",
    "workers",
    "operations",
    "rounds",
    "for",
    "rate",
    "reconnect",
];
/// Keys of a phase that only a loop has.
const LOOP_KEYS: [&str; 6] = ["workers", "operations", "rounds", "for", "rate", "reconnect"];

/// Settings that the runner makes itself; the word says where to write them instead.
const RESERVED_SETTINGS: [(&str, &str); 8] = [
    ("shared_preload_libraries", "write `preload` of [cluster]"),
    ("port", "the runner chooses it"),
    ("listen_addresses", "the server listens on a Unix socket only"),
    ("unix_socket_directories", "the runner chooses it"),
    ("data_directory", "the runner chooses it"),
    ("config_file", "the runner writes it"),
    ("hba_file", "the runner writes it"),
    ("ident_file", "the runner writes it"),
];

/// Variables of SQL that runs once per operation or phase, and of a query that is asked after a round.
const IN_CHECKS: [&str; 2] = ["${n}", "${worker}"];

pub(super) fn workload(file: &str, text: &str) -> Result<Workload, Vec<FileError>> {
    let source = Source::new(file, text);
    let read = source.parse().and_then(|root| read(Table::root(&source, &root)));
    match read {
        Some(workload) if !source.has_problems() => Ok(workload),
        _ => Err(source.into_problems()),
    }
}

/// What could be read; `None` only when the phases cannot.
fn read(top: Table<'_, '_>) -> Option<Workload> {
    top.known("a workload", &WORKLOAD_KEYS);
    let extension = top.get("extension").and_then(|entry| extension(&entry));
    Some(Workload {
        name: name(top),
        about: top.get("about").and_then(|entry| entry.text()).unwrap_or_default().to_owned(),
        cluster: top
            .get("cluster")
            .and_then(|entry| entry.table())
            .map(cluster)
            .unwrap_or_default(),
        phases: phases(top, extension.is_some())?,
        allow_bytes_per_row: top
            .get("allow_bytes_per_row")
            .and_then(|e| per_row(&e))
            .unwrap_or(0.0),
        warm_up: top.get("warm_up").and_then(|entry| warm_up(&entry)),
        extension,
    })
}

fn name(top: Table<'_, '_>) -> String {
    let well_formed = |name: &str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    const RULE: &str = "must be 1 to 63 of a-z, 0-9 and _";
    match top.get("name") {
        Some(entry) => match entry.text() {
            Some(name) if well_formed(name) => return name.to_owned(),
            Some(_) => entry.refuse(RULE),
            None => {}
        },
        None => return name_of_stem(top.source.stem()),
    }
    String::new()
}

/// A name for a workload whose file gives none.
fn name_of_stem(stem: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = stem.chars().take(63).map(word).collect();
    if name.is_empty() { "workload".to_owned() } else { name }
}

fn extension(entry: &Entry<'_, '_>) -> Option<String> {
    let name = entry.text()?;
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        entry.refuse("must be an extension's name: 1 to 63 of letters, digits, _ and -");
        return None;
    }
    Some(name.to_owned())
}

fn cluster(table: Table<'_, '_>) -> Cluster {
    table.known("[cluster]", &["preload", "settings"]);
    let mut cluster = Cluster::default();
    for entry in table.get("preload").and_then(|entry| entry.texts()).unwrap_or_default() {
        let Some(library) = entry.text() else { continue };
        let fits = !library.is_empty()
            && library.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/$".contains(&b));
        if fits {
            cluster.preload.push(library.to_owned());
        } else {
            entry.refuse("must be the name of a library, one for each text of the list");
        }
    }
    let settings = table.get("settings").and_then(|entry| entry.table());
    for entry in settings.map(|table| table.entries()).unwrap_or_default() {
        if let Some(value) = setting(&entry) {
            cluster.settings.insert(entry.key.to_owned(), value);
        }
    }
    cluster
}

fn setting(entry: &Entry<'_, '_>) -> Option<String> {
    let key = entry.key;
    let fits = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if !fits {
        entry.refuse("is no name of a setting");
        return None;
    }
    if let Some((_, instead)) =
        RESERVED_SETTINGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))
    {
        entry.refuse(format_args!("cannot be set here: {instead}"));
        return None;
    }
    let value = entry.setting()?;
    if value.contains(['\n', '\r', '\0']) {
        entry.refuse("must be one line");
        return None;
    }
    Some(value)
}

fn per_row(entry: &Entry<'_, '_>) -> Option<f64> {
    let bytes = if entry.is_number() { entry.number()? } else { entry.fractional_bytes()? };
    if bytes < 0.0 {
        entry.refuse("must not be negative");
        return None;
    }
    Some(bytes)
}

fn warm_up(entry: &Entry<'_, '_>) -> Option<WarmUp> {
    if !entry.is_text() {
        return entry.small(0, 1_000_000).map(WarmUp::Rounds);
    }
    let text = entry.text()?.trim();
    let rounds = text.strip_suffix("rounds").or_else(|| text.strip_suffix("round"));
    if let Some(rounds) = rounds.map(str::trim).and_then(|number| number.parse().ok()) {
        return Some(WarmUp::Rounds(rounds));
    }
    match time(text) {
        Ok(time) => Some(WarmUp::Time(time)),
        Err(_) => {
            entry.refuse("must be a time such as \"10m\", or rounds such as \"3 rounds\"");
            None
        }
    }
}

fn phases(top: Table<'_, '_>, has_extension: bool) -> Option<Vec<Phase>> {
    let tables = match top.get("phase") {
        Some(entry) => entry.tables()?,
        None => Vec::new(),
    };
    if tables.is_empty() {
        top.source.problem(0, "has no [[phase]]: a workload needs at least one");
        return None;
    }
    let mut phases: Vec<Phase> = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let name = phase_name(*table, index, &phases, has_extension);
        let phase = phase(*table, name, &phases, has_extension);
        phases.push(phase);
    }
    Some(phases)
}

fn phase_name(table: Table<'_, '_>, index: usize, before: &[Phase], has_extension: bool) -> String {
    let Some(entry) = table.get("name") else {
        return format!("phase_{}", index + 1);
    };
    let Some(name) = entry.text() else { return String::new() };
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        entry.refuse("must be 1 to 63 of letters, digits, _ and -");
    } else if before.iter().any(|phase| phase.name == name) {
        entry
            .refuse(format_args!("'{name}' is the name of an earlier phase; names must be unique"));
    } else if has_extension && name == EXTENSION_PHASE {
        entry.refuse(format_args!(
            "'{name}' is the phase that creates the extension; call this one something else"
        ));
    }
    name.to_owned()
}

fn phase(table: Table<'_, '_>, name: String, before: &[Phase], has_extension: bool) -> Phase {
    table.known("a phase", &PHASE_KEYS);
    let is_loop = match table.get("kind").and_then(|entry| entry.text().map(|text| (entry, text))) {
        None | Some((_, "once")) => false,
        Some((_, "loop")) => true,
        Some((entry, other)) => {
            let short: String = other.chars().take(40).collect();
            entry.refuse(format_args!("'{short}' is neither \"once\" nor \"loop\""));
            LOOP_KEYS.iter().any(|key| table.get(key).is_some())
        }
    };
    let kind = if is_loop {
        Kind::Loop(loop_of(table))
    } else {
        for entry in LOOP_KEYS.iter().filter_map(|key| table.get(key)) {
            entry.refuse("belongs to a loop; add kind = \"loop\" to the phase or take it out");
        }
        Kind::Once
    };
    let sql = sql(table, "sql", true);
    if sql.is_none() {
        let problem = format!("phase '{name}' has no `sql`");
        if table.get("sql").is_none() {
            table.source.problem(table.line, problem);
        }
    }
    Phase {
        sql: sql.unwrap_or_default(),
        control_sql: self::sql(table, "control_sql", false),
        check: query(table, "check"),
        control_check: query(table, "control_check"),
        rows: query(table, "rows"),
        budget: budget(table, is_loop, before, has_extension),
        kind,
        name,
    }
}

/// SQL of operations: closed quotes, known variables, and at least one statement where one is needed.
fn sql(table: Table<'_, '_>, key: &str, needed: bool) -> Option<String> {
    let entry = table.get(key)?;
    let text = entry.text()?;
    let source = table.source;
    if let Err(unclosed) = closed(text) {
        let line = source.line_inside(&entry.span, unclosed.line);
        source.problem(line, format!("`{key}`: {} is never closed", unclosed.what));
        return None;
    }
    if let Err(wrong) = Template::compile(text) {
        let line = source.line_inside(&entry.span, wrong.line);
        source.problem(line, format!("`{key}`: {}", wrong.problem));
        return None;
    }
    if needed && statements(text).is_empty() {
        entry.refuse("holds no statement");
        return None;
    }
    Some(text.to_owned())
}

/// SQL that is asked once after a phase or round: one statement.
fn query(table: Table<'_, '_>, key: &str) -> Option<String> {
    let text = sql(table, key, true)?;
    let entry = table.get(key)?;
    if statements(&text).len() > 1 {
        entry.refuse("must be one statement");
    }
    if let Some(var) = IN_CHECKS.iter().find(|var| text.contains(**var)) {
        entry.refuse(format_args!(
            "'{var}' means nothing here, after the operations; only '${{round}}' and '${{seed}}' do"
        ));
    }
    Some(text)
}

fn loop_of(table: Table<'_, '_>) -> Loop {
    let rounds = table.get("rounds").and_then(|entry| entry.small(1, 1_000_000));
    let loop_for = table.get("for").and_then(|entry| entry.time(Duration::from_secs(1), MAX_TIME));
    if let (Some(entry), Some(_)) = (table.get("for"), table.get("rounds")) {
        entry.refuse("a loop has either `rounds` or `for`, not both; take one out");
    }
    Loop {
        workers: table.get("workers").and_then(|e| e.small(1, 1_000)).unwrap_or(1),
        operations: table
            .get("operations")
            .and_then(|entry| entry.whole(1, 1_000_000_000_000))
            .unwrap_or(1_000),
        length: match loop_for {
            Some(time) => Length::For(time),
            None => Length::Rounds(rounds.unwrap_or(20)),
        },
        rate: table.get("rate").and_then(|entry| rate(&entry)),
        reconnect: table
            .get("reconnect")
            .and_then(|entry| reconnect(&entry))
            .unwrap_or(Reconnect::Never),
    }
}

fn rate(entry: &Entry<'_, '_>) -> Option<f64> {
    let rate = entry.number()?;
    if !(0.001..=1e6).contains(&rate) {
        entry.refuse("operations per second and worker must be 0.001 to 1000000");
        return None;
    }
    Some(rate)
}

fn reconnect(entry: &Entry<'_, '_>) -> Option<Reconnect> {
    let text = entry.text()?;
    let words: Vec<_> = text.split_whitespace().collect();
    let found = match words.as_slice() {
        ["never"] => Some(Reconnect::Never),
        ["every", "round"] => Some(Reconnect::EveryRound),
        ["every", number, "operations" | "operation"] => {
            number.parse().ok().filter(|number| *number > 0).map(Reconnect::Every)
        }
        _ => None,
    };
    if found.is_none() {
        let short: String = text.chars().take(40).collect();
        entry.refuse(format_args!(
            "'{short}' is none of \"never\", \"every round\", \"every 5000 operations\""
        ));
    }
    found
}
