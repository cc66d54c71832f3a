//! Histories that were made by hand.

use super::*;

fn run(build: &str, at_unix_us: u64, peaks: &[f64]) -> RunPoints {
    let jobs = peaks
        .iter()
        .map(|peak| JobPoint {
            workload: "w".to_owned(),
            tool: Tool::Plain,
            build: build.to_owned(),
            arm: Arm::Candidate,
            agent: "a".to_owned(),
            postgres_version: "PostgreSQL 18.4".to_owned(),
            length: "1 h".to_owned(),
            values: vec![(
                MetricName {
                    phase: "p".to_owned(),
                    what: "peak".to_owned(),
                    subject: String::new(),
                },
                *peak,
            )],
        })
        .collect();
    RunPoints { run: RunId::issue(), at_unix_us, jobs }
}

#[test]
fn releases_stand_by_number_and_few_runs_tell_no_change() {
    let runs = [
        run("e@0.1.0-beta.10", 5, &[100.0, 104.0]),
        run("e@0.1.0-beta.9", 7, &[98.0]),
        run("e@0.1.0", 8, &[300.0]),
        run("e@0.1.1", 6, &[310.0]),
        run("vanilla", 9, &[1.0]),
    ];
    let trend = over_releases("w", &runs, &Wanted::default());
    assert_eq!(trend.runs, 5);
    let series = trend.series.iter().find(|series| series.extension == "e").unwrap();
    let builds: Vec<&str> = series.releases.iter().map(|of| of.build.as_str()).collect();
    assert_eq!(builds, ["e@0.1.0-beta.9", "e@0.1.0-beta.10", "e@0.1.0", "e@0.1.1"]);
    let beta = &series.releases[1];
    assert_eq!((beta.values, beta.median, beta.least, beta.most), (2, 102.0, 100.0, 104.0));
    assert!(series.changes.is_empty());
}

/// Nine runs of each release, of three jobs each, which differ by a per cent.
fn nights(levels: &[(&str, f64)]) -> Vec<RunPoints> {
    let night = |index: usize| {
        let (build, level) = levels[index / 9];
        let at = 1_000 + u64::try_from(index).unwrap();
        let peaks = [0.99, 1.0, 1.01].map(|noise| level * noise * [1.0, 1.004][index % 2]);
        run(build, at, &peaks)
    };
    (0..levels.len() * 9).map(night).collect()
}

#[test]
fn a_change_names_the_first_run_of_the_new_level() {
    let mut runs = nights(&[("e@1.0", 1_000.0), ("e@1.1", 1_500.0), ("e@1.2", 1_480.0)]);
    let first = runs[9].run;
    // An old release that is soaked once more stands with its own.
    runs.push(run("e@1.0", 9_000, &[1_002.0]));
    let trend = over_releases("w", &runs, &Wanted::default());
    let [change] = trend.series[0].changes.as_slice() else { panic!("{trend:#?}") };
    assert_eq!((change.build.as_str(), change.run), ("e@1.1", first));
    assert!((change.before - 1_002.0).abs() < 4.0 && (change.after - 1_483.0).abs() < 20.0);
}

#[test]
fn a_long_history_is_looked_at_release_by_release() {
    let names: Vec<String> = (0..30).map(|minor| format!("e@1.{minor}")).collect();
    let levels: Vec<(&str, f64)> = (0..)
        .zip(&names)
        .map(|(n, name)| (name.as_str(), if n < 12 { 800.0 } else { 900.0 }))
        .collect();
    let trend = over_releases("w", &nights(&levels), &Wanted::default());
    let [change] = trend.series[0].changes.as_slice() else { panic!("{trend:#?}") };
    assert_eq!(change.build, "e@1.12");
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let mut control = run("e@1", 1, &[5.0]);
    control.jobs[0].arm = Arm::Control;
    let runs = [control, run("e@1", 2, &[6.0]), run("f@1", 3, &[7.0])];
    let all = over_releases("w", &runs, &Wanted::default());
    assert_eq!(all.series.len(), 2, "{all:?}");
    for wanted in [
        Wanted { what: vec!["level".to_owned()], ..Wanted::default() },
        Wanted { phases: vec!["q".to_owned()], ..Wanted::default() },
        Wanted { tool: Some(Tool::Memcheck), ..Wanted::default() },
        Wanted { agents: vec!["b".to_owned()], ..Wanted::default() },
        Wanted { extension: "g".to_owned(), ..Wanted::default() },
        Wanted { postgres: "PostgreSQL 17".to_owned(), ..Wanted::default() },
    ] {
        assert!(over_releases("w", &runs, &wanted).series.is_empty(), "{wanted:?}");
    }
    let only = Wanted { extension: "f".to_owned(), ..Wanted::default() };
    assert_eq!(over_releases("w", &runs, &only).series[0].releases[0].median, 7.0);
}
