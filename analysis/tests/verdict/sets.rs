//! Two sets of stored runs.

use crate::made::*;
use pgsoak_analysis::compare::{self, JobFigures, Set, SetComparison, SetRow};
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::Compared;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, Outcome, Tool};

fn set(label: &str, jobs: impl IntoIterator<Item = JobEvidence>) -> Set {
    Set {
        label: label.to_owned(),
        jobs: jobs.into_iter().map(|job| JobFigures::of(&job)).collect(),
    }
}

/// Where nothing earlier is known.
fn compare_sets(before: &Set, after: &Set) -> SetComparison {
    compare::compare_sets(before, after, &[])
}

/// A job of a run of its own on a host.
fn of_run(mut job: JobEvidence, run: u8, agent: &str) -> JobEvidence {
    job.spec.run = RunId::from_bytes([run; 16]);
    job.agent = agent.to_owned();
    if let Some(started) = &mut job.attempt.started {
        started.started_at_unix_us += u64::from(run);
    }
    job
}

fn leaking(bytes: u64) -> JobEvidence {
    job(Tool::Plain, Arm::Candidate, 1, 20, outside(bytes))
}

/// Holds so many MiB, and moves by some pages.
fn holding(mib: f64, run: u8, agent: &str) -> JobEvidence {
    let bytes = (mib * 1_048_576.0) as u64 + u64::from(run) * 4096 * 5;
    of_run(
        job(Tool::Plain, Arm::Candidate, 2, 20, move |worker, round| {
            let (_, contexts) = flat(worker, round);
            (pages(bytes + u64::from(round % 3) * 4096), contexts)
        }),
        run,
        agent,
    )
}

fn row<'a>(found: &'a SetComparison, what: &str, subject: &str) -> &'a SetRow {
    found
        .rows
        .iter()
        .find(|row| row.what == what && row.subject == subject && row.phase == "steady")
        .unwrap_or_else(|| panic!("{what} {subject}: {found:#?}"))
}

#[test]
fn growth_per_operation_is_told_by_one_run_each() {
    let compared = |before: u64, after: u64| {
        compare_sets(
            &set("old", [of_run(leaking(before), 1, "a")]),
            &set("new", [of_run(leaking(after), 2, "a")]),
        )
    };
    let worse = compared(0, 112);
    assert_eq!(worse.answer, Compared::Worse, "{}", worse.sentence);
    let line = row(&worse, "bytes_per_operation", "RssAnon");
    assert!(line.low.unwrap() > 95.0 && line.high.unwrap() < 130.0, "{line:#?}");
    assert!(line.message.contains("new"), "{line:#?}");
    assert!(worse.sentence.starts_with("worse: new against old: RssAnon in dml/steady"));
    assert_eq!(compared(112, 0).answer, Compared::Better);
    let alike = compared(112, 112);
    assert_eq!(row(&alike, "bytes_per_operation", "RssAnon").answer, Compared::Same);
    assert_eq!(row(&alike, "bytes_per_operation", "memory contexts").answer, Compared::Same);
    assert!(matches!(alike.answer, Compared::Same | Compared::CantTell), "{}", alike.sentence);
}

#[test]
fn a_context_that_grows_is_new_and_named() {
    let kept = |worker: u32, round: u32| {
        let (rss, mut contexts) = flat(worker, round);
        let held = u64::from(round) * OPERATIONS * 83;
        contexts.push(("CachedPlanSource", held, held));
        (pages(rss + held), contexts)
    };
    let found = compare_sets(
        &set("old", [of_run(job(Tool::Plain, Arm::Candidate, 1, 20, flat), 1, "a")]),
        &set("new", [of_run(job(Tool::Plain, Arm::Candidate, 1, 20, kept), 2, "a")]),
    );
    let line = row(&found, "bytes_per_operation", "context CachedPlanSource");
    assert_eq!((line.answer, line.before), (Compared::Worse, Some(0.0)), "{line:#?}");
    assert!((line.after.unwrap() - 83.0).abs() < 0.5);
}

#[test]
fn levels_need_more_than_one_run() {
    let one =
        compare_sets(&set("old", [holding(20.0, 1, "a")]), &set("new", [holding(40.0, 2, "a")]));
    let line = row(&one, "level", "worker backends");
    assert_eq!(line.answer, Compared::CantTell, "{line:#?}");
    assert!(line.message.contains("one run on one host each; about 2 would tell"), "{line:#?}");
    assert_eq!(one.answer, Compared::CantTell, "{}", one.sentence);
    let runs = |mib: f64, from: u8| {
        ["a", "b", "c"].into_iter().zip(from..).map(move |(host, run)| holding(mib, run, host))
    };
    let worse = compare_sets(&set("old", runs(20.0, 1)), &set("new", runs(24.0, 4)));
    let line = row(&worse, "level", "worker backends");
    assert_eq!((worse.answer, line.answer, line.pairs), (Compared::Worse, Compared::Worse, 3));
    assert!(line.low.unwrap() > 10.0 && line.high.unwrap() < 30.0, "percent: {line:#?}");
    let better = compare_sets(&set("new", runs(24.0, 4)), &set("old", runs(20.0, 1)));
    assert_eq!(better.answer, Compared::Better, "{}", better.sentence);
    let same = compare_sets(&set("old", runs(20.0, 1)), &set("new", runs(20.1, 4)));
    assert_eq!(row(&same, "level", "worker backends").answer, Compared::Same, "{same:#?}");
    assert_eq!(same.answer, Compared::Same, "{same:#?}");
}

