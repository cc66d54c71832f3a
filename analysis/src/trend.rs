//! Growth of processes over time: bytes per second, whoever causes it.
//!
//! Series are cut into windows, judged one by one and pooled; processes that are replaced are aligned by age. A growth that a warm-up, a step, a
//! sawtooth, a load or a plateau explains is no leak. What the data guard refuses is never `pass`: missing evidence does not acquit.
//! The steps and their constants stand in docs/verdict.md. Deterministic; the order of the series does not matter.
//!
//! Floors inside, lowest first: `student`, `window` · `batch` · `saturation`, `pool` · `curve` · `lives` · `steady`, `recycled` · this file.

mod batch;
mod curve;
mod lives;
mod pool;
mod reason;
mod recycled;
mod saturation;
mod steady;
mod student;
mod window;

pub use curve::{Call, Guard};

use crate::result::Verdict;
use crate::stats::count;
use std::cmp::Ordering;

/// One slot: a place in the workload that one process fills, or one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// The host.
    pub host: &'a str,
    /// The slot's name, unique on the host.
    pub slot: &'a str,
    /// Seconds on any origin that all series share; must rise.
    pub t_s: &'a [f64],
    /// RssAnon plus swap, bytes; NaN: this reading is missing.
    pub bytes: &'a [f64],
    /// Which process it was, by reading; empty: one process all along.
    pub pid: &'a [u64],
    /// What the host did meanwhile.
    pub covariates: Option<&'a Covariates>,
}

/// What a host did, on a clock of its own (same origin as the series).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Covariates {
    /// Seconds, rising.
    pub t_s: Vec<f64>,
    /// Operations done so far, one per time; empty: not known.
    pub ops: Vec<f64>,
    /// Rows held, one per time; empty: not known.
    pub rows: Vec<f64>,
}

/// What is declared and what counts as growth.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bytes per row that the workload may hold by design.
    pub allow_bytes_per_row: f64,
    /// Memory limit of all processes together, bytes.
    pub mem_limit_bytes: Option<f64>,
    /// Growth over a whole run below which nothing is called a leak, bytes: 4 MiB for processes, 256 KiB for context bytes in use.
    pub least_growth_bytes: f64,
    /// How many looks at this run share the chance of a false alarm; at least 1.
    pub looks: u32,
}

/// What the trend comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Trend {
    /// `Fail`, `Pass` or `Inconclusive`.
    pub verdict: Verdict,
    /// Slope of the pool, bytes per second and process.
    pub bytes_per_second: Option<f64>,
    /// Its lower bound, by which it was judged.
    pub low: Option<f64>,
    /// Its upper bound.
    pub high: Option<f64>,
    /// Mean slope with its 95 % interval between processes, or between hosts where there are four and more.
    pub between: Option<Between>,
    /// Slots that fail by themselves, in the order of hosts and slots.
    pub guilty: Vec<SlotTrend>,
    /// Threshold, bytes per second.
    pub threshold: f64,
    /// Smallest growth of one process that would have failed, bytes per second; `None`: none would have.
    pub detects_bytes_per_second: Option<f64>,
    /// The pool's slope by the operations of one host.
    pub bytes_per_operation: Option<f64>,
    /// Seconds from the end of the run until the memory limit is reached at this growth; at most ten times the run's length, else `None`.
    pub limit_in_s: Option<f64>,
    /// Length of the run, seconds.
    pub length_s: f64,
    /// Every slot, in the order of hosts and slots.
    pub slots: Vec<SlotTrend>,
    /// One sentence or two for people.
    pub reason: String,
}

/// A mean and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// Bytes per second.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Of so many units.
    pub units: usize,
    /// Whether hosts are the units, and not processes.
    pub by_host: bool,
}

/// One slot, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotTrend {
    /// The host.
    pub host: String,
    /// The slot.
    pub slot: String,
    /// What it comes to; `None`: not judged by itself.
    pub call: Option<Call>,
    /// Bytes per second; `None`: not known.
    pub bytes_per_second: Option<f64>,
    /// Lower bound.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// Why it was not judged, or what held a suspicion back; empty: neither.
    pub why: String,
}

/// What a part of the slots (steady or recycled) comes to.
struct Part {
    pool: Option<curve::Judged>,
    /// Threshold by which the pool was judged.
    threshold: f64,
    slots: Vec<SlotTrend>,
    verdict: Verdict,
    /// Smallest growth that would have shown; infinite: none.
    detects: f64,
    /// Readings of the shortest slot where they are enough to fail and too few to pass.
    few: Option<usize>,
}

