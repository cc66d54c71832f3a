//! What a tick does: read who lives, find who came, note who went, and hand batches on. Knows no clock; times come in.

use crate::probe::Probe;
use crate::sampler::{
    Append, ProcessUse, SamplerConfig, SamplerStats, StartSamplerError,
    batch::Batch,
    outbox::Outbox,
    pss::{self, PssBudget},
    roster::{POSTMASTER, Roster, UNKNOWN},
};
use pgsoak_proto::evidence::{Body, Gap};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Processes that find their columns ready. More are taken in all the same.
const EXPECTED_PROCESSES: usize = 64;

/// All that the sampler knows.
pub(super) struct Desk<P: Probe, A> {
    probe: P,
    roster: Roster<P>,
    postmaster: u32,
    batch: Batch,
    outbox: Outbox<A>,
    budget: PssBudget,
    operations: Arc<AtomicU64>,
    seal_every: Duration,
    /// Processes whose end is told once their last samples are.
    ended: Vec<u32>,
    /// Pids, for as long as a tick lasts.
    pids: Vec<u32>,
    /// The process that was asked for its children last.
    asked_last: u32,
    /// A look for new processes failed before: it has been said.
    has_failed: bool,
    ticks_sampled: u64,
    process_samples: u64,
    failed_readings: u64,
    pss_readings: u64,
    pss_cpu: Duration,
}

// === impl Desk ===

impl<P: Probe, A: Append> Desk<P, A> {
    /// Takes in the postmaster.
    pub(super) fn open(
        mut probe: P,
        config: &SamplerConfig,
        append: A,
        operations: Arc<AtomicU64>,
    ) -> Result<Self, StartSamplerError> {
        let pid = config.postmaster;
        let opened =
            probe.open(pid).map_err(|source| StartSamplerError::Postmaster { pid, source })?;
        let postmaster = opened.ok_or(StartSamplerError::PostmasterGone(pid))?;
        let elapsed = config.origin.elapsed();
        let mut roster = Roster::new();
        let mut outbox = Outbox::new(append);
        outbox.send(elapsed, Body::ProcessAppeared(roster.adopt(postmaster, POSTMASTER, None)));
        Ok(Self {
            probe,
            roster,
            postmaster: pid,
            batch: Batch::new(EXPECTED_PROCESSES),
            outbox,
            budget: PssBudget::new(config.pss_share, elapsed),
            operations,
            seal_every: config.seal_every,
            ended: Vec::with_capacity(EXPECTED_PROCESSES),
            pids: Vec::with_capacity(EXPECTED_PROCESSES),
            asked_last: 0,
            has_failed: false,
            ticks_sampled: 0,
            process_samples: 0,
            failed_readings: 0,
            pss_readings: 0,
            pss_cpu: Duration::ZERO,
        })
    }

    /// Takes one tick. `next_in` is when the next is due, counted from now: a batch that would grow too old by then is handed on.
    pub(super) fn tick(&mut self, tick: u64, now: Duration, next_in: Duration) {
        self.batch.begin_row(tick, now);
        self.ticks_sampled += 1;
        self.read_known();
        self.find_new(now);
        let host = self.probe.host();
        self.batch.push_host(&host, self.operations.load(Ordering::Relaxed));
        if self.budget.is_on() {
            self.read_pss(now);
        }
        let age = now.saturating_sub(self.batch.opened_at());
        if self.batch.is_full() || age.saturating_add(next_in) >= self.seal_every {
            self.seal(now);
        }
    }

    /// Reads everybody in the roster; who has gone leaves it.
    fn read_known(&mut self) {
        self.pids.clear();
        for (pid, member) in self.roster.iter_mut() {
            match self.probe.sample(&member.process) {
                Ok(Some(sample)) => {
                    member.note(sample);
                    self.batch.push(&mut member.place, member.number, &sample);
                    self.process_samples += 1;
                }
                Ok(None) => self.pids.push(pid),
                Err(error) => {
                    self.failed_readings += 1;
                    if !std::mem::replace(&mut member.has_failed, true) {
                        tracing::warn!(pid, %error, "a server process cannot be read");
                    }
                }
            }
        }
        for pid in self.pids.drain(..) {
            self.ended.extend(self.roster.remove(pid));
        }
    }

    /// Asks the postmaster for its children, and one other process in turn: commands that backends start are rare.
    fn find_new(&mut self, now: Duration) {
        let other = self.roster.after(self.asked_last);
        self.asked_last = other.unwrap_or(0);
        self.pids.clear();
        for pid in [Some(self.postmaster), other.filter(|&pid| pid != self.postmaster)]
            .into_iter()
            .flatten()
        {
            let Some(member) = self.roster.get_mut(pid) else { continue };
            if let Err(error) = self.probe.children(&mut member.process, &mut self.pids)
                && !std::mem::replace(&mut self.has_failed, true)
            {
                tracing::warn!(pid, %error, "the children of a server process cannot be listed");
            }
        }
        for at in 0..self.pids.len() {
            let Some(&pid) = self.pids.get(at) else { break };
            if !self.roster.contains(pid) {
                self.adopt(pid, UNKNOWN, None, now);
                self.read_newcomer(pid);
            }
        }
    }

