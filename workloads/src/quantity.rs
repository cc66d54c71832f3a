//! Sizes (`"10 MB"`, `"64 KiB"`) and times (`"90s"`, `"24h"`) as people write them, and back.
//!
//! A size always carries its unit: a bare number of bytes is refused, since nobody can tell it from kilobytes.
//! `MB` is 10⁶ bytes, `MiB` is 2²⁰; case counts, as `Mb` means bits elsewhere.

use std::{fmt, time::Duration};

/// Text that is no size or no time; says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidQuantity(String);

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Nanoseconds, longest first.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Longest time that is taken: ten years.
pub const MAX_TIME: Duration = Duration::from_secs(3_650 * 86_400);

/// Bytes of a size with its unit. A fraction of a byte is refused.
///
/// # Errors
///
/// Says what is wrong with the text and what a size looks like.
pub fn bytes(text: &str) -> Result<u64, InvalidQuantity> {
    let (number, unit) = size(text)?;
    let scaled = number
        .digits
        .checked_mul(u128::from(unit))
        .filter(|scaled| scaled % number.divisor == 0)
        .ok_or_else(|| {
            InvalidQuantity(format!("'{}' is not a whole number of bytes", cut(text)))
        })?
        / number.divisor;
    u64::try_from(scaled)
        .ok()
        .filter(|bytes| *bytes <= 1 << 60)
        .ok_or_else(|| InvalidQuantity(format!("'{}' is more than any machine has", cut(text))))
}

/// Bytes of a size with its unit, where fractions make sense (bytes per operation, bytes per row).
///
/// # Errors
///
/// As [`bytes`].
#[allow(clippy::cast_precision_loss)]
pub fn fractional_bytes(text: &str) -> Result<f64, InvalidQuantity> {
    let (number, unit) = size(text)?;
    let value = number.digits as f64 * unit as f64 / number.divisor as f64;
    if value > (1_u64 << 60) as f64 {
        return Err(InvalidQuantity(format!("'{}' is more than any machine has", cut(text))));
    }
    Ok(value)
}

/// A time: numbers with `d`, `h`, `m` (or `min`), `s`, `ms`, longest unit first, such as `1h30m`.
///
/// # Errors
///
/// Says what is wrong with the text and what a time looks like.
pub fn time(text: &str) -> Result<Duration, InvalidQuantity> {
    let wrong = |what: &str| {
        InvalidQuantity(format!(
            "'{}' {what}; a time is written as \"90s\", \"24h\", \"1h30m\" or \"500ms\"",
            cut(text)
        ))
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong("is no time"));
    }
    let mut total = 0_u128;
    let mut shortest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = Number::read(rest).ok_or_else(|| wrong("is no time"))?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(wrong("lacks a unit"));
        }
        let (_, nanos) = *TIMES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| wrong(&format!("has an unknown unit '{}'", cut(unit))))?;
        if nanos >= shortest {
            return Err(wrong("has its units out of order"));
        }
        shortest = nanos;
        total = number
            .digits
            .checked_mul(u128::from(nanos))
            .map(|nanos| nanos / number.divisor)
            .and_then(|nanos| total.checked_add(nanos))
            .ok_or_else(|| wrong("is too long"))?;
        rest = after.trim_start();
    }
    if total > MAX_TIME.as_nanos() {
        return Err(wrong("is longer than ten years"));
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| wrong("is too long"))
}

/// `digits / divisor`, exactly.
struct Number {
    digits: u128,
    divisor: u128,
}

