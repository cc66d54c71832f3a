//! A figure over releases as a chart: medians as a line, what was measured around them as a surface, levels and where they changed.

use crate::releases::{LevelChange, ReleaseSeries, release_of};
use crate::report::chart::{Across, Area, Band, Chart, Line};
use crate::stats::{Point, count};

/// The drawing as SVG, for a page that styles its classes; `None`: it takes two releases.
pub fn release_chart(title: &str, series: &ReleaseSeries) -> Option<String> {
    let names = series
        .releases
        .iter()
        .map(|of| {
            release_of(&of.build).map_or(of.build.as_str(), |(_, release)| release).to_owned()
        })
        .collect();
    let points = |of: fn(&crate::releases::ReleaseFigure) -> f64| -> Vec<Point> {
        let places = series.releases.iter().enumerate();
        places.map(|(at, figure)| Point { x: count(at), y: of(figure) }).collect()
    };
    let median = Line {
        points: points(|figure| figure.median),
        class: "candidate".to_owned(),
        name: "the median of each release".to_owned(),
    };
    let around = Area {
        low: points(|figure| figure.least),
        high: points(|figure| figure.most),
        class: "interval",
        name: "from the least to the most of each release".to_owned(),
    };
    let changes: Vec<(f64, &LevelChange)> = series
        .changes
        .iter()
        .filter_map(|change| {
            let at = series.releases.iter().position(|of| of.build == change.build)?;
            Some((count(at), change))
        })
        .collect();
    let mut lines = vec![median];
    let mut from = 0.0;
    let last = count(series.releases.len().saturating_sub(1));
    let mut level = |from: f64, to: f64, y: f64, name: String| {
        let points = vec![Point { x: from, y }, Point { x: to, y }];
        lines.push(Line { points, class: "fit".to_owned(), name });
    };
    for (at, change) in &changes {
        level(from, *at, change.before, format!("the level before {}", change.build));
        from = *at;
    }
    if let Some((at, change)) = changes.last() {
        level(*at, last, change.after, format!("the level from {} on", change.build));
    }
    let bands = changes
        .iter()
        .map(|(at, change)| Band {
            from: at - 0.5,
            to: at + 0.5,
            label: change.text(),
            class: "warm",
        })
        .collect();
    Chart {
        title: title.to_owned(),
        across: Across::Releases(names),
        bands,
        areas: vec![around],
        lines,
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::MetricName;
    use crate::releases::ReleaseFigure;
    use pgsoak_proto::{id::RunId, job::Tool};

    fn series(medians: &[f64]) -> ReleaseSeries {
        let run = RunId::issue();
        let releases = medians
            .iter()
            .enumerate()
            .map(|(at, median)| ReleaseFigure {
                build: format!("e@0.{at}<b>"),
                values: 3,
                median: *median,
                least: median - 1.0,
                most: median + 1.0,
                first_run: run,
                first_at_unix_us: 1,
                last_run: run,
                last_at_unix_us: 2,
            })
            .collect();
        let change = LevelChange { build: "e@0.2<b>".to_owned(), run, before: 100.0, after: 200.0 };
        ReleaseSeries {
            metric: MetricName {
                phase: "a".to_owned(),
                what: "bytes_per_operation".to_owned(),
                subject: String::new(),
            },
            tool: Tool::Plain,
            extension: "e".to_owned(),
            length: String::new(),
            releases,
            changes: vec![change],
        }
    }

    #[test]
    fn a_change_is_marked_and_names_are_text() {
        let svg =
            release_chart("a <b>", &series(&[100.0, 101.0, 200.0, 201.0])).unwrap_or_default();
        assert!(svg.contains("band warm") && svg.contains("100 B before, 200 B from"), "{svg}");
        assert!(svg.contains("0.3&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
        assert_eq!(svg.matches("line fit").count(), 2, "a level before and one after: {svg}");
        // A hundred bytes more are seen: the axis begins near them, not at pages.
        assert!(svg.contains(">150 B<") || svg.contains(">100 B<"), "{svg}");
    }

    #[test]
    fn one_release_has_no_line() {
        assert_eq!(release_chart("t", &series(&[1.0])), None);
        assert_eq!(release_chart("t", &series(&[])), None);
    }
}
