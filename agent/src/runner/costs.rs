//! What the runner itself costs: shown with every run, so that nobody has to guess what the harness adds.

use std::{fs, time::Duration};

/// CPU that this process has used so far, all threads.
pub fn own_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(used.tv_sec), u32::try_from(used.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// The largest RSS of this process so far, in bytes; 0: not known.
pub fn own_peak_rss_bytes() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| kib_of(&text, "VmHWM"))
        .unwrap_or(0)
}

/// The first `key : value` of a text.
fn value_of(text: &str, key: &str) -> Option<String> {
    let mut values = text.lines().filter_map(|line| line.split_once(':'));
    values.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// The first `key: N kB` of a text, in bytes.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    value_of(text, key)?.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        assert!(own_peak_rss_bytes() > 1 << 20);
        assert!(own_cpu() > Duration::ZERO);
    }

    #[test]
    fn odd_text_gives_nothing() {
        assert_eq!(kib_of("VmHWM: much kB", "VmHWM"), None);
        assert_eq!(kib_of("VmHWM:", "VmHWM"), None);
        assert_eq!(kib_of("VmHWM: 18446744073709551615 kB", "VmHWM"), None);
        assert_eq!(kib_of("X: 1 kB\nVmHWM:   2 kB", "VmHWM"), Some(2048));
    }
}
