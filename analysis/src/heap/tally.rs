//! Counts allocations by trace, and knows the exact state at the peak after one pass.
//!
//! Peak by trace: a window of events is kept with the state at its start. When a window that holds a new peak is full, it is
//! put aside whole; at the end the one put aside last is replayed up to the peak. So a peak costs nothing when it rises a
//! thousand times in a window, and memory is bounded by traces and the window.
//!
//! "temporary" follows heaptrack: a free whose allocation index is that of the allocation right before it; after any free the
//! index is 0, so that a second free of index 0 in a row counts as well.

/// Events in a window.
const WINDOW: usize = 1 << 20;

/// What one trace did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Calls.
    pub allocations: u64,
    /// Freed before the next allocation.
    pub temporary: u64,
    /// Bytes live now; below zero only in broken files.
    pub live: i64,
}

/// An allocation index: all allocations of one size by one trace.
#[derive(Clone, Copy, Debug)]
struct Info {
    bytes: u64,
    trace: u32,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Tally {
    infos: Vec<Info>,
    costs: Vec<Cost>,
    /// Of everything.
    pub total: Cost,
    /// Largest `total.live`.
    pub peak: i64,
    /// Time stamp of the peak.
    pub peak_ms: u64,
    /// Last time stamp.
    pub now_ms: u64,
    last: u64,
    base: Vec<i64>,
    window: Vec<u32>,
    peak_in_window: Option<usize>,
    aside: Option<Aside>,
    marks: Vec<Vec<i64>>,
}

/// What all traces did.
#[derive(Debug, Default)]
pub struct Tallied {
    /// With bytes at the peak, by trace.
    pub costs: Vec<(Cost, i64)>,
    /// Bytes live at each mark, by trace; traces that came later are not in it.
    pub marks: Vec<Vec<i64>>,
}

/// A window that holds the highest peak so far.
#[derive(Debug, Default)]
struct Aside {
    base: Vec<i64>,
    window: Vec<u32>,
    upto: usize,
}

impl Tally {
    /// A new allocation index; they are numbered from 0.
    pub fn info(&mut self, bytes: u64, trace: u32) -> u32 {
        let index = u32::try_from(self.infos.len()).unwrap_or(u32::MAX);
        self.infos.push(Info { bytes, trace });
        let needed = usize::try_from(trace).map_or(0, |trace| trace + 1);
        if self.costs.len() < needed {
            self.costs.resize(needed, Cost::default());
        }
        index
    }

    /// An allocation. `None`: no such index.
    #[inline]
    pub fn allocated(&mut self, index: u32) -> Option<()> {
        let info = *self.infos.get(usize::try_from(index).ok()?)?;
        let cost = self.costs.get_mut(usize::try_from(info.trace).ok()?)?;
        let bytes = i64::try_from(info.bytes).ok()?;
        cost.allocations += 1;
        cost.live = cost.live.wrapping_add(bytes);
        self.total.allocations += 1;
        self.total.live = self.total.live.wrapping_add(bytes);
        self.last = u64::from(index);
        self.window.push(index << 1);
        if self.total.live > self.peak {
            self.peak = self.total.live;
            self.peak_ms = self.now_ms;
            self.peak_in_window = Some(self.window.len());
        }
        if self.window.len() == WINDOW {
            self.roll();
        }
        Some(())
    }

    /// A free. `None`: no such index.
    #[inline]
    pub fn freed(&mut self, index: u32) -> Option<()> {
        let info = *self.infos.get(usize::try_from(index).ok()?)?;
        let cost = self.costs.get_mut(usize::try_from(info.trace).ok()?)?;
        let bytes = i64::try_from(info.bytes).ok()?;
        let temporary = u64::from(self.last == u64::from(index));
        self.last = 0;
        cost.temporary += temporary;
        cost.live = cost.live.wrapping_sub(bytes);
        self.total.temporary += temporary;
        self.total.live = self.total.live.wrapping_sub(bytes);
        self.window.push((index << 1) | 1);
        if self.window.len() == WINDOW {
            self.roll();
        }
        Some(())
    }

