//! Fewer samples of the same time.

use crate::evidence::{HostSamples, ProcessSamples, Samples};

impl Samples {
    /// Every `kept_of`-th tick of these, and at least the first; the others are counted in `left_out`. `None`: there is nothing to
    /// leave out, since it was done before or there is one tick only.
    #[must_use]
    pub fn thinned(&self, kept_of: u64) -> Option<Self> {
        let mut rows: Vec<usize> = self
            .ticks
            .iter()
            .enumerate()
            .filter(|(_, tick)| tick.is_multiple_of(kept_of.max(1)))
            .map(|(row, _)| row)
            .collect();
        if rows.is_empty() {
            rows.push(0);
        }
        if self.left_out > 0 || rows.len() >= self.ticks.len() {
            return None;
        }
        let all = |column: &[u64]| pick(column, &rows, 0);
        let HostSamples {
            available_kib,
            pressure_some_us,
            load_centi,
            cgroup_kib,
            operations,
            clock_ms,
        } = &self.host;
        let left_out = self.ticks.len().saturating_sub(rows.len());
        Some(Self {
            ticks: all(&self.ticks),
            elapsed_us: all(&self.elapsed_us),
            processes: self.processes.iter().filter_map(|process| process.picked(&rows)).collect(),
            host: HostSamples {
                available_kib: all(available_kib),
                pressure_some_us: all(pressure_some_us),
                load_centi: all(load_centi),
                cgroup_kib: all(cgroup_kib),
                operations: all(operations),
                clock_ms: all(clock_ms),
            },
            left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
        })
    }
}

impl ProcessSamples {
    /// The values in these rows of the batch; `None`: it has none there.
    fn picked(&self, rows: &[usize]) -> Option<Self> {
        let Self {
            process,
            first_row,
            rss_anon_kib,
            rss_file_kib,
            rss_shmem_kib,
            swap_kib,
            data_kib,
            cpu_us,
            minor_faults,
            major_faults,
            threads,
            pss_anon_kib,
        } = self;
        let first = usize::try_from(*first_row).ok()?;
        let length = [rss_anon_kib, cpu_us, data_kib].iter().map(|column| column.len()).max()?;
        let inside = |row: &&usize| (first..first.saturating_add(length)).contains(*row);
        let before = rows.iter().filter(|row| **row < first).count();
        rows.iter().find(inside)?;
        let pick = |column: &[u64]| pick(column, rows, first);
        Some(Self {
            process: *process,
            first_row: u32::try_from(before).ok()?,
            rss_anon_kib: pick(rss_anon_kib),
            rss_file_kib: pick(rss_file_kib),
            rss_shmem_kib: pick(rss_shmem_kib),
            swap_kib: pick(swap_kib),
            data_kib: pick(data_kib),
            cpu_us: pick(cpu_us),
            minor_faults: pick(minor_faults),
            major_faults: pick(major_faults),
            threads: pick(threads),
            pss_anon_kib: pick(pss_anon_kib),
        })
    }
}

/// The values of a column, which begins at row `first`, in these rows; an empty column stays empty.
fn pick(column: &[u64], rows: &[usize], first: usize) -> Vec<u64> {
    rows.iter().filter_map(|row| column.get(row.checked_sub(first)?).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_tick_stays_and_the_others_are_counted() {
        let ticks: Vec<u64> = (25..60).collect();
        let late = ProcessSamples {
            process: 2,
            first_row: 17,
            rss_anon_kib: (42..60).collect(),
            ..ProcessSamples::default()
        };
        let early = ProcessSamples {
            process: 1,
            first_row: 0,
            rss_anon_kib: vec![25, 26],
            ..ProcessSamples::default()
        };
        let samples = Samples {
            elapsed_us: ticks.iter().map(|tick| tick * 1_000).collect(),
            processes: vec![early, late],
            host: HostSamples { operations: ticks.clone(), ..HostSamples::default() },
            ticks,
            left_out: 0,
        };
        let thinned = samples.thinned(10).unwrap();
        assert_eq!(thinned.ticks, [30, 40, 50]);
        assert_eq!(thinned.elapsed_us, [30_000, 40_000, 50_000]);
        assert_eq!(thinned.host.operations, [30, 40, 50]);
        assert_eq!(thinned.left_out, 32);
        // Who lived between two kept ticks has no sample any more.
        assert_eq!(thinned.processes.len(), 1);
        assert_eq!(
            (thinned.processes[0].first_row, thinned.processes[0].rss_anon_kib.as_slice()),
            (2, &[50][..])
        );
        assert_eq!(thinned.thinned(10), None, "once is enough");
    }

    #[test]
    fn a_batch_keeps_at_least_one_tick() {
        let samples =
            Samples { ticks: vec![1, 2, 3], elapsed_us: vec![1, 2, 3], ..Samples::default() };
        let thinned = samples.thinned(10).unwrap();
        assert_eq!((thinned.ticks, thinned.left_out), (vec![1], 2));
        assert_eq!(
            Samples { ticks: vec![7], elapsed_us: vec![7], ..Samples::default() }.thinned(10),
            None
        );
    }
}
