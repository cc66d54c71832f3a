//! A trend as people read it: names of its series and words for its changes, for the command line and for pages.

use crate::compare::figure_words;
use crate::figures::bytes_text;
use crate::releases::{LevelChange, ReleaseSeries, ReleaseTrend};

/// Said where no level changed.
pub const NO_CHANGE: &str =
    "No change of level is seen (that takes ten runs, three of them at the new level).";

// === impl ReleaseTrend ===

impl ReleaseTrend {
    /// Said where there is nothing; `None`: there is something.
    pub fn lacks(&self) -> Option<String> {
        self.series.is_empty().then(|| {
            format!(
                "{}: of {} runs none has such a figure; leave filters out to see what there is",
                self.workload, self.runs
            )
        })
    }
}

// === impl ReleaseSeries ===

impl ReleaseSeries {
    /// The figure and the tool; with its length where there are several.
    pub fn name(&self, trend: &ReleaseTrend) -> String {
        let mut name = String::new();
        if !self.metric.phase.is_empty() {
            name.push_str(&format!("{} / ", self.metric.phase));
        }
        if !self.metric.subject.is_empty() {
            name.push_str(&format!("{}, ", self.metric.subject));
        }
        name.push_str(figure_words(&self.metric.what));
        if trend.series.iter().all(|other| other.length == self.length) {
            return format!("{name} ({})", self.tool);
        }
        // As figures are kept: `Some(60s) at scale 1`.
        let length = self.length.replace("Some(", "").replace(')', "");
        format!("{name} ({}, {})", self.tool, length.replace("None", "its own length"))
    }
}

// === impl LevelChange ===

impl LevelChange {
    /// "5.2 MB before, 9.1 MB from e@2 on (run …)"
    pub fn text(&self) -> String {
        format!(
            "{} before, {} from {} on (run {})",
            bytes_text(self.before),
            bytes_text(self.after),
            self.build,
            self.run
        )
    }
}
