//! Runs a job's phases, one after the other, and writes what they show.
//!
//! Belongs to the attempt's one task. A once phase runs in the main session, which lives from the first phase to the
//! last; `rounds` runs loop phases. A reading at rest is always taken in the same order: RssAnon from outside, then the
//! contexts in the session, then memcheck. Nothing here waits without end: the caller races everything against the stop.

use crate::probe::rss_anon_now;
use crate::runner::course::Step;
use crate::runner::fault::Fault;
use crate::runner::fault::line_of;
use crate::runner::instruments::Instruments;
use crate::runner::lookout::Lookout;
use crate::runner::progress::Progress;
use crate::runner::record::Record;
use crate::sampler::SamplerGone;
use crate::sampler::SamplerHandle;
use crate::workers::failure::WorkError;
use crate::workers::rest;
use crate::workers::session::Session;
use pgsoak_proto::evidence::{AtRest, Body, CheckResult, PhaseEnded, PhaseStarted};
use pgsoak_proto::job::JobSpec;
use pgsoak_workloads::statement::statements;
use pgsoak_workloads::template::{Template, Vars};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::time::Instant;

/// What a backend is given after its last answer before it is read.
const SETTLE: Duration = Duration::from_millis(5);

/// The sampler's pace in once phases and at the start of loops: their peaks are short.
const DENSE_EVERY: Duration = Duration::from_millis(100);

/// Processes' types are asked for at most so often, beside the start of every phase.
const TYPES_EVERY: Duration = Duration::from_secs(10);

/// `backend_type` of a session.
pub const CLIENT_BACKEND: &str = "client backend";

/// Everything that phases work with.
pub struct Engine {
    /// The job.
    pub spec: JobSpec,
    /// Where sessions connect.
    pub server: tokio_postgres::Config,
    /// Of the server.
    pub major: u32,
    /// Takes the evidence.
    pub record: Record,
    /// The sampler.
    pub sampler: SamplerHandle,
    /// The tool.
    pub instruments: Arc<Instruments>,
    /// Watches the processes of loops; under plain alone.
    pub lookout: Option<Lookout>,
    /// For people.
    pub progress: Progress,
    /// Operations done by all loop workers so far.
    pub operations: Arc<AtomicU64>,
    /// The main session, number 0.
    pub main: Session,
    /// Where the daemon asks for loops to end early.
    pub conclude_file: PathBuf,
    /// When processes' types were last asked for.
    pub types_asked_at: Option<Instant>,
}

/// Where in the workload a reading is taken.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Of the phase.
    pub phase: u32,
    /// 0: before the first operation.
    pub round: u32,
    /// Done by the session in this phase so far.
    pub operations: u64,
    /// Rows the workload declares; 0: none.
    pub rows: u64,
    /// Whether the allocator then gives back what it can: where the session does nothing more, or its residual is judged.
    pub is_trimmed: bool,
    /// Whether the allocator is asked for its books first.
    pub wants_books: bool,
}

impl Engine {
    /// Sends the harness's own queries once, so that what they warm is not taken for the first phase's growth.
    ///
    /// # Errors
    /// Of the session.
    pub async fn warm(&mut self) -> Result<(), Fault> {
        self.ask_types().await?;
        rest::contexts(&self.main, self.major).await.map_err(|error| self.outside(error))?;
        Ok(())
    }

    /// Runs all steps.
    ///
    /// # Errors
    /// The first thing that goes wrong, with its place.
    pub async fn run(&mut self, steps: &[Step]) -> Result<(), Fault> {
        self.progress.running(steps, self.spec.loop_for);
        for (index, step) in steps.iter().enumerate() {
            let is_last = index + 1 == steps.len();
            self.progress.phase(step, self.spec.loop_for);
            self.ask_types().await?;
            self.sampler.set_every(self.spec.sample_every.min(DENSE_EVERY)).map_err(gone)?;
            match &step.looped {
                None => self.once(step, is_last).await?,
                Some(shape) => self.looped(step, shape).await?,
            }
        }
        Ok(())
    }

