//! Growth over time of a run's processes: which series are judged together, over what time, and whether there is enough to speak.
//!
//! Under `plain` only. Judged together are the replicas of one workload, build and arm: the workers of each loop phase, and apart from them
//! the main session and the server's other processes from the first loop's start to the last one's end. Short loops
//! are silent here: what grows within minutes the rounds find, and a warm-up cannot be told from a leak so soon. Sessions that
//! reconnect more often than rounds can follow are judged from 180 readings on.
//!
//! What the control arm's processes grow by, where they provably do, is taken off at the pace of the operations.

mod slots;

use crate::evidence::JobEvidence;
use crate::facts::{Control, Facts};
use crate::result::Verdict;
use crate::stats::{bytes, count, median};
use crate::trend::{Covariates, Series, Settings, Trend, judge};
use pgsoak_proto::evidence::PhaseKind;
use pgsoak_proto::job::{Arm, Tool};
use slots::{Slot, Window};

/// Fewest readings that are due.
const FEWEST_READINGS: f64 = 180.0;

/// Shorter loops are left to the rounds.
const SHORTEST_S: f64 = 3_600.0 * 0.98;

/// Share by which replicas may differ in length and still be judged together.
const ALIKE: f64 = 0.01;

/// Whose series.
#[derive(
    Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// Backends of a loop's workers.
    Workers,
    /// The main session and the server's own processes.
    Server,
}

/// Series that were judged together.
#[derive(Clone, Debug)]
pub struct OverTime {
    /// Places of the jobs among the run's.
    pub jobs: Vec<usize>,
    /// Whose series.
    pub whose: Whose,
    /// The loop phase; empty: several.
    pub phase: String,
    /// What they come to.
    pub trend: Trend,
    /// What was taken off for the control arm, bytes per second and process.
    pub taken_off: f64,
    /// Operations per second of one worker; `None`: not known.
    pub operations_per_second: Option<f64>,
    /// Whether the workers' sessions were too short-lived for the rounds.
    pub reconnects: bool,
}

/// One job's part.
struct Part<'a> {
    at: usize,
    facts: &'a Facts<'a>,
    window: Window,
    workers: u32,
}

/// What the control arm grows by.
#[derive(Clone, Copy)]
struct Pace {
    bytes_per_second: f64,
    operations_per_second: Option<f64>,
}

/// What one slot holds once it has settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The loop phase; empty: over all of them (server processes).
    pub phase: String,
    /// The slot.
    pub slot: String,
    /// Median of its readings over the last 60 % of the time.
    pub bytes: f64,
}

/// Fewest readings of a level.
const LEVEL_READINGS: usize = 5;

/// The levels of a job's slots; empty for tools other than `plain`, whose own memory would count.
pub fn levels(job: &JobEvidence) -> Vec<Level> {
    if job.spec.tool != Tool::Plain {
        return Vec::new();
    }
    let loops = job.attempt.phases.iter().filter(|span| span.started.kind == PhaseKind::Loop);
    let mut found: Vec<(String, Vec<Slot>, f64)> = loops
        .filter_map(|span| {
            let window = slots::of_phase(job, span)?;
            let slots = slots::workers(job, span.started.workers, window);
            Some((span.started.name.clone(), slots, window.seconds()))
        })
        .collect();
    if let Some(window) = slots::of_loops(job) {
        found.push((String::new(), slots::server(job, window), window.seconds()));
    }
    found
        .into_iter()
        .flat_map(|(phase, slots, length)| {
            slots.into_iter().filter_map(move |slot| {
                let from = slot.t_s.partition_point(|t| *t < 0.4 * length);
                let settled = slot.bytes.get(from..).filter(|held| held.len() >= LEVEL_READINGS)?;
                Some(Level {
                    phase: phase.clone(),
                    slot: slot.name.clone(),
                    bytes: median(settled)?,
                })
            })
        })
        .collect()
}

impl OverTime {
    /// The arm that all its jobs play.
    pub fn arm(&self, all: &[Facts<'_>]) -> Option<Arm> {
        self.first(all).map(|facts| facts.job.spec.arm)
    }

    /// The first of its jobs.
    pub fn first<'a, 'b>(&self, all: &'a [Facts<'b>]) -> Option<&'a Facts<'b>> {
        all.get(*self.jobs.first()?)
    }

    /// Whether it judged the workers of this job in this phase.
    pub fn judges(&self, at: usize, phase: &str) -> bool {
        self.whose == Whose::Workers && self.phase == phase && self.jobs.contains(&at)
    }
}

