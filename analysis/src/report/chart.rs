//! Line charts as inline SVG: axes with round numbers, shaded bands, lines and areas. No script; a line's name shows on hover.
//!
//! Colours come from the page's style sheet by class, so that a chart follows light, dark and print.

use crate::figures::bytes_text;
use crate::report::html::escaped;
use crate::stats::Point;
use std::fmt::Write as _;

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 38.0;

/// What the x axis counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Across {
    /// Operations of one session.
    Operations,
    /// Seconds since the attempt started.
    Seconds,
    /// Releases by their place: 0, 1, 2, …; their names.
    Releases(Vec<String>),
}

/// A stretch of x, shaded from top to bottom.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) to: f64,
    /// Above it; left out where it does not fit.
    pub(super) label: String,
    pub(super) class: &'static str,
}

/// One curve.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) points: Vec<Point>,
    pub(super) class: String,
    /// Shown on hover.
    pub(super) name: String,
}

/// A surface between a lower and an upper curve with the same x.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) low: Vec<Point>,
    pub(super) high: Vec<Point>,
    pub(super) class: &'static str,
    pub(super) name: String,
}

/// A chart. What is not finite is not drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// For those who do not see it.
    pub(super) title: String,
    pub(super) across: Across,
    pub(super) bands: Vec<Band>,
    pub(super) areas: Vec<Area>,
    pub(super) lines: Vec<Line>,
}

/// Where data lies on the drawing.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Area {
    /// Between two lines over the same places, whichever is above: the interval of a fit.
    pub(super) fn between(one: &[Point], other: &[Point], name: String) -> Self {
        let pick = |of: fn(f64, f64) -> f64| -> Vec<Point> {
            one.iter().zip(other).map(|(a, b)| Point { x: a.x, y: of(a.y, b.y) }).collect()
        };
        Self { low: pick(f64::min), high: pick(f64::max), class: "interval", name }
    }
}

impl Frame {
    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn at(&self, point: &Point) -> Option<(f64, f64)> {
        let at = (self.x(point.x), self.y(point.y));
        (at.0.is_finite() && at.1.is_finite()).then_some(at)
    }

    fn path(&self, points: &[Point]) -> String {
        let mut path = String::new();
        for (x, y) in points.iter().filter_map(|point| self.at(point)) {
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{x:.1} {y:.1}");
        }
        path
    }
}

impl Chart {
    /// The drawing; `None`: there is nothing to draw.
    pub(super) fn svg(&self) -> Option<String> {
        let frame = self.frame()?;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(&self.title)
        );
        let floor = HEIGHT - BOTTOM;
        for band in &self.bands {
            let (from, to) = (frame.x(band.from.max(frame.x.0)), frame.x(band.to.min(frame.x.1)));
            if to.is_nan() || from.is_nan() || to <= from {
                continue;
            }
            let _ = writeln!(
                svg,
                "<rect class=\"band {}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                band.class,
                to - from,
                floor - TOP,
                escaped(&band.label)
            );
            // Letters of 10 px are about 5.6 px wide.
            if 5.6 * crate::stats::count(band.label.chars().count()) < to - from {
                let _ = writeln!(
                    svg,
                    "<text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    f64::midpoint(from, to),
                    TOP - 6.0,
                    escaped(&band.label)
                );
            }
        }
        for tick in ticks(frame.y, 5) {
            let y = frame.y(tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 3.5,
                escaped(&bytes_text(tick))
            );
        }
        let (scale, unit) = self.across.unit(frame.x.1);
        for (tick, name) in self.across.ticks((frame.x.0 / scale, frame.x.1 / scale)) {
            let x = frame.x(tick * scale);
            // What is long stays on the drawing.
            let half = 2.8 * crate::stats::count(name.chars().count());
            let anchor = match x {
                x if x + half > WIDTH => "end",
                x if x < half => "start",
                _ => "middle",
            };
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{x:.1} {floor}v4\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                floor + 16.0,
                escaped(&name)
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {floor}H{:.1}\"/><text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{unit}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 6.0
        );
        for area in &self.areas {
            let back: Vec<Point> = area.low.iter().rev().copied().collect();
            let (there, back) = (frame.path(&area.high), frame.path(&back).replacen('M', "L", 1));
            let _ = writeln!(
                svg,
                "<path class=\"area {}\" d=\"{there}{back}Z\"><title>{}</title></path>",
                area.class,
                escaped(&area.name)
            );
        }
        for line in &self.lines {
            let _ = writeln!(
                svg,
                "<path class=\"line {}\" d=\"{}\"><title>{}</title></path>",
                line.class,
                frame.path(&line.points),
                escaped(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }

    /// Room for every line and area, and a little more above and below.
    fn frame(&self) -> Option<Frame> {
        let points = || {
            let areas = self.areas.iter().flat_map(|area| area.low.iter().chain(&area.high));
            let lines = self.lines.iter().flat_map(|line| &line.points);
            lines.chain(areas).filter(|point| point.x.is_finite() && point.y.is_finite())
        };
        let range = |of: fn(&Point) -> f64| {
            points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |range, value| {
                (range.0.min(value), range.1.max(value))
            })
        };
        let (x, y) = (range(|point| point.x), range(|point| point.y));
        if !(x.0 < x.1 && y.0 <= y.1) {
            return None;
        }
        let room = match self.across {
            // Figures of any size, down to bytes per operation: so close that a change of a twentieth is seen.
            Across::Releases(_) => (0.06 * (y.1 - y.0)).max(0.1 * y.1.abs()).max(1.0),
            // Never so close that pages look like mountains.
            _ => (0.06 * (y.1 - y.0)).max(0.5 * (65_536.0 - (y.1 - y.0)).max(0.0)).max(1.0),
        };
        let low = if y.0 >= 0.0 { (y.0 - room).max(0.0) } else { y.0 - room };
        Some(Frame { x, y: (low, y.1 + room) })
    }
}

impl Across {
    /// What x is divided by, and what it is then called.
    fn unit(&self, most: f64) -> (f64, &'static str) {
        match self {
            Self::Releases(_) => (1.0, "releases"),
            Self::Operations if most >= 2e6 => (1e6, "million operations of a session"),
            Self::Operations if most >= 10e3 => (1e3, "thousand operations of a session"),
            Self::Operations => (1.0, "operations of a session"),
            Self::Seconds if most >= 3.0 * 86_400.0 => (86_400.0, "days since the start"),
            Self::Seconds if most >= 2.0 * 3_600.0 => (3_600.0, "hours since the start"),
            Self::Seconds if most >= 180.0 => (60.0, "minutes since the start"),
            Self::Seconds => (1.0, "seconds since the start"),
        }
    }

