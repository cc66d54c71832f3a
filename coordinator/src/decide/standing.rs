//! Where an agent stands: is it there, may it have jobs, does it pass its health checks. Three questions, kept apart.

use crate::domain::fleet::{Admission, FleetRecord};

/// Everything the answer may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// What was decided about it.
    pub fleet: &'a FleetRecord,
    /// Has a session.
    pub is_connected: bool,
    /// Was heard within the lease's time.
    pub is_heard: bool,
    /// Jobs that hold a slot of it.
    pub jobs: usize,
    /// Why its host takes no job now, as it says; empty: it does.
    pub busy: &'a str,
}

/// One word for people; of several that fit the first counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nobody has said yet that it is part of the fleet.
    Waiting,
    /// It is silent, and holds jobs that go on without anybody listening.
    Unreachable,
    /// It is not there, and holds nothing.
    Offline,
    /// It fails its health check.
    Quarantined,
    /// It finishes what it has.
    Draining,
    /// It has nothing and gets nothing.
    Drained,
    /// Its host is at work for others.
    Busy,
    /// It takes jobs.
    Ready,
}

/// Whether an agent does what it should; apart from whether it is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// No check was made yet.
    Unknown,
    /// The last check came to what it had to.
    Sound,
    /// It did not, or too many attempts ended as infrastructure.
    Failing,
}

// === impl Standing ===

impl Standing {
    /// Every one, as they are shown.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Busy,
        Self::Draining,
        Self::Drained,
        Self::Quarantined,
        Self::Waiting,
        Self::Unreachable,
        Self::Offline,
    ];

    /// The word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unreachable => "unreachable",
            Self::Offline => "offline",
            Self::Quarantined => "quarantined",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Busy => "busy",
            Self::Ready => "ready",
        }
    }
}

impl Health {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Sound, Self::Failing];

    /// The word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Sound => "sound",
            Self::Failing => "failing",
        }
    }
}

/// The word for an agent.
pub fn standing(seen: &Seen<'_>) -> Standing {
    let is_there = seen.is_connected && seen.is_heard;
    match seen.fleet {
        FleetRecord { admission: Admission::Waiting { .. }, .. } => Standing::Waiting,
        _ if !is_there && (seen.jobs > 0 || seen.is_connected) => Standing::Unreachable,
        _ if !is_there => Standing::Offline,
        FleetRecord { quarantine: Some(_), .. } => Standing::Quarantined,
        FleetRecord { drained: Some(_), .. } if seen.jobs > 0 => Standing::Draining,
        FleetRecord { drained: Some(_), .. } => Standing::Drained,
        _ if !seen.busy.is_empty() => Standing::Busy,
        _ => Standing::Ready,
    }
}

/// Whether it does what it should.
pub fn health(fleet: &FleetRecord) -> Health {
    match (&fleet.quarantine, &fleet.canary) {
        (Some(_), _) => Health::Failing,
        (None, Some(canary)) => match &canary.ended {
            Some((_, Some(true), _)) => Health::Sound,
            Some((_, Some(false), _)) => Health::Failing,
            Some((_, None, _)) | None => Health::Unknown,
        },
        (None, None) => Health::Unknown,
    }
}

/// Why an agent that is there gets no job, whatever the job; as part of a sentence. Health checks come in spite of a quarantine.
pub fn closed(seen: &Seen<'_>, is_health_check: bool) -> Option<String> {
    let name = seen.name;
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(" ({why})") };
    match seen.fleet {
        FleetRecord { admission: Admission::Waiting { .. }, .. } => {
            Some(format!("{name} waits for `pgsoak agents approve {name}`"))
        }
        FleetRecord { quarantine: Some(quarantine), .. } if !is_health_check => {
            Some(format!("{name} is quarantined{}", because(&quarantine.why)))
        }
        FleetRecord { drained: Some(drained), .. } => {
            Some(format!("{name} is being drained{}", because(&drained.why)))
        }
        _ if !seen.busy.is_empty() => Some(format!("{name}'s host is busy ({})", seen.busy)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fleet::{Canary, Decided};
    use crate::domain::time::UnixUs;
    use pgsoak_proto::id::{AgentId, RunId};

    fn decided(why: &str) -> Option<Decided> {
        Some(Decided { at: UnixUs(1), why: why.to_owned() })
    }

    #[test]
    fn being_there_being_wanted_and_being_sound_are_three_things() {
        let approved = Admission::Approved { at: UnixUs(0), by: "hand".to_owned() };
        let mut fleet = FleetRecord::new(AgentId::issue(), approved);
        let look = |fleet: &FleetRecord, is_connected, is_heard, jobs, busy: &str| {
            let seen = Seen { name: "a", fleet, is_connected, is_heard, jobs, busy };
            (standing(&seen).label(), closed(&seen, false), closed(&seen, true))
        };
        assert_eq!(look(&fleet, true, true, 1, ""), ("ready", None, None));
        assert_eq!(look(&fleet, false, false, 0, "").0, "offline");
        assert_eq!(look(&fleet, false, false, 1, "").0, "unreachable");
        assert_eq!(look(&fleet, true, false, 0, "").0, "unreachable");
        assert_eq!(look(&fleet, true, true, 0, "load 9").0, "busy");
        assert_eq!(look(&fleet, true, true, 0, "load 9").1.unwrap(), "a's host is busy (load 9)");

        fleet.drained = decided("new disk");
        assert_eq!(look(&fleet, true, true, 1, "").0, "draining");
        assert_eq!(look(&fleet, true, true, 0, "").0, "drained");
        assert_eq!(look(&fleet, true, true, 0, "").1.unwrap(), "a is being drained (new disk)");
        assert_eq!(health(&fleet), Health::Unknown);

        fleet.drained = None;
        fleet.quarantine = decided("missed the planted leak");
        assert_eq!(look(&fleet, true, true, 1, "").0, "quarantined");
        assert_eq!(look(&fleet, false, false, 0, "").0, "offline");
        assert_eq!(look(&fleet, true, true, 0, "").2, None, "a check may clear it");
        assert_eq!(health(&fleet), Health::Failing);

        fleet.quarantine = None;
        let ended = Some((UnixUs(2), Some(true), String::new()));
        fleet.canary = Some(Canary { run: RunId::issue(), begun_at: UnixUs(1), ended });
        assert_eq!(health(&fleet), Health::Sound);

        fleet.admission = Admission::Waiting { since: UnixUs(0) };
        assert_eq!(look(&fleet, true, true, 0, "").0, "waiting");
        assert!(look(&fleet, true, true, 0, "").2.unwrap().contains("agents approve a"));
    }
}
