//! When a schedule's times are: cron expression, time zone, windows, blackouts, jitter. Pure: time zones are read when a
//! calendar is made, and no clock is.
//!
//! Daylight saving: a fixed time (`30 2 * * *`) that the clock jumps over comes right after the gap, and one that comes twice
//! counts once; expressions with `*`, lists or steps in hours or minutes follow the time that really passes.

mod span;

use crate::decide::calendar::span::Span;
use crate::domain::schedule::ScheduleSpec;
use crate::domain::time::UnixUs;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, civil::Time, tz::TimeZone};
use pgsoak_proto::id::ScheduleId;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Most jitter.
const MAX_JITTER: Duration = Duration::from_secs(12 * 3_600);
/// A calendar whose next time is further away is a mistake (`0 0 30 2 *`).
const FARTHEST: Duration = Duration::from_secs(5 * 366 * 86_400);
/// Windows and blackouts of one schedule.
const MAX_SPANS: usize = 100;

/// A checked calendar.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
    windows: Vec<Span>,
    blackouts: Vec<Span>,
    end_before: Option<Time>,
}

/// A calendar that nobody can keep.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidCalendar {
    /// Not a cron expression.
    #[error(
        "cron expression '{text}': {problem}; it has five fields, minute hour day month weekday, as in \"30 22 * * mon-fri\""
    )]
    Cron {
        /// As given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// It names a time that never comes.
    #[error("cron expression '{0}' names a time that does not come within five years")]
    Never(String),
    /// Nobody knows the zone.
    #[error(
        "time zone '{0}' is not known; use a name such as Europe/Berlin, America/New_York or UTC"
    )]
    Zone(String),
    /// A window or blackout.
    #[error(
        "'{text}' is no span of time: {problem}; it is written as \"22:00-06:00\", \"mon-fri 22:00-06:00\", \"sat,sun\" or \"2026-12-24..2027-01-02\""
    )]
    Span {
        /// As given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A time of day.
    #[error("end-before '{0}' is no time of day such as 07:00")]
    Time(String),
    /// Out of range.
    #[error("{0}")]
    Limit(String),
}

/// A time that comes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upcoming {
    /// As the calendar says.
    pub tick: UnixUs,
    /// With jitter.
    pub due: UnixUs,
    /// Why nothing starts then.
    pub closed: Option<String>,
    /// `due` in the calendar's time zone, for people.
    pub local: String,
}

// === impl Calendar ===

impl Calendar {
    /// Reads what somebody asked for. `now` is only for whether a time comes at all.
    ///
    /// # Errors
    ///
    /// What is wrong, and how it is written.
    pub fn parse(spec: &ScheduleSpec, now: UnixUs) -> Result<Self, InvalidCalendar> {
        let short = |text: &str| text.chars().take(100).collect::<String>();
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron = parser.build().parse(&spec.cron).map_err(|error| InvalidCalendar::Cron {
            text: short(&spec.cron),
            problem: error.to_string().trim_end_matches('.').to_owned(),
        })?;
        let zone = TimeZone::get(&spec.time_zone)
            .map_err(|_| InvalidCalendar::Zone(short(&spec.time_zone)))?;
        let spans = |texts: &[String]| -> Result<Vec<Span>, InvalidCalendar> {
            if texts.len() > MAX_SPANS {
                let n = texts.len();
                return Err(InvalidCalendar::Limit(format!("{n} spans; at most {MAX_SPANS}")));
            }
            texts
                .iter()
                .map(|text| {
                    Span::parse(text)
                        .map_err(|problem| InvalidCalendar::Span { text: short(text), problem })
                })
                .collect()
        };
        if spec.jitter > MAX_JITTER {
            return Err(InvalidCalendar::Limit("jitter is at most 12 h".to_owned()));
        }
        let end_before = match &spec.end_before {
            None => None,
            Some(text) => Some(span::time(text).ok_or_else(|| InvalidCalendar::Time(short(text)))?),
        };
        let calendar = Self {
            cron,
            zone,
            windows: spans(&spec.windows)?,
            blackouts: spans(&spec.blackouts)?,
            end_before,
        };
        let comes = calendar.next_tick(now).is_some_and(|tick| tick.since(now) <= FARTHEST);
        if comes { Ok(calendar) } else { Err(InvalidCalendar::Never(short(&spec.cron))) }
    }

