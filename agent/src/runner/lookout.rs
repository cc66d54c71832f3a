//! Watches the processes of a loop while it runs, and captures what they hold: suspects at once and again later, the largest now and then.
//!
//! A task of its own beside the engine, under `plain` alone; it needs nobody but the server. Every second it asks the sampler what each process uses.
//! A capture is the process's memory contexts, which the server writes into its log when it is asked to, and what it ran. It is taken over
//! a connection that lives for the capture only, so that it is no session of the workload. What cannot be had is said in the capture; nothing
//! here ends the attempt. What is due is decided by [`Agenda`], which knows no clock.

use crate::cluster::log::tail_from;
use crate::probe::rss_anon_now;
use crate::runner::record::Record;
use crate::sampler::{ProcessUse, SamplerHandle};
use crate::workers::failure::WorkError;
use crate::workers::session::Session;
use pgsoak_analysis::context_log;
use pgsoak_analysis::suspicion::Watch;
use pgsoak_proto::evidence::{Body, Capture, CaptureCause, ContextUse};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;

/// How often processes are looked at, and the shortest stretch of the watch.
const EVERY: Duration = Duration::from_secs(1);
/// Between two captures, whatever is due.
const PAUSE: Duration = Duration::from_secs(5);
/// The first one that nothing has asked for, after the loop began; each further one waits twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(1_800);
/// A process that has grown to twice what it held at its last capture, and by so much, is captured again: it may not live long.
const DOUBLED_FROM: u64 = 64 << 20;
/// Suspects of a job, and captures of one after its first.
const MOST_SUSPECTS: usize = 4;
const MOST_LATER: u32 = 3;
/// A suspect is captured again after as long as it was watched before, within these.
const SOONEST_AGAIN: Duration = Duration::from_secs(10);
const LATEST_AGAIN: Duration = Duration::from_secs(3_600);
/// Captures of a job, of every kind.
const MOST_CAPTURES: u32 = 200;
/// How long the server may take to write a process's contexts: it does so when the process next looks up from its work.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the captures at a loop's end may take.
const END_LIMIT: Duration = Duration::from_secs(30);
/// First major with `pg_log_backend_memory_contexts`.
const FIRST_MAJOR: u32 = 14;
/// Number of the session that captures are taken over; no worker has it.
const SESSION: u32 = u32::MAX;
/// What the sampler calls its backend.
const BACKEND_TYPE: &str = "pgsoak capture";
/// How often a statement is asked for.
const LOOKS: u32 = 3;

/// Talks to the task; dropped, it ends.
#[derive(Debug)]
pub struct Lookout {
    orders: mpsc::Sender<Order>,
    _task: AbortOnDropHandle<()>,
}

/// What it works with.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where it connects.
    pub server: tokio_postgres::Config,
    /// Of the server.
    pub major: u32,
    /// What the server writes.
    pub log: PathBuf,
    /// Says what processes use.
    pub sampler: SamplerHandle,
    /// Takes the captures.
    pub record: Record,
    /// Done by all loop workers so far.
    pub operations: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    Begin(String),
    End(oneshot::Sender<()>),
}

// === impl Lookout ===

impl Lookout {
    /// Starts the task; it looks at nothing before a loop begins.
    pub fn start(post: Post) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        Self { orders, _task: AbortOnDropHandle::new(tokio::spawn(watch(post, inbox))) }
    }

    /// A loop begins.
    pub fn begin(&self, phase: &str) {
        // A task that has ended, or is behind by four loops, captures nothing; the evidence says so by what it lacks.
        let _ = self.orders.try_send(Order::Begin(phase.to_owned()));
    }

    /// The loop is about to end: suspects that wait for a second capture get it now. Waits for that, within a limit.
    pub async fn end(&self) {
        let (done, is_done) = oneshot::channel();
        if self.orders.try_send(Order::End(done)).is_ok() {
            let _ = tokio::time::timeout(END_LIMIT, is_done).await;
        }
    }
}

