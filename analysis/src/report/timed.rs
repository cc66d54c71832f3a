//! The charts of memory over time, one for each `plain` job: the largest processes, and the lines through those that were judged over time.

use crate::evidence::{JobEvidence, ProcessSeries};
use crate::facts::Facts;
use crate::figures::{bytes_text, rate_text};
use crate::over_time::{OverTime, Whose};
use crate::report::chart::{Across, Area, Band, Chart, Line};
use crate::report::charts::{Key, POINTS, figure};
use crate::stats::{Point, bytes, count};
use pgsoak_proto::evidence::PhaseKind;
use pgsoak_proto::job::Tool;
use std::collections::BTreeMap;

/// Most processes of a chart over time.
const PROCESSES: usize = 14;
/// Most fits of a chart.
const FITS: usize = 6;

/// One chart for each `plain` job, in the order of the plan.
pub(super) fn over_time(all: &[Facts<'_>]) -> Vec<String> {
    let grown = crate::over_time::over_time(all);
    let plain = all.iter().enumerate().filter(|(_, facts)| facts.job.spec.tool == Tool::Plain);
    plain.filter_map(|(at, facts)| timed(facts.job, at, &grown)).collect()
}

/// What is drawn in one colour: a worker's backends, or a process of the server.
struct Drawn<'a> {
    label: String,
    /// Colours are given to workers only.
    worker: Option<u32>,
    most: u64,
    lives: Vec<&'a ProcessSeries>,
}

fn timed(job: &JobEvidence, at: usize, grown: &[OverTime]) -> Option<String> {
    let mut by_label: BTreeMap<(u8, u32, String), Drawn<'_>> = BTreeMap::new();
    for series in job.attempt.processes.values() {
        let most = series.rss_anon_bytes.iter().copied().max().unwrap_or(0);
        if series.elapsed_us.len() < 2 {
            continue;
        }
        let (key, label, worker) = match series.who.session {
            Some(0) => ((0, 0, String::new()), "main session".to_owned(), None),
            Some(worker) => ((1, worker, String::new()), format!("worker {worker}"), Some(worker)),
            None => {
                let kind = series.who.backend_type.clone();
                ((2, 0, kind.clone()), kind, None)
            }
        };
        let drawn = by_label.entry(key).or_insert_with(|| Drawn {
            label,
            worker,
            most: 0,
            lives: Vec::new(),
        });
        drawn.most = drawn.most.max(most);
        drawn.lives.push(series);
    }
    let all = by_label.len();
    let mut drawn: Vec<Drawn<'_>> = by_label.into_values().collect();
    drawn.sort_by_key(|drawn| std::cmp::Reverse(drawn.most));
    drawn.truncate(PROCESSES);
    let mut chart = Chart {
        title: format!("RssAnon over time, {} of {}", job.workload.name, job.spec.build),
        across: Across::Seconds,
        bands: bands(job),
        areas: Vec::new(),
        lines: Vec::new(),
    };
    let mut keys: Vec<(u32, Key)> = Vec::new();
    let mut server = 0_usize;
    for drawn in drawn.iter().rev() {
        let class = match drawn.worker {
            Some(worker) => format!("w{}", (worker.saturating_sub(1)) % 6),
            None if drawn.label == "main session" => "main".to_owned(),
            None => "server".to_owned(),
        };
        let lives = drawn.lives.len();
        let points = (POINTS / lives.max(1)).max(6);
        let name = match lives {
            1 => format!("{}, at most {}", drawn.label, bytes_text(bytes(drawn.most))),
            n => format!(
                "{} ({n} processes), at most {}",
                drawn.label,
                bytes_text(bytes(drawn.most))
            ),
        };
        for life in drawn.lives.iter().take(10 * POINTS / points) {
            chart.lines.push(Line {
                points: envelope(life, points),
                class: class.clone(),
                name: name.clone(),
            });
        }
        match drawn.worker {
            Some(worker) if worker <= 6 => keys.push((worker, (drawn.label.clone(), class))),
            Some(_) => {}
            None if class == "main" => keys.push((0, (drawn.label.clone(), class))),
            None => server += 1,
        }
    }
    keys.sort();
    let mut keys: Vec<Key> = keys.into_iter().map(|(_, key)| key).collect();
    let judged: Vec<String> = grown
        .iter()
        .filter(|group| group.jobs.contains(&at))
        .filter_map(|group| fitted(&mut chart, job, group, &drawn))
        .collect();
    if !chart.areas.is_empty() {
        keys.push(("fit, with its interval".to_owned(), "fit".to_owned()));
    }
    if server > 0 {
        keys.push(("server processes".to_owned(), "server".to_owned()));
    }
    let spec = &job.spec;
    let left = match all.saturating_sub(drawn.len()) {
        0 => String::new(),
        n => format!(" {n} smaller ones are left out."),
    };
    let mut says = judged;
    says.push(format!(
        "RssAnon and swap, a reading every {} s, the least and the largest of each stretch.{left} Hover over a line for its name.",
        spec.sample_every.as_secs_f64()
    ));
    let replica =
        if spec.replica > 0 { format!(", replica {}", spec.replica + 1) } else { String::new() };
    let title = format!(
        "{}, {} ({}) on {}{replica}",
        job.workload.name,
        spec.build,
        spec.arm,
        if job.agent.is_empty() { "no agent" } else { &job.agent }
    );
    figure(&title, &chart, &keys, &says)
}

