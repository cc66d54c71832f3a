//! Thirty nights of a fleet of three in virtual time: a nightly schedule, new builds, a host that is lost for days, one that fails
//! and is quarantined, a coordinator that is away for three nights. What the history holds afterwards is what happened, and it
//! answers what one would ask of it.
//!
//! Real: the engine's state with all its decisions, the catalogue, the index of the history, trends, comparisons, the choice of a
//! baseline. Scripted: agents, what their jobs measure, the verdict, the clock.

mod evidence;
mod world;

use crate::decide::baseline;
use crate::decide::find::Filter;
use crate::domain::alert::AlertKind;
use crate::domain::history::{BaselineOf, RunLine};
use crate::domain::schedule::TickOutcome;
use crate::engine::nights::world::{BUILDS, DAY, HOUR, Nights};
use pgsoak_analysis::compare::{Set, compare_sets};
use pgsoak_analysis::releases::{Wanted, over_releases};
use pgsoak_analysis::result::Compared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Noon to noon: a night each.
fn thirty_nights() -> Nights {
    let mut nights = Nights::new();
    for night in 0..30 {
        match night {
            0 => nights.schedule(BUILDS[0]),
            10 => nights.schedule(BUILDS[1]),
            20 => nights.schedule(BUILDS[2]),
            // Fails each job that it gets, and is mended four days later.
            13 => nights.agents[1].is_broken = true,
            17 => {
                nights.agents[1].is_broken = false;
                nights.resume("b");
            }
            _ => {}
        }
        match night {
            // A host is lost in the middle of the night, and is back three days later.
            4 => {
                nights.pass(HOUR * 12);
                nights.agents[2].is_up = false;
                nights.agents[2].session = None;
                nights.pass(HOUR * 12);
            }
            7 => {
                nights.agents[2].is_up = true;
                nights.pass(DAY);
            }
            // The coordinator is away for three nights.
            23 => {
                nights.kill();
                nights.pass(DAY);
            }
            26 => {
                nights.start();
                nights.pass(DAY);
            }
            _ => nights.pass(DAY),
        }
    }
    nights
}

/// Those of the schedule, oldest first.
fn nightly(nights: &Nights) -> Vec<Arc<RunLine>> {
    nights.found(&Filter {
        labels: BTreeMap::from([("schedule".to_owned(), "nightly".to_owned())]),
        ..Filter::default()
    })
}

#[test]
fn thirty_nights_leave_the_history_that_happened_and_it_answers() {
    let nights = thirty_nights();
    let all = nightly(&nights);
    // Thirty, less three that were missed, and one that makes up for them.
    assert_eq!(all.len(), 28);
    assert_eq!(all.len(), nights.catalogue.lines().len(), "and nothing else");
    let runs: BTreeSet<_> = all.iter().map(|line| line.record.run).collect();
    assert_eq!(runs.len(), 28);

    // Each at 22:00 in Berlin, on both sides of the night that loses an hour; the one that makes up at the return.
    let locals: Vec<String> = all
        .iter()
        .map(|line| {
            let at = i64::try_from(line.record.submitted_at.0).unwrap();
            let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
            let at = jiff::Timestamp::from_microsecond(at).unwrap().to_zoned(zone);
            at.strftime("%H:%M").to_string()
        })
        .collect();
    let off = locals.iter().filter(|local| *local != "22:00").count();
    assert_eq!(off, 1, "{locals:?}");

    // Verdicts: a lost host and a broken one make a run invalid, a leak makes it fail.
    let of = |filter: Filter| nights.found(&filter).len();
    let verdict = |word: &str| Filter { verdicts: words(&[word]), ..Filter::default() };
    let release = |release: &str, filter: Filter| Filter { releases: words(&[release]), ..filter };
    assert_eq!(of(verdict("invalid")), 1 + 3, "night 4; nights 13 to 15");
    assert_eq!(of(release("1.0", verdict("pass"))), 9);
    assert_eq!(of(release("1.1", verdict("fail"))), 7);
    assert_eq!(of(release("1.1", verdict("pass"))), 0);
    assert_eq!(of(release("1.2", verdict("pass"))), 8);
    assert_eq!(of(release("1.2", verdict("fail"))), 0);

    // Agents: who was away has no part in those nights.
    let agents = |index: usize| -> Vec<&str> {
        all[index].facts.agents.iter().map(String::as_str).collect()
    };
    assert_eq!(agents(3), ["a", "b", "c"]);
    assert_eq!(agents(4), ["a", "b", "c"], "it had its job when it was lost");
    assert_eq!(agents(5), ["a", "b"], "two hosts run all three replicas");
    assert_eq!(agents(6), ["a", "b"]);
    assert_eq!(agents(7), ["a", "b", "c"]);
    assert_eq!(agents(16), ["a", "c"], "quarantined after three nights");
    assert_eq!(agents(17), ["a", "b", "c"], "mended");
    assert!(all.iter().all(|line| line.record.jobs.len() == 3));

    // What the schedule says of itself.
    let state = nights.state.as_ref().unwrap();
    let record = &state.schedules.entries.values().next().unwrap().record;
    let past = |wanted: fn(&TickOutcome) -> bool| -> u32 {
        record.progress.past.iter().filter(|p| wanted(&p.what)).map(|p| p.count).sum()
    };
    assert_eq!(past(|what| matches!(what, TickOutcome::Started(_))), 27);
    assert_eq!(past(|what| matches!(what, TickOutcome::MadeUp(_))), 1);
    assert_eq!(past(|what| matches!(what, TickOutcome::Owed(_))), 3);
    assert_eq!(past(|what| matches!(what, TickOutcome::Missed(_))), 2);
    assert!(record.progress.owed.is_empty() && record.progress.unfinished.is_empty());

    // What somebody was told.
    let kinds: Vec<AlertKind> =
        nights.catalogue.alerts(100).unwrap().into_iter().rev().map(|alert| alert.kind).collect();
    assert_eq!(kinds, [AlertKind::AgentQuarantined, AlertKind::RunMissed]);
    // A lost host, whose one attempt was given up, is no reason for a quarantine.
    let quarantined = state.fleet.values().filter(|agent| agent.quarantine.is_some()).count();
    assert_eq!((state.fleet.len(), quarantined), (3, 0));

    trend_names_the_release_that_grew(&nights);
    releases_compare_as_they_are(&nights, &all);
}

