//! The usual rules, to be beaten: each looks at one series and answers leak or not.
//!
//! A run is called a leak when any of its series is, at a level shared between them where the rule has one.

use super::generate::Random;

/// A rule: seconds and bytes (no NaN), threshold in bytes per second, share of false alarms.
pub type Rule = fn(&[f64], &[f64], f64, f64) -> bool;

/// Names as in tables.
pub const RULES: [(&str, Rule); 5] = [
    ("RSS slope of a script", naive),
    ("least squares", least_squares),
    ("Mann–Kendall", mann_kendall),
    ("Hamed–Rao", hamed_rao),
    ("Theil–Sen, bootstrap", bootstrap),
];

/// More than 100 KB per reading, by least squares on the index.
fn naive(_: &[f64], y: &[f64], _: f64, _: f64) -> bool {
    let index: Vec<f64> = (0..y.len()).map(|k| k as f64).collect();
    line(&index, y).0 > 100.0 * 1024.0
}

/// A positive slope, significantly.
fn least_squares(t: &[f64], y: &[f64], _: f64, alpha: f64) -> bool {
    let (slope, error) = line(t, y);
    slope > normal_quantile(alpha) * error
}

fn mann_kendall(t: &[f64], y: &[f64], _: f64, alpha: f64) -> bool {
    let (_, y) = medians(t, y, 240);
    let (s, variance) = kendall(&y);
    (s - 1.0) / variance.sqrt() > normal_quantile(alpha)
}

/// Mann–Kendall with the variance made wider for autocorrelation of ranks (Hamed and Rao 1998).
fn hamed_rao(t: &[f64], y: &[f64], _: f64, alpha: f64) -> bool {
    let (x, y) = medians(t, y, 240);
    let n = y.len() as f64;
    let (s, variance) = kendall(&y);
    let slope = theil_sen(&x, &y);
    let rest: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - slope * x).collect();
    let mut order: Vec<usize> = (0..rest.len()).collect();
    order.sort_by(|a, b| rest[*a].total_cmp(&rest[*b]));
    let mut ranks = vec![0.0; rest.len()];
    order.iter().enumerate().for_each(|(rank, at)| ranks[*at] = rank as f64 - (n - 1.0) / 2.0);
    let all: f64 = ranks.iter().map(|rank| rank * rank).sum();
    let mut sum = 0.0;
    for lag in 1..ranks.len() {
        let r = ranks.iter().zip(&ranks[lag..]).map(|(a, b)| a * b).sum::<f64>() / all;
        if r.abs() > 1.96 / n.sqrt() {
            let k = lag as f64;
            sum += (n - k) * (n - k - 1.0) * (n - k - 2.0) * r;
        }
    }
    let wider = (1.0 + 2.0 / (n * (n - 1.0) * (n - 2.0)) * sum).max(1e-3);
    (s - 1.0) / (variance * wider).sqrt() > normal_quantile(alpha)
}

/// A quarter burnt in, Theil–Sen, moving blocks of residuals; the slope must exceed the threshold in 99 % of 200 draws.
fn bootstrap(t: &[f64], y: &[f64], threshold: f64, _: f64) -> bool {
    const BLOCK: usize = 8;
    let (x, y) = medians(t, y, 60);
    let (x, y) = (&x[x.len() / 4..], &y[y.len() / 4..]);
    let n = x.len();
    if n <= BLOCK {
        return false;
    }
    let slope = theil_sen(x, y);
    let rest: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - slope * x).collect();
    let mut rng = Random::of(&[n as u64]);
    let mut below = 0;
    for _ in 0..200 {
        let mut drawn = Vec::with_capacity(n + BLOCK);
        while drawn.len() < n {
            let from = rng.below((n - BLOCK) as u64) as usize;
            drawn.extend_from_slice(&rest[from..from + BLOCK]);
        }
        below += usize::from(slope + theil_sen(x, &drawn[..n]) <= threshold);
    }
    below <= 2
}

fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sxx: f64 = x.iter().map(|x| (x - mx).powi(2)).sum();
    let slope = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f64>() / sxx;
    let rest: f64 = x.iter().zip(y).map(|(x, y)| (y - my - slope * (x - mx)).powi(2)).sum();
    (slope, (rest / (n - 2.0) / sxx).sqrt())
}

fn kendall(y: &[f64]) -> (f64, f64) {
    let n = y.len() as f64;
    let mut s = 0.0;
    for (at, left) in y.iter().enumerate() {
        for right in &y[at + 1..] {
            s += (right - left).partial_cmp(&0.0).map_or(0.0, |order| f64::from(order as i8));
        }
    }
    let mut sorted = y.to_vec();
    sorted.sort_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|tie| tie.len() as f64)
        .map(|c| c * (c - 1.0) * (2.0 * c + 5.0))
        .sum();
    (s, (n * (n - 1.0) * (2.0 * n + 5.0) - ties) / 18.0)
}

fn theil_sen(x: &[f64], y: &[f64]) -> f64 {
    let mut slopes = Vec::with_capacity(x.len() * x.len() / 2);
    for (at, left) in x.iter().enumerate() {
        for (right, y_right) in x.iter().zip(y).skip(at + 1) {
            slopes.push((y_right - y[at]) / (right - left));
        }
    }
    median(&mut slopes)
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn medians(t: &[f64], y: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let size = t.len().div_ceil(n).max(1);
    t.chunks(size)
        .zip(y.chunks(size))
        .map(|(t, y)| (median(&mut t.to_vec()), median(&mut y.to_vec())))
        .unzip()
}

/// Upper quantile of the standard normal, by bisection of its series.
fn normal_quantile(alpha: f64) -> f64 {
    let upper = |z: f64| {
        // Abramowitz and Stegun 26.2.17, good to 1e-7.
        let k = 1.0 / (1.0 + 0.231_641_9 * z);
        let poly = k
            * (0.319_381_53
                + k * (-0.356_563_782
                    + k * (1.781_477_937 + k * (-1.821_255_978 + k * 1.330_274_429))));
        (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * poly
    };
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if upper(middle) > alpha { low = middle } else { high = middle }
    }
    low
}
