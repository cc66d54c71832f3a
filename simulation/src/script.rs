//! What a scripted runner does, drawn when it starts: how long it works, what it reads, how it ends. Writes the spool and the files
//! that a real runner would, in virtual time, and keeps its own book of what it wrote.

use crate::dice::Dice;
use crate::shape::Shape;
use pgsoak_agent::folder::JobFolder;
use pgsoak_agent::spool::{SpoolLimits, SpoolWriter};
use pgsoak_proto::evidence::{
    AtRest, AttemptEnded, AttemptStarted, Body, ContextUse, Frame, Gap, HostSamples, PhaseEnded,
    PhaseKind, PhaseStarted, ProcessAppeared, ProcessSamples, Samples,
};
use pgsoak_proto::job::{JobSpec, Lease, Outcome};
use pgsoak_proto::session::{JobProgress, JobStage};
use pgsoak_proto::wire;
use prost::Message;
use std::time::Duration;

/// Rounds of the loop: enough for a verdict.
const ROUNDS: u32 = 16;
const OPERATIONS: u64 = 100;
/// The workload that goes with it.
pub const WORKLOAD: &str = "name = \"scripted\"\n[[phase]]\nname = \"steady\"\nkind = \"loop\"\noperations = 100\nrounds = 16\nsql = \"SELECT 1\"\n";

/// What was written of an attempt, kept apart from the spool.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Checksums of the frames, in order: frame 1 first.
    pub frames: Vec<u32>,
    /// Ticks that were due.
    pub ticks: u64,
    /// Ticks in sample frames.
    pub sampled: u64,
    /// Ticks in gaps.
    pub gaps: u64,
    /// How the runner ended; `None`: it was killed.
    pub ended: Option<Outcome>,
    /// It was asked to stop, with this reason.
    pub asked: Option<String>,
}

/// A runner at work.
#[derive(Debug)]
pub struct Script {
    /// Its lease.
    pub lease: Lease,
    /// What it was asked.
    pub spec: JobSpec,
    /// Its book.
    pub book: Book,
    folder: JobFolder,
    spool: SpoolWriter,
    dice: Dice,
    started_at: Duration,
    /// Its own end, from its start; past the hard end: it hangs.
    length: Duration,
    outcome: Outcome,
    /// Stops so long after it was asked; `None`: only a kill ends it.
    obeys_after: Option<Duration>,
    stops_at: Option<Duration>,
    next_tick: u64,
    next_round: u32,
    /// Nothing is read until then.
    stalled_until: Duration,
}

/// The checksum of a frame in a book.
pub fn checksum(frame: &wire::Frame) -> u32 {
    crc32c::crc32c(&frame.encode_to_vec())
}

// === impl Script ===

impl Script {
    /// Starts in a folder that was made for it.
    pub fn start(
        folder: JobFolder,
        lease: Lease,
        spec: JobSpec,
        shape: &Shape,
        now: Duration,
        dice: &mut Dice,
    ) -> Self {
        let mut dice = dice.fork();
        let spool = SpoolWriter::create(
            &folder.spool(),
            SpoolLimits { segment_bytes: 64 << 10, ..SpoolLimits::default() },
        )
        .unwrap();
        let hangs = dice.one_in(25);
        let length =
            if hangs { shape.hard_end() * 2 } else { dice.spread(120, shape.longest.as_secs()) };
        let outcome = match dice.below(12) {
            0 => Outcome::Failed,
            1 => Outcome::Infrastructure,
            _ => Outcome::Finished,
        };
        let obeys_after = (!dice.one_in(6)).then(|| dice.seconds(0, 15));
        let mut script = Self {
            lease,
            spec,
            book: Book::default(),
            folder,
            spool,
            dice,
            started_at: now,
            length,
            outcome,
            obeys_after,
            stops_at: None,
            next_tick: 0,
            next_round: 0,
            stalled_until: Duration::ZERO,
        };
        script.begin();
        script
    }