fn trend_names_the_release_that_grew(nights: &Nights) {
    let points = nights.catalogue.points("w").unwrap();
    let trend = over_releases("w", &points, &Wanted::default());
    let metrics: Vec<&str> = trend.series.iter().map(|of| of.metric.what.as_str()).collect();
    assert_eq!(metrics, ["bytes_per_operation", "level"]);
    for series in &trend.series {
        let builds: Vec<&str> = series.releases.iter().map(|of| of.build.as_str()).collect();
        assert_eq!(builds, BUILDS);
        let values: Vec<usize> = series.releases.iter().map(|of| of.values).collect();
        // Three a night, less the lost one of night 4 and those that failed in nights 13 to 15.
        assert_eq!(values, [10 * 3 - 1, 10 * 3 - 3, 8 * 3]);
        let changes: Vec<&str> = series.changes.iter().map(|of| of.build.as_str()).collect();
        assert_eq!(changes, BUILDS[1..], "{series:#?}");
        let [up, down] = series.changes.as_slice() else { panic!("{series:#?}") };
        assert!(up.after > 1.5 * up.before && down.after < 0.6 * down.before, "{series:#?}");
        assert_eq!(up.run, series.releases[1].first_run);
    }
    let only_b = Wanted { agents: words(&["b"]), ..Wanted::default() };
    let of_b: usize = over_releases("w", &points, &only_b).series[0].releases[1].values;
    assert!(of_b < 9, "quarantined for some nights of that release: {of_b}");
}

fn releases_compare_as_they_are(nights: &Nights, all: &[Arc<RunLine>]) {
    let ran = |line: &RunLine, build: &str| line.facts.builds.iter().any(|(_, of)| of == build);
    let set = |build: &str| {
        let lines = all.iter().filter(|line| ran(line, build));
        let jobs = lines.flat_map(|line| nights.catalogue.figures(line.record.run).unwrap());
        Set { label: build.to_owned(), jobs: jobs.collect() }
    };
    let [before, leaking, mended] = BUILDS.map(set);
    let answer = |a: &Set, b: &Set| compare_sets(a, b, &[]).answer;
    assert_eq!(answer(&before, &leaking), Compared::Worse);
    assert_eq!(answer(&leaking, &mended), Compared::Better);
    assert_eq!(
        answer(&before, &mended),
        Compared::Same,
        "{:#?}",
        compare_sets(&before, &mended, &[])
    );
    let notes = compare_sets(&before, &leaking, &[]).notes;
    assert_eq!(notes.len(), 1 + 3, "each job that did not finish is named: {notes:#?}");

    // Without a word of anybody: the latest earlier release that passed, not the one that leaks.
    let last = all.last().unwrap();
    let chosen = baseline::choose(last, all, &[]).unwrap();
    assert!(matches!(&chosen.of, BaselineOf::Build(of) if of.to_string() == BUILDS[0]));

    let signatures = nights.catalogue.signatures().unwrap();
    let [signature] = signatures.as_slice() else { panic!("{signatures:#?}") };
    assert_eq!(signature.fingerprint, evidence::FINGERPRINT);
    let seen = &signature.builds[BUILDS[1]];
    let failed = nights.found(&Filter { verdicts: words(&["fail"]), ..Filter::default() });
    assert_eq!((signature.builds.len(), seen.runs), (1, 7), "of one release alone");
    assert_eq!(seen.first.1, failed[0].record.run);
    assert_eq!(seen.last.1, failed[6].record.run);
    assert_eq!(seen.hosts.len(), 3);
}
