//! A loop phase: workers do rounds of operations, and are read at rest between them.
//!
//! All workers begin a round together and the next one begins when all have been read; the check of the phase is asked in
//! the main session meanwhile. The first thing that goes wrong in any worker ends the phase for all.

use crate::runner::course::Step;
use crate::runner::engine::CLIENT_BACKEND;
use crate::runner::engine::Engine;
use crate::runner::engine::Place;
use crate::runner::fault::Fault;
use crate::workers::failure::WorkError;
use crate::workers::rest;
use crate::workers::rounds::BooksPlan;
use crate::workers::rounds::RoundPlan;
use crate::workers::worker::LoopWork;
use crate::workers::worker::OnConnect;
use crate::workers::worker::Round;
use crate::workers::worker::RoundDone;
use crate::workers::worker::Worker;
use pgsoak_proto::evidence::PhaseEnded;
use pgsoak_workloads::template::Vars;
use pgsoak_workloads::workload::Loop;
use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;

/// So many workers of a phase are read again after their allocator was trimmed: it takes a second each, and they are alike.
const TRIMMED_WORKERS: u32 = 4;

/// So many workers of a phase are asked for malloc's books: it takes a second each, and they are alike.
const WORKERS_WITH_BOOKS: u32 = 2;

/// A loop is sampled as densely as once phases for so long: many are over by then, and what a session takes first comes early.
const DENSE_FOR: Duration = Duration::from_secs(30);

/// How often progress is told of while a round runs.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// A reading of all workers.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// 0: before the first one.
    round: u32,
    /// That the workload declares.
    rows: u64,
    /// The loop's last one.
    is_over: bool,
    /// Malloc is asked for its books.
    wants_books: bool,
}

impl Engine {
    /// Runs a loop phase.
    ///
    /// # Errors
    /// The first thing that goes wrong, with its place.
    pub(in crate::runner) async fn looped(
        &mut self,
        step: &Step,
        shape: &Loop,
    ) -> Result<(), Fault> {
        let mut total = PhaseEnded {
            phase: step.phase,
            operations: 0,
            late_operations: 0,
            max_lateness_us: 0,
            concluded: false,
        };
        if step.sql.is_empty() {
            self.started(step, 0)?;
            return self.ended(total);
        }
        self.started(step, shape.workers)?;
        let work = Arc::new(LoopWork {
            server: self.server.clone(),
            sql: self.template(step, &step.sql)?,
            seed: self.spec.seed,
            rate: shape.rate,
            reconnect: shape.reconnect,
            operations: Arc::clone(&self.operations),
            on_connect: self.on_connect(),
        });
        let plan = RoundPlan::new(shape, self.spec.loop_for, self.spec.scale);
        let mut workers = self.start(step, &work, shape.workers).await?;
        let rows = self.rows_before(step).await?;
        let mut books = BooksPlan::default();
        let asked_at = Instant::now();
        let first = Reading { round: 0, rows, is_over: false, wants_books: true };
        self.rest(step, &workers, first).await?;
        books.asked(Duration::ZERO, 0.0, asked_at.elapsed());
        self.sample().await?;

        let begun_at = Instant::now();
        if let Some(lookout) = &self.lookout {
            lookout.begin(&step.name);
        }
        let _dense = self.dense_at_first();
        let mut rounds_done = 0;
        while plan.goes_on(rounds_done, begun_at.elapsed()) {
            let round = Round {
                number: rounds_done.saturating_add(1),
                operations: plan.operations,
                longest: plan.longest_round(),
            };
            let done;
            (workers, done) = self.round(step, &plan, round, workers, begun_at).await?;
            self.sample().await?;
            rounds_done = round.number;
            for done in done {
                total.operations += done.operations;
                total.late_operations += done.late;
                let lateness = u64::try_from(done.max_lateness.as_micros()).unwrap_or(u64::MAX);
                total.max_lateness_us = total.max_lateness_us.max(lateness);
            }
            let is_over = !plan.goes_on(rounds_done, begun_at.elapsed());
            // Known already: what is left of the loop would only say it again.
            total.concluded = !is_over && self.conclude_file.exists();
            let is_over = is_over || total.concluded;
            let rows = self.rows(step).await?;
            if is_over && let Some(lookout) = &self.lookout {
                lookout.end().await;
            }
            let (ran, asked_at) = (begun_at.elapsed(), Instant::now());
            let share = plan.share_done(rounds_done, 0.0, ran);
            let wants_books = books.are_due(ran, share, is_over);
            let reading = Reading { round: rounds_done, rows, is_over, wants_books };
            self.rest(step, &workers, reading).await?;
            if wants_books {
                books.asked(ran, share, asked_at.elapsed());
            }
            let vars =
                Vars { n: total.operations, worker: 0, round: rounds_done, seed: self.spec.seed };
            self.check(step, rounds_done, vars).await?;
            self.ask_types_now_and_then().await?;
            if is_over {
                break;
            }
        }
        let goodbyes = workers.into_iter().map(|worker| async {
            worker.stop().await;
            Ok(())
        });
        self.together(step, goodbyes, || ()).await?;
        self.sample().await?;
        self.ended(total)
    }

