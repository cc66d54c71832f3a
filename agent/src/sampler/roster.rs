//! Who is sampled: the processes that live, by pid, with their numbers and what is known of them.

use crate::probe::{Probe, ProcessKey, ProcessSample};
use crate::sampler::{ProcessUse, batch::Place};
use pgsoak_proto::evidence::ProcessAppeared;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What a process is called until more is known.
pub const UNKNOWN: &str = "unknown";
/// What the first process is called.
pub const POSTMASTER: &str = "postmaster";

/// The processes that live.
pub(super) struct Roster<P: Probe> {
    members: BTreeMap<u32, Member<P::Process>>,
    next_number: u32,
    /// Those who left last.
    left: VecDeque<(ProcessKey, ProcessUse)>,
}

/// Those who left that are remembered: a crash names one of the last.
const LEFT: usize = 64;

/// One process.
pub(super) struct Member<T> {
    pub(super) process: T,
    pub(super) number: u32,
    pub(super) place: Place,
    pub(super) latest: ProcessSample,
    /// The reading before failed: it has been said.
    pub(super) has_failed: bool,
    /// When Pss_Anon was read last; `None`: never.
    pub(super) pss_read_at: Option<Duration>,
    /// What that cost.
    pub(super) pss_cost: Option<Duration>,
    /// The kernel lets us.
    pub(super) may_read_pss: bool,
    peak_bytes: u64,
    backend_type: String,
    session: Option<u32>,
}

// === impl Roster ===

impl<P: Probe> Roster<P> {
    pub(super) fn new() -> Self {
        Self { members: BTreeMap::new(), next_number: 0, left: VecDeque::new() }
    }

    /// Takes a process in. One with the same pid must have been taken out before.
    pub(super) fn adopt(
        &mut self,
        process: P::Process,
        backend_type: &str,
        session: Option<u32>,
    ) -> ProcessAppeared {
        let key = P::key(&process);
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let member = Member {
            process,
            number,
            place: Place::default(),
            latest: ProcessSample::default(),
            has_failed: false,
            pss_read_at: None,
            pss_cost: None,
            may_read_pss: true,
            peak_bytes: 0,
            backend_type: backend_type.to_owned(),
            session,
        };
        let appeared = member.appeared(key);
        self.members.insert(key.pid, member);
        appeared
    }

    /// Takes a process out and gives its number.
    pub(super) fn remove(&mut self, pid: u32) -> Option<u32> {
        let member = self.members.remove(&pid)?;
        if self.left.len() >= LEFT {
            self.left.pop_front();
        }
        self.left.push_back((P::key(&member.process), member.process_use()));
        Some(member.number)
    }

    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Member<P::Process>> {
        self.members.get_mut(&pid)
    }

    pub(super) fn contains(&self, pid: u32) -> bool {
        self.members.contains_key(&pid)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Member<P::Process>)> {
        self.members.iter_mut().map(|(&pid, member)| (pid, member))
    }

    /// It has been taken out already: the kernel lists a process until its parent has asked how it ended.
    pub(super) fn has_left(&self, process: &P::Process) -> bool {
        let key = P::key(process);
        self.left.iter().any(|(left, _)| *left == key)
    }

    /// The first process whose pid is above `pid`, going round.
    pub(super) fn after(&self, pid: u32) -> Option<u32> {
        let above = self.members.range(pid.saturating_add(1)..).next();
        above.or_else(|| self.members.first_key_value()).map(|(&pid, _)| pid)
    }

    /// What a process is; `Some` when that is news.
    pub(super) fn identify(
        &mut self,
        pid: u32,
        backend_type: &str,
        session: Option<u32>,
    ) -> Option<ProcessAppeared> {
        let member = self.members.get_mut(&pid)?;
        if member.backend_type == backend_type && member.session == session {
            return None;
        }
        backend_type.clone_into(&mut member.backend_type);
        member.session = session;
        Some(member.appeared(P::key(&member.process)))
    }

    pub(super) fn use_of(&self, pid: u32) -> Option<ProcessUse> {
        let lives = self.members.get(&pid).map(Member::process_use);
        let left = || self.left.iter().rev().find(|(left, _)| left.pid == pid);
        lives.or_else(|| left().map(|(_, used)| used.clone()))
    }

    pub(super) fn uses(&self) -> Vec<(u32, ProcessUse)> {
        self.members.iter().map(|(&pid, member)| (pid, member.process_use())).collect()
    }

    pub(super) fn reset_peaks(&mut self) {
        for member in self.members.values_mut() {
            member.peak_bytes = member.latest.anonymous_bytes();
        }
    }
}

// === impl Member ===

impl<T> Member<T> {
    /// Notes a reading.
    pub(super) fn note(&mut self, sample: ProcessSample) {
        self.latest = sample;
        self.peak_bytes = self.peak_bytes.max(sample.anonymous_bytes());
        self.has_failed = false;
    }

    /// Whether it asks for a reading of Pss_Anon, and how long it has waited: a newborn has waited for ever.
    pub(super) fn waits_for_pss(&self, now: Duration) -> Option<Duration> {
        let waited = self.pss_read_at.map_or(Duration::MAX, |at| now.saturating_sub(at));
        (self.may_read_pss && waited >= super::pss::READ_EVERY).then_some(waited)
    }

    fn appeared(&self, key: ProcessKey) -> ProcessAppeared {
        ProcessAppeared {
            process: self.number,
            pid: key.pid,
            start_time_ticks: key.start_time_ticks,
            backend_type: self.backend_type.clone(),
            session: self.session,
        }
    }

    fn process_use(&self) -> ProcessUse {
        ProcessUse {
            process: self.number,
            anonymous_bytes: self.latest.anonymous_bytes(),
            peak_anonymous_bytes: self.peak_bytes,
            backend_type: self.backend_type.clone(),
            session: self.session,
        }
    }
}
