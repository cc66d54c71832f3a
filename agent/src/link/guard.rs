//! The load guard: while the host works for others, the agent starts no job, and says so.
//!
//! Looks only while the agent itself runs nothing: the load of its own jobs is no reason against the next one.

use std::fs;

/// Says whether the host is busy.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadGuard {
    /// Most load of the last minute, in percent of the cores; `None`: any.
    pub max_load_percent: Option<u32>,
}

// === impl LoadGuard ===

impl LoadGuard {
    /// Why no job is started now; empty: one may be.
    pub fn busy(self, is_idle: bool) -> String {
        let Some(limit) = self.max_load_percent.filter(|_| is_idle) else { return String::new() };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // A host that does not tell its load is not held back by it.
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        why_busy(&text, cores, limit).unwrap_or_default()
    }
}

/// From the text of `/proc/loadavg`.
fn why_busy(loadavg: &str, cores: usize, limit_percent: u32) -> Option<String> {
    let load: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "no host has that many cores")]
    let percent = load / cores.max(1) as f64 * 100.0;
    (percent > f64::from(limit_percent)).then(|| {
        format!(
            "load {load:.2} of the last minute on {cores} cores is {percent:.0} %, above {limit_percent} %"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_above_the_limit_is_said() {
        assert_eq!(why_busy("1.50 1.0 0.9 1/200 4242\n", 2, 100), None);
        assert_eq!(
            why_busy("3.00 1.0 0.9 1/200 4242\n", 2, 100).unwrap(),
            "load 3.00 of the last minute on 2 cores is 150 %, above 100 %"
        );
        for text in ["", "x 1 2", "NaN 1 2", "\u{0}"] {
            assert_eq!(why_busy(text, 0, 1), None, "{text}");
        }
        assert_eq!(LoadGuard { max_load_percent: None }.busy(true), "");
        assert_eq!(LoadGuard { max_load_percent: Some(0) }.busy(false), "", "its own jobs");
    }
}