    fn begin(&mut self) {
        self.write(
            Duration::ZERO,
            Body::Started(AttemptStarted {
                started_at_unix_us: 1,
                host: "h".to_owned(),
                kernel: "k".to_owned(),
                cores: 2,
                memory_bytes: 1 << 34,
                postgres_version: "PostgreSQL 18.4".to_owned(),
                sample_every_ms: u64::try_from(self.spec.sample_every.as_millis()).unwrap(),
                ..AttemptStarted::default()
            }),
        );
        for session in 0..2 {
            self.write(
                Duration::ZERO,
                Body::ProcessAppeared(ProcessAppeared {
                    process: session,
                    pid: 100 + session,
                    start_time_ticks: 1,
                    backend_type: "client backend".to_owned(),
                    session: Some(session),
                }),
            );
        }
        let name = "steady".to_owned();
        self.write(
            Duration::ZERO,
            Body::PhaseStarted(PhaseStarted { phase: 0, name, kind: PhaseKind::Loop, workers: 1 }),
        );
        self.rest(Duration::ZERO);
        self.sync();
    }

    fn write(&mut self, elapsed: Duration, body: Body) {
        let sequence = self.spool.append(elapsed, &body).unwrap();
        let frame = wire::Frame::from(&Frame { sequence, elapsed, body });
        self.book.frames.push(checksum(&frame));
        assert_eq!(
            sequence,
            self.book.frames.len() as u64,
            "the spool numbers frames without a hole"
        );
    }

    fn sync(&self) {
        self.spool.sync().unwrap();
    }

    /// Works until `now`. False: it has ended, with its last frame.
    pub fn work(&mut self, now: Duration) -> bool {
        let hard_end = self.started_at + self.spec.hard_end;
        let own_end = self.started_at + self.length;
        let end = own_end.min(hard_end).min(self.stops_at.unwrap_or(Duration::MAX));
        self.read(now.min(end));
        if now < end {
            self.say(JobStage::Running);
            self.sync();
            return true;
        }
        let outcome = if Some(end) == self.stops_at {
            Outcome::Cancelled
        } else if end == own_end {
            self.outcome
        } else {
            Outcome::TimedOut
        };
        self.end(end - self.started_at, outcome);
        false
    }

    fn read(&mut self, until: Duration) {
        let until = until.saturating_sub(self.started_at);
        let every = self.spec.sample_every;
        let mut ticks = Vec::new();
        let mut missed = 0;
        loop {
            let at = every * u32::try_from(self.next_tick).unwrap();
            if at > until {
                break;
            }
            if self.next_round < ROUNDS && at >= self.round_at(self.next_round + 1) {
                self.samples(&mut ticks, &mut missed);
                self.next_round += 1;
                self.rest(at);
            }
            if self.dice.one_in(3_000) {
                self.stalled_until = at + self.dice.spread(every.as_secs().max(1), 120);
            }
            if at < self.stalled_until {
                if !ticks.is_empty() {
                    self.samples(&mut ticks, &mut missed);
                }
                missed += 1;
            } else {
                if missed > 0 {
                    self.samples(&mut ticks, &mut missed);
                }
                ticks.push(self.next_tick);
            }
            self.next_tick += 1;
            self.book.ticks += 1;
        }
        self.samples(&mut ticks, &mut missed);
    }

    fn round_at(&self, round: u32) -> Duration {
        self.length / (ROUNDS + 1) * round
    }

    fn at(&self, tick: u64) -> Duration {
        self.spec.sample_every * u32::try_from(tick).unwrap()
    }

    fn samples(&mut self, ticks: &mut Vec<u64>, missed: &mut u64) {
        if *missed > 0 {
            let first_tick = self.next_tick - *missed;
            let elapsed = self.at(self.next_tick);
            self.write(
                elapsed,
                Body::Gap(Gap {
                    first_tick,
                    ticks: *missed,
                    cause: "the host stood still".to_owned(),
                }),
            );
            self.book.gaps += *missed;
            *missed = 0;
        }
        let Some(last) = ticks.last().copied() else { return };
        let elapsed_us: Vec<u64> =
            ticks.iter().map(|tick| u64::try_from(self.at(*tick).as_micros()).unwrap()).collect();
        let rows = ticks.len();
        let processes = (0..2)
            .map(|process| ProcessSamples {
                process,
                first_row: 0,
                // As real ones do, they differ by a few pages: one that never changes is taken for a dead sampler.
                rss_anon_kib: ticks.iter().map(|tick| 4_000 + tick * 7 % 5 * 4).collect(),
                cpu_us: ticks.iter().map(|tick| tick * 10).collect(),
                ..ProcessSamples::default()
            })
            .collect();
        let host = HostSamples { operations: ticks.clone(), ..HostSamples::default() };
        let elapsed = self.at(last);
        self.book.sampled += rows as u64;
        self.write(
            elapsed,
            Body::Samples(Samples {
                ticks: std::mem::take(ticks),
                elapsed_us,
                processes,
                host,
                left_out: 0,
            }),
        );
    }