    async fn once(&mut self, step: &Step, is_last: bool) -> Result<(), Fault> {
        self.started(step, 0)?;
        let before = Place {
            phase: step.phase,
            round: 0,
            operations: 0,
            rows: 0,
            is_trimmed: false,
            wants_books: false,
        };
        self.read(&self.main, before).await.map_err(|fault| self.placed(step, fault))?;
        self.sample().await?;
        let vars = Vars { n: 1, worker: 0, round: 1, seed: self.spec.seed };
        let mut operations = 0;
        let all = statements(&step.sql);
        for statement in &all {
            let sql = self.template(step, &statement.text)?.render(&vars);
            if let Err(error) = self.main.run(&sql).await {
                return Err(self.failed(step, Some(&statement.text), error));
            }
            operations += 1;
            self.progress.statements(operations, u64::try_from(all.len()).unwrap_or(u64::MAX));
        }
        self.sample().await?;
        let rows = self.rows(step).await?;
        let is_trimmed = is_last || step.has_residual;
        let after = Place { round: 1, operations, rows, is_trimmed, ..before };
        self.read(&self.main, after).await.map_err(|fault| self.placed(step, fault))?;
        self.check(step, 0, vars).await?;
        self.ended(PhaseEnded {
            phase: step.phase,
            operations,
            late_operations: 0,
            max_lateness_us: 0,
            concluded: false,
        })
    }

    /// Writes that a phase begins.
    pub(in crate::runner) fn started(&self, step: &Step, workers: u32) -> Result<(), Fault> {
        tracing::info!(phase = step.name, workers, "phase begins");
        self.record.write(&Body::PhaseStarted(PhaseStarted {
            phase: step.phase,
            name: step.name.clone(),
            kind: step.kind(),
            workers,
        }))
    }

    /// Writes that a phase is over.
    pub(in crate::runner) fn ended(&self, ended: PhaseEnded) -> Result<(), Fault> {
        self.record.write(&Body::PhaseEnded(ended))
    }

    /// Takes a sample beside the clock's: at the edges of phases and rounds, so that none is too short to have one.
    ///
    /// # Errors
    /// The sampler has ended.
    pub(in crate::runner) async fn sample(&self) -> Result<(), Fault> {
        self.sampler.read_now().await.map(drop).map_err(gone)
    }

    /// Reads a session at rest and writes what it holds.
    ///
    /// # Errors
    /// Of the session, of the tool, or the process has gone.
    pub(in crate::runner) async fn read(
        &self,
        session: &Session,
        place: Place,
    ) -> Result<(), Fault> {
        let lost = || {
            self.outside(WorkError::Lost {
                session: session.number(),
                statement: String::new(),
                message: format!("backend {} has gone", session.pid()),
            })
        };
        let process =
            self.sampler.number_of(session.pid()).await.map_err(gone)?.ok_or_else(lost)?;
        tokio::time::sleep(SETTLE).await;
        let rss_anon_bytes = rss_anon_now(session.pid())
            .map_err(|error| {
                Fault::Infrastructure(format!("read /proc/{}/status: {error}", session.pid()))
            })?
            .ok_or_else(lost)?;
        let contexts =
            rest::contexts(session, self.major).await.map_err(|error| self.outside(error))?;
        let (allocator, trimmed) = self.instruments.allocator(session.pid(), place).await;
        let trimmed_rss_anon_bytes = trimmed.unwrap_or(0);
        self.progress.rss_anon(rss_anon_bytes);
        self.record.write(&Body::AtRest(AtRest {
            session: session.number(),
            process,
            phase: place.phase,
            round: place.round,
            operations: place.operations,
            rss_anon_bytes,
            contexts,
            pss_anon_bytes: 0,
            rows: place.rows,
            trimmed_rss_anon_bytes,
            allocator,
        }))?;
        if let Some(check) = self.instruments.leak_check(session, process, place).await? {
            self.record.write(&Body::LeakCheck(check))?;
        }
        let marked = self.instruments.mark(session, place, self.major).await;
        marked.map_err(|error| self.outside(error))
    }

