//! What a schedule does now: which of its times get a run, which are left out, what somebody must hear of. Pure.
//!
//! Times are decided in order, each once: `decided_until` says how far. When the wall clock steps back, times are decided
//! again from where it stands, but one that has a run never gets another. Every time that passes leaves a record.

use crate::decide::calendar::Calendar;
use crate::domain::alert::AlertKind;
use crate::domain::schedule::{
    MOST_OWED, Missed, Overlap, Progress, ScheduleSpec, TickOutcome, TickRecord,
};
use crate::domain::time::UnixUs;
use pgsoak_proto::id::{RunId, ScheduleId};
use std::time::Duration;

/// Times that one look decides one by one; of more, the rest are counted as one.
const MOST_TICKS: usize = 1_000;
/// A wall clock that is behind the last decided time by more than this was set back.
const STEP_BACK: Duration = Duration::from_secs(3_600);
/// A run that waits for an agent for longer is said to be stuck, however short `start_within` is.
const STUCK_AFTER: Duration = Duration::from_secs(600);

/// Everything the decision may depend on.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The wall clock; it may step both ways.
    pub now: UnixUs,
    /// Whose.
    pub schedule: ScheduleId,
    /// What was asked for.
    pub spec: &'a ScheduleSpec,
    /// The same, checked.
    pub calendar: &'a Calendar,
    /// Nothing starts.
    pub is_paused: bool,
    /// How far it got.
    pub progress: &'a Progress,
    /// Runs of it that wait for their first agent.
    pub queued: &'a [RunId],
    /// How long a run takes; `None`: nobody knows.
    pub takes: Option<Duration>,
    /// The builds that a run would have now, all in one text that differs when any of them does; `None`: they cannot be told,
    /// so they may have changed.
    pub builds: Option<&'a str>,
}

/// A run to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Start {
    /// The time that it stands for.
    pub tick: UnixUs,
    /// Later than that time.
    pub is_made_up: bool,
}

/// What to do. Carried out as a whole or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// How far the schedule is with this; its starts are marked in it already.
    pub progress: Progress,
    /// At most one: of several times at once the others were missed.
    pub start: Option<Start>,
    /// Earlier runs that make room.
    pub cancel: Vec<RunId>,
    /// What became of times that get no run now.
    pub records: Vec<TickRecord>,
    /// What somebody should look at.
    pub alerts: Vec<(AlertKind, String)>,
}

struct Deciding<'a, 'b> {
    at: &'b Snapshot<'a>,
    decision: Decision,
    missed: Vec<UnixUs>,
}

/// What the schedule does at this moment.
pub fn decide(snapshot: &Snapshot<'_>) -> Decision {
    let progress = snapshot.progress.clone();
    let decision = Decision { progress, ..Decision::default() };
    let mut deciding = Deciding { at: snapshot, decision, missed: Vec::new() };
    deciding.look_back();
    deciding.pass_ticks();
    deciding.tell_missed();
    deciding.make_up();
    deciding.tell_stuck();
    deciding.decision
}

// === impl Decision ===

impl Decision {
    /// Whether something is to be written.
    pub fn is_news(&self, before: &Progress) -> bool {
        self.progress != *before || self.start.is_some() || !self.alerts.is_empty()
    }
}

// === impl Deciding ===

impl Deciding<'_, '_> {
    /// A clock that was set back: times from now on are decided (again).
    fn look_back(&mut self) {
        let Snapshot { now, .. } = *self.at;
        let until = self.decision.progress.decided_until;
        if until.since(now) <= STEP_BACK {
            return;
        }
        let progress = &mut self.decision.progress;
        progress.decided_until = now.max(progress.started_forgotten.min(until));
        // They come by themselves.
        progress.owed.retain(|tick| *tick <= now);
        self.alert(
            AlertKind::ClockJumped,
            format!(
                "the coordinator's clock says {now}, and times up to {until} were decided already: it was set back; they are decided again, without a second run for any"
            ),
        );
    }

