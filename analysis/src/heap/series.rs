//! Bytes live over time, in bounded space.

use crate::heap::digest::HeapPoint;

/// Most points kept.
const MOST: usize = 2_048;

/// Keeps the largest value of each interval; doubles the interval whenever there are too many.
#[derive(Debug, Default)]
pub struct Series {
    points: Vec<HeapPoint>,
    interval_ms: u64,
    highest: u64,
}

impl Series {
    /// So many bytes were live at some moment since the last point.
    #[inline]
    pub fn see(&mut self, bytes: u64) {
        self.highest = self.highest.max(bytes);
    }

    /// A time stamp; `bytes` are live now.
    pub fn stamp(&mut self, ms: u64, bytes: u64) {
        self.see(bytes);
        let highest = std::mem::replace(&mut self.highest, bytes);
        match self.points.last_mut() {
            Some(last) if ms < last.ms.saturating_add(self.interval_ms) => {
                last.bytes = last.bytes.max(highest);
            }
            _ => self.points.push(HeapPoint { ms, bytes: highest }),
        }
        if self.points.len() > MOST {
            self.thin();
        }
    }

    /// Starts again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The points.
    pub fn into_points(self) -> Vec<HeapPoint> {
        self.points
    }

    fn thin(&mut self) {
        let (first, last) = (self.points.first(), self.points.last());
        let span = last.zip(first).map_or(0, |(last, first)| last.ms.saturating_sub(first.ms));
        self.interval_ms = self.interval_ms.saturating_mul(2).max(span / (MOST as u64 / 2)).max(1);
        let interval = self.interval_ms;
        let mut kept: Vec<HeapPoint> = Vec::with_capacity(MOST);
        for point in self.points.drain(..) {
            match kept.last_mut() {
                Some(last) if point.ms < last.ms.saturating_add(interval) => {
                    last.bytes = last.bytes.max(point.bytes);
                }
                _ => kept.push(point),
            }
        }
        self.points = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_stamps_stays_small_and_keeps_its_highest() {
        let mut series = Series::default();
        for ms in 0..1_000_000 {
            series.stamp(ms, if ms == 777_777 { 99 } else { 1 });
        }
        let points = series.into_points();
        assert!(points.len() <= MOST && points.len() > MOST / 8, "{}", points.len());
        assert_eq!(points.iter().map(|p| p.bytes).max(), Some(99));
    }
}
