//! Schedules over years of simulated time.

use super::*;
use crate::decide::calendar::tests::{NEW_YEAR, spec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A schedule that somebody looks at, and whose runs last for a while.
struct Kept {
    id: ScheduleId,
    spec: ScheduleSpec,
    calendar: Calendar,
    progress: Progress,
    is_paused: bool,
    /// No agent takes its runs.
    is_stuck: bool,
    builds: Option<String>,
    takes: Option<Duration>,
    /// Starts by their time.
    starts: Vec<(UnixUs, UnixUs)>,
    records: Vec<TickRecord>,
    alerts: Vec<(AlertKind, String)>,
    cancelled: Vec<RunId>,
}

impl Kept {
    fn new(spec: ScheduleSpec) -> Self {
        Self {
            id: ScheduleId::from_bytes([7; 16]),
            calendar: Calendar::parse(&spec, NEW_YEAR).unwrap(),
            spec,
            progress: Progress { decided_until: NEW_YEAR, ..Progress::default() },
            is_paused: false,
            is_stuck: false,
            builds: None,
            takes: None,
            starts: Vec::new(),
            records: Vec::new(),
            alerts: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    fn look(&mut self, now: UnixUs) -> Option<RunId> {
        let unfinished = self.progress.unfinished.keys().copied();
        let queued: Vec<RunId> = unfinished.filter(|_| self.is_stuck).collect();
        let decision = decide(&Snapshot {
            now,
            schedule: self.id,
            spec: &self.spec,
            calendar: &self.calendar,
            is_paused: self.is_paused,
            progress: &self.progress,
            queued: &queued,
            takes: self.takes,
            builds: self.builds.as_deref(),
        });
        self.progress = decision.progress;
        self.records.extend(decision.records);
        self.alerts.extend(decision.alerts);
        for run in &decision.cancel {
            self.progress.finished(*run, None);
        }
        self.cancelled.extend(decision.cancel);
        let start = decision.start?;
        let run = RunId::issue();
        self.progress.unfinished.insert(run, now);
        self.starts.push((start.tick, now));
        Some(run)
    }

    /// Looks every minute for so long; each run lasts for so long.
    fn pass(&mut self, from: UnixUs, length: Duration, lasts: Duration) {
        let mut now = from;
        while now < from.plus(length) {
            now = now.plus(Duration::from_secs(60));
            self.look(now);
            let over: Vec<RunId> = self
                .progress
                .unfinished
                .iter()
                .filter(|(_, begun)| now.since(**begun) >= lasts)
                .map(|(run, _)| *run)
                .collect();
            for run in over {
                self.progress.finished(run, Some(lasts));
            }
        }
    }

    fn reasons(&self) -> Vec<(&str, &str, u32)> {
        self.progress.past.iter().map(|r| (r.what.label(), r.what.reason(), r.count)).collect()
    }

    fn kinds(&self) -> Vec<AlertKind> {
        self.alerts.iter().map(|(kind, _)| *kind).collect()
    }
}

fn days(count: u32) -> Duration {
    DAY * count
}

#[test]
fn every_night_has_its_run_and_nothing_is_said() {
    let mut kept = Kept::new(spec("0 22 * * *", "Europe/Berlin"));
    kept.pass(NEW_YEAR, days(30), HOUR * 8);
    assert_eq!(kept.starts.len(), 30);
    assert!(kept.starts.iter().all(|(tick, at)| at.since(*tick) < Duration::from_secs(60)));
    assert_eq!(kept.alerts, []);
}

#[test]
fn missed_nights_are_left_out_made_up_for_once_or_one_by_one() {
    for (missed, made_up, owed_after) in
        [(Missed::Skip, 0, 0), (Missed::Once, 1, 0), (Missed::Shift, 3, 0)]
    {
        let mut kept = Kept::new(ScheduleSpec { missed, ..spec("0 22 * * *", "UTC") });
        kept.pass(NEW_YEAR, days(3), HOUR);
        // Away from day 3 noon to day 6 noon: three nights.
        let back = NEW_YEAR.plus(days(6) + HOUR * 12);
        kept.pass(back, days(2), HOUR);
        let late = kept.starts.iter().filter(|(tick, at)| at.since(*tick) > HOUR).count();
        assert_eq!(late, made_up, "{missed:?}");
        assert_eq!(kept.starts.len(), 3 + made_up + 2, "{missed:?}");
        assert_eq!(kept.progress.owed.len(), owed_after);
        assert_eq!(kept.kinds(), [AlertKind::RunMissed], "{missed:?}");
        assert!(kept.alerts[0].1.starts_with("3 runs did not start on time"), "{:?}", kept.alerts);
        if missed == Missed::Shift {
            // One after the other.
            let at: Vec<UnixUs> = kept
                .starts
                .iter()
                .filter(|(t, at)| at.since(*t) > HOUR)
                .map(|(_, at)| *at)
                .collect();
            assert!(at.windows(2).all(|pair| pair[1].since(pair[0]) >= HOUR));
        }
    }
}

#[test]
fn a_restart_within_the_tolerance_costs_no_night() {
    let mut kept = Kept::new(spec("0 22 * * *", "UTC"));
    kept.look(NEW_YEAR.plus(HOUR * 22 + Duration::from_secs(599)));
    assert_eq!(kept.starts.len(), 1);
    let mut kept = Kept::new(spec("0 22 * * *", "UTC"));
    kept.look(NEW_YEAR.plus(HOUR * 22 + Duration::from_secs(601)));
    assert_eq!(kept.starts.len(), 0);
    assert_eq!(kept.kinds(), [AlertKind::RunMissed]);
}

#[test]
fn a_run_that_goes_on_forbids_is_replaced_or_has_company() {
    for (overlap, starts, cancelled) in
        [(Overlap::Forbid, 2, 0), (Overlap::Allow, 4, 0), (Overlap::Replace, 4, 3)]
    {
        let mut kept = Kept::new(ScheduleSpec { overlap, ..spec("0 22 * * *", "UTC") });
        // Each lasts for a day and a half.
        kept.pass(NEW_YEAR, days(4), HOUR * 36);
        assert_eq!(kept.starts.len(), starts, "{overlap:?}");
        assert_eq!(kept.cancelled.len(), cancelled, "{overlap:?}");
        let skipped = kept.kinds().iter().filter(|kind| **kind == AlertKind::RunSkipped).count();
        assert_eq!(skipped, 4 - starts, "{overlap:?}");
    }
}

#[test]
fn blackouts_are_quiet_and_shifted_only_where_asked() {
    let blackouts = vec!["2026-01-03..2026-01-05".to_owned()];
    let asked = ScheduleSpec { blackouts, ..spec("0 22 * * *", "UTC") };
    let mut kept = Kept::new(asked.clone());
    kept.pass(NEW_YEAR, days(7), HOUR);
    assert_eq!((kept.starts.len(), kept.alerts.len()), (4, 0));
    assert_eq!(
        kept.reasons().last(),
        Some(&("skipped", "in the blackout '2026-01-03..2026-01-05'", 3))
    );

    let mut kept = Kept::new(ScheduleSpec { missed: Missed::Once, ..asked });
    kept.pass(NEW_YEAR, days(7), HOUR);
    assert_eq!((kept.starts.len(), kept.alerts.len()), (5, 0));
    // As soon as it is over.
    let (tick, at) = kept.starts[2];
    assert_eq!(at, NEW_YEAR.plus(days(5)));
    assert_eq!(tick, NEW_YEAR.plus(days(4) + HOUR * 22));
}

#[test]
fn what_cannot_be_over_in_time_is_not_started() {
    let asked = ScheduleSpec { end_before: Some("07:00".to_owned()), ..spec("0 22 * * *", "UTC") };
    let mut kept = Kept::new(asked);
    kept.takes = Some(HOUR * 9);
    kept.pass(NEW_YEAR, DAY, HOUR);
    assert_eq!(kept.starts.len(), 1);
    kept.takes = Some(HOUR * 9 + Duration::from_secs(1));
    kept.pass(NEW_YEAR.plus(DAY), DAY, HOUR);
    assert_eq!(kept.starts.len(), 1);
    assert_eq!(kept.kinds(), [AlertKind::RunSkipped]);
    assert!(kept.alerts[0].1.contains("takes about 9 h 01 m"), "{:?}", kept.alerts);
}

#[test]
fn a_build_that_is_known_is_not_run_again() {
    let mut kept = Kept::new(ScheduleSpec { only_new_builds: true, ..spec("0 22 * * *", "UTC") });
    for (night, build) in ["a", "a", "b", "b", "b", "a"].into_iter().enumerate() {
        kept.builds = Some(build.to_owned());
        kept.pass(NEW_YEAR.plus(days(u32::try_from(night).unwrap())), DAY, HOUR);
    }
    assert_eq!(kept.starts.len(), 3);
    assert_eq!(kept.alerts, []);
    // What cannot be told may have changed.
    kept.builds = None;
    kept.pass(NEW_YEAR.plus(days(6)), days(2), HOUR);
    assert_eq!(kept.starts.len(), 5);
}

#[test]
fn a_pause_leaves_records_and_no_alarm() {
    let mut kept = Kept::new(ScheduleSpec { missed: Missed::Shift, ..spec("0 22 * * *", "UTC") });
    kept.is_paused = true;
    kept.pass(NEW_YEAR, days(5), HOUR);
    kept.is_paused = false;
    kept.pass(NEW_YEAR.plus(days(5)), days(1), HOUR);
    assert_eq!((kept.starts.len(), kept.alerts.len()), (1, 0));
    assert_eq!(kept.reasons(), [("skipped", "the schedule was paused", 5)]);
}

#[test]
fn a_clock_that_leapt_ahead_and_came_back_loses_nothing_and_repeats_nothing() {
    let mut kept = Kept::new(spec("0 22 * * *", "UTC"));
    kept.pass(NEW_YEAR, days(2), HOUR);
    // Forty years ahead, at the very minute of a run.
    let ahead = NEW_YEAR.plus(days(14_600) + HOUR * 22);
    let run = kept.look(ahead).expect("the time that the clock shows is kept");
    kept.progress.finished(run, None);
    assert!(kept.progress.past.iter().any(|r| r.count >= 1_000), "{:?}", kept.reasons());
    kept.pass(NEW_YEAR.plus(days(2)), days(3), HOUR);
    assert_eq!(kept.starts.len(), 2 + 1 + 3);
    assert!(kept.kinds().contains(&AlertKind::ClockJumped));
    // A few seconds back are no jump.
    let alerts = kept.alerts.len();
    kept.pass(NEW_YEAR.plus(days(4) + HOUR * 22), Duration::from_secs(300), HOUR);
    assert_eq!((kept.starts.len(), kept.alerts.len()), (6, alerts));
}

#[test]
fn a_run_that_no_agent_takes_is_said_once() {
    let mut kept = Kept::new(spec("0 22 * * *", "UTC"));
    kept.is_stuck = true;
    kept.pass(NEW_YEAR, DAY, HOUR * 30);
    kept.pass(NEW_YEAR.plus(DAY), HOUR * 3, HOUR * 30);
    assert_eq!(kept.kinds(), [AlertKind::RunStuck]);
}

#[test]
fn years_without_anybody_are_decided_in_one_look() {
    let mut kept = Kept::new(ScheduleSpec { missed: Missed::Shift, ..spec("* * * * *", "UTC") });
    kept.look(NEW_YEAR.plus(days(3_650)));
    assert!(kept.starts.len() <= 1);
    assert_eq!(kept.kinds(), [AlertKind::RunMissed]);
    assert!(kept.progress.owed.len() <= MOST_OWED);
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// The clock goes on by so many minutes, with a look at the end.
    On(u32),
    /// It steps back by so many minutes.
    Back(u32),
    /// The oldest run ends.
    End,
    Pause(bool),
    Build(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        12 => (1_u32..90).prop_map(Move::On),
        3 => (90_u32..4_000).prop_map(Move::On),
        1 => (4_000_u32..600_000).prop_map(Move::On),
        1 => (1_u32..50).prop_map(Move::Back),
        1 => (50_u32..100_000).prop_map(Move::Back),
        6 => Just(Move::End),
        1 => any::<bool>().prop_map(Move::Pause),
        1 => (0_u8..3).prop_map(Move::Build),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the clock does over years: no time gets two runs, none passes without a record, nothing starts when the
    /// calendar is closed, nor while an earlier run goes on where that is forbidden.
    #[test]
    fn each_time_has_one_run_at_most_and_always_a_record(
        moves in moves(),
        cron in prop::sample::select(vec!["0 22 * * *", "30 2 * * *", "0 */6 * * *", "15 1 * * mon", "*/30 * * * *"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
        missed in prop::sample::select(vec![Missed::Skip, Missed::Once, Missed::Shift]),
        overlap in prop::sample::select(vec![Overlap::Allow, Overlap::Forbid, Overlap::Replace]),
        jitter in prop::sample::select(vec![0_u64, 1_200, 7_200]),
        has_window: bool,
        only_new_builds: bool,
    ) {
        let windows = if has_window { vec!["mon-thu 21:00-06:00".to_owned()] } else { Vec::new() };
        let asked = ScheduleSpec {
            missed, overlap, windows, only_new_builds, jitter: Duration::from_secs(jitter), ..spec(cron, zone)
        };
        let mut kept = Kept::new(asked);
        let (mut now, mut highest) = (NEW_YEAR, NEW_YEAR);
        for step in moves {
            match step {
                Move::On(minutes) => now = now.plus(Duration::from_secs(u64::from(minutes) * 60)),
                Move::Back(minutes) => {
                    now = UnixUs(now.0.saturating_sub(u64::from(minutes) * 60_000_000)).max(NEW_YEAR);
                }
                Move::End => {
                    if let Some(run) = kept.progress.unfinished.keys().next().copied() {
                        kept.progress.finished(run, Some(HOUR));
                    }
                }
                Move::Pause(is_paused) => kept.is_paused = is_paused,
                Move::Build(build) => kept.builds = Some(build.to_string()),
            }
            highest = highest.max(now);
            let was_busy = !kept.progress.unfinished.is_empty();
            let cancelled = kept.cancelled.len();
            let is_start = kept.look(now).is_some();
            if is_start {
                prop_assert!(!kept.is_paused);
                prop_assert_eq!(kept.calendar.closed(now), None);
                prop_assert!(!(was_busy && overlap == Overlap::Forbid), "two at once");
                if overlap == Overlap::Replace { prop_assert!(!was_busy || kept.cancelled.len() > cancelled); }
            }
            prop_assert!(kept.progress.owed.len() <= MOST_OWED);
            let again = decide(&Snapshot {
                now, schedule: kept.id, spec: &kept.spec, calendar: &kept.calendar, is_paused: kept.is_paused,
                progress: &kept.progress, queued: &[], takes: None, builds: kept.builds.as_deref(),
            });
            prop_assert_eq!(again.progress.decided_until, kept.progress.decided_until, "a moment is decided once");
        }
        // Never twice.
        let ticks: BTreeSet<UnixUs> = kept.starts.iter().map(|(tick, _)| *tick).collect();
        prop_assert_eq!(ticks.len(), kept.starts.len());
        // Never lost: whatever is decided has a start or a record.
        let mut told: BTreeMap<UnixUs, UnixUs> = ticks.iter().map(|tick| (*tick, *tick)).collect();
        for record in &kept.records {
            let last = told.entry(record.tick).or_insert(record.last_tick);
            *last = (*last).max(record.last_tick);
        }
        let until = kept.progress.decided_until.max(UnixUs(highest.0.saturating_sub((jitter + 1) * 1_000_000)));
        let mut covered = NEW_YEAR;
        for tick in kept.calendar.ticks(NEW_YEAR, until, 100_000) {
            if let Some(last) = told.get(&tick) { covered = covered.max(*last); }
            prop_assert!(tick <= covered, "{tick} left no trace");
        }
    }
}