async fn watch(post: Post, mut inbox: mpsc::Receiver<Order>) {
    let mut agenda = Agenda::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                None => return,
                Some(Order::Begin(phase)) => agenda.begin(&phase, post.record.origin().elapsed()),
                Some(Order::End(done)) => {
                    if let Ok(uses) = post.sampler.processes().await {
                        let now = post.record.origin().elapsed();
                        for wanted in agenda.end(now, &uses) {
                            capture(&post, &wanted, &uses).await;
                        }
                    }
                    let _ = done.send(());
                }
            },
            _ = ticks.tick(), if agenda.is_on() => {
                // A sampler that has died is noticed by the engine.
                let Ok(uses) = post.sampler.processes().await else { return };
                if let Some(wanted) = agenda.due(post.record.origin().elapsed(), &uses) {
                    capture(&post, &wanted, &uses).await;
                }
            }
        }
    }
}

/// Takes a capture and writes it.
async fn capture(post: &Post, wanted: &Wanted, uses: &[(u32, ProcessUse)]) {
    let Some((pid, known)) = uses.iter().find(|(_, known)| known.process == wanted.process) else {
        return;
    };
    let began = Instant::now();
    let rss_anon_bytes = rss_anon_now(*pid).ok().flatten().unwrap_or(known.anonymous_bytes);
    let operations = post.operations.load(Ordering::Relaxed);
    let held = held(post, *pid).await;
    let (contexts, statements, missing) = match held {
        Ok(held) => held,
        Err(error) => (Vec::new(), Vec::new(), error.to_string()),
    };
    tracing::info!(pid, reason = wanted.reason, missing, contexts = contexts.len(), "captured");
    let body = Body::Capture(Capture {
        process: known.process,
        session: known.session,
        cause: wanted.cause,
        reason: wanted.reason.clone(),
        operations,
        rss_anon_bytes,
        contexts,
        statements,
        missing,
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
    });
    if let Err(fault) = post.record.write(&body) {
        tracing::warn!(?fault, "a capture is lost");
    }
}

/// Contexts, statements, and why there are no contexts.
type Held = (Vec<ContextUse>, Vec<String>, String);

async fn held(post: &Post, pid: u32) -> Result<Held, WorkError> {
    let session = Session::open(&post.server, SESSION).await?;
    // Its own backend is none of the workload's.
    let _ = post.sampler.set_identity(session.pid(), BACKEND_TYPE, None);
    let mut statements = Vec::new();
    let from = std::fs::metadata(&post.log).map_or(0, |file| file.len());
    let mut missing = String::new();
    if post.major < FIRST_MAJOR {
        missing = format!("PostgreSQL {} has no pg_log_backend_memory_contexts", post.major);
    } else {
        const ASK: &str = "SELECT pg_catalog.pg_log_backend_memory_contexts(";
        if session.value(&format!("{ASK}{pid})")).await? != "t" {
            missing = format!("the server does not log the contexts of process {pid}");
        }
    }
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let query = format!("SELECT query FROM pg_catalog.pg_stat_activity WHERE pid = {pid}");
        for row in session.rows(&query).await? {
            let statement = row.try_get(0).ok().flatten().unwrap_or_default().to_owned();
            if !statement.is_empty() && !statements.contains(&statement) {
                statements.insert(0, statement);
            }
        }
    }
    session.close().await;
    if !missing.is_empty() {
        return Ok((Vec::new(), statements, missing));
    }
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        if let Some(contexts) = context_log::parse(&tail_from(&post.log, from), pid) {
            return Ok((contexts, statements, missing));
        }
        if Instant::now() >= deadline {
            missing = format!(
                "process {pid} did not write its contexts within {} s: it did not look up from its work",
                ANSWER_LIMIT.as_secs()
            );
            return Ok((Vec::new(), statements, missing));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A capture that is wanted.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    process: u32,
    cause: CaptureCause,
    reason: String,
}

/// What is due. Given times and readings; no I/O.
#[derive(Debug)]
struct Agenda {
    /// The loop that runs.
    phase: Option<(String, Duration)>,
    watch: Watch,
    suspects: BTreeMap<u32, Suspect>,
    /// What each process held at its last capture.
    captured: BTreeMap<u32, u64>,
    last_at: Option<Duration>,
    /// When the next one is due that nothing asked for, and how long the one after that waits.
    next_at: Duration,
    wait: Duration,
    taken: u32,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    later: u32,
    next_at: Duration,
    wait: Duration,
}

// === impl Agenda ===

