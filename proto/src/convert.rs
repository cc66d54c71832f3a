//! Wire to checked and back. Nothing past this module sees a value that breaks the contract.
//!
//! Reading refuses (`TryFrom`), and names the field by its path. Writing (`From`) cannot fail: a text that is longer than
//! the contract allows is cut at a character boundary, a stack at its depth, a number at the range of its field, so that
//! one overlong message of a server can never make a frame that the other side refuses for ever.

mod captures;
mod evidence;
mod job;
mod leaks;
mod samples;
mod session;
mod sites;

pub use captures::{MAX_CAPTURE_STATEMENTS, MAX_CAPTURE_TEXT_BYTES};
pub use evidence::{MAX_ANSWER_BYTES, MAX_LOG_TAIL_BYTES};
pub use leaks::MAX_STACK_DEPTH;
pub use samples::sample_columns;

use std::{fmt::Display, time::Duration};

/// A message that breaks the contract. Names the field, always.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidMessage {
    /// The field, with its path from the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Puts the field that was being read before the path of the one that was wrong.
trait Within<T> {
    fn within(self, field: impl Display) -> Result<T, InvalidMessage>;
}

impl<T> Within<T> for Result<T, InvalidMessage> {
    fn within(self, field: impl Display) -> Self {
        self.map_err(|InvalidMessage { field: inner, problem }| {
            let field =
                if inner.is_empty() { field.to_string() } else { format!("{field}.{inner}") };
            InvalidMessage { field, problem }
        })
    }
}

fn invalid(field: impl Display, problem: impl Display) -> InvalidMessage {
    InvalidMessage { field: field.to_string(), problem: problem.to_string() }
}

/// A message field that must be there.
fn required<T>(value: Option<T>, field: &str) -> Result<T, InvalidMessage> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

/// Parses an id, a build or another word that has its own error.
fn parsed<T: std::str::FromStr<Err: Display>>(
    text: &str,
    field: &str,
) -> Result<T, InvalidMessage> {
    text.parse().map_err(|error| invalid(field, error))
}

/// Every item of a repeated field.
fn each<W, T: TryFrom<W, Error = InvalidMessage>>(
    items: Vec<W>,
    field: &str,
) -> Result<Vec<T>, InvalidMessage> {
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| T::try_from(item).map_err(|e| (index, e)))
        .map(|item| item.or_else(|(index, e)| Err(e).within(format_args!("{field}[{index}]"))))
        .collect()
}

/// A number of an enum. `UNSPECIFIED` and unknown numbers are refused.
fn word<W: TryFrom<i32>, T: TryFrom<W>>(value: i32, field: &str) -> Result<T, InvalidMessage> {
    W::try_from(value)
        .ok()
        .and_then(|word| T::try_from(word).ok())
        .ok_or_else(|| invalid(field, format_args!("{value} is no value of it")))
}

fn in_range<T: PartialOrd + Display + Copy>(
    value: T,
    range: std::ops::RangeInclusive<T>,
    field: &str,
) -> Result<T, InvalidMessage> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, format_args!("{value} is not in {} to {}", range.start(), range.end())))
    }
}

/// A text of so many bytes.
fn text(
    value: String,
    bytes: std::ops::RangeInclusive<usize>,
    field: &str,
) -> Result<String, InvalidMessage> {
    in_range(value.len(), bytes, field).map_err(|InvalidMessage { field, problem }| {
        InvalidMessage { field, problem: format!("its length in bytes, {problem}") }
    })?;
    Ok(value)
}

/// At most `bytes` of a text, cut at a character boundary.
fn cut(value: &str, bytes: usize) -> String {
    value.get(..value.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}

/// SHA-256 in hex.
fn sha256(value: String, field: &str) -> Result<String, InvalidMessage> {
    if value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(value)
    } else {
        Err(invalid(field, "is not 64 hex digits"))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The two directions of an enum whose words are the same on both sides, less `UNSPECIFIED`.
macro_rules! same_words {
    ($checked:ty, $wire:ty: $($word:ident),+ $(,)?) => {
        impl From<$checked> for $wire {
            fn from(checked: $checked) -> Self {
                match checked {
                    $(<$checked>::$word => <$wire>::$word,)+
                }
            }
        }

        impl TryFrom<$wire> for $checked {
            type Error = $crate::convert::InvalidMessage;

            fn try_from(wire: $wire) -> Result<Self, Self::Error> {
                match wire {
                    $(<$wire>::$word => Ok(<$checked>::$word),)+
                    <$wire>::Unspecified => Err($crate::convert::invalid("", "is unspecified")),
                }
            }
        }
    };
}
use same_words;
