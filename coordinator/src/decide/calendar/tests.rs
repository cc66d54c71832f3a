//! Calendars: zones, daylight saving, spans, jitter.

use super::*;
use crate::domain::schedule::{Missed, Overlap};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(crate) fn spec(cron: &str, time_zone: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.to_owned(),
        time_zone: time_zone.to_owned(),
        windows: Vec::new(),
        blackouts: Vec::new(),
        jitter: Duration::ZERO,
        missed: Missed::Skip,
        overlap: Overlap::Forbid,
        end_before: None,
        only_new_builds: false,
        start_within: Duration::from_secs(600),
        priority: None,
        labels: BTreeMap::new(),
    }
}

/// 2026-01-01T00:00:00Z.
pub(crate) const NEW_YEAR: UnixUs = UnixUs(1_767_225_600_000_000);

fn at(text: &str) -> UnixUs {
    UnixUs(u64::try_from(text.parse::<Timestamp>().unwrap().as_microsecond()).unwrap())
}

fn locals(cron: &str, zone: &str, after: &str, most: usize) -> Vec<String> {
    let calendar = Calendar::parse(&spec(cron, zone), NEW_YEAR).unwrap();
    let ticks = calendar.ticks(at(after), UnixUs(u64::MAX / 4), most);
    ticks.into_iter().map(|tick| calendar.local(tick)).collect()
}

#[test]
fn a_night_that_loses_an_hour_still_has_its_run() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00.
    assert_eq!(
        locals("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["Sat 2026-03-28 02:30 CET", "Sun 2026-03-29 03:00 CEST", "Mon 2026-03-30 02:30 CEST"]
    );
}

