//! A comparison as people read it: the cells of its table, for the command line and for pages.

use crate::compare::{SetComparison, SetRow, Side};
use crate::figures::bytes_text;
use crate::result::Compared;

/// Figures that are kept of every job, as programs call them.
pub const FIGURES: [&str; 8] = [
    "level",
    "growth",
    "peak",
    "residual",
    "bytes_per_second",
    "bytes_per_operation",
    "lost_bytes_per_operation",
    "kept_bytes_per_operation",
];

/// What a figure is; one that has no words of its own as programs call it.
pub fn figure_words(what: &str) -> &str {
    match what {
        "bytes_per_operation" => "per operation",
        "bytes_per_second" => "per second",
        "lost_bytes_per_operation" => "lost per operation",
        "kept_bytes_per_operation" => "kept per operation",
        "growth" => "growth at rest",
        "residual" => "left after the drop",
        other => other,
    }
}

// === impl Compared ===

impl Compared {
    /// The word for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Better => "better",
            Self::Same => "same",
            Self::CantTell => "can't tell",
        }
    }
}

// === impl SetComparison ===

impl SetComparison {
    /// Rows that somebody wants to see, and what is said of those that are left out (empty: none is).
    pub fn shown(&self) -> (Vec<&SetRow>, String) {
        let (shown, quiet): (Vec<&SetRow>, Vec<&SetRow>) =
            self.rows.iter().partition(|row| row.is_worth_a_line());
        let says = match quiet.len() {
            0 => String::new(),
            n => format!(
                "{n} figures of one run on one host each differ by less than their margin and are left out \
                 (`pgsoak compare --json` has them); two runs or hosts on each side would tell."
            ),
        };
        (shown, says)
    }

    /// Why the answer is what it is, without the word that it begins with.
    pub fn reason(&self) -> &str {
        self.sentence.strip_prefix(self.answer.label()).unwrap_or(&self.sentence)
    }
}

// === impl Side ===

impl Side {
    /// "e@2 (e@2; 3 runs on a, b)"
    pub fn text(&self) -> String {
        let runs = match self.runs.len() {
            1 => "1 run".to_owned(),
            n => format!("{n} runs"),
        };
        format!("{} ({}; {runs} on {})", self.label, self.builds.join(", "), self.hosts.join(", "))
    }
}

// === impl SetRow ===

impl SetRow {
    /// What is decided, or lies beyond its margin, or is not for want of runs.
    fn is_worth_a_line(&self) -> bool {
        let middle = self.low.zip(self.high).map(|(low, high)| f64::midpoint(low, high));
        self.answer != Compared::CantTell
            || self.pairs != 1
            || self.what == "bytes_per_operation"
            || self.message.contains("budget")
            || middle.zip(self.margin).is_none_or(|(middle, margin)| middle.abs() > margin)
    }

    /// "load / steady (plain)"
    pub fn place(&self) -> String {
        match self.phase.as_str() {
            "" => format!("{} ({})", self.workload, self.tool),
            phase => format!("{} / {phase} ({})", self.workload, self.tool),
        }
    }

    /// Which figure, of what.
    pub fn figure(&self) -> String {
        let what = figure_words(&self.what);
        match self.subject.as_str() {
            "" => what.to_owned(),
            subject if self.what == "outcome" => subject.to_owned(),
            subject => format!("{subject}, {what}"),
        }
    }

    /// The figures before and after.
    pub fn amounts(&self) -> (String, String) {
        let text = |figure: Option<f64>| match (figure, self.what.as_str()) {
            (None, _) => "–".to_owned(),
            (Some(share), "outcome") => format!("{:.0} %", 100.0 * share),
            (Some(bytes), _) => bytes_text(bytes),
        };
        (text(self.before), text(self.after))
    }

    /// In percent for levels and amounts, else in bytes.
    pub fn difference(&self) -> String {
        let is_rate = self.what.contains("bytes_per");
        let text = |value: f64| match is_rate {
            true => bytes_text(value),
            false => format!("{value:+.1} %"),
        };
        match (self.low, self.high) {
            (Some(low), Some(high)) if (high - low).abs() < 0.05 => text(low),
            (Some(low), Some(high)) => format!("{} to {}", text(low), text(high)),
            _ => "–".to_owned(),
        }
    }
}
