//! Bytes, rates and counts as people read them.

use crate::stats::bytes;

/// "1.5 MB", "−20 kB", "117 B": decimal units, as the files that people write.
pub fn bytes_text(figure: f64) -> String {
    let size = figure.abs();
    let sign = if figure < 0.0 && size >= 0.05 { "−" } else { "" };
    let (scaled, unit) = match size {
        s if s >= 1e12 => (s / 1e12, "TB"),
        s if s >= 999.5e6 => (s / 1e9, "GB"),
        s if s >= 999.5e3 => (s / 1e6, "MB"),
        s if s >= 999.5 => (s / 1e3, "kB"),
        s => return format!("{sign}{} B", plain(s)),
    };
    let digits = if scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{sign}{scaled:.digits$} {unit}")
}

/// Bytes per operation: one more digit where the figure is small.
pub fn rate_text(figure: f64) -> String {
    if figure.abs() >= 999.5 {
        return bytes_text(figure);
    }
    let sign = if figure <= -0.05 { "−" } else { "" };
    format!("{sign}{:.1} B", figure.abs())
}

fn plain(size: f64) -> String {
    if size.fract() < 0.05 || size >= 100.0 { format!("{size:.0}") } else { format!("{size:.1}") }
}

/// A whole number with thousands separators.
pub fn count_text(figure: f64) -> String {
    let digits = format!("{:.0}", figure.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with thousands separators.
pub fn number_text(figure: u64) -> String {
    count_text(bytes(figure))
}

/// Microseconds since 1970 as `2026-11-21 22:54:03 UTC` (Hinnant's civil-from-days).
pub fn time_text(unix_us: u64) -> String {
    let seconds = unix_us / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

/// With a capital at its start.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(bytes_text(117.0), "117 B");
        assert_eq!(bytes_text(0.0), "0 B");
        assert_eq!(bytes_text(1500.0), "1.50 kB");
        assert_eq!(bytes_text(-2.0e6), "−2.00 MB");
        assert_eq!(bytes_text(999_999.0), "1.00 MB");
        assert_eq!(bytes_text(123.4e6), "123 MB");
        assert_eq!(rate_text(112.04), "112.0 B");
        assert_eq!(rate_text(-0.01), "0.0 B");
        assert_eq!(rate_text(4096.0), "4.10 kB");
        assert_eq!(count_text(1_234_567.0), "1,234,567");
        assert_eq!(count_text(12.0), "12");
        assert_eq!(time_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time_text(1_795_301_643_000_000), "2026-11-21 22:54:03 UTC");
    }
}