/// The lines through what was judged over time, with their intervals, and the beginning that was not; says what they come to.
fn fitted(
    chart: &mut Chart,
    job: &JobEvidence,
    group: &OverTime,
    drawn: &[Drawn<'_>],
) -> Option<String> {
    let spans = || {
        let phases = job.attempt.phases.iter();
        phases.filter(|span| {
            span.started.kind == PhaseKind::Loop
                && (group.phase.is_empty() || span.started.name == group.phase)
        })
    };
    let begun = bytes(spans().map(|span| span.started_elapsed_us).min()?) / 1e6;
    let end = bytes(spans().filter_map(|span| span.ended_elapsed_us).max()?) / 1e6;
    let trend = &group.trend;
    // Judged from 15 % of its time on, at the earliest.
    let from = end - 0.85 * trend.length_s;
    if from <= begun || trend.length_s <= 0.0 {
        return None;
    }
    if !chart.bands.iter().any(|band| band.class == "warm") {
        chart.bands.push(Band {
            from: begun,
            to: from,
            label: "warm-up".to_owned(),
            class: "warm",
        });
    }
    let own = trend.slots.iter().filter(|slot| slot.host == job.agent);
    let guilty: Vec<&str> = trend
        .guilty
        .iter()
        .filter(|slot| slot.host == job.agent)
        .map(|slot| slot.slot.as_str())
        .collect();
    for slot in
        own.filter(|slot| guilty.is_empty() || guilty.contains(&slot.slot.as_str())).take(FITS)
    {
        let (Some(slope), Some(low), Some(high)) = (slot.bytes_per_second, slot.low, slot.high)
        else {
            continue;
        };
        let Some(drawn) = drawn.iter().find(|drawn| drawn.label == slot.slot) else { continue };
        let held: Vec<Point> = drawn
            .lives
            .iter()
            .flat_map(|life| life.elapsed_us.iter().zip(&life.rss_anon_bytes))
            .map(|(at, held)| Point { x: bytes(*at) / 1e6, y: bytes(*held) })
            .filter(|point| point.x >= from && point.x <= end)
            .collect();
        let n = count(held.len());
        if held.is_empty() {
            continue;
        }
        let x = held.iter().map(|point| point.x).sum::<f64>() / n;
        let y = held.iter().map(|point| point.y).sum::<f64>() / n;
        let line = |slope: f64| -> Vec<Point> {
            [from, end].map(|at| Point { x: at, y: (y + slope * (at - x)).max(0.0) }).to_vec()
        };
        let name = format!("{}: {} to {} per second", slot.slot, rate_text(low), rate_text(high));
        chart.areas.push(Area::between(&line(high), &line(low), name));
        chart.lines.push(Line {
            points: line(slope),
            class: "fit".to_owned(),
            name: format!("{}: fit, {} per second", slot.slot, rate_text(slope)),
        });
    }
    let whose = match group.whose {
        Whose::Workers => "Workers",
        Whose::Server => "Server processes",
    };
    Some(format!("{whose}: {}.", trend.reason))
}

/// Loop phases, shaded in turns.
fn bands(job: &JobEvidence) -> Vec<Band> {
    let seconds = |us: u64| bytes(us) / 1e6;
    job.attempt
        .phases
        .iter()
        .filter_map(|span| {
            Some(Band {
                from: seconds(span.started_elapsed_us),
                to: seconds(span.ended_elapsed_us?),
                label: span.started.name.clone(),
                class: match span.started.kind {
                    PhaseKind::Loop => "loop",
                    PhaseKind::Once => "once",
                },
            })
        })
        .collect()
}

/// The least and the largest reading of each stretch, in their order.
fn envelope(series: &ProcessSeries, most: usize) -> Vec<Point> {
    let points: Vec<Point> = series
        .elapsed_us
        .iter()
        .zip(&series.rss_anon_bytes)
        .map(|(at, held)| Point { x: bytes(*at) / 1e6, y: bytes(*held) })
        .collect();
    let size = (2 * points.len()).div_ceil(most.max(2)).max(1);
    if points.len() <= most {
        return points;
    }
    points
        .chunks(size)
        .flat_map(|stretch| {
            let least = stretch.iter().enumerate().min_by(|a, b| a.1.y.total_cmp(&b.1.y));
            let largest = stretch.iter().enumerate().max_by(|a, b| a.1.y.total_cmp(&b.1.y));
            let mut ends: Vec<(usize, &Point)> = least.into_iter().chain(largest).collect();
            ends.sort_by_key(|(at, _)| *at);
            ends.dedup_by_key(|(at, _)| *at);
            ends.into_iter().map(|(_, point)| *point).collect::<Vec<_>>()
        })
        .collect()
}