    /// Where the axis is marked, in its unit, and with what.
    fn ticks(&self, range: (f64, f64)) -> Vec<(f64, String)> {
        let Self::Releases(names) = self else {
            return ticks(range, 7).into_iter().map(|tick| (tick, short(tick))).collect();
        };
        // Of many every second, third, …: names of 10 px letters have room beside each other.
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let room =
            (WIDTH - LEFT - RIGHT) / (6.2 * crate::stats::count(longest.clamp(1, LONGEST)) + 8.0);
        let every = (1..=names.len())
            .find(|every| crate::stats::count(names.len().div_ceil(*every)) <= room.max(2.0));
        let places = names.iter().enumerate().step_by(every.unwrap_or(1));
        places.map(|(at, name)| (crate::stats::count(at), ended(name))).collect()
    }
}

/// Most letters of a name under the axis.
const LONGEST: usize = 14;

/// The end of a name: releases differ there.
fn ended(name: &str) -> String {
    match name.chars().count() {
        length if length > LONGEST => {
            let end: String = name.chars().skip(length - (LONGEST - 1)).collect();
            format!("…{end}")
        }
        _ => name.to_owned(),
    }
}

/// About so many round numbers in a range.
fn ticks(range: (f64, f64), about: u32) -> Vec<f64> {
    let raw = (range.1 - range.0) / f64::from(about);
    if !(raw > 0.0 && raw.is_finite()) {
        return Vec::new();
    }
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= raw)
        .unwrap_or(10.0 * power);
    let first = (range.0 / step).ceil();
    (0..=4 * about)
        .map(|at| (first + f64::from(at)) * step)
        .take_while(|tick| *tick <= range.1 + 1e-9 * step)
        .collect()
}

/// "0", "2.5", "400".
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 10.0), 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((0.3, 1.7), 5), [0.5, 1.0, 1.5]);
        assert!(ticks((1.0, 1.0), 5).is_empty() && ticks((f64::NAN, 1.0), 5).is_empty());
        assert_eq!((short(2.5), short(0.0), short(-0.0)), ("2.5".into(), "0".into(), "0".into()));
    }

    #[test]
    fn nothing_and_what_is_not_finite_draws_nothing() {
        let chart = |points: Vec<Point>| Chart {
            title: "a<b".to_owned(),
            across: Across::Seconds,
            bands: Vec::new(),
            areas: Vec::new(),
            lines: vec![Line { points, class: "c".to_owned(), name: String::new() }],
        };
        assert_eq!(chart(Vec::new()).svg(), None);
        assert_eq!(
            chart(vec![Point { x: f64::NAN, y: 1.0 }, Point { x: 1.0, y: f64::INFINITY }]).svg(),
            None
        );
        let flat = chart(vec![Point { x: 0.0, y: 5.0 }, Point { x: 9.0, y: 5.0 }])
            .svg()
            .unwrap_or_default();
        assert!(
            flat.contains("a&lt;b") && !flat.contains("NaN") && !flat.contains("inf"),
            "{flat}"
        );
    }
}