    fn zoned(&self, at: UnixUs) -> Option<Zoned> {
        let us = i64::try_from(at.0).ok()?;
        Some(Timestamp::from_microsecond(us).ok()?.to_zoned(self.zone.clone()))
    }

    /// The first time after `after`.
    pub fn next_tick(&self, after: UnixUs) -> Option<UnixUs> {
        let next = self.cron.find_next_occurrence(&self.zoned(after)?, false).ok()?;
        unix_us(&next).filter(|tick| *tick > after)
    }

    /// The last time at or before `before`.
    pub fn last_tick(&self, before: UnixUs) -> Option<UnixUs> {
        let last = self.cron.find_previous_occurrence(&self.zoned(before)?, true).ok()?;
        unix_us(&last).filter(|tick| *tick <= before)
    }

    /// Times after `after` up to and with `until`, at most `most`.
    pub fn ticks(&self, after: UnixUs, until: UnixUs, most: usize) -> Vec<UnixUs> {
        let following = |tick: &UnixUs| self.next_tick(*tick);
        std::iter::successors(self.next_tick(after), following)
            .take_while(|tick| *tick <= until)
            .take(most)
            .collect()
    }

    /// When the run of a time is due: later by a part of the jitter that follows from the schedule's id and the day.
    pub fn due(&self, schedule: ScheduleId, jitter: Duration, tick: UnixUs) -> UnixUs {
        let Some(day) = self.zoned(tick).map(|zoned| zoned.date()) else { return tick };
        let mut hash = Sha256::new();
        hash.update(schedule.as_bytes());
        hash.update(day.to_string());
        let hash = hash.finalize();
        let part = hash.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let part = (u128::from(part) * jitter.as_micros()) >> 64;
        tick.plus(Duration::from_micros(u64::try_from(part).unwrap_or(0)))
    }

    /// Why nothing may start at this moment.
    pub fn closed(&self, at: UnixUs) -> Option<String> {
        let zoned = self.zoned(at)?;
        if let Some(span) = self.blackouts.iter().find(|span| span.has(&zoned)) {
            return Some(format!("in the blackout '{span}'"));
        }
        if self.windows.is_empty() || self.windows.iter().any(|span| span.has(&zoned)) {
            return None;
        }
        let windows: Vec<String> = self.windows.iter().map(ToString::to_string).collect();
        Some(format!("outside the windows '{}'", windows.join("', '")))
    }

    /// When a run that starts at this moment must be over; `None`: whenever.
    pub fn must_end_by(&self, at: UnixUs) -> Option<UnixUs> {
        let time = self.end_before?;
        let zoned = self.zoned(at)?;
        let today = zoned.date().to_datetime(time).to_zoned(self.zone.clone()).ok()?;
        let end = match today > zoned {
            true => today,
            false => {
                let tomorrow = zoned.date().tomorrow().ok()?;
                tomorrow.to_datetime(time).to_zoned(self.zone.clone()).ok()?
            }
        };
        unix_us(&end)
    }

    /// A moment in the calendar's time zone, for people.
    pub fn local(&self, at: UnixUs) -> String {
        let shown = |zoned: Zoned| zoned.strftime("%a %Y-%m-%d %H:%M %Z").to_string();
        self.zoned(at).map(shown).unwrap_or_default()
    }

    /// What comes between two moments, at most `most`.
    pub fn upcoming(
        &self,
        schedule: ScheduleId,
        jitter: Duration,
        (after, until): (UnixUs, UnixUs),
        most: usize,
    ) -> Vec<Upcoming> {
        self.ticks(after, until, most)
            .into_iter()
            .map(|tick| {
                let due = self.due(schedule, jitter, tick);
                Upcoming { tick, due, closed: self.closed(due), local: self.local(due) }
            })
            .collect()
    }
}

fn unix_us(zoned: &Zoned) -> Option<UnixUs> {
    u64::try_from(zoned.timestamp().as_microsecond()).ok().map(UnixUs)
}

#[cfg(test)]
pub(crate) mod tests;