    /// Sets the sampler to the plan's pace when the loop has run for a while, unless what is given is dropped before.
    fn dense_at_first(&self) -> AbortOnDropHandle<()> {
        let (sampler, every) = (self.sampler.clone(), self.spec.sample_every);
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(DENSE_FOR).await;
            // A sampler that has died is noticed at the next reading.
            let _ = sampler.set_every(every);
        }))
    }

    /// Tells the sampler of a worker's new backend. A sampler that has died is noticed at the next reading.
    fn on_connect(&self) -> OnConnect {
        let sampler = self.sampler.clone();
        Arc::new(move |session, pid| {
            let _ = sampler.set_identity(pid, CLIENT_BACKEND, Some(session));
        })
    }

    /// Connects all workers and sends the harness's own query once in each.
    async fn start(
        &self,
        step: &Step,
        work: &Arc<LoopWork>,
        count: u32,
    ) -> Result<Vec<Worker>, Fault> {
        let major = self.major;
        let starts = (1..=count).map(|number| {
            let work = Arc::clone(work);
            async move {
                let worker = Worker::start(work, number).await?;
                rest::contexts(worker.session(), major).await?;
                Ok(worker)
            }
        });
        let mut workers = self.together(step, starts, || ()).await?;
        workers.sort_by_key(|worker| worker.session().number());
        Ok(workers)
    }

    /// One round of all workers.
    async fn round(
        &self,
        step: &Step,
        plan: &RoundPlan,
        round: Round,
        workers: Vec<Worker>,
        begun_at: Instant,
    ) -> Result<(Vec<Worker>, Vec<RoundDone>), Fault> {
        let before = self.operations.load(Ordering::Relaxed);
        let wanted = (plan.operations as f64 * workers.len() as f64).max(1.0);
        let rounds = workers.into_iter().map(|mut worker| async move {
            let done = worker.round(round).await?;
            Ok((worker, done))
        });
        let tell = || {
            let operations = self.operations.load(Ordering::Relaxed);
            let in_round = operations.saturating_sub(before) as f64 / wanted;
            let share = plan.share_done(round.number - 1, in_round, begun_at.elapsed());
            self.progress.round(round.number, plan.rounds(), share, operations);
        };
        tell();
        let mut done = self.together(step, rounds, tell).await?;
        done.sort_by_key(|(worker, _)| worker.session().number());
        Ok(done.into_iter().unzip())
    }

    /// Reads all workers at rest, one after the other.
    async fn rest(&self, step: &Step, workers: &[Worker], reading: Reading) -> Result<(), Fault> {
        let Reading { round, rows, is_over, wants_books } = reading;
        for worker in workers {
            let operations = worker.operations();
            let number = worker.session().number();
            let is_trimmed = is_over && number <= TRIMMED_WORKERS;
            let wants_books = wants_books && number <= WORKERS_WITH_BOOKS;
            let place =
                Place { phase: step.phase, round, operations, rows, is_trimmed, wants_books };
            self.read(worker.session(), place).await.map_err(|fault| self.placed(step, fault))?;
        }
        Ok(())
    }

    /// Rows before the first round. The objects may come to be in the phase itself: then there are none.
    async fn rows_before(&self, step: &Step) -> Result<u64, Fault> {
        match self.rows(step).await {
            Err(Fault::Work { error: WorkError::Statement { .. }, .. }) => Ok(0),
            rows => rows,
        }
    }

    /// Runs `jobs` in tasks of their own until all are done, calling `tell` now and then. The first failure ends all.
    async fn together<T: Send + 'static, J>(
        &self,
        step: &Step,
        jobs: impl Iterator<Item = J>,
        tell: impl Fn(),
    ) -> Result<Vec<T>, Fault>
    where
        J: Future<Output = Result<T, WorkError>> + Send + 'static,
    {
        let mut tasks: JoinSet<Result<T, WorkError>> = jobs.collect();
        let mut done = Vec::with_capacity(tasks.len());
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                joined = tasks.join_next() => match joined {
                    None => return Ok(done),
                    Some(Ok(Ok(value))) => done.push(value),
                    // The phase's SQL as a whole is what the workload has.
                    Some(Ok(Err(error))) => return Err(self.failed(step, Some(&step.sql), error)),
                    Some(Err(error)) => {
                        return Err(Fault::Infrastructure(format!("a worker's task ended: {error}")));
                    }
                },
                _ = ticks.tick() => tell(),
            }
        }
    }
}
