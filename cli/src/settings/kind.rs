//! What the value of a setting looks like, in TOML and as the text of a variable or a flag.

use pgsoak_workloads::quantity::{self, HumanDuration};
use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

/// The form of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file or folder.
    Path,
    /// `HOST:PORT`, or `off`.
    AddressOrOff,
    /// Begins with one of these.
    Url(&'static [&'static str]),
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number from … to ….
    Whole(u64, u64),
    /// `true` or `false`.
    #[allow(dead_code, reason = "no setting has it yet")]
    Flag,
    /// A time from … to …, in seconds.
    Time(u64, u64),
    /// A size with its unit.
    Size,
    /// A list of texts; separated by commas in a variable.
    Texts,
    /// A table of texts; `a=b,c=d` in a variable.
    Map,
    /// What is logged, as in RUST_LOG.
    Filter,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Texts, paths, addresses, URLs, choices, filters.
    Text(String),
    /// A number.
    Whole(u64),
    /// Yes or no.
    Flag(bool),
    /// A time.
    Time(Duration),
    /// Bytes.
    Size(u64),
    /// A list.
    Texts(Vec<String>),
    /// A table.
    Map(BTreeMap<String, String>),
}

// === impl Kind ===

impl Kind {
    /// What it takes, for messages and the example.
    pub fn words(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::AddressOrOff => "HOST:PORT (port 0 takes a free one), or \"off\"".to_owned(),
            Self::Url(starts) => format!("a text that begins with {}", starts.join(" or ")),
            Self::Choice(of) => format!("one of {}", of.join(", ")),
            Self::Whole(least, most) => format!("a whole number, {least} to {most}"),
            Self::Flag => "true or false".to_owned(),
            Self::Time(least, most) => {
                let shown = |seconds| HumanDuration(Duration::from_secs(seconds));
                format!("a time such as \"90s\", {} to {}", shown(least), shown(most))
            }
            Self::Size => "a size with its unit, such as \"10 GB\"".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Map => "a table of texts".to_owned(),
            Self::Filter => "what is logged, as in RUST_LOG".to_owned(),
        }
    }

    /// Reads the text of a variable, a flag or a default.
    ///
    /// # Errors
    ///
    /// Says what it must be.
    pub fn of_text(self, text: &str) -> Result<Value, String> {
        let must = || format!("must be {}, is '{}'", self.words(), shortened(text));
        match self {
            Self::Text | Self::Path => match text {
                "" => Err("is empty".to_owned()),
                _ if text.contains('\0') => Err("holds a zero byte".to_owned()),
                _ => Ok(Value::Text(text.to_owned())),
            },
            Self::AddressOrOff => match text {
                "off" => Ok(Value::Text(text.to_owned())),
                _ if text.parse::<SocketAddr>().is_ok() => Ok(Value::Text(text.to_owned())),
                _ => Err(must()),
            },
            Self::Url(starts) => match starts.iter().find_map(|start| text.strip_prefix(start)) {
                Some(rest) if !rest.is_empty() && !text.contains(char::is_whitespace) => {
                    Ok(Value::Text(text.to_owned()))
                }
                _ => Err(must()),
            },
            Self::Choice(of) if of.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err(must()),
            Self::Whole(least, most) => match text.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(Value::Whole(number)),
                _ => Err(must()),
            },
            Self::Flag => text.parse().map(Value::Flag).map_err(|_| must()),
            Self::Time(least, most) => {
                let time = quantity::time(text).map_err(|error| error.to_string())?;
                let range = Duration::from_secs(least)..=Duration::from_secs(most);
                if range.contains(&time) { Ok(Value::Time(time)) } else { Err(must()) }
            }
            Self::Size => quantity::bytes(text).map(Value::Size).map_err(|error| error.to_string()),
            Self::Texts => Ok(Value::Texts(
                text.split(',')
                    .map(str::trim)
                    .filter(|t| !t.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )),
            Self::Map => pairs(text).map(Value::Map).ok_or_else(must),
            Self::Filter => match EnvFilter::try_new(text) {
                Ok(_) if !text.is_empty() => Ok(Value::Text(text.to_owned())),
                _ => Err(must()),
            },
        }
    }

    /// Reads a value of a file.
    ///
    /// # Errors
    ///
    /// Says what it must be.
    pub fn of_toml(self, value: &DeValue<'_>) -> Result<Value, String> {
        let must = || format!("must be {}", self.words());
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned).ok_or_else(must);
        match (self, value) {
            (Self::Whole(..), DeValue::Integer(number)) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                self.of_text(&number.map_err(|_| must())?.to_string())
            }
            (Self::Whole(..), _) => Err(must()),
            (Self::Flag, _) => value.as_bool().map(Value::Flag).ok_or_else(must),
            (Self::Texts, DeValue::Array(list)) => list
                .iter()
                .map(|item| text(item.get_ref()))
                .collect::<Result<_, _>>()
                .map(Value::Texts),
            (Self::Texts, _) => Err(must()),
            (Self::Map, DeValue::Table(table)) => table
                .iter()
                .map(|(key, value)| Ok((key.get_ref().to_string(), text(value.get_ref())?)))
                .collect::<Result<_, String>>()
                .map(Value::Map),
            (Self::Map, _) => Err(must()),
            (_, value) => self.of_text(&text(value)?),
        }
    }
}

/// `a=b,c=d`
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

// === impl Value ===

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Whole(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Time(time) => write!(f, "\"{}\"", HumanDuration(*time)),
            Self::Size(bytes) => write!(f, "\"{}\"", size(*bytes)),
            Self::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Map(map) if map.is_empty() => f.write_str("{}"),
            Self::Map(map) => {
                let pairs: Vec<_> =
                    map.iter().map(|(k, v)| format!("{} = {}", quoted(k), quoted(v))).collect();
                write!(f, "{{ {} }}", pairs.join(", "))
            }
        }
    }
}

/// Exactly, in the largest unit that divides it.
fn size(bytes: u64) -> String {
    let units = [
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("kB", 1_000),
    ];
    match units.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_reads_back() {
        for (kind, text) in [
            (Kind::Text, "a \"quoted\" text"),
            (Kind::AddressOrOff, "[::1]:0"),
            (Kind::Whole(1, 9), "3"),
            (Kind::Flag, "true"),
            (Kind::Time(0, 1 << 30), "36h"),
            (Kind::Size, "1500 MB"),
            (Kind::Size, "64 MiB"),
            (Kind::Texts, "a, b"),
            (Kind::Map, "zone=lab,disk=nvme"),
        ] {
            let value = kind.of_text(text).unwrap();
            let line = format!("key = {value}");
            let table = toml::de::DeTable::parse(&line).unwrap();
            let back = kind.of_toml(table.get_ref().get("key").unwrap().get_ref());
            assert_eq!(back, Ok(value), "{line}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_would_be_one() {
        for (kind, text, says) in [
            (Kind::AddressOrOff, "localhost", "must be HOST:PORT"),
            (Kind::Whole(1, 64), "0", "a whole number, 1 to 64, is '0'"),
            (Kind::Time(1, 60), "2m", "1s to 1m"),
            (Kind::Url(&["http://"]), "ftp://x", "begins with http://"),
            (Kind::Map, "zone", "a table of texts"),
            (Kind::Size, "10", "lacks a unit"),
            (Kind::Text, "", "is empty"),
        ] {
            let said = kind.of_text(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
