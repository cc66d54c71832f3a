//! Where a figure moved over many releases: E-divisive (Matteson and James, "A nonparametric approach for multiple change point analysis
//! of multivariate data", 2014), for one figure by release.
//!
//! Segments are split where the energy distance between both sides is largest, and a split counts when it is larger than nearly all of those
//! that the same values in another order have. Orders are drawn with a fixed seed: the same figures give the same answer. A single outlier
//! is no change: both sides have three releases at least.
//!
//! The right side of a split may end before its segment does, as in the paper: a level that goes up and comes back would hide itself otherwise.

use crate::stats::{count, median};

/// Fewer figures say nothing about where they moved.
pub const FEWEST: usize = 10;

/// Figures on each side of a change.
const LEAST_SIDE: usize = 3;

/// Chance of a false change in a series that has none. Ten figures that fall into three and seven can just reach it.
pub const SIGNIFICANCE: f64 = 0.025;

/// Orders drawn for each split.
const ORDERS: u32 = 999;

/// A series longer than this is judged by its last so many figures.
const MOST: usize = 500;

/// A place from which on a figure is another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoint {
    /// Index of the first figure of the new level, among the values given.
    pub at: usize,
    /// Share of orders of the same values that look as much like a change.
    pub p: f64,
    /// Median from the change before (or the beginning) on.
    pub before: f64,
    /// Median up to the next change (or the end).
    pub after: f64,
}

/// The changes of a figure over releases in their order, earliest first. Values that are not finite are left out (a release that was
/// not measured). A change whose medians differ by no more than `margin` (in the figure's own unit; 0: any) is none. Fewer than
/// [`FEWEST`] values: none can be told.
pub fn change_points(values: &[f64], margin: f64) -> Vec<ChangePoint> {
    let (places, known): (Vec<usize>, Vec<f64>) =
        values.iter().copied().enumerate().filter(|(_, value)| value.is_finite()).unzip();
    let skipped = known.len().saturating_sub(MOST);
    let known = known.get(skipped..).unwrap_or(&[]);
    if known.len() < FEWEST {
        return Vec::new();
    }
    let mut random = Random(0x005e_ed0f_50a4);
    // Ends of the segments, rising, from 0 to the number of values; with each inner end its chance.
    let mut ends: Vec<(usize, f64)> = vec![(0, 0.0), (known.len(), 0.0)];
    while let Some((at, distance)) = best(known, &ends) {
        let mut shuffled = known.to_vec();
        let mut as_large = 0_u32;
        for _ in 0..ORDERS {
            for pair in ends.windows(2) {
                if let [(from, _), (to, _)] = pair
                    && let Some(segment) = shuffled.get_mut(*from..*to)
                {
                    random.shuffle(segment);
                }
            }
            let other = best(&shuffled, &ends).map_or(0.0, |(_, distance)| distance);
            as_large += u32::from(other >= distance * (1.0 - 1e-9));
            // Most series have no change, which is plain long before the last order.
            if share(as_large) > SIGNIFICANCE {
                break;
            }
        }
        let p = share(as_large);
        if p > SIGNIFICANCE {
            break;
        }
        let place = ends.partition_point(|(end, _)| *end < at);
        ends.insert(place, (at, p));
    }
    let mut found = Vec::new();
    for three in ends.windows(3) {
        let [(from, _), (at, p), (to, _)] = three else { continue };
        let level = |from: usize, to: usize| known.get(from..to).and_then(median);
        if let (Some(before), Some(after), Some(place)) =
            (level(*from, *at), level(*at, *to), places.get(skipped + at))
            && (after - before).abs() > margin
        {
            found.push(ChangePoint { at: *place, p: *p, before, after });
        }
    }
    found
}

/// The share of all orders, the one that there is included.
fn share(as_large: u32) -> f64 {
    f64::from(1 + as_large) / f64::from(1 + ORDERS)
}

/// The split with the largest distance over all segments; `None`: no segment can be split, or nothing differs.
fn best(values: &[f64], ends: &[(usize, f64)]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for pair in ends.windows(2) {
        let [(from, _), (to, _)] = pair else { continue };
        let Some(segment) = values.get(*from..*to) else { continue };
        if let Some((at, distance)) = split(segment)
            && best.is_none_or(|(_, known)| distance > known)
        {
            best = Some((from + at, distance));
        }
    }
    best
}

