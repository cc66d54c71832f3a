//! Sample columns: delta-coded on the wire, absolute values in memory.
//!
//! A column is one pass over a slice each way. Values above `i64::MAX` have no wire form and are cut there.

use crate::convert::{InvalidMessage, Within, invalid};
use crate::evidence::{HostSamples, ProcessSamples, Samples};
use crate::wire;
use std::collections::HashMap;

/// Absolute values to differences: the first stands as it is.
fn differences(values: &[u64]) -> Vec<i64> {
    let mut before = 0;
    values
        .iter()
        .map(|value| {
            let value = i64::try_from(*value).unwrap_or(i64::MAX);
            // Both lie in 0 ..= i64::MAX, so the difference cannot overflow.
            let difference = value - before;
            before = value;
            difference
        })
        .collect()
}

/// Differences to absolute values.
///
/// # Errors
/// When a value would be negative or above `i64::MAX`.
fn absolutes(differences: &[i64], field: &str) -> Result<Vec<u64>, InvalidMessage> {
    let mut value = 0_i64;
    let mut values = Vec::with_capacity(differences.len());
    for (row, difference) in differences.iter().enumerate() {
        let next = value.checked_add(*difference);
        let Some((next, absolute)) = next.and_then(|n| Some((n, u64::try_from(n).ok()?))) else {
            return Err(invalid(format_args!("{field}[{row}]"), "leaves the range of its values"));
        };
        value = next;
        values.push(absolute);
    }
    Ok(values)
}

/// The samples of a batch: decoded, columns of one length, rows within the batch, ticks rising.
///
/// # Errors
/// When any of that does not hold.
pub fn sample_columns(batch: &wire::SampleBatch) -> Result<Samples, InvalidMessage> {
    let wire::SampleBatch { first_tick, tick_deltas, elapsed_us, processes, host, left_out } =
        batch;
    let ticks = ticks(*first_tick, tick_deltas)?;
    let elapsed_us = absolutes(elapsed_us, "elapsed_us")?;
    if elapsed_us.len() != ticks.len() {
        return Err(unequal("elapsed_us", elapsed_us.len(), ticks.len()));
    }
    if !elapsed_us.is_sorted() {
        return Err(invalid("elapsed_us", "goes back"));
    }
    let mut next_rows = HashMap::with_capacity(processes.len());
    let mut decoded = Vec::with_capacity(processes.len());
    for (index, columns) in processes.iter().enumerate() {
        let samples = process(columns, ticks.len(), &mut next_rows)
            .within(format_args!("processes[{index}]"))?;
        decoded.push(samples);
    }
    let host = match host {
        Some(columns) => host_columns(columns, ticks.len()).within("host")?,
        None => HostSamples::default(),
    };
    Ok(Samples { ticks, elapsed_us, processes: decoded, host, left_out: *left_out })
}

fn unequal(field: &str, length: usize, expected: usize) -> InvalidMessage {
    invalid(field, format_args!("has {length} values where {expected} are due"))
}

fn ticks(first: u64, deltas: &[i64]) -> Result<Vec<u64>, InvalidMessage> {
    let mut ticks = absolutes(deltas, "tick_deltas")?;
    match ticks.first() {
        None => return Err(invalid("tick_deltas", "has no row")),
        Some(0) => {}
        Some(_) => return Err(invalid("tick_deltas[0]", "is not 0")),
    }
    if !ticks.is_sorted_by(|a, b| a < b) {
        return Err(invalid("tick_deltas", "does not rise"));
    }
    for tick in &mut ticks {
        *tick = first.checked_add(*tick).ok_or_else(|| invalid("first_tick", "is too large"))?;
    }
    Ok(ticks)
}

