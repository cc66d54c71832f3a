//! Rows under way to a frame: preallocated columns that are filled, lent out, and emptied.

use crate::probe::{HostSample, ProcessSample};
use pgsoak_proto::evidence::{Body, ProcessSamples, Samples};
use std::time::Duration;

/// Most rows of a batch.
pub(super) const MAX_ROWS: usize = 64;

/// Most readings of a batch. Ten columns of at most 9 bytes each keep a frame below 1 MiB, and ordinary ones far below.
const MAX_READINGS: usize = 8192;

/// The batch under way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    samples: Samples,
    /// Emptied columns that keep their memory.
    spare: Vec<ProcessSamples>,
    /// Counts batches, so that a place in an earlier one is not taken for one in this.
    generation: u64,
    opened_at: Duration,
    readings: usize,
}

/// Where a process's columns are in the batch under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    generation: u64,
    index: usize,
}

// === impl Batch ===

impl Batch {
    /// An empty batch with memory for `processes` processes.
    pub(super) fn new(processes: usize) -> Self {
        let mut batch = Self { generation: 1, ..Self::default() };
        batch.spare.resize_with(processes, empty_columns);
        let samples = &mut batch.samples;
        samples.processes.reserve(processes);
        samples.ticks.reserve(MAX_ROWS);
        samples.elapsed_us.reserve(MAX_ROWS);
        let host = &mut samples.host;
        for column in [
            &mut host.available_kib,
            &mut host.pressure_some_us,
            &mut host.load_centi,
            &mut host.cgroup_kib,
            &mut host.operations,
            &mut host.clock_ms,
        ] {
            column.reserve(MAX_ROWS);
        }
        batch
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> usize {
        self.samples.ticks.len()
    }

    /// When the first row was begun; zero when there is none.
    pub(super) fn opened_at(&self) -> Duration {
        self.opened_at
    }

    /// Whether there is no room for another row like the last.
    pub(super) fn is_full(&self) -> bool {
        self.rows() >= MAX_ROWS
            || self.readings.saturating_add(self.samples.processes.len()) > MAX_READINGS
    }

    /// Begins the row of a tick.
    pub(super) fn begin_row(&mut self, tick: u64, elapsed: Duration) {
        if self.rows() == 0 {
            self.opened_at = elapsed;
        }
        self.samples.ticks.push(tick);
        self.samples.elapsed_us.push(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a process's reading to the last row. A process that was left out of a row goes on in new columns.
    pub(super) fn push(&mut self, place: &mut Place, process: u32, sample: &ProcessSample) {
        let row = self.rows().saturating_sub(1);
        let goes_on = place.generation == self.generation
            && self
                .samples
                .processes
                .get(place.index)
                .is_some_and(|columns| columns.process == process && end_row(columns) == row);
        if !goes_on {
            *place = Place { generation: self.generation, index: self.samples.processes.len() };
            let mut columns = self.spare.pop().unwrap_or_else(empty_columns);
            columns.process = process;
            columns.first_row = u32::try_from(row).unwrap_or(u32::MAX);
            self.samples.processes.push(columns);
        }
        let Some(columns) = self.samples.processes.get_mut(place.index) else { return };
        columns.rss_anon_kib.push(sample.rss_anon_kib);
        columns.rss_file_kib.push(sample.rss_file_kib);
        columns.rss_shmem_kib.push(sample.rss_shmem_kib);
        columns.swap_kib.push(sample.swap_kib);
        columns.data_kib.push(sample.data_kib);
        columns.cpu_us.push(sample.cpu_us);
        columns.minor_faults.push(sample.minor_faults);
        columns.major_faults.push(sample.major_faults);
        columns.threads.push(sample.threads);
        columns.pss_anon_kib.push(0);
        self.readings += 1;
    }

    /// Puts Pss_Anon beside the last reading of the process at `place`.
    pub(super) fn set_pss(&mut self, place: Place, kib: u64) {
        if place.generation == self.generation
            && let Some(columns) = self.samples.processes.get_mut(place.index)
            && let Some(last) = columns.pss_anon_kib.last_mut()
        {
            *last = kib;
        }
    }

    /// Adds the host to the last row.
    pub(super) fn push_host(&mut self, host: &HostSample, operations: u64) {
        let columns = &mut self.samples.host;
        columns.available_kib.extend(host.available_kib);
        columns.pressure_some_us.extend(host.pressure_some_us);
        columns.load_centi.extend(host.load_centi);
        columns.cgroup_kib.extend(host.cgroup_kib);
        columns.clock_ms.extend(host.clock_ms);
        columns.operations.push(operations);
    }

    /// Lends the batch out as a frame's body and empties it. Without rows nothing is lent.
    pub(super) fn seal<T>(&mut self, lend: impl FnOnce(&Body) -> T) -> Option<T> {
        let rows = self.rows();
        if rows == 0 {
            return None;
        }
        let host = &mut self.samples.host;
        for column in [
            &mut host.available_kib,
            &mut host.pressure_some_us,
            &mut host.load_centi,
            &mut host.cgroup_kib,
            &mut host.clock_ms,
        ] {
            // One row without a number leaves the column out: a made-up value would be worse.
            if column.len() != rows {
                column.clear();
            }
        }
        for columns in &mut self.samples.processes {
            if columns.pss_anon_kib.iter().all(|&kib| kib == 0) {
                columns.pss_anon_kib.clear();
            }
        }
        let body = Body::Samples(std::mem::take(&mut self.samples));
        let lent = lend(&body);
        if let Body::Samples(samples) = body {
            self.samples = samples;
        }
        self.clear();
        Some(lent)
    }

    fn clear(&mut self) {
        self.generation += 1;
        self.readings = 0;
        self.opened_at = Duration::ZERO;
        let Samples { ticks, elapsed_us, processes, host, left_out: _ } = &mut self.samples;
        ticks.clear();
        elapsed_us.clear();
        for column in [
            &mut host.available_kib,
            &mut host.pressure_some_us,
            &mut host.load_centi,
            &mut host.cgroup_kib,
            &mut host.operations,
            &mut host.clock_ms,
        ] {
            column.clear();
        }
        for mut columns in processes.drain(..) {
            for column in columns_of(&mut columns) {
                column.clear();
            }
            self.spare.push(columns);
        }
    }
}

fn end_row(columns: &ProcessSamples) -> usize {
    usize::try_from(columns.first_row)
        .unwrap_or(usize::MAX)
        .saturating_add(columns.rss_anon_kib.len())
}

fn columns_of(columns: &mut ProcessSamples) -> [&mut Vec<u64>; 10] {
    let ProcessSamples {
        process: _,
        first_row: _,
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
    } = columns;
    [
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
    ]
}

fn empty_columns() -> ProcessSamples {
    let mut columns = ProcessSamples::default();
    for column in columns_of(&mut columns) {
        column.reserve(MAX_ROWS);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kib: u64) -> ProcessSample {
        ProcessSample { rss_anon_kib: kib, ..ProcessSample::default() }
    }

    fn sealed(batch: &mut Batch) -> Samples {
        batch
            .seal(|body| match body {
                Body::Samples(samples) => samples.clone(),
                other => panic!("{other:?}"),
            })
            .unwrap()
    }

    fn row(batch: &mut Batch, tick: u64) {
        batch.begin_row(tick, Duration::from_secs(tick));
    }

    #[test]
    fn processes_come_and_go_within_a_batch() {
        let mut batch = Batch::new(1);
        let (mut first, mut second) = (Place::default(), Place::default());
        row(&mut batch, 7);
        batch.push(&mut first, 0, &sample(10));
        row(&mut batch, 8);
        batch.push(&mut first, 0, &sample(11));
        batch.push(&mut second, 1, &sample(20));
        row(&mut batch, 9);
        batch.push(&mut second, 1, &sample(21));
        let samples = sealed(&mut batch);
        assert_eq!(samples.ticks, [7, 8, 9]);
        assert_eq!(samples.elapsed_us, [7_000_000, 8_000_000, 9_000_000]);
        let got: Vec<_> = samples
            .processes
            .iter()
            .map(|p| (p.process, p.first_row, p.rss_anon_kib.clone()))
            .collect();
        assert_eq!(got, [(0, 0, vec![10, 11]), (1, 1, vec![20, 21])]);
    }

    #[test]
    fn a_process_left_out_of_a_row_goes_on_in_new_columns() {
        let mut batch = Batch::new(1);
        let mut place = Place::default();
        for tick in 0..4 {
            row(&mut batch, tick);
            if tick != 1 {
                batch.push(&mut place, 5, &sample(tick));
            }
        }
        let samples = sealed(&mut batch);
        let got: Vec<_> =
            samples.processes.iter().map(|p| (p.first_row, p.rss_anon_kib.clone())).collect();
        assert_eq!(got, [(0, vec![0]), (2, vec![2, 3])]);
    }

    #[test]
    fn a_sealed_batch_leaves_nothing_behind() {
        let mut batch = Batch::new(1);
        let mut place = Place::default();
        row(&mut batch, 0);
        batch.push(&mut place, 3, &sample(1));
        batch.set_pss(place, 99);
        batch.push_host(&HostSample { available_kib: Some(5), ..HostSample::default() }, 12);
        let first = sealed(&mut batch);
        assert_eq!(first.processes[0].pss_anon_kib, [99]);
        assert_eq!((first.host.available_kib, first.host.operations), (vec![5], vec![12]));
        assert!(batch.seal(|_| ()).is_none());
        // A place of the batch before is none in this one.
        batch.set_pss(place, 77);
        row(&mut batch, 1);
        batch.push(&mut place, 3, &sample(2));
        batch.push_host(&HostSample::default(), 13);
        let second = sealed(&mut batch);
        assert_eq!(second.processes[0].rss_anon_kib, [2]);
        assert!(second.processes[0].pss_anon_kib.is_empty());
        assert!(second.host.available_kib.is_empty());
        assert_eq!(second.host.operations, [13]);
    }

    #[test]
    fn a_batch_is_full_by_rows_or_by_readings() {
        let mut batch = Batch::new(0);
        for tick in 0..64 {
            assert!(!batch.is_full());
            row(&mut batch, tick);
        }
        assert!(batch.is_full());
        let mut batch = Batch::new(0);
        row(&mut batch, 0);
        let mut places = vec![Place::default(); 5000];
        for (process, place) in (0..).zip(&mut places) {
            batch.push(place, process, &sample(1));
        }
        assert!(batch.is_full());
    }
}
