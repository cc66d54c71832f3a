//! Spans of time as people write them: times of day on some weekdays, or days of the year. In the calendar's time zone.

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use std::fmt;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A span.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Span {
    /// From a time of day to another, past midnight when that is not later; equal: the whole day.
    Weekly {
        /// On which it begins, Monday first.
        days: [bool; 7],
        from: Time,
        to: Time,
        text: String,
    },
    /// From a moment to another, without that.
    Dates { from: DateTime, to: DateTime, text: String },
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weekly { text, .. } | Self::Dates { text, .. } => f.write_str(text),
        }
    }
}

/// A time of day, `24:00` included as midnight.
pub(super) fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two = |part: &str| (1..=2).contains(&part.len()).then(|| part.parse::<i8>().ok()).flatten();
    match (two(hour)?, two(minute)?) {
        (24, 0) => Some(Time::midnight()),
        (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
    }
}

// === impl Span ===

impl Span {
    /// Reads one; the error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_lowercase();
        if let Some((from, to)) = text.split_once("..") {
            let (from, _) = moment(from)?;
            let (to, is_day) = moment(to)?;
            let to = match is_day {
                true => to.checked_add(jiff::Span::new().days(1)).map_err(|e| e.to_string())?,
                false => to,
            };
            if to <= from {
                return Err("it ends before it begins".to_owned());
            }
            return Ok(Self::Dates { from, to, text });
        }
        let mut days = None;
        let mut times = None;
        for word in text.split_whitespace() {
            if word.contains(':') && times.is_none() {
                times = Some(times_of(word)?);
            } else if !word.contains(':') && days.is_none() {
                days = Some(days_of(word)?);
            } else {
                return Err(format!("'{word}' is one part too many"));
            }
        }
        if days.is_none() && times.is_none() {
            return Err("it is empty".to_owned());
        }
        let (from, to) = times.unwrap_or((Time::midnight(), Time::midnight()));
        Ok(Self::Weekly { days: days.unwrap_or([true; 7]), from, to, text })
    }

    /// Whether a moment lies in it.
    pub(super) fn has(&self, at: &Zoned) -> bool {
        match self {
            Self::Dates { from, to, .. } => (*from..*to).contains(&at.datetime()),
            Self::Weekly { days, from, to, .. } => {
                let today = usize::try_from(at.weekday().to_monday_zero_offset()).unwrap_or(0);
                let on = |day: usize| days.get(day % 7).copied().unwrap_or(false);
                let time = at.time();
                if from < to {
                    on(today) && (*from..*to).contains(&time)
                } else {
                    (on(today) && time >= *from) || (on(today + 6) && time < *to)
                }
            }
        }
    }
}

fn times_of(word: &str) -> Result<(Time, Time), String> {
    let (from, to) = word.split_once('-').ok_or_else(|| format!("'{word}' has no '-'"))?;
    let read = |text: &str| time(text).ok_or_else(|| format!("'{text}' is no time of day"));
    Ok((read(from)?, read(to)?))
}

fn days_of(word: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let unknown = || format!("'{name}' is no weekday (mon, tue, wed, thu, fri, sat, sun)");
        DAYS.iter().position(|day| *day == name).ok_or_else(unknown)
    };
    let mut days = [false; 7];
    for part in word.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let length = (last + 7 - first) % 7;
        for offset in 0..=length {
            if let Some(on) = days.get_mut((first + offset) % 7) {
                *on = true;
            }
        }
    }
    Ok(days)
}

/// A date (true) or a date with a time.
fn moment(text: &str) -> Result<(DateTime, bool), String> {
    let text = text.trim().to_uppercase();
    if let Ok(date) = text.parse::<Date>()
        && !text.contains('T')
    {
        return Ok((date.to_datetime(Time::midnight()), true));
    }
    let moment = text.parse::<DateTime>().map_err(|_| format!("'{text}' is no date"))?;
    Ok((moment, false))
}