#[test]
fn an_hour_that_comes_twice_has_one_run() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00.
    assert_eq!(
        locals("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["Sun 2026-10-25 02:30 CEST", "Mon 2026-10-26 02:30 CET"]
    );
    // What follows the time that passes runs in both.
    assert_eq!(
        locals("30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 3),
        ["Sun 2026-10-25 02:30 CEST", "Sun 2026-10-25 02:30 CET", "Sun 2026-10-25 03:30 CET"]
    );
}

#[test]
fn zones_far_from_utc_have_their_own_days() {
    assert_eq!(
        locals("0 22 * * mon-fri", "America/New_York", "2026-01-02T00:00:00Z", 3),
        ["Thu 2026-01-01 22:00 EST", "Fri 2026-01-02 22:00 EST", "Mon 2026-01-05 22:00 EST"]
    );
}

#[test]
fn spans_are_read_as_people_write_them() {
    let asked = ScheduleSpec {
        windows: vec!["mon-fri 22:00-06:00".to_owned(), "sat,sun".to_owned()],
        blackouts: vec![
            "2026-12-24..2027-01-02".to_owned(),
            "2026-06-01T08:00..2026-06-01T09:30".to_owned(),
        ],
        ..spec("0 * * * *", "UTC")
    };
    let calendar = Calendar::parse(&asked, NEW_YEAR).unwrap();
    let closed = |text| calendar.closed(at(text));
    // A Wednesday.
    assert_eq!(closed("2026-05-06T22:00:00Z"), None);
    assert_eq!(closed("2026-05-07T05:59:00Z"), None);
    assert!(closed("2026-05-07T06:00:00Z").unwrap().starts_with("outside the windows 'mon-fri"));
    // Friday's night reaches into Saturday, and the whole weekend is open.
    assert_eq!(closed("2026-05-09T05:00:00Z"), None);
    assert_eq!(closed("2026-05-10T23:59:00Z"), None);
    // Sunday is no day on which the night's window begins.
    assert!(closed("2026-05-11T01:00:00Z").is_some());
    assert_eq!(closed("2026-12-26T12:00:00Z").unwrap(), "in the blackout '2026-12-24..2027-01-02'");
    assert!(closed("2027-01-02T23:59:00Z").unwrap().contains("blackout"));
    assert_eq!(closed("2027-01-03T00:00:00Z"), None);
    assert!(closed("2026-06-01T08:00:00Z").unwrap().contains("blackout"));
    assert!(closed("2026-06-01T09:30:00Z").unwrap().contains("windows"));
}

#[test]
fn what_cannot_be_kept_says_how_it_is_written() {
    let refused = |spec: ScheduleSpec| Calendar::parse(&spec, NEW_YEAR).unwrap_err().to_string();
    assert!(refused(spec("0 22 * *", "UTC")).contains("five fields"));
    assert!(refused(spec("0 0 22 * * *", "UTC")).contains("five fields"));
    assert!(refused(spec("", "UTC")).contains("five fields"));
    assert!(refused(spec("0 0 30 2 *", "UTC")).contains("does not come within five years"));
    assert!(refused(spec("@daily", "Europe/Atlantis")).contains("Europe/Berlin"));
    let window =
        |text: &str| ScheduleSpec { windows: vec![text.to_owned()], ..spec("@daily", "UTC") };
    for (text, problem) in [
        ("", "it is empty"),
        ("mon-fry", "'fry' is no weekday"),
        ("25:00-06:00", "'25:00' is no time of day"),
        ("mon tue", "one part too many"),
        ("2026-12-24..2026-12-23", "ends before it begins"),
        ("2026-12-24..soon", "'SOON' is no date"),
        ("22:00", "has no '-'"),
    ] {
        assert!(refused(window(text)).contains(problem), "{text}: {}", refused(window(text)));
    }
    let late = ScheduleSpec { end_before: Some("7".to_owned()), ..spec("@daily", "UTC") };
    assert!(refused(late).contains("07:00"));
    let wide = ScheduleSpec { jitter: Duration::from_secs(86_400), ..spec("@daily", "UTC") };
    assert!(refused(wide).contains("12 h"));
}

#[test]
fn a_run_must_end_by_the_next_such_time() {
    let asked = ScheduleSpec {
        end_before: Some("07:00".to_owned()),
        ..spec("0 22 * * *", "Europe/Berlin")
    };
    let calendar = Calendar::parse(&asked, NEW_YEAR).unwrap();
    let by = |text| calendar.local(calendar.must_end_by(at(text)).unwrap());
    assert_eq!(by("2026-03-28T21:00:00Z"), "Sun 2026-03-29 07:00 CEST");
    assert_eq!(by("2026-03-29T04:59:00Z"), "Sun 2026-03-29 07:00 CEST");
    assert_eq!(by("2026-03-29T05:00:00Z"), "Mon 2026-03-30 07:00 CEST");
}

#[test]
fn jitter_is_the_same_every_time_and_differs_by_schedule_and_day() {
    let calendar = Calendar::parse(&spec("0 22 * * *", "UTC"), NEW_YEAR).unwrap();
    let hour = Duration::from_secs(3_600);
    let ticks = calendar.ticks(NEW_YEAR, UnixUs(u64::MAX / 4), 200);
    let (a, b) = (ScheduleId::from_bytes([1; 16]), ScheduleId::from_bytes([2; 16]));
    let late = |id| -> Vec<Duration> {
        ticks.iter().map(|tick| calendar.due(id, hour, *tick).since(*tick)).collect()
    };
    assert_eq!(late(a), late(a));
    assert!(late(a).iter().zip(late(b)).filter(|(a, b)| *a == b).count() < 3);
    assert!(late(a).iter().all(|late| *late < hour));
    // Spread over the hour.
    let mean = late(a).iter().sum::<Duration>() / 200;
    assert!(mean > hour * 2 / 5 && mean < hour * 3 / 5, "{mean:?}");
    assert_eq!(calendar.due(a, Duration::ZERO, NEW_YEAR), NEW_YEAR);
}

proptest! {
    /// Forwards and backwards agree, whatever the zone does with its clocks.
    #[test]
    fn ticks_come_in_order_and_are_found_from_both_sides(
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca",
        ]),
        cron in prop::sample::select(vec![
            "30 2 * * *", "0 22 * * mon-fri", "*/20 * * * *", "0 3 1 * *", "15 1,2,3 * * sun", "0 0 29 2 *", "59 23 L * *",
        ]),
        offset in 0_u64..3_650,
    ) {
        let calendar = Calendar::parse(&spec(cron, zone), NEW_YEAR).unwrap();
        let from = NEW_YEAR.plus(Duration::from_secs(offset * 86_400));
        let ticks = calendar.ticks(from, UnixUs(u64::MAX / 4), 40);
        prop_assert_eq!(ticks.len(), 40);
        prop_assert!(ticks[0] > from);
        prop_assert!(ticks.is_sorted_by(|a, b| a < b));
        for pair in ticks.windows(2) {
            prop_assert_eq!(calendar.last_tick(pair[0]), Some(pair[0]));
            prop_assert_eq!(calendar.last_tick(UnixUs(pair[1].0 - 1)), Some(pair[0]), "{} {}", cron, zone);
        }
    }

    /// No text makes it panic.
    #[test]
    fn any_text_is_read_or_refused(cron in "\\PC{0,20}|[0-9*,/@# -]{0,20}", span in "\\PC{0,20}|[0-9:.,t -]{0,25}") {
        let asked = ScheduleSpec { windows: vec![span.clone()], end_before: Some(span), ..spec(&cron, "UTC") };
        let _ = Calendar::parse(&asked, NEW_YEAR);
    }
}