/// Judges every group of series that has enough to be judged; in the order of the plan.
pub fn over_time(all: &[Facts<'_>]) -> Vec<OverTime> {
    over_time_for(all, 1)
}

/// The same where so many looks at a run share the chance of a false alarm.
pub fn over_time_for(all: &[Facts<'_>], looks: u32) -> Vec<OverTime> {
    let mut judged: Vec<OverTime> = Vec::new();
    for arms in [&[Arm::Control][..], &[Arm::Candidate, Arm::Baseline]] {
        let mut seen: Vec<usize> = Vec::new();
        for (at, facts) in all.iter().enumerate() {
            if !arms.contains(&facts.job.spec.arm) || seen.contains(&at) || !is_judged(facts) {
                continue;
            }
            let replicas: Vec<(usize, &Facts<'_>)> = all
                .iter()
                .enumerate()
                .filter(|(_, other)| other.is_same_subject(facts) && is_judged(other))
                .collect();
            seen.extend(replicas.iter().map(|(at, _)| *at));
            for phase in loops(facts) {
                let parts = replicas.iter().filter_map(|(at, facts)| of_phase(*at, facts, phase));
                groups(&mut judged, all, (Whose::Workers, phase), looks, parts.collect());
            }
            let parts = replicas.iter().filter_map(|(at, facts)| {
                let window = slots::of_loops(facts.job)?;
                Some(Part { at: *at, facts, window, workers: 0 })
            });
            let phase = match loops(facts)[..] {
                [phase] => phase,
                _ => "",
            };
            groups(&mut judged, all, (Whose::Server, phase), looks, parts.collect());
        }
    }
    judged.sort_by_key(|group| (group.jobs.first().copied(), group.whose));
    judged
}

fn is_judged(facts: &Facts<'_>) -> bool {
    facts.job.spec.tool == Tool::Plain && facts.is_sound()
}

fn loops<'a>(facts: &'a Facts<'_>) -> Vec<&'a str> {
    let phases = facts.job.attempt.phases.iter();
    let loops = phases.filter(|span| span.started.kind == PhaseKind::Loop);
    loops.map(|span| span.started.name.as_str()).collect()
}

fn of_phase<'a>(at: usize, facts: &'a Facts<'a>, phase: &str) -> Option<Part<'a>> {
    let span = facts.job.attempt.phases.iter().find(|span| span.started.name == phase)?;
    let window = slots::of_phase(facts.job, span)?;
    Some(Part { at, facts, window, workers: span.started.workers })
}

/// Judges the parts together, or each by itself where they are of different length.
fn groups(
    judged: &mut Vec<OverTime>,
    all: &[Facts<'_>],
    (whose, phase): (Whose, &str),
    looks: u32,
    parts: Vec<Part<'_>>,
) {
    let lengths = || parts.iter().map(|part| part.window.seconds());
    let (least, most) =
        (lengths().fold(f64::INFINITY, f64::min), lengths().fold(0.0_f64, f64::max));
    let mut parts: Vec<Part<'_>> =
        parts.into_iter().filter(|part| speaks(part, whose, phase)).collect();
    // The names of agents, not the order of the plan, decide where a series stands.
    parts.sort_by(|a, b| a.facts.job.agent.cmp(&b.facts.job.agent).then(a.at.cmp(&b.at)));
    if most - least > ALIKE * most {
        for part in parts {
            judged.extend(group(all, judged, (whose, phase), looks, &[part]));
        }
    } else {
        judged.extend(group(all, judged, (whose, phase), looks, &parts));
    }
}

/// Whether there is enough to be judged.
fn speaks(part: &Part<'_>, whose: Whose, phase: &str) -> bool {
    let length = part.window.seconds();
    let every = part.facts.job.spec.sample_every.as_secs_f64().max(1e-3);
    // Readings that are due, not those that came: a sampler that fell silent is no reason to be silent too.
    if length / every < FEWEST_READINGS {
        return false;
    }
    length >= SHORTEST_S || (whose == Whose::Workers && reconnects(part.facts, phase))
}

/// Whether the rounds could not judge a phase's sessions since they reconnect.
fn reconnects(facts: &Facts<'_>, phase: &str) -> bool {
    facts
        .rounds
        .iter()
        .filter(|rounds| rounds.phase == phase)
        .any(|rounds| rounds.judged < rounds.sessions && rounds.reconnecting > 0)
}

fn group(
    all: &[Facts<'_>],
    judged: &[OverTime],
    (whose, phase): (Whose, &str),
    looks: u32,
    parts: &[Part<'_>],
) -> Option<OverTime> {
    let first = parts.first()?;
    let pace = pace(all, judged, whose, phase, first.facts);
    let mut made: Vec<(String, Covariates, Vec<Slot>)> = Vec::with_capacity(parts.len());
    for part in parts {
        let job = part.facts.job;
        let mut slots = match whose {
            Whose::Workers => slots::workers(job, part.workers, part.window),
            Whose::Server => slots::server(job, part.window),
        };
        let covariates = slots::covariates(job, part.window);
        if let Some(pace) = pace {
            let own = operations_per_second(&covariates, part.workers);
            slots.iter_mut().for_each(|slot| take_off(slot, pace, own));
        }
        // Two replicas on one agent are two hosts to the statistics.
        let twins =
            parts.iter().take(made.len()).filter(|other| other.facts.job.agent == job.agent);
        let host = match twins.count() {
            0 => job.agent.clone(),
            n => format!("{} ({})", job.agent, n + 1),
        };
        made.push((host, covariates, slots));
    }
    let series: Vec<Series<'_>> = made
        .iter()
        .flat_map(|(host, covariates, slots)| {
            slots.iter().map(move |slot| Series {
                host,
                slot: &slot.name,
                t_s: &slot.t_s,
                bytes: &slot.bytes,
                pid: &slot.pid,
                covariates: Some(covariates),
            })
        })
        .collect();
    if series.is_empty() {
        return None;
    }
    let memory = parts.iter().filter_map(|part| part.facts.job.attempt.started.as_ref());
    let limit: f64 = memory.map(|started| bytes(started.memory_bytes)).sum();
    let settings = Settings {
        // Rows are the sessions' to hold.
        allow_bytes_per_row: match whose {
            Whose::Workers => first.facts.job.workload.allow_bytes_per_row,
            Whose::Server => 0.0,
        },
        mem_limit_bytes: (limit > 0.0).then_some(limit),
        // The two kinds of series share the chance of a false alarm.
        looks: looks.saturating_mul(2),
        ..Settings::default()
    };
    let mut trend = judge(&series, &settings);
    let length = parts.iter().map(|part| part.window.seconds()).fold(0.0, f64::max);
    if trend.verdict == Verdict::Inconclusive && is_still(&made, length) {
        still(&mut trend, &settings, length);
    }
    let rates: Vec<f64> = made
        .iter()
        .zip(parts)
        .filter_map(|((_, covariates, _), part)| operations_per_second(covariates, part.workers))
        .collect();
    Some(OverTime {
        jobs: parts.iter().map(|part| part.at).collect(),
        whose,
        phase: phase.to_owned(),
        trend,
        taken_off: pace.map_or(0.0, |pace| pace.bytes_per_second),
        operations_per_second: (!rates.is_empty())
            .then(|| rates.iter().sum::<f64>() / count(rates.len())),
        reconnects: parts.iter().any(|part| reconnects(part.facts, phase)),
    })
}

/// Of one worker.
fn operations_per_second(covariates: &Covariates, workers: u32) -> Option<f64> {
    let ends = |values: &[f64]| Some(values.last()? - values.first()?);
    let (done, time) = (ends(&covariates.ops)?, ends(&covariates.t_s)?);
    (done > 0.0 && time > 0.0).then(|| done / time / f64::from(workers.max(1)))
}

/// The proven growth of the control arm's processes of the same kind; `None`: there is none to take off.
fn pace(
    all: &[Facts<'_>],
    judged: &[OverTime],
    whose: Whose,
    phase: &str,
    facts: &Facts<'_>,
) -> Option<Pace> {
    if facts.control != Control::Used {
        return None;
    }
    let control = judged.iter().find(|group| {
        group.whose == whose
            && (group.phase == phase || whose == Whose::Server)
            && group.jobs.iter().filter_map(|at| all.get(*at)).any(|control| {
                control.job.spec.arm == Arm::Control && control.is_same_workload(facts)
            })
    })?;
    if control.trend.verdict != Verdict::Fail {
        return None;
    }
    Some(Pace {
        bytes_per_second: control.trend.bytes_per_second.filter(|slope| *slope > 0.0)?,
        operations_per_second: control.operations_per_second.filter(|_| whose == Whose::Workers),
    })
}

fn take_off(slot: &mut Slot, pace: Pace, own: Option<f64>) {
    // A control that is twice as fast grows twice as fast.
    let share = match (pace.operations_per_second, own) {
        (Some(control), Some(own)) if control > 0.0 => own / control,
        _ => 1.0,
    };
    for (held, t) in slot.bytes.iter_mut().zip(&slot.t_s) {
        *held = (*held - share * pace.bytes_per_second * t).max(0.0);
    }
}

/// Whether nothing ever changed though every process was read all along and some worked: memory at rest, and no dead sampler.
fn is_still(made: &[(String, Covariates, Vec<Slot>)], length: f64) -> bool {
    let mut slots = made.iter().flat_map(|(.., slots)| slots).peekable();
    let gap = 0.02 * length;
    slots.peek().is_some()
        && made.iter().flat_map(|(.., slots)| slots).any(|slot| slot.worked)
        && slots.all(|slot| {
            let ends = slot.t_s.first().zip(slot.t_s.last());
            count(slot.t_s.len()) >= FEWEST_READINGS
                && ends.is_some_and(|(first, last)| *first <= gap && length - last <= gap)
                && slot.t_s.is_sorted_by(|a, b| a < b && b - a <= gap)
                && slot.bytes.windows(2).all(|pair| pair.first() == pair.last())
                && slot.pid.windows(2).all(|pair| pair.first() == pair.last())
        })
}

fn still(trend: &mut Trend, settings: &Settings, length: f64) {
    let threshold = settings.threshold(length);
    trend.verdict = Verdict::Pass;
    trend.threshold = threshold;
    trend.length_s = length;
    trend.bytes_per_second = Some(0.0);
    trend.detects_bytes_per_second = Some(2.0 * threshold);
    trend.reason = format!("not one page more or less in any of {} processes", trend.slots.len());
}