    fn rest(&mut self, elapsed: Duration) {
        let round = self.next_round;
        let context = ContextUse {
            name: "TopMemoryContext".to_owned(),
            used_bytes: 100_000,
            total_bytes: 131_072,
            count: 1,
        };
        self.write(
            elapsed,
            Body::AtRest(AtRest {
                session: 1,
                process: 1,
                phase: 0,
                round,
                operations: u64::from(round) * OPERATIONS,
                rss_anon_bytes: 4_000 << 10,
                contexts: vec![context],
                ..AtRest::default()
            }),
        );
    }

    fn end(&mut self, elapsed: Duration, outcome: Outcome) {
        if outcome == Outcome::Finished {
            while self.next_round < ROUNDS {
                self.next_round += 1;
                self.rest(elapsed);
            }
            let operations = u64::from(ROUNDS) * OPERATIONS;
            self.write(
                elapsed,
                Body::PhaseEnded(PhaseEnded {
                    phase: 0,
                    operations,
                    late_operations: 0,
                    max_lateness_us: 0,
                    concluded: false,
                }),
            );
        }
        let Book { ticks, sampled, .. } = self.book;
        self.write(
            elapsed,
            Body::Ended(AttemptEnded {
                outcome,
                reason: format!("as its script says: {outcome}"),
                server_log_tail: String::new(),
                ticks,
                ticks_sampled: sampled,
                sampler_cpu_us: 1,
                process_samples: sampled * 2,
                runner_cpu_us: 1,
                runner_peak_rss_bytes: 1,
                statement: String::new(),
                sqlstate: String::new(),
            }),
        );
        self.book.ended = Some(outcome);
        self.artifact();
        self.say(JobStage::Ended);
        self.spool.close().unwrap();
    }

    /// Some attempts leave a raw file of some pieces behind.
    fn artifact(&mut self) {
        if self.dice.one_in(3) {
            let dir = self.folder.artifacts();
            std::fs::create_dir_all(&dir).unwrap();
            let bytes = usize::try_from(self.dice.below(600_000)).unwrap();
            std::fs::write(dir.join("raw.zst"), vec![7_u8; bytes]).unwrap();
        }
    }

    fn say(&self, stage: JobStage) {
        // Nobody's evidence rests on it.
        let _ = self.folder.write_progress(&JobProgress {
            lease: self.lease,
            stage,
            phase: "steady".to_owned(),
            round: self.next_round,
            rounds: ROUNDS,
            operations: u64::from(self.next_round) * OPERATIONS,
            done: 0.5,
            left_ms: 0,
            rss_anon_bytes: 4_000 << 10,
        });
    }

    /// SIGTERM: it stops soon, or never by itself.
    pub fn ask(&mut self, now: Duration) {
        self.book.asked.get_or_insert_with(|| self.folder.cancel_reason().unwrap_or_default());
        if let (None, Some(after)) = (self.stops_at, self.obeys_after) {
            self.stops_at = Some(now + after);
        }
    }

    /// Killed in the middle of a write: what is in the spool is there, with a torn entry behind it now and then.
    pub fn die(mut self) -> Book {
        self.sync();
        let is_torn = self.dice.one_in(2);
        let dir = self.folder.spool();
        let Self { spool, book, .. } = self;
        drop(spool);
        if is_torn
            && let Some(last) =
                std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()).max()
        {
            use std::io::Write;
            let mut file = std::fs::File::options().append(true).open(last).unwrap();
            file.write_all(&[200, 0, 0, 0, 1, 2, 3]).unwrap();
        }
        book
    }
}