    /// Asks the check of a step, if it has one.
    ///
    /// # Errors
    /// It does not hold, or the server refuses it.
    pub(in crate::runner) async fn check(
        &self,
        step: &Step,
        round: u32,
        vars: Vars,
    ) -> Result<(), Fault> {
        let Some(query) = &step.check else { return Ok(()) };
        let sql = self.template(step, query)?.render(&vars);
        let answer = rest::check(&self.main, &sql)
            .await
            .map_err(|error| self.failed(step, Some(query), error))?;
        self.record.write(&Body::Check(CheckResult {
            phase: step.phase,
            round,
            holds: answer.is_none(),
            sql,
            answer: answer.clone().unwrap_or_default(),
        }))?;
        match answer {
            None => Ok(()),
            Some(answer) => Err(Fault::Check { phase: step.name.clone(), round, answer }),
        }
    }

    /// Rows that the workload declares; 0 when it declares none.
    ///
    /// # Errors
    /// The query is refused or answers with no number.
    pub(in crate::runner) async fn rows(&self, step: &Step) -> Result<u64, Fault> {
        match &step.rows {
            None => Ok(0),
            Some(query) => rest::rows(&self.main, query)
                .await
                .map_err(|error| self.failed(step, Some(query), error)),
        }
    }

    /// Compiles SQL of the workload. It was compiled once when the file was checked, so this does not fail in practice.
    pub(in crate::runner) fn template(&self, step: &Step, sql: &str) -> Result<Template, Fault> {
        Template::compile(sql)
            .map_err(|error| Fault::Infrastructure(format!("phase {}: {error}", step.name)))
    }

    /// Tells the sampler what the server's processes are, unless it was told a moment ago.
    ///
    /// # Errors
    /// Of the main session.
    pub(in crate::runner) async fn ask_types_now_and_then(&mut self) -> Result<(), Fault> {
        match self.types_asked_at {
            Some(asked_at) if asked_at.elapsed() < TYPES_EVERY => Ok(()),
            _ => self.ask_types().await,
        }
    }

    async fn ask_types(&mut self) -> Result<(), Fault> {
        let types = rest::types(&self.main).await.map_err(|error| self.outside(error))?;
        for (pid, backend_type) in types {
            // Sessions were named when they connected; the type is the same word.
            if backend_type != CLIENT_BACKEND {
                self.sampler.set_identity(pid, backend_type, None).map_err(gone)?;
            }
        }
        self.types_asked_at = Some(Instant::now());
        Ok(())
    }

    /// A failure of `written` (as the workload has it) in a step.
    pub(in crate::runner) fn failed(
        &self,
        step: &Step,
        written: Option<&str>,
        error: WorkError,
    ) -> Fault {
        let line = written.and_then(|sql| line_of(&self.spec.workload_toml, &step.name, sql));
        Fault::Work { phase: step.name.clone(), line, error }
    }

    /// A failure of the harness's own queries.
    fn outside(&self, error: WorkError) -> Fault {
        Fault::Work { phase: String::new(), line: None, error }
    }

    /// Puts the step into a failure that does not know it.
    pub(in crate::runner) fn placed(&self, step: &Step, fault: Fault) -> Fault {
        match fault {
            Fault::Work { phase, error, .. } if phase.is_empty() => self.failed(step, None, error),
            fault => fault,
        }
    }
}

/// The sampler's thread has died: evidence that nobody takes is no evidence.
fn gone(error: SamplerGone) -> Fault {
    Fault::Infrastructure(error.to_string())
}
