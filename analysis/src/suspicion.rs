//! Whether a process that still runs is suspect of growing: a cheap, bounded watch over its samples while they are taken.
//!
//! Not a verdict. It says that a closer look is worth its cost now, while the process lives; what it finds may be a warm-up, and a slow leak
//! may never reach it. Of each process it keeps at most 48 minima (the lower envelope, which a sawtooth does not lift) of equal stretches of
//! time; when there are more, neighbours become one. Pure: times come in.
//!
//! Suspect is a process with at least 16 stretches whose envelope, after the first quarter, grew by 512 KiB or more, in two thirds of
//! the steps, and in its last half by at least 0.3 of the whole: what levels off is no suspect.

use std::{collections::BTreeMap, time::Duration};

/// Stretches that are kept of a process.
const MOST: usize = 48;

/// Stretches that a suspicion needs.
const FEWEST: usize = 16;

/// Growth that a suspicion needs, bytes.
pub const GROWTH: u64 = 512 << 10;

/// Processes that are watched; more are not.
const PROCESSES: usize = 512;

/// Watches the processes of one loop.
#[derive(Debug)]
pub struct Watch {
    /// The shortest stretch.
    width: Duration,
    processes: BTreeMap<u32, Envelope>,
}

/// Why a process is suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Suspicion {
    /// Its number.
    pub process: u32,
    /// Growth of the envelope, bytes.
    pub grew: u64,
    /// Over this time.
    pub over: Duration,
}

#[derive(Debug)]
struct Envelope {
    width: Duration,
    /// Smallest reading of each whole stretch.
    minima: Vec<u64>,
    /// The stretch under way: when it began, and its smallest reading.
    open: (Duration, u64),
}

// === impl Watch ===

impl Watch {
    /// With stretches of `width` at first.
    pub fn new(width: Duration) -> Self {
        Self { width: width.max(Duration::from_millis(1)), processes: BTreeMap::new() }
    }

    /// Forgets everything: other work begins.
    pub fn reset(&mut self) {
        self.processes.clear();
    }

    /// Takes a reading of every process that lives; those that are not among them are forgotten.
    pub fn note(&mut self, now: Duration, readings: &BTreeMap<u32, u64>) {
        self.processes.retain(|process, _| readings.contains_key(process));
        for (process, bytes) in readings {
            let has_room = self.processes.len() < PROCESSES;
            match self.processes.get_mut(process) {
                Some(envelope) => envelope.note(now, *bytes),
                None if has_room => {
                    let fresh =
                        Envelope { width: self.width, minima: Vec::new(), open: (now, *bytes) };
                    self.processes.insert(*process, fresh);
                }
                None => {}
            }
        }
    }

    /// The suspects, largest growth first.
    pub fn suspects(&self) -> Vec<Suspicion> {
        let suspect = |(process, envelope): (&u32, &Envelope)| envelope.suspicion(*process);
        let mut suspects: Vec<Suspicion> = self.processes.iter().filter_map(suspect).collect();
        suspects.sort_by_key(|found| (std::cmp::Reverse(found.grew), found.process));
        suspects
    }
}

// === impl Envelope ===

impl Envelope {
    fn note(&mut self, now: Duration, bytes: u64) {
        let (began, least) = self.open;
        if now.saturating_sub(began) < self.width {
            self.open = (began, least.min(bytes));
            return;
        }
        self.minima.push(least);
        self.open = (now, bytes);
        if self.minima.len() > MOST {
            self.minima =
                self.minima.chunks(2).filter_map(|pair| pair.iter().min().copied()).collect();
            self.width = self.width.saturating_mul(2);
        }
    }

    fn suspicion(&self, process: u32) -> Option<Suspicion> {
        if self.minima.len() < FEWEST {
            return None;
        }
        // What was never given back since: a sawtooth slower than a stretch has nothing but its last tooth here.
        let mut kept = self.minima.get(self.minima.len() / 4..)?.to_vec();
        for at in (1..kept.len()).rev() {
            if let [before, after] = kept.get_mut(at - 1..=at)? {
                *before = (*before).min(*after);
            }
        }
        let warm = kept.as_slice();
        let (first, last) = (*warm.first()?, *warm.last()?);
        let grew = last.checked_sub(first).filter(|grew| *grew >= GROWTH)?;
        let steps = warm.len().checked_sub(1)?;
        let rises = warm.windows(2).filter(|pair| pair.first() < pair.last()).count();
        let half = *warm.get(steps / 2)?;
        let late = last.saturating_sub(half);
        let is_steady = rises.saturating_mul(3) >= steps.saturating_mul(2)
            && late.saturating_mul(10) >= grew.saturating_mul(3);
        let over = self.width.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        is_steady.then_some(Suspicion { process, grew, over })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When the process was first suspect, in seconds; `None`: never.
    fn first(seconds: u32, bytes: impl Fn(f64) -> f64) -> Option<u32> {
        let mut watch = Watch::new(SECOND);
        (0..seconds).find(|second| {
            let held = bytes(f64::from(*second)).max(0.0) as u64;
            watch.note(SECOND * *second, &BTreeMap::from([(1, held), (2, 1 << 22)]));
            let suspects = watch.suspects();
            assert!(suspects.iter().all(|found| found.process == 1), "{suspects:?}");
            !suspects.is_empty()
        })
    }

    #[test]
    fn a_steady_leak_is_suspect_within_its_first_512_kilobytes() {
        let at = first(3_600, |t| 4e6 + 20e3 * t).unwrap();
        assert!(at <= 60, "{at} s");
        // 64 B/s, the slowest that a day's verdict looks for.
        let at = first(86_400, |t| 4e6 + 64.0 * t).unwrap();
        assert!(at <= 5 * 3_600, "{at} s");
    }

    #[test]
    fn what_is_level_saturates_or_is_given_back_is_no_suspect() {
        assert_eq!(first(7_200, |_| 4e6), None);
        assert_eq!(first(7_200, |t| if t < 30.0 { 4e6 } else { 9e6 }), None, "one step");
        assert_eq!(first(7_200, |t| 4e6 + 3e6 * (t % 7.0)), None, "a sawtooth");
        assert_eq!(
            first(7_200, |t| 4e6 + 400e3 * (1.0 - (-t / 20.0).exp())),
            None,
            "a small cache"
        );
    }

    #[test]
    fn a_process_that_goes_is_forgotten_and_a_number_of_them_is_bounded() {
        let mut watch = Watch::new(SECOND);
        for second in 0..100 {
            let all: BTreeMap<u32, u64> =
                (0..2_000).map(|p| (p, u64::from(second) << 20)).collect();
            watch.note(SECOND * second, &all);
        }
        assert_eq!(watch.suspects().len(), PROCESSES);
        assert!(watch.processes.values().all(|envelope| envelope.minima.len() <= MOST));
        watch.note(SECOND * 101, &BTreeMap::new());
        assert!(watch.suspects().is_empty());
    }
}