impl Agenda {
    fn new() -> Self {
        Self {
            phase: None,
            watch: Watch::new(EVERY),
            suspects: BTreeMap::new(),
            captured: BTreeMap::new(),
            last_at: None,
            next_at: Duration::ZERO,
            wait: FIRST,
            taken: 0,
        }
    }

    fn is_on(&self) -> bool {
        self.phase.is_some()
    }

    fn begin(&mut self, phase: &str, now: Duration) {
        self.phase = Some((phase.to_owned(), now));
        self.watch.reset();
        self.next_at = now + FIRST;
        self.wait = FIRST;
    }

    /// At most one at a time, never within the pause, never beyond the budget.
    fn due(&mut self, now: Duration, uses: &[(u32, ProcessUse)]) -> Option<Wanted> {
        let (phase, began) = self.phase.clone()?;
        let readings: BTreeMap<u32, u64> =
            uses.iter().map(|(_, known)| (known.process, known.anonymous_bytes)).collect();
        self.watch.note(now, &readings);
        self.captured.retain(|process, _| readings.contains_key(process));
        let is_too_soon = self.last_at.is_some_and(|last| now.saturating_sub(last) < PAUSE);
        if is_too_soon || self.taken >= MOST_CAPTURES {
            return None;
        }
        let wanted = self
            .fresh_suspect(&phase, now, began)
            .or_else(|| self.again(now, &readings))
            .or_else(|| self.doubled(&readings))
            .or_else(|| self.periodic(now, uses))?;
        self.taken += 1;
        self.last_at = Some(now);
        self.captured.insert(wanted.process, readings.get(&wanted.process).copied().unwrap_or(0));
        Some(wanted)
    }

    fn fresh_suspect(&mut self, phase: &str, now: Duration, began: Duration) -> Option<Wanted> {
        if self.suspects.len() >= MOST_SUSPECTS {
            return None;
        }
        let found = self
            .watch
            .suspects()
            .into_iter()
            .find(|found| !self.suspects.contains_key(&found.process))?;
        let wait = now.saturating_sub(began).clamp(SOONEST_AGAIN, LATEST_AGAIN);
        self.suspects.insert(found.process, Suspect { later: 0, next_at: now + wait, wait });
        Some(Wanted {
            process: found.process,
            cause: CaptureCause::Suspect,
            reason: format!(
                "grew by {} kB in {} s of phase {phase}, steadily",
                found.grew >> 10,
                found.over.as_secs()
            ),
        })
    }

    fn again(&mut self, now: Duration, readings: &BTreeMap<u32, u64>) -> Option<Wanted> {
        let (process, suspect) = self.suspects.iter_mut().find(|(process, suspect)| {
            suspect.later < MOST_LATER && suspect.next_at <= now && readings.contains_key(process)
        })?;
        suspect.later += 1;
        suspect.wait = suspect.wait.saturating_mul(2).min(LATEST_AGAIN);
        suspect.next_at = now + suspect.wait;
        Some(Wanted {
            process: *process,
            cause: CaptureCause::Later,
            reason: "a suspect, some time later".to_owned(),
        })
    }

    fn doubled(&self, readings: &BTreeMap<u32, u64>) -> Option<Wanted> {
        let known = |process: &u32| self.captured.get(process).copied();
        let (process, bytes) = readings.iter().find(|(process, bytes)| {
            // One that was never captured counts from nothing.
            let before = known(process).unwrap_or(0);
            **bytes >= DOUBLED_FROM && **bytes / 2 >= before
        })?;
        Some(Wanted {
            process: *process,
            cause: CaptureCause::Periodic,
            reason: format!("has grown to {} MB, twice what it last held", bytes >> 20),
        })
    }

    /// The largest session's backend, or where there is none the largest process.
    fn periodic(&mut self, now: Duration, uses: &[(u32, ProcessUse)]) -> Option<Wanted> {
        if now < self.next_at {
            return None;
        }
        self.wait = self.wait.saturating_mul(2).min(LONGEST);
        self.next_at = now + self.wait;
        let (_, largest) = uses.iter().filter(|(_, known)| known.session != Some(0)).max_by_key(
            |(_, known)| {
                (known.session.is_some(), known.anonymous_bytes, std::cmp::Reverse(known.process))
            },
        )?;
        Some(Wanted {
            process: largest.process,
            cause: CaptureCause::Periodic,
            reason: "the largest session, now and then".to_owned(),
        })
    }