#[test]
fn earlier_runs_of_equal_builds_let_one_pair_decide() {
    let earlier = |swing: f64, pairs: u8| -> Vec<JobFigures> {
        (0..2 * pairs)
            .map(|at| holding(20.0 + f64::from(at % 2) * swing, 100 + at, "a"))
            .map(|job| JobFigures::of(&job))
            .collect()
    };
    let compared = |to: f64, earlier: &[JobFigures]| {
        let (before, after) =
            (set("old", [holding(20.0, 1, "a")]), set("new", [holding(to, 2, "a")]));
        let found = compare::compare_sets(&before, &after, earlier);
        (row(&found, "level", "worker backends").answer, found)
    };
    // Runs that differ by a thousandth: one pair tells.
    let quiet = earlier(0.02, 6);
    let (answer, found) = compared(20.1, &quiet);
    assert_eq!((answer, found.answer), (Compared::Same, Compared::Same), "{found:#?}");
    let told = "what runs of one build differ by is known from 6 pairs";
    assert!(found.notes.iter().any(|note| note.contains(told)), "{:?}", found.notes);
    assert_eq!(compared(23.0, &quiet).0, Compared::Worse);
    // Too few of them, or runs that differ by a tenth: it cannot.
    assert_eq!(compared(20.1, &earlier(0.02, 2)).0, Compared::CantTell);
    assert_eq!(compared(20.1, &earlier(2.0, 6)).0, Compared::CantTell);
    assert_eq!(compared(23.0, &earlier(2.0, 6)).0, Compared::CantTell);
    // Of other hosts' and other builds' runs only those that are equal among themselves pair up.
    let mut mixed = earlier(0.02, 6);
    for (at, job) in mixed.iter_mut().enumerate() {
        job.build = format!("pg_tviews@{at}");
    }
    assert_eq!(compared(20.1, &mixed).0, Compared::CantTell);
    // The runs that are compared tell nothing of what equal runs differ by, nor do replicas within one run.
    let again: Vec<JobFigures> =
        (0..12).map(|at| JobFigures::of(&holding(20.0, 1 + at % 2, "a"))).collect();
    assert_eq!(compared(20.1, &again).0, Compared::CantTell);
    let replicas: Vec<JobFigures> =
        (0..12).map(|_| JobFigures::of(&holding(20.0, 9, "a"))).collect();
    assert_eq!(compared(20.1, &replicas).0, Compared::CantTell);
    // Nightly runs against one run of the release before: how they differ among themselves is known.
    let nights = (0..7).map(|at| holding(23.0, 50 + at, "a"));
    let found = compare_sets(&set("old", [holding(20.0, 1, "a")]), &set("new", nights));
    let line = row(&found, "level", "worker backends");
    assert_eq!((line.answer, line.pairs), (Compared::Worse, 1), "{found:#?}");
    // The order in which they are given changes nothing.
    let mut turned = quiet.clone();
    turned.reverse();
    assert_eq!(compared(20.1, &turned).1, compared(20.1, &quiet).1);
}

#[test]
fn runs_of_one_build_are_never_worse() {
    // Healthy runs that differ as runs do: noise of pages, a warm-up that ends now sooner, now later.
    let mut state = 7_u64;
    let mut chance = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 40
    };
    for trial in 0..150 {
        let mut healthy = |run: u8, host: &str| {
            let (settles, steps) = (1 + chance() % 12, chance() % 200);
            let wobble: Vec<u64> = (0..64).map(|_| chance() % 6).collect();
            of_run(
                job(Tool::Plain, Arm::Candidate, 2, 30, move |worker, round| {
                    let (rss, contexts) = flat(worker, round);
                    let grown = u64::from(round).min(settles) * steps * 4096 / settles;
                    let jitter = wobble[(round as usize * 2 + worker as usize) % 64] * 4096;
                    (pages(rss + grown + jitter), contexts)
                }),
                run,
                host,
            )
        };
        let hosts = ["a", "b"];
        let pairs = 1 + trial % 2;
        let before: Vec<_> = (0..pairs).map(|at| healthy(1 + at as u8, hosts[at])).collect();
        let after: Vec<_> = (0..pairs).map(|at| healthy(11 + at as u8, hosts[at])).collect();
        let found = compare_sets(&set("x", before), &set("x again", after));
        let rates = found.rows.iter().filter(|row| row.what == "bytes_per_operation");
        for row in rates {
            assert_ne!(row.answer, Compared::Worse, "{trial}: {row:#?}");
        }
    }
    let one = || set("x", [holding(20.0, 1, "a")]);
    assert!(matches!(compare_sets(&one(), &one()).answer, Compared::Same | Compared::CantTell));
}

