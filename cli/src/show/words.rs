//! Figures and times as people read them.

use jiff::{Timestamp, tz::TimeZone};
use std::time::Duration;

/// Bytes in decimal units: `"5.2 MB"`, `"-340 kB"`, `"83.1 B"`.
pub fn bytes(value: f64) -> String {
    const STEPS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    for (step, unit) in STEPS {
        if value.abs() >= step {
            let scaled = value / step;
            let digits = usize::from(scaled.abs() < 100.0);
            return format!("{scaled:.digits$} {unit}");
        }
    }
    if value.fract().abs() < 0.05 { format!("{value:.0} B") } else { format!("{value:.1} B") }
}

/// `"1 h 04 m"`, `"3 m 10 s"`, `"12 s"`.
pub fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} m {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} m"),
    }
}

/// A wall time in the local time zone, to the second; empty for 0.
pub fn time(unix_us: u64) -> String {
    i64::try_from(unix_us)
        .ok()
        .filter(|us| *us > 0)
        .and_then(|us| Timestamp::from_microsecond(us).ok())
        .map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(bytes(83.12), "83.1 B");
        assert_eq!(bytes(100.0), "100 B");
        assert_eq!(bytes(5_240_000.0), "5.2 MB");
        assert_eq!(bytes(-340_000.0), "-340 kB");
        assert_eq!(duration(Duration::from_secs(3_840)), "1 h 04 m");
        assert_eq!(duration(Duration::from_secs(190)), "3 m 10 s");
        assert_eq!(time(0), "");
    }
}