    /// The loop ends: one more capture of each suspect that lives.
    fn end(&mut self, now: Duration, uses: &[(u32, ProcessUse)]) -> Vec<Wanted> {
        self.phase = None;
        self.last_at = Some(now);
        let living: BTreeSet<u32> = uses.iter().map(|(_, known)| known.process).collect();
        let due: Vec<Wanted> = self
            .suspects
            .keys()
            .filter(|process| living.contains(process))
            .map(|process| Wanted {
                process: *process,
                cause: CaptureCause::Later,
                reason: "a suspect, at the end of its loop".to_owned(),
            })
            .collect();
        // Told of this loop; in the next one the same process may be suspect anew.
        for wanted in &due {
            if let Some(suspect) = self.suspects.get_mut(&wanted.process) {
                suspect.later = MOST_LATER;
            }
        }
        self.taken = self.taken.saturating_add(u32::try_from(due.len()).unwrap_or(u32::MAX));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(all: &[(u32, Option<u32>, u64)]) -> Vec<(u32, ProcessUse)> {
        all.iter()
            .map(|&(process, session, bytes)| {
                let known = ProcessUse {
                    process,
                    anonymous_bytes: bytes,
                    peak_anonymous_bytes: bytes,
                    backend_type: "client backend".to_owned(),
                    session,
                };
                (100 + process, known)
            })
            .collect()
    }

    /// Captures of a loop of so many seconds: when, of whom, why.
    fn loop_of(seconds: u64, bytes: impl Fn(u64) -> u64) -> Vec<(u64, u32, CaptureCause)> {
        let mut agenda = Agenda::new();
        agenda.begin("steady", Duration::ZERO);
        let mut taken = Vec::new();
        for second in 0..seconds {
            let now = Duration::from_secs(second);
            let uses =
                uses(&[(0, Some(0), 9 << 20), (1, Some(1), bytes(second)), (2, None, 5 << 20)]);
            taken.extend(agenda.due(now, &uses).map(|w| (second, w.process, w.cause)));
        }
        let uses = uses(&[(1, Some(1), bytes(seconds))]);
        let at_end = agenda.end(Duration::from_secs(seconds), &uses);
        taken.extend(at_end.into_iter().map(|w| (seconds, w.process, w.cause)));
        taken
    }

    #[test]
    fn a_level_session_is_captured_early_and_then_ever_more_rarely() {
        let taken = loop_of(86_400, |_| 4 << 20);
        assert!(taken.iter().all(|taken| (taken.1, taken.2) == (1, CaptureCause::Periodic)));
        assert_eq!(taken.first().map(|taken| taken.0), Some(15));
        assert!((48..=70).contains(&taken.len()), "{} in a day", taken.len());
    }

    #[test]
    fn a_suspect_is_captured_at_once_later_and_at_the_end() {
        let taken = loop_of(600, |second| (4 << 20) + second * 40_000);
        let of = |cause| taken.iter().filter(move |taken| taken.2 == cause).collect::<Vec<_>>();
        let first = of(CaptureCause::Suspect);
        assert_eq!(first.len(), 1, "{taken:?}");
        assert!(first[0].0 <= 40, "{taken:?}");
        let later = of(CaptureCause::Later);
        assert!((2..=4).contains(&later.len()), "{taken:?}");
        assert_eq!(later.last().map(|taken| taken.0), Some(600));
    }

    #[test]
    fn one_that_is_about_to_eat_the_host_is_captured_at_every_doubling() {
        let taken = loop_of(60, |second| 1 << (20 + second / 4));
        assert!(taken.len() >= 6, "{taken:?}");
        assert!(taken.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 5), "{taken:?}");
    }

    #[test]
    fn nothing_is_due_outside_of_a_loop_and_nothing_beyond_the_budget() {
        let mut agenda = Agenda::new();
        assert_eq!(agenda.due(Duration::from_secs(99), &uses(&[(1, Some(1), 1 << 30)])), None);
        let taken = loop_of(86_400 * 20, |second| if second % 20 < 10 { 1 << 20 } else { 1 << 30 });
        assert!(taken.len() <= MOST_CAPTURES as usize + 1, "{}", taken.len());
    }
}