    /// heaptrack was attached: what came before does not count.
    pub fn restart(&mut self) {
        let infos = std::mem::take(&mut self.infos);
        let costs = vec![Cost::default(); self.costs.len()];
        // A mark before the restart stays one, with nothing live.
        let marks = vec![Vec::new(); self.marks.len()];
        *self = Self { infos, costs, marks, now_ms: self.now_ms, ..Self::default() };
    }

    /// Notes what is live now.
    pub fn mark(&mut self) {
        self.marks.push(self.costs.iter().map(|cost| cost.live).collect());
    }

    fn roll(&mut self) {
        if let Some(upto) = self.peak_in_window.take() {
            let aside = self.aside.get_or_insert_with(Aside::default);
            std::mem::swap(&mut aside.base, &mut self.base);
            std::mem::swap(&mut aside.window, &mut self.window);
            aside.upto = upto;
        }
        self.window.clear();
        self.base.clear();
        self.base.extend(self.costs.iter().map(|cost| cost.live));
    }

    /// What each trace did.
    pub fn finish(mut self) -> Tallied {
        self.roll();
        let mut peaks = vec![0_i64; self.costs.len()];
        if let Some(aside) = &self.aside {
            for (peak, base) in peaks.iter_mut().zip(&aside.base) {
                *peak = *base;
            }
            for event in aside.window.iter().take(aside.upto) {
                let info = usize::try_from(event >> 1).ok().and_then(|index| self.infos.get(index));
                let Some(info) = info else { continue };
                let slot = usize::try_from(info.trace).ok().and_then(|trace| peaks.get_mut(trace));
                let (Some(slot), Ok(bytes)) = (slot, i64::try_from(info.bytes)) else { continue };
                *slot = if event & 1 == 0 {
                    slot.wrapping_add(bytes)
                } else {
                    slot.wrapping_sub(bytes)
                };
            }
        }
        Tallied { costs: self.costs.into_iter().zip(peaks).collect(), marks: self.marks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain way: a copy of all counters at every new peak.
    fn slow(infos: &[(u64, u32)], events: &[(bool, u32)]) -> Vec<i64> {
        let traces = infos.iter().map(|(_, trace)| *trace as usize + 1).max().unwrap_or(0);
        let (mut live, mut at_peak, mut total, mut peak) = (vec![0; traces], vec![0; traces], 0, 0);
        for (is_free, index) in events {
            let (bytes, trace) = infos[*index as usize];
            let bytes = if *is_free {
                -i64::try_from(bytes).unwrap()
            } else {
                i64::try_from(bytes).unwrap()
            };
            live[trace as usize] += bytes;
            total += bytes;
            if total > peak {
                peak = total;
                at_peak.clone_from(&live);
            }
        }
        at_peak
    }

    proptest! {
        #[test]
        fn one_pass_knows_the_exact_peak(
            infos in proptest::collection::vec((1_u64..1000, 0_u32..6), 1..12),
            events in proptest::collection::vec((any::<bool>(), any::<u32>()), 0..300),
            rolls in proptest::collection::vec(0_usize..300, 0..5),
        ) {
            let events: Vec<_> = events.iter().map(|(free, at)| (*free, at % u32::try_from(infos.len()).unwrap())).collect();
            let mut tally = Tally::default();
            for (bytes, trace) in &infos {
                tally.info(*bytes, *trace);
            }
            for (at, (is_free, index)) in events.iter().enumerate() {
                if *is_free { tally.freed(*index) } else { tally.allocated(*index) }.unwrap();
                if rolls.contains(&at) {
                    tally.roll();
                }
            }
            let peaks: Vec<_> = tally.finish().costs.into_iter().map(|(_, peak)| peak).collect();
            prop_assert_eq!(peaks, slow(&infos, &events));
        }
    }

    #[test]
    fn the_quirk_of_index_zero_is_kept() {
        let mut tally = Tally::default();
        tally.info(8, 1);
        tally.info(8, 1);
        for index in [0, 0, 1] {
            tally.allocated(index).unwrap();
        }
        tally.freed(0).unwrap();
        tally.freed(0).unwrap();
        // The first free of 0 came after an allocation of 1; the second after a free, which left index 0 behind.
        assert_eq!(tally.total.temporary, 1);
    }
}
