//! The charts of a run: memory at rest over operations for each loop phase, and memory over time for each `plain` job.
//!
//! Each says below what it rests on. Long series are thinned: at rest to means of neighbours, over time to the least and the largest
//! reading of each stretch, so that no peak is lost. A run of many jobs gets its first charts; the rest is counted.

use crate::evidence::RunEvidence;
use crate::facts::{Facts, gather};
use crate::figures::{count_text, rate_text};
use crate::report::chart::{Across, Area, Band, Chart, Line};
use crate::report::html::escaped;
use crate::report::memory::stacks;
use crate::report::timed::over_time;
use crate::rounds::{Growth, PhaseSeries, Shape, Subject, phase_series};
use crate::stats::{Point, count, thinned};
use pgsoak_proto::job::{Arm, Tool};
use std::collections::BTreeMap;

/// Most points of a line.
pub(super) const POINTS: usize = 260;
/// Most workers that are drawn one by one.
const SESSIONS: usize = 8;
/// Most charts of each kind.
const CHARTS: usize = 24;

/// All charts, as HTML; empty: there is nothing to draw.
pub(super) fn charts(evidence: &RunEvidence) -> String {
    let all = gather(evidence);
    let mut text = String::new();
    let stacked = stacks(evidence)
        .into_iter()
        .filter_map(|stack| figure(&stack.title, &stack.chart, &stack.keys, &stack.says))
        .collect();
    for (title, figures) in [
        ("Memory at rest, by operations", at_rest(&all)),
        ("Where the memory is, by operations", stacked),
        ("Memory over time", over_time(&all)),
    ] {
        if figures.is_empty() {
            continue;
        }
        text.push_str(&format!("<h2>{title}</h2>\n<div class=\"charts\">\n"));
        let more = figures.len().saturating_sub(CHARTS);
        figures.iter().take(CHARTS).for_each(|figure| text.push_str(figure));
        text.push_str("</div>\n");
        if more > 0 {
            text.push_str(&format!(
                "<p class=\"soft\">{more} more are left out here; <code>pgsoak samples</code> has their figures.</p>\n"
            ));
        }
    }
    text
}

/// Label of the legend and its class.
pub(super) type Key = (String, String);

pub(super) fn figure(title: &str, chart: &Chart, keys: &[Key], says: &[String]) -> Option<String> {
    let svg = chart.svg()?;
    let mut legend = String::new();
    for (label, class) in keys {
        legend.push_str(&format!(
            "<span class=\"key\"><svg viewBox=\"0 0 22 8\"><path class=\"line {class}\" d=\"M1 4H21\"/></svg>{}</span>",
            escaped(label)
        ));
    }
    Some(format!(
        "<figure>\n<figcaption><strong>{}</strong><br>{legend}</figcaption>\n{svg}<p class=\"soft\">{}</p>\n</figure>\n",
        escaped(title),
        says.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>\n")
    ))
}

// === at rest ===

/// What the charts at rest are of.
const RESTING: [(Subject, &str); 2] =
    [(Subject::Anonymous, "RssAnon"), (Subject::Used, "memory contexts")];