    fn adopt(&mut self, pid: u32, backend_type: &str, session: Option<u32>, now: Duration) {
        match self.probe.open(pid) {
            Ok(Some(process)) if self.roster.has_left(&process) => {}
            Ok(Some(process)) => {
                let appeared = self.roster.adopt(process, backend_type, session);
                self.outbox.send(now, Body::ProcessAppeared(appeared));
            }
            // It lived too short for a reading.
            Ok(None) => {}
            Err(error) => {
                self.failed_readings += 1;
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(pid, %error, "a server process cannot be opened for readings");
                }
            }
        }
    }

    fn read_newcomer(&mut self, pid: u32) {
        let Some(member) = self.roster.get_mut(pid) else { return };
        // Gone or not readable already: the next tick says so.
        if let Ok(Some(sample)) = self.probe.sample(&member.process) {
            member.note(sample);
            self.batch.push(&mut member.place, member.number, &sample);
            self.process_samples += 1;
        }
    }

    /// Reads Pss_Anon of whoever has waited longest, if the budget allows.
    fn read_pss(&mut self, now: Duration) {
        let waiting = self
            .roster
            .iter_mut()
            .filter_map(|(pid, member)| Some((member.waits_for_pss(now)?, pid)));
        let Some((_, pid)) = waiting.max_by_key(|&(waited, pid)| (waited, std::cmp::Reverse(pid)))
        else {
            return;
        };
        let Some(member) = self.roster.get_mut(pid) else { return };
        let sample = &member.latest;
        let resident = sample
            .rss_anon_kib
            .saturating_add(sample.rss_file_kib)
            .saturating_add(sample.rss_shmem_kib);
        let cost = member.pss_cost.unwrap_or_else(|| pss::guess(resident));
        if !self.budget.affords(cost, now) {
            return;
        }
        let before = cpu_now();
        let read = self.probe.pss_anon_kib(&member.process);
        let cost = cpu_now().saturating_sub(before);
        self.budget.spend(cost, now);
        member.pss_read_at = Some(now);
        member.pss_cost = Some(cost);
        self.pss_readings += 1;
        self.pss_cpu += cost;
        match read {
            Ok(Some(kib)) => self.batch.set_pss(member.place, kib),
            Ok(None) => {}
            Err(error) => {
                member.may_read_pss = false;
                if error.kind() != io::ErrorKind::PermissionDenied {
                    tracing::debug!(pid, %error, "smaps_rollup cannot be read");
                }
            }
        }
    }

    /// Hands on the batch, then the ends of processes whose last samples it held.
    pub(super) fn seal(&mut self, now: Duration) {
        let Self { batch, outbox, ended, .. } = self;
        batch.seal(|body| {
            if let Body::Samples(samples) = body {
                outbox.send_samples(now, &samples.ticks, body);
            }
        });
        outbox.flush();
        for number in ended.drain(..) {
            outbox.send(now, Body::ProcessEnded(number));
        }
    }

    /// Hands on a gap.
    pub(super) fn gap(&mut self, gap: Gap, now: Duration) {
        self.outbox.send(now, Body::Gap(gap));
    }

    /// Learns what a pid is.
    pub(super) fn identify(
        &mut self,
        pid: u32,
        backend_type: &str,
        session: Option<u32>,
        now: Duration,
    ) {
        self.renew(pid);
        if self.roster.contains(pid) {
            if let Some(appeared) = self.roster.identify(pid, backend_type, session) {
                self.outbox.send(now, Body::ProcessAppeared(appeared));
            }
        } else {
            self.adopt(pid, backend_type, session, now);
        }
    }

    /// The number of the process with this pid, assigned now if need be.
    pub(super) fn number_of(&mut self, pid: u32, now: Duration) -> Option<u32> {
        self.renew(pid);
        if !self.roster.contains(pid) {
            self.adopt(pid, UNKNOWN, None, now);
        }
        self.roster.get_mut(pid).map(|member| member.number)
    }

    /// Takes a process out that ended since the last tick: its pid may be another's by now.
    fn renew(&mut self, pid: u32) {
        if let Some(member) = self.roster.get_mut(pid)
            && matches!(self.probe.sample(&member.process), Ok(None))
        {
            self.ended.extend(self.roster.remove(pid));
        }
    }

    pub(super) fn use_of(&self, pid: u32) -> Option<ProcessUse> {
        self.roster.use_of(pid)
    }

    pub(super) fn uses(&self) -> Vec<(u32, ProcessUse)> {
        self.roster.uses()
    }

    pub(super) fn reset_peaks(&mut self) {
        self.roster.reset_peaks();
    }

    /// What it came to, when `ticks` were due. To be asked on the sampler's thread, whose CPU it tells.
    pub(super) fn stats(&self, ticks: u64) -> SamplerStats {
        SamplerStats {
            ticks,
            ticks_sampled: self.ticks_sampled.saturating_sub(self.outbox.lost_ticks()),
            process_samples: self.process_samples,
            failed_readings: self.failed_readings,
            cpu_us: u64::try_from(cpu_now().as_micros()).unwrap_or(u64::MAX),
            pss_readings: self.pss_readings,
            pss_cpu_us: u64::try_from(self.pss_cpu.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// CPU time of this thread.
fn cpu_now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests;