#[test]
fn few_operations_move_rss_anon_by_pages_and_prove_nothing() {
    // As measured: a DDL workload of 8 operations a round that keeps 1.2 kB each; four pages more or less between two runs of one build.
    let ddl = |run: u8, late: u64| {
        let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, |worker, round| {
            let (rss, contexts) = flat(worker, round);
            (pages(rss + u64::from(round) * (8 * 1_200 + late)), contexts)
        });
        for reading in &mut made.attempt.at_rest {
            reading.operations = u64::from(reading.round) * 8;
        }
        of_run(made, run, "a")
    };
    let found = compare_sets(&set("x", [ddl(1, 0)]), &set("x again", [ddl(2, 1_040)]));
    let line = row(&found, "bytes_per_operation", "RssAnon");
    assert_eq!(line.answer, Compared::CantTell, "{line:#?}");
    let twice = compare_sets(&set("x", [ddl(1, 0)]), &set("y", [ddl(2, 9_600)]));
    assert_eq!(row(&twice, "bytes_per_operation", "RssAnon").answer, Compared::Worse);
}

#[test]
fn leaks_are_new_gone_or_as_before() {
    let lost = |function: &str, module: &str, run: u8| {
        let leaks = [(
            LeakKind::Definite,
            stack(function, module),
            (|check| u64::from(check) * OPERATIONS * 100) as fn(u32) -> u64,
        )];
        of_run(with_leaks(job(Tool::Memcheck, Arm::Candidate, 1, 6, flat), 7, &leaks), run, "a")
    };
    let found = compare_sets(
        &set("old", [lost("hx_old", "pg_x.so", 1)]),
        &set("new", [lost("hx_new", "pg_x.so", 2)]),
    );
    assert_eq!(row(&found, "lost_bytes_per_operation", "hx_new").answer, Compared::Worse);
    assert_eq!(row(&found, "lost_bytes_per_operation", "hx_old").answer, Compared::Better);
    assert_eq!(found.answer, Compared::Worse);
    let same = compare_sets(
        &set("old", [lost("hx", "pg_x.so", 1)]),
        &set("new", [lost("hx", "pg_x.so", 2)]),
    );
    assert_eq!(row(&same, "lost_bytes_per_operation", "hx").answer, Compared::Same);
    let servers = compare_sets(
        &set("old", [lost("hx", "pg_x.so", 1)]),
        &set("new", [lost("ServerLoop", "postgres", 2)]),
    );
    assert!(servers.rows.iter().all(|row| row.answer != Compared::Worse), "{servers:#?}");
}

#[test]
fn what_is_not_alike_is_not_compared() {
    let mut changed = of_run(leaking(112), 2, "a");
    changed.workload.phases[1].sql = "SELECT 2".to_owned();
    let found = compare_sets(&set("old", [of_run(leaking(0), 1, "a")]), &set("new", [changed]));
    assert_eq!((found.answer, found.rows.len()), (Compared::CantTell, 0), "{found:#?}");
    assert!(found.notes[0].contains("SQL have changed"), "{:?}", found.notes);
    let mut broken = of_run(leaking(112), 2, "a");
    broken.outcome = Outcome::Infrastructure;
    let found = compare_sets(&set("old", [of_run(leaking(0), 1, "a")]), &set("new", [broken]));
    assert_eq!(found.answer, Compared::CantTell);
    let mut longer = holding(40.0, 2, "a");
    longer.spec.scale = 3.0;
    let pair = [longer.clone(), of_run(longer, 3, "b")];
    let olds = [holding(20.0, 1, "a"), holding(20.0, 4, "b")];
    let found = compare_sets(&set("old", olds), &set("new", pair));
    assert_eq!(row(&found, "level", "worker backends").answer, Compared::CantTell);
    assert_eq!(compare_sets(&set("a", []), &set("b", [])).answer, Compared::CantTell);
}

#[test]
fn the_order_of_jobs_changes_nothing() {
    let runs = |mib: f64, from: u8| -> Vec<JobEvidence> {
        ["c", "a", "b", "a"]
            .into_iter()
            .zip(from..)
            .map(|(host, run)| holding(mib, run, host))
            .collect()
    };
    let (before, after) = (runs(20.0, 1), runs(23.0, 11));
    let forth = compare_sets(&set("x", before.clone()), &set("y", after.clone()));
    let back =
        compare_sets(&set("x", before.into_iter().rev()), &set("y", after.into_iter().rev()));
    assert_eq!(forth, back);
}
