//! Looks at runs that go on: a day of virtual time, looked at as it grows.

use crate::made::*;
use crate::over_time::{HOUR, long};
use pgsoak_analysis::evidence::{JobEvidence, RunEvidence};
use pgsoak_analysis::sequential::{JobLook, Standing, course_of, look};
use pgsoak_proto::job::{Arm, Outcome, Tool};

/// A day of which only the first hours are there: nothing has ended.
fn going_on(mut job: JobEvidence, hours: f64) -> JobEvidence {
    let limit = (hours * HOUR * 1e6) as u64 + 10_000_000;
    let attempt = &mut job.attempt;
    attempt.ended = None;
    let ticks = attempt.ticks_elapsed_us.partition_point(|at| *at <= limit);
    attempt.ticks_elapsed_us.truncate(ticks);
    attempt.operations.truncate(ticks);
    for series in attempt.processes.values_mut() {
        let n = series.elapsed_us.partition_point(|at| *at <= limit);
        series.elapsed_us.truncate(n);
        series.rss_anon_bytes.truncate(n);
        series.cpu_us.truncate(n);
    }
    let rests = attempt.at_rest_elapsed_us.partition_point(|at| *at <= limit);
    attempt.at_rest.truncate(rests);
    attempt.at_rest_elapsed_us.truncate(rests);
    for span in &mut attempt.phases {
        if span.ended_elapsed_us.is_some_and(|ended| ended > limit) {
            (span.ended, span.ended_elapsed_us) = (None, None);
        }
    }
    // As the coordinator has it of a job that is not over.
    job.outcome = Outcome::Infrastructure;
    job.spec.loop_for = Some(std::time::Duration::from_hours(24));
    job
}

fn of(jobs: Vec<JobEvidence>) -> RunEvidence {
    run(jobs)
}

/// The looks at a day, in order: hours and what they say.
fn looks(day: &JobEvidence) -> Vec<(f64, JobLook)> {
    let whole = going_on(day.clone(), 24.0);
    let moments = course_of(&whole.spec, &whole.workload).looks();
    moments
        .into_iter()
        .filter(|at| *at >= HOUR)
        .map(|at| {
            let hours = (at + 20.0) / HOUR;
            let job = going_on(day.clone(), hours);
            let id = job.spec.job;
            (hours, look(of(vec![job]), id))
        })
        .collect()
}

/// Bytes of a leak of so many bytes per second, on top of a warm-up of minutes.
fn leak(rate: f64) -> impl Fn(u32, f64) -> f64 {
    move |_, t| 2e6 * (1.0 - (-t / 400.0).exp()) + rate * t
}

#[test]
fn a_leak_is_suspect_early_and_proven_from_six_hours_on() {
    let looks = looks(&long(Arm::Candidate, 24.0, leak(2_500.0)));
    let first = |standing| looks.iter().find(|(_, look)| look.standing >= standing);
    let (suspect_at, suspect) = first(Standing::Suspect).unwrap();
    assert!(*suspect_at < 3.0, "{suspect_at}");
    assert_eq!(suspect.sessions, [1, 2].map(|s| if suspect.sessions[0] == 1 { s } else { 3 - s }));
    assert!(suspect.reason.contains("grow"), "{}", suspect.reason);
    let (proven_at, proven) = first(Standing::Proven).unwrap();
    assert!((6.0..6.1).contains(proven_at), "{proven_at}");
    assert!(proven.bytes_per_second.is_some_and(|slope| (2_400.0..2_600.0).contains(&slope)));
    assert!(proven.next_in_s.is_some_and(|next| next > HOUR));
}

#[test]
fn a_warm_up_of_hours_is_suspect_at_most_and_ends_healthy() {
    for tau in [1.0, 2.0, 4.0, 6.0] {
        let day = long(Arm::Candidate, 24.0, |_, t| 12e6 * (1.0 - (-t / (tau * HOUR)).exp()));
        let looks = looks(&day);
        assert!(looks.iter().all(|(_, look)| look.standing != Standing::Proven), "{tau} h");
        if tau < 3.0 {
            assert_eq!(looks.last().unwrap().1.standing, Standing::Healthy, "{tau} h");
        }
    }
}

#[test]
fn a_level_day_is_healthy_at_every_look_and_too_little_is_early() {
    let level = long(Arm::Candidate, 24.0, |_, t| 2e6 * (1.0 - (-t / 400.0).exp()));
    for (hours, look) in looks(&level) {
        assert!(matches!(look.standing, Standing::Healthy), "{hours} h: {look:?}");
        assert!(look.reason.is_empty());
    }
    let early = going_on(level, 0.02);
    let id = early.spec.job;
    assert_eq!(look(of(vec![early]), id).standing, Standing::Early);
}

#[test]
fn growth_per_operation_is_suspect_and_proven_within_its_rounds() {
    // Two hundred rounds of a second: 120 bytes per operation in a context.
    let mut job = job(Tool::Plain, Arm::Candidate, 1, 200, |_, round| {
        let used = 500_000 + u64::from(round) * OPERATIONS * 120;
        (pages(BASE + used), vec![("CachedPlanSource", used, used.div_ceil(8192) * 8192)])
    });
    job.spec.hard_end = std::time::Duration::from_secs(400);
    job.outcome = Outcome::Infrastructure;
    job.attempt.ended = None;
    let span = job.attempt.phases.last_mut().unwrap();
    (span.ended, span.ended_elapsed_us) = (None, None);
    let id = job.spec.job;
    let found = look(of(vec![job.clone()]), id);
    assert_eq!(found.standing, Standing::Proven, "{found:?}");
    assert!(found.reason.starts_with("context CachedPlanSource grows by 120.0 bytes"));
    // One that comes to its end is not proven.
    for reading in &mut job.attempt.at_rest {
        reading.rss_anon_bytes = reading.rss_anon_bytes.min(BASE + 3_502_080);
        for context in &mut reading.contexts {
            context.used_bytes = context.used_bytes.min(3_500_000);
            context.total_bytes = context.total_bytes.min(3_506_176);
        }
    }
    let found = look(of(vec![job]), id);
    assert!(found.standing < Standing::Suspect, "{found:?}");
}

#[test]
fn nothing_stored_or_nobody_known_is_early() {
    let day = long(Arm::Candidate, 2.0, |_, _| 0.0);
    let id = day.spec.job;
    assert_eq!(look(of(vec![]), id).standing, Standing::Early);
    let mut empty = day;
    empty.attempt = pgsoak_analysis::evidence::AttemptEvidence::default();
    let found = look(of(vec![empty]), id);
    assert_eq!((found.standing, found.at_s), (Standing::Early, 0.0));
    assert!(found.next_in_s.is_some_and(|next| next >= 60.0) && found.reason.is_empty());
}

#[test]
fn the_control_arm_is_not_suspect_and_what_it_grows_by_is_taken_off() {
    let both = |t: f64| 1_500.0 * t;
    let candidate = going_on(long(Arm::Candidate, 24.0, move |_, t| both(t)), 8.6);
    let control = going_on(long(Arm::Control, 24.0, move |_, t| both(t)), 8.6);
    let (own, vanilla) = (candidate.spec.job, control.spec.job);
    let evidence = of(vec![candidate, control]);
    assert_eq!(look(evidence.clone(), own).standing, Standing::Healthy);
    assert_eq!(look(evidence, vanilla), JobLook::default());
}