/// `next_rows`: for each process, the first row that no earlier piece of this batch has.
fn process(
    columns: &wire::ProcessColumns,
    rows: usize,
    next_rows: &mut HashMap<u32, usize>,
) -> Result<ProcessSamples, InvalidMessage> {
    let wire::ProcessColumns {
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
    } = columns;
    let samples = ProcessSamples {
        process: *process,
        first_row: *first_row,
        rss_anon_kib: absolutes(rss_anon_kib, "rss_anon_kib")?,
        rss_file_kib: absolutes(rss_file_kib, "rss_file_kib")?,
        rss_shmem_kib: absolutes(rss_shmem_kib, "rss_shmem_kib")?,
        swap_kib: absolutes(swap_kib, "swap_kib")?,
        data_kib: absolutes(data_kib, "data_kib")?,
        cpu_us: absolutes(cpu_us, "cpu_us")?,
        minor_faults: absolutes(minor_faults, "minor_faults")?,
        major_faults: absolutes(major_faults, "major_faults")?,
        threads: absolutes(threads, "threads")?,
        pss_anon_kib: absolutes(pss_anon_kib, "pss_anon_kib")?,
    };
    let lengths = [
        ("rss_anon_kib", samples.rss_anon_kib.len()),
        ("rss_file_kib", samples.rss_file_kib.len()),
        ("rss_shmem_kib", samples.rss_shmem_kib.len()),
        ("swap_kib", samples.swap_kib.len()),
        ("data_kib", samples.data_kib.len()),
        ("cpu_us", samples.cpu_us.len()),
        ("minor_faults", samples.minor_faults.len()),
        ("major_faults", samples.major_faults.len()),
        ("threads", samples.threads.len()),
        ("pss_anon_kib", samples.pss_anon_kib.len()),
    ];
    let length = lengths.iter().map(|(_, length)| *length).max().unwrap_or(0);
    if let Some((field, odd)) = lengths.iter().find(|(_, l)| *l != 0 && *l != length) {
        return Err(unequal(field, *odd, length));
    }
    let first = usize::try_from(*first_row).unwrap_or(usize::MAX);
    let end = first.saturating_add(length);
    if end > rows {
        return Err(invalid(
            "first_row",
            format_args!("{first_row} and {length} values reach past the {rows} rows of the batch"),
        ));
    }
    let next = next_rows.entry(*process).or_insert(0);
    if first < *next {
        return Err(invalid("first_row", format_args!("{first_row} was read before")));
    }
    *next = end;
    Ok(samples)
}

fn host_columns(columns: &wire::HostColumns, rows: usize) -> Result<HostSamples, InvalidMessage> {
    let wire::HostColumns {
        available_kib,
        pressure_some_us,
        load_centi,
        cgroup_kib,
        operations,
        clock_ms,
    } = columns;
    let column = |differences: &[i64], field: &str| {
        let values = absolutes(differences, field)?;
        if values.is_empty() || values.len() == rows {
            Ok(values)
        } else {
            Err(unequal(field, values.len(), rows))
        }
    };
    Ok(HostSamples {
        available_kib: column(available_kib, "available_kib")?,
        pressure_some_us: column(pressure_some_us, "pressure_some_us")?,
        load_centi: column(load_centi, "load_centi")?,
        cgroup_kib: column(cgroup_kib, "cgroup_kib")?,
        operations: column(operations, "operations")?,
        clock_ms: column(clock_ms, "clock_ms")?,
    })
}

impl TryFrom<wire::SampleBatch> for Samples {
    type Error = InvalidMessage;

    fn try_from(wire: wire::SampleBatch) -> Result<Self, Self::Error> {
        sample_columns(&wire)
    }
}

impl From<&Samples> for wire::SampleBatch {
    fn from(samples: &Samples) -> Self {
        let Samples { ticks, elapsed_us, processes, host, left_out } = samples;
        let first_tick = ticks.first().copied().unwrap_or(0);
        let since: Vec<u64> = ticks.iter().map(|tick| tick.saturating_sub(first_tick)).collect();
        Self {
            first_tick,
            tick_deltas: differences(&since),
            elapsed_us: differences(elapsed_us),
            processes: processes.iter().map(Into::into).collect(),
            host: (*host != HostSamples::default()).then(|| host.into()),
            left_out: *left_out,
        }
    }
}

impl From<&ProcessSamples> for wire::ProcessColumns {
    fn from(samples: &ProcessSamples) -> Self {
        let ProcessSamples {
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
        } = samples;
        Self {
            process: *process,
            first_row: *first_row,
            rss_anon_kib: differences(rss_anon_kib),
            rss_file_kib: differences(rss_file_kib),
            rss_shmem_kib: differences(rss_shmem_kib),
            swap_kib: differences(swap_kib),
            data_kib: differences(data_kib),
            cpu_us: differences(cpu_us),
            minor_faults: differences(minor_faults),
            major_faults: differences(major_faults),
            threads: differences(threads),
            pss_anon_kib: differences(pss_anon_kib),
        }
    }
}

impl From<&HostSamples> for wire::HostColumns {
    fn from(host: &HostSamples) -> Self {
        let HostSamples {
            available_kib,
            pressure_some_us,
            load_centi,
            cgroup_kib,
            operations,
            clock_ms,
        } = host;
        Self {
            available_kib: differences(available_kib),
            pressure_some_us: differences(pressure_some_us),
            load_centi: differences(load_centi),
            cgroup_kib: differences(cgroup_kib),
            operations: differences(operations),
            clock_ms: differences(clock_ms),
        }
    }
}