/// Where a segment splits best, and m k / (m + k) times the energy distance between the left side and what follows it, up to any place.
fn split(segment: &[f64]) -> Option<(usize, f64)> {
    // Sums of the distances within `from..=at`, by `from`, and within `..at`, by `at`.
    let mut within: Vec<f64> = vec![0.0; segment.len()];
    let mut left: Vec<f64> = Vec::with_capacity(segment.len());
    let mut best: Option<(usize, f64)> = None;
    for (at, value) in segment.iter().enumerate() {
        left.push(within.first().copied().unwrap_or(0.0));
        let mut to = 0.0;
        let before = segment.get(..=at).unwrap_or(&[]);
        for (other, sum) in before.iter().zip(&mut within).rev() {
            to += (value - other).abs();
            *sum += to;
        }
        let all = within.first().copied().unwrap_or(0.0);
        for (from, (right, left)) in within.iter().zip(&left).enumerate().skip(LEAST_SIDE) {
            let Some(after) = (at + 1).checked_sub(from).filter(|n| *n >= LEAST_SIDE) else {
                break;
            };
            let (m, k) = (count(from), count(after));
            let between = (all - left - right) * 2.0 / (m * k);
            let inside = left * 2.0 / (m * (m - 1.0)) + right * 2.0 / (k * (k - 1.0));
            let distance = m * k / (m + k) * (between - inside);
            if distance > 1e-12 * all && best.is_none_or(|(_, known)| distance > known) {
                best = Some((from, distance));
            }
        }
    }
    best
}

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let n = u64::try_from(n.max(1)).unwrap_or(u64::MAX);
        usize::try_from((z ^ (z >> 31)) % n).unwrap_or(0)
    }

    fn shuffle(&mut self, values: &mut [f64]) {
        for at in (1..values.len()).rev() {
            values.swap(at, self.below(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, n: usize) -> Vec<f64> {
        let mut random = Random(seed);
        (0..n).map(|_| (0..12).map(|_| count(random.below(1000))).sum::<f64>() / 1000.0).collect()
    }

    #[test]
    fn a_level_that_comes_back_is_two_changes() {
        let mut values = noise(7, 28);
        values.iter_mut().skip(10).take(10).for_each(|value| *value += 40.0);
        let found: Vec<usize> =
            change_points(&values, 0.0).iter().map(|change| change.at).collect();
        assert_eq!(found, [10, 20]);
    }

    #[test]
    fn a_step_is_found_where_it_is_and_a_step_back_too() {
        let mut values = noise(1, 30);
        values.iter_mut().skip(12).for_each(|value| *value += 6.0);
        let found = change_points(&values, 0.0);
        assert_eq!(found.iter().map(|change| change.at).collect::<Vec<_>>(), [12], "{found:?}");
        assert!(found[0].p <= 0.002 && found[0].after - found[0].before > 4.0);
        values.iter_mut().skip(22).for_each(|value| *value -= 6.0);
        let found = change_points(&values, 0.0);
        assert_eq!(found.iter().map(|change| change.at).collect::<Vec<_>>(), [12, 22]);
    }

    #[test]
    fn ten_releases_with_three_that_leak_are_told_apart() {
        let values = [0.1, 0.0, 0.2, 0.1, 0.0, 0.1, 0.2, 83.0, 84.1, 82.9];
        let found = change_points(&values, 1.0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].at, 7);
        // Nobody cares for a hundredth of a byte.
        let small: Vec<f64> = values.iter().map(|value| value * 0.001).collect();
        assert!(change_points(&small, 1.0).is_empty());
        assert_eq!(change_points(&small, 0.0).len(), 1);
    }

    #[test]
    fn series_without_a_change_are_called_changed_as_rarely_as_promised() {
        let changed = (0..300).filter(|seed| !change_points(&noise(seed * 77, 20), 0.0).is_empty());
        let changed = changed.count();
        assert!(changed <= 14, "{changed} of 300 at 2.5 %");
    }

    #[test]
    fn one_outlier_is_no_change_and_what_was_not_measured_is_left_out() {
        let mut values = noise(5, 24);
        values[11] = 1e6;
        assert!(change_points(&values, 0.0).is_empty());
        let mut values = noise(1, 30);
        values.iter_mut().skip(14).for_each(|value| *value += 6.0);
        values[3] = f64::NAN;
        values[20] = f64::INFINITY;
        assert_eq!(change_points(&values, 0.0)[0].at, 14);
        assert!(change_points(&[1.0; 9], 0.0).is_empty());
        assert!(change_points(&[1.0; 40], 0.0).is_empty());
        assert!(change_points(&[], 0.0).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn neither_units_nor_origin_move_a_change(
            seed: u64, scale in 1e-3_f64..1e9, shift in -1e6_f64..1e6, at in 5_usize..15
        ) {
            let mut values = noise(seed, 20);
            values.iter_mut().skip(at).for_each(|value| *value += 20.0);
            let moved: Vec<f64> = values.iter().map(|value| (value + shift) * scale).collect();
            let places = |values: &[f64]| {
                change_points(values, 0.0).iter().map(|change| change.at).collect::<Vec<_>>()
            };
            prop_assert_eq!(places(&values), places(&moved));
        }

        #[test]
        fn no_values_make_it_panic(values in proptest::collection::vec(any::<f64>(), 0..40)) {
            for change in change_points(&values, 0.0) {
                prop_assert!(change.at < values.len());
            }
        }
    }
}