    /// Every time that has become due.
    fn pass_ticks(&mut self) {
        let Snapshot { now, calendar, schedule, spec, .. } = *self.at;
        let after = self.decision.progress.decided_until;
        let mut ticks = calendar.ticks(after, now, MOST_TICKS);
        if ticks.len() >= MOST_TICKS {
            self.leap(&mut ticks);
        }
        // In order: one that is not due yet holds back those after it.
        let due: Vec<(UnixUs, UnixUs)> = ticks
            .into_iter()
            .map(|tick| (tick, calendar.due(schedule, spec.jitter, tick)))
            .take_while(|(_, due)| *due <= now)
            .collect();
        let on_time = due.last().filter(|(_, due)| now.since(*due) <= spec.start_within).copied();
        for (tick, due) in due {
            self.decision.progress.decided_until = tick;
            let is_on_time = on_time.is_some_and(|(last, _)| last == tick);
            self.pass(tick, due, is_on_time);
        }
    }

    /// Very many times at once (years of downtime, or a clock that leapt): all but the last few are missed as one.
    fn leap(&mut self, ticks: &mut Vec<UnixUs>) {
        let Snapshot { now, calendar, .. } = *self.at;
        let Some(first) = ticks.first().copied() else { return };
        let mut last = Vec::new();
        let mut before = now;
        while last.len() < MOST_OWED + 1
            && let Some(tick) = calendar.last_tick(before)
            && tick > first
        {
            last.push(tick);
            before = UnixUs(tick.0.saturating_sub(1));
        }
        last.reverse();
        let Some(next) = last.first() else { return };
        let Some(skipped_to) = calendar.last_tick(UnixUs(next.0.saturating_sub(1))) else { return };
        let reason = format!("{MOST_TICKS} times or more passed at once");
        self.decision.progress.decided_until = skipped_to;
        let record = TickRecord {
            tick: first,
            last_tick: skipped_to,
            count: u32::try_from(MOST_TICKS).unwrap_or(u32::MAX),
            at: now,
            what: TickOutcome::Missed(reason),
        };
        self.missed.push(first);
        self.put(record);
        *ticks = last;
    }

    fn pass(&mut self, tick: UnixUs, due: UnixUs, is_on_time: bool) {
        let Snapshot { spec, calendar, .. } = *self.at;
        if self.decision.progress.has_started(tick) {
            return self.skip(tick, "it has a run already (the clock was set back)".to_owned());
        }
        if self.at.is_paused {
            return self.skip(tick, "the schedule was paused".to_owned());
        }
        if let Some(closed) = calendar.closed(due) {
            return match spec.missed {
                Missed::Skip => self.skip(tick, closed),
                Missed::Once | Missed::Shift => self.owe(tick, closed),
            };
        }
        if !is_on_time {
            self.missed.push(tick);
            let reason =
                "nobody was there: the coordinator was away, or its clock leapt".to_owned();
            return match spec.missed {
                Missed::Skip => self.record(tick, TickOutcome::Missed(reason)),
                Missed::Once | Missed::Shift => self.owe(tick, reason),
            };
        }
        if self.is_same_build() {
            return self.skip(tick, "no build has changed since the last run".to_owned());
        }
        if let Some(problem) = self.too_long() {
            self.alert(
                AlertKind::RunSkipped,
                format!("the run of {tick} was not started: {problem}"),
            );
            return self.skip(tick, problem);
        }
        if let Some(earlier) = self.decision.progress.unfinished.keys().next().copied() {
            match spec.overlap {
                Overlap::Allow => {}
                Overlap::Forbid => {
                    let problem = format!("run {earlier} of the schedule is not over");
                    self.alert(
                        AlertKind::RunSkipped,
                        format!("the run of {tick} was not started: {problem}"),
                    );
                    return self.skip(tick, problem);
                }
                Overlap::Replace => {
                    self.decision.cancel =
                        self.decision.progress.unfinished.keys().copied().collect();
                }
            }
        }
        if spec.missed == Missed::Once
            && let Some(owed) = self.decision.progress.owed.pop_front()
        {
            // One run makes up for all.
            self.skip(owed, format!("the run of {tick} stands for it as well"));
        }
        self.start(tick, false);
    }

