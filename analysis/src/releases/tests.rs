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

/// Where the value is more than twice the one before.
fn doubled(values: &[f64]) -> Vec<usize> {
    (1..values.len()).filter(|at| values[*at] > 2.0 * values[at - 1]).collect()
}

#[test]
fn releases_stand_by_number_and_changes_name_the_first_of_the_new_level() {
    let runs = [
        run("e@0.1.0-beta.10", 5, &[100.0, 104.0]),
        run("e@0.1.0-beta.9", 7, &[98.0]),
        run("e@0.1.0", 8, &[300.0]),
        run("e@0.1.1", 6, &[310.0]),
        run("vanilla", 9, &[1.0]),
    ];
    let trend = over_releases("w", &runs, &Wanted::default(), &doubled);
    assert_eq!(trend.runs, 5);
    let series = trend.series.iter().find(|series| series.extension == "e").unwrap();
    let builds: Vec<&str> = series.releases.iter().map(|of| of.build.as_str()).collect();
    assert_eq!(builds, ["e@0.1.0-beta.9", "e@0.1.0-beta.10", "e@0.1.0", "e@0.1.1"]);
    let beta = &series.releases[1];
    assert_eq!((beta.values, beta.median, beta.least, beta.most), (2, 102.0, 100.0, 104.0));
    assert_eq!(series.changes.len(), 1);
    let change = &series.changes[0];
    assert_eq!((change.build.as_str(), change.before, change.after), ("e@0.1.0", 100.0, 305.0));
    assert_eq!(change.run, runs[2].run);
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let mut control = run("e@1", 1, &[5.0]);
    control.jobs[0].arm = Arm::Control;
    let runs = [control, run("e@1", 2, &[6.0]), run("f@1", 3, &[7.0])];
    let all = over_releases("w", &runs, &Wanted::default(), &doubled);
    assert_eq!(all.series.len(), 2, "{all:?}");
    for wanted in [
        Wanted { what: vec!["level".to_owned()], ..Wanted::default() },
        Wanted { phases: vec!["q".to_owned()], ..Wanted::default() },
        Wanted { tool: Some(Tool::Memcheck), ..Wanted::default() },
        Wanted { agents: vec!["b".to_owned()], ..Wanted::default() },
        Wanted { extension: "g".to_owned(), ..Wanted::default() },
        Wanted { postgres: "PostgreSQL 17".to_owned(), ..Wanted::default() },
    ] {
        assert!(over_releases("w", &runs, &wanted, &doubled).series.is_empty(), "{wanted:?}");
    }
    let only = Wanted { extension: "f".to_owned(), ..Wanted::default() };
    assert_eq!(over_releases("w", &runs, &only, &doubled).series[0].releases[0].median, 7.0);
}

#[test]
fn places_that_make_no_sense_are_ignored() {
    let runs = [run("e@1", 2, &[6.0, 8.0])];
    let trend = over_releases("w", &runs, &Wanted::default(), &|_| vec![0, 1, 1, 2, 99]);
    assert_eq!(trend.series[0].changes.len(), 1);
}