fn at_rest(all: &[Facts<'_>]) -> Vec<String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut figures = Vec::new();
    for facts in all {
        let workload = facts.job.workload.name.as_str();
        if facts.job.spec.tool != Tool::Plain || seen.contains(&workload) {
            continue;
        }
        seen.push(workload);
        let jobs: Vec<(&Facts<'_>, Vec<PhaseSeries>)> = all
            .iter()
            .filter(|other| other.is_same_workload(facts) && other.job.spec.tool == Tool::Plain)
            .map(|other| (other, phase_series(other.job)))
            .collect();
        let mut phases: Vec<&str> = Vec::new();
        for series in jobs.iter().flat_map(|(_, phases)| phases) {
            if !phases.contains(&series.phase.as_str()) {
                phases.push(&series.phase);
            }
        }
        for phase in phases {
            for (subject, name) in &RESTING {
                figures.extend(resting(&jobs, workload, phase, subject, name));
            }
        }
    }
    figures
}

fn resting(
    jobs: &[(&Facts<'_>, Vec<PhaseSeries>)],
    workload: &str,
    phase: &str,
    subject: &Subject,
    name: &str,
) -> Option<String> {
    let mut chart = Chart {
        title: format!("{name} at rest over operations, {workload}, phase {phase}"),
        across: Across::Operations,
        bands: Vec::new(),
        areas: Vec::new(),
        lines: Vec::new(),
    };
    let (mut keys, mut says): (Vec<Key>, Vec<String>) = (Vec::new(), Vec::new());
    // The candidate last, so that it lies on top.
    let mut ordered: Vec<&(&Facts<'_>, Vec<PhaseSeries>)> = jobs.iter().collect();
    ordered.sort_by_key(|(facts, _)| std::cmp::Reverse(facts.job.spec.arm));
    for (facts, phases) in ordered {
        let Some(series) = phases.iter().find(|series| series.phase == phase) else { continue };
        let arm = facts.job.spec.arm.label();
        let build = facts.job.spec.build.to_string();
        let mut means: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
        for (at, session) in series.sessions.iter().enumerate() {
            let Some(points) = session.series.get(subject) else { continue };
            let Some(first) = points.first() else { continue };
            let own: Vec<Point> =
                points.iter().map(|p| Point { x: p.x - first.x, y: p.y - first.y }).collect();
            for (round, point) in own.iter().enumerate() {
                let sum = means.entry(round).or_default();
                *sum = (sum.0 + point.x, sum.1 + point.y, sum.2 + 1.0);
            }
            if series.sessions.len() > 1 && at < SESSIONS {
                chart.lines.push(Line {
                    points: thinned(&own, POINTS),
                    class: format!("{arm} thin"),
                    name: format!("{build} on {}: worker {}", facts.job.agent, session.session),
                });
            }
        }
        let all = means.values().map(|sum| sum.2).fold(0.0, f64::max);
        // Rounds that only some of the sessions have would bend the mean.
        let mean: Vec<Point> = means
            .values()
            .filter(|sum| sum.2 >= all)
            .map(|sum| Point { x: sum.0 / sum.2, y: sum.1 / sum.2 })
            .collect();
        if mean.len() < 2 {
            continue;
        }
        let growth = facts
            .rounds
            .iter()
            .find(|rounds| rounds.phase == phase)
            .and_then(|rounds| rounds.raw.get(subject));
        if let Some(growth) = growth {
            fitted(&mut chart, &mean, growth, facts.job.spec.arm);
            says.push(format!("{build} ({arm}, {}): {}", facts.job.agent, told(growth)));
        } else {
            says.push(format!(
                "{build} ({arm}, {}): not judged, fewer than twelve rounds of one backend",
                facts.job.agent
            ));
        }
        chart.lines.push(Line {
            points: thinned(&mean, POINTS),
            class: arm.to_owned(),
            name: format!("{build} on {}: mean of {} sessions", facts.job.agent, count_text(all)),
        });
        let key = (format!("{arm}: {build}"), arm.to_owned());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.reverse();
    says.reverse();
    if !chart.areas.is_empty() {
        keys.push(("fit, with its 95 % interval".to_owned(), "fit".to_owned()));
    }
    says.push(
        "Change since the first reading at rest; thin lines are single sessions. Shaded: the candidate's warm-up, not judged. Nothing is taken off for the control arm."
            .to_owned(),
    );
    let title = format!("{workload}, phase {phase}: {name}");
    figure(&title, &chart, &keys, &says)
}

/// The fit of the candidate with its interval, and the warm-up before it.
fn fitted(chart: &mut Chart, mean: &[Point], growth: &Growth, arm: Arm) {
    if arm != Arm::Candidate || !chart.areas.is_empty() {
        return;
    }
    let Some(fit) = mean.get(growth.warm_up.min(mean.len().saturating_sub(2))..) else { return };
    let (Some(start), Some(end), Some(first)) = (fit.first(), fit.last(), mean.first()) else {
        return;
    };
    let n = count(fit.len());
    let (x, y) = (
        fit.iter().map(|point| point.x).sum::<f64>() / n,
        fit.iter().map(|point| point.y).sum::<f64>() / n,
    );
    let line = |slope: f64| -> Vec<Point> {
        [start.x, x, end.x].into_iter().map(|at| Point { x: at, y: y + slope * (at - x) }).collect()
    };
    // Both slopes go through the middle: the interval is a bow tie.
    let name = format!("{} to {} per operation", rate_text(growth.low), rate_text(growth.high));
    chart.areas.push(Area::between(&line(growth.high), &line(growth.low), name));
    chart.lines.push(Line {
        points: line(growth.slope),
        class: "fit".to_owned(),
        name: format!("fit: {} per operation", rate_text(growth.slope)),
    });
    if growth.warm_up > 0 {
        chart.bands.push(Band {
            from: first.x,
            to: start.x,
            label: "warm-up".to_owned(),
            class: "warm",
        });
    }
}

fn told(growth: &Growth) -> String {
    let shape = match growth.shape {
        Shape::Steady => "steady growth",
        Shape::Level => "level",
        Shape::Plateau => "a plateau",
        Shape::GivenBack => "given back in between",
        Shape::Unsteady => "unsteady, not decided",
    };
    format!(
        "{} per operation ({} to {}), {shape}, over {} rounds and {} operations after {} of warm-up",
        rate_text(growth.slope),
        rate_text(growth.low),
        rate_text(growth.high),
        growth.rounds,
        count_text(growth.operations),
        match growth.warm_up {
            1 => "1 round".to_owned(),
            n => format!("{n} rounds"),
        },
    )
}