/// A series on the run's clock, past the data guard or not.
#[derive(Clone, Debug)]
struct Slot<'a> {
    series: Series<'a>,
    /// Seconds since the run began.
    t: Vec<f64>,
    /// Why it is not judged.
    refused: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_bytes_per_row: 0.0,
            mem_limit_bytes: None,
            least_growth_bytes: 4.0 * 1_048_576.0,
            looks: 1,
        }
    }
}

impl Covariates {
    /// Whether its clock can be used.
    fn rises(&self) -> bool {
        self.t_s.iter().all(|t| t.is_finite()) && self.t_s.is_sorted_by(|a, b| a < b)
    }
}

impl SlotTrend {
    fn unjudged(series: &Series<'_>, why: String) -> Self {
        Self {
            host: series.host.to_owned(),
            slot: series.slot.to_owned(),
            call: None,
            bytes_per_second: None,
            low: None,
            high: None,
            why,
        }
    }

    /// `host/slot`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.host, self.slot)
    }
}

impl Settings {
    /// Bytes per second that count as a leak in a run of so many seconds.
    pub fn threshold(&self, length_s: f64) -> f64 {
        (self.least_growth_bytes / length_s).max(64.0)
    }
}

/// Judges the growth of all series of a run.
pub fn judge(series: &[Series<'_>], settings: &Settings) -> Trend {
    let mut series: Vec<Series<'_>> = series.to_vec();
    series.sort_by(|a, b| (a.host, a.slot).cmp(&(b.host, b.slot)));
    let times = || series.iter().flat_map(|series| series.t_s).copied().filter(|t| t.is_finite());
    let origin = times().fold(f64::INFINITY, f64::min);
    let length = times().fold(f64::NEG_INFINITY, f64::max) - origin;
    if !(length > 0.0 && length.is_finite()) {
        return reason::unjudged(&series, "there are no two readings at different times");
    }
    let mut slots: Vec<Slot<'_>> = series
        .iter()
        .map(|series| Slot {
            series: *series,
            t: series.t_s.iter().map(|t| t - origin).collect(),
            refused: disorder(series),
        })
        .collect();
    let shortest =
        slots.iter().filter(|slot| slot.refused.is_none()).map(|slot| slot.t.len()).min();
    let grain = steady::Grain::of(shortest.unwrap_or(0));
    for slot in &mut slots {
        if slot.refused.is_none() {
            slot.refused = steady::thin(slot, grain, length);
        }
    }
    if slots.iter().any(|slot| slot.refused.is_none()) && slots.iter().all(is_constant) {
        return reason::unjudged(
            &series,
            "no reading ever changed; a sampler that has died looks the same",
        );
    }
    let (recycled, steady): (Vec<_>, Vec<_>) = slots.into_iter().partition(is_recycled);
    let mut parts = Vec::new();
    if !steady.is_empty() {
        parts.push(steady::judge(&steady, settings, grain, length, origin));
    }
    if !recycled.is_empty() {
        parts.push(recycled::judge(&recycled, settings, length, origin));
    }
    reason::combine(parts, &series, settings, length)
}

/// What makes a series unusable, whatever it shows.
fn disorder(series: &Series<'_>) -> Option<String> {
    if series.t_s.len() != series.bytes.len()
        || (!series.pid.is_empty() && series.pid.len() != series.t_s.len())
    {
        return Some("its columns are of different length".to_owned());
    }
    for pair in series.t_s.windows(2) {
        if let [before, after] = pair {
            match after.partial_cmp(before) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => return Some(format!("two readings at {before:.3} s")),
                Some(Ordering::Less) => {
                    return Some(format!("its clock goes back from {before:.3} s to {after:.3} s"));
                }
                None => return Some("a time is not a number".to_owned()),
            }
        }
    }
    if series.t_s.iter().any(|t| !t.is_finite()) {
        return Some("a time is not a number".to_owned());
    }
    if series.bytes.iter().any(|bytes| bytes.is_infinite() || *bytes < 0.0) {
        return Some("a reading is infinite or negative".to_owned());
    }
    None
}

fn is_recycled(slot: &Slot<'_>) -> bool {
    slot.series.pid.windows(2).any(|pair| pair.first() != pair.last())
}

fn is_constant(slot: &Slot<'_>) -> bool {
    let mut present = slot.series.bytes.iter().filter(|bytes| !bytes.is_nan());
    let first = present.next();
    present.all(|bytes| Some(bytes) == first)
}

/// A finite number or nothing.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Share of slots whose slope is positive; 1 where none has one.
fn rising(slots: &[SlotTrend]) -> f64 {
    let judged: Vec<_> = slots.iter().filter(|slot| slot.call.is_some()).collect();
    if judged.is_empty() {
        return 1.0;
    }
    let rising =
        judged.iter().filter(|slot| slot.bytes_per_second.is_some_and(|slope| slope > 0.0));
    count(rising.count()) / count(judged.len())
}