    /// Starts what is owed, when nothing speaks against it.
    fn make_up(&mut self) {
        let Snapshot { now, spec, calendar, is_paused, .. } = *self.at;
        let is_busy =
            !self.decision.progress.unfinished.is_empty() && spec.overlap != Overlap::Allow;
        if is_paused || is_busy || self.decision.start.is_some() || calendar.closed(now).is_some() {
            return;
        }
        while let Some(tick) = self.decision.progress.owed.front().copied() {
            if self.decision.progress.has_started(tick) {
                self.decision.progress.owed.pop_front();
            } else if self.is_same_build() {
                self.decision.progress.owed.pop_front();
                self.skip(tick, "no build has changed since the last run".to_owned());
            } else if self.too_long().is_some() {
                return;
            } else {
                self.decision.progress.owed.pop_front();
                return self.start(tick, true);
            }
        }
    }

    fn start(&mut self, tick: UnixUs, is_made_up: bool) {
        self.decision.progress.mark_started(tick);
        self.decision.progress.last_builds = self.at.builds.map(str::to_owned);
        self.decision.start = Some(Start { tick, is_made_up });
    }

    fn owe(&mut self, tick: UnixUs, why: String) {
        self.record(tick, TickOutcome::Owed(why));
        let most = if self.at.spec.missed == Missed::Once { 1 } else { MOST_OWED };
        self.decision.progress.owed.push_back(tick);
        while self.decision.progress.owed.len() > most {
            if let Some(left) = self.decision.progress.owed.pop_front() {
                let why = match self.at.spec.missed {
                    Missed::Once => "one run makes up for all that were missed".to_owned(),
                    _ => format!("at most {MOST_OWED} times are made up for"),
                };
                self.record(left, TickOutcome::Missed(why));
            }
        }
    }

    fn is_same_build(&self) -> bool {
        let last = &self.decision.progress.last_builds;
        self.at.spec.only_new_builds
            && self.at.builds.is_some()
            && last.as_deref() == self.at.builds
    }

    /// Why a run that starts now would not be over in time.
    fn too_long(&self) -> Option<String> {
        let Snapshot { now, calendar, takes, .. } = *self.at;
        let end = calendar.must_end_by(now)?;
        let takes = takes?;
        let minutes = takes.as_secs().div_ceil(60);
        (now.plus(takes) > end).then(|| {
            format!(
                "it takes about {} h {:02} m and could not be over by {}",
                minutes / 60,
                minutes % 60,
                calendar.local(end)
            )
        })
    }

    fn skip(&mut self, tick: UnixUs, why: String) {
        self.record(tick, TickOutcome::Skipped(why));
    }

    fn record(&mut self, tick: UnixUs, what: TickOutcome) {
        let at = self.at.now;
        self.put(TickRecord { tick, last_tick: tick, count: 1, at, what });
    }

    fn put(&mut self, record: TickRecord) {
        self.decision.progress.remember(record.clone());
        self.decision.records.push(record);
    }

    fn alert(&mut self, kind: AlertKind, text: String) {
        self.decision.alerts.push((kind, text));
    }

    fn tell_missed(&mut self) {
        let what = match self.at.spec.missed {
            Missed::Skip => "left out",
            Missed::Once => "one run makes up for it",
            Missed::Shift => "it is made up for",
        };
        let text = match self.missed.as_slice() {
            [] => return,
            [tick] => format!("the run of {tick} did not start on time: {what}"),
            [first, .., last] => format!(
                "{} runs did not start on time, from {first} to {last}: {what}",
                self.missed.len()
            ),
        };
        self.alert(AlertKind::RunMissed, text);
    }

    /// Runs that were begun and that no agent takes.
    fn tell_stuck(&mut self) {
        let patience = self.at.spec.start_within.max(STUCK_AFTER);
        for run in self.at.queued {
            let progress = &mut self.decision.progress;
            let Some(begun) = progress.unfinished.get(run).copied() else { continue };
            if self.at.now.since(begun) > patience && progress.stuck.insert(*run) {
                self.alert(
                    AlertKind::RunStuck,
                    format!("run {run} waits for an agent since {begun}; `pgsoak runs show {run}` says why"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