impl Number {
    /// At most 18 digits with a point; the rest of the text.
    fn read(text: &str) -> Option<(Self, &str)> {
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let number: String = number.chars().filter(|c| *c != '_').collect();
        let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
        if whole.is_empty() || whole.len() + fraction.len() > 18 || fraction.contains('.') {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        Some((Self { digits, divisor }, rest))
    }
}

fn size(text: &str) -> Result<(Number, u64), InvalidQuantity> {
    let wrong = |what: &str| {
        InvalidQuantity(format!(
            "'{}' {what}; a size is written with its unit, as \"10 MB\", \"64 KiB\" or \"1 B\"",
            cut(text)
        ))
    };
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit() || b"._".contains(&b)) {
        return Err(wrong("lacks a unit"));
    }
    let (number, unit) = Number::read(trimmed).ok_or_else(|| wrong("is no size"))?;
    let unit = unit.trim_start();
    if let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) {
        return Ok((number, *factor));
    }
    match SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((name, _)) => Err(wrong(&format!("has an unknown unit '{unit}' (meant '{name}'?)"))),
        None => Err(wrong(&format!("has an unknown unit '{}'", cut(unit)))),
    }
}

/// What people wrote, short enough for a message.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Bytes as people read them: three figures and a decimal unit, `2.90 MB`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HumanBytes(pub f64);

impl From<u64> for HumanBytes {
    #[allow(clippy::cast_precision_loss)]
    fn from(bytes: u64) -> Self {
        Self(bytes as f64)
    }
}

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_finite() {
            return f.pad("unknown");
        }
        let mut value = self.0;
        let mut unit = "B";
        for larger in ["kB", "MB", "GB", "TB"] {
            if value.abs() < 999.5 {
                break;
            }
            value /= 1_000.0;
            unit = larger;
        }
        let decimals = if value.fract() == 0.0 && unit == "B" {
            0
        } else if value.abs() < 9.995 {
            2
        } else if value.abs() < 99.95 {
            1
        } else {
            0
        };
        f.pad(&format!("{value:.decimals$} {unit}"))
    }
}

/// A time as people read it and as [`time`] takes it: `1h30m`, `90s` as `1m30s`, `500ms`. Less than a millisecond is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let parts = [
            (millis / 3_600_000, "h"),
            (millis / 60_000 % 60, "m"),
            (millis / 1_000 % 60, "s"),
            (millis % 1_000, "ms"),
        ];
        let mut text = String::new();
        for (value, unit) in parts.iter().filter(|(value, _)| *value > 0) {
            text.push_str(&format!("{value}{unit}"));
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_carry_decimal_and_binary_units() {
        assert_eq!(bytes("10 MB"), Ok(10_000_000));
        assert_eq!(bytes("64 KiB"), Ok(65_536));
        assert_eq!(bytes("1 B"), Ok(1));
        assert_eq!(bytes("1.5GB"), Ok(1_500_000_000));
        assert_eq!(bytes("2 kB"), bytes("2 KB"));
        assert_eq!(fractional_bytes("0.5 B"), Ok(0.5));
    }

    #[test]
    fn a_size_without_its_unit_is_refused_with_a_hint() {
        let message = bytes("500").unwrap_err().to_string();
        assert_eq!(
            message,
            "'500' lacks a unit; a size is written with its unit, as \"10 MB\", \"64 KiB\" or \"1 B\""
        );
        assert!(bytes("5 mb").unwrap_err().to_string().contains("meant 'MB'?"));
        for wrong in ["", "MB", "-5 MB", "5 MB 3", "1.2.3 MB", "0.5 B", "9999999 TB", "5 furlong"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_sums_of_units() {
        for (text, millis) in [
            ("90s", 90_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1 h 30 min", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2d", 172_800_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "90", "h", "1m1h", "1s1s", "5 parsecs", "-1s", "4000d", "1e3s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (83.0, "83 B"),
            (83.14, "83.1 B"),
            (999.9, "1.00 kB"),
            (2_900_000.0, "2.90 MB"),
            (-112_500_000.0, "-112 MB"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(HumanBytes(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (bytes(&text), fractional_bytes(&text), time(&text));
        }

        #[test]
        fn a_shown_time_reads_back(millis in 0_u64..100_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(time(&HumanDuration(duration).to_string()), Ok(duration));
        }
    }
}
