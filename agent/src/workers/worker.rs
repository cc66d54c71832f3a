//! A worker: a session of its own that does the operations of a loop phase.
//!
//! Moves into a task for the length of a round and comes back with what it did; between rounds the runner holds it and
//! reads it at rest. The path of an operation allocates nothing beyond what the driver needs: the statement is rendered
//! into one kept buffer.

use crate::workers::failure::WorkError;
use crate::workers::pace::Pace;
use crate::workers::session::Session;
use pgsoak_workloads::template::{Template, Vars};
use pgsoak_workloads::workload::Reconnect;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Told of every new backend of a worker: number of the session, pid.
pub type OnConnect = Arc<dyn Fn(u32, u32) + Send + Sync>;

/// What all workers of a phase share.
pub struct LoopWork {
    /// Where they connect.
    pub server: tokio_postgres::Config,
    /// One operation.
    pub sql: Template,
    /// `${seed}`.
    pub seed: u64,
    /// Operations per second and worker; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// When a worker takes a new connection.
    pub reconnect: Reconnect,
    /// Operations done by all workers of the job so far.
    pub operations: Arc<AtomicU64>,
    /// Told of every new backend before it does anything.
    pub on_connect: OnConnect,
}

/// A session that does operations.
pub struct Worker {
    work: Arc<LoopWork>,
    session: Session,
    /// Done in this phase so far; the next operation's `${n}` is one more.
    operations: u64,
    /// Done since the last connect.
    since_connect: u64,
    statement: String,
}

/// One round as a worker is asked to do it.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// 1-based.
    pub number: u32,
    /// How many operations, at least 1.
    pub operations: u64,
    /// After this the round ends although operations are left, but never without one done.
    pub longest: Option<Duration>,
}

/// What a worker did in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundDone {
    /// Operations.
    pub operations: u64,
    /// Of these, begun more than a period after their time.
    pub late: u64,
    /// Of the latest of them.
    pub max_lateness: Duration,
}

impl Worker {
    /// Connects worker `number` (1-based).
    ///
    /// # Errors
    /// [`WorkError::Connect`].
    pub async fn start(work: Arc<LoopWork>, number: u32) -> Result<Self, WorkError> {
        let session = connect(&work, number).await?;
        Ok(Self { work, session, operations: 0, since_connect: 0, statement: String::new() })
    }

    /// Its session, for readings at rest.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Done in this phase so far.
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// Does the operations of one round.
    ///
    /// # Errors
    /// [`WorkError::Statement`] with the statement as it was sent, or [`WorkError::Lost`].
    pub async fn round(&mut self, round: Round) -> Result<RoundDone, WorkError> {
        if self.work.reconnect == Reconnect::EveryRound && round.number > 1 {
            self.reconnect().await?;
        }
        let start = Instant::now();
        let mut pace = self.work.rate.and_then(|rate| Pace::new(start, rate));
        let mut done = RoundDone::default();
        while done.operations < round.operations {
            if done.operations > 0
                && round.longest.is_some_and(|longest| start.elapsed() >= longest)
            {
                break;
            }
            if let Reconnect::Every(every) = self.work.reconnect
                && self.since_connect >= every.max(1)
            {
                self.reconnect().await?;
            }
            if let Some(pace) = &mut pace {
                let due = pace.due(done.operations);
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                }
                pace.began(due, Instant::now());
            }
            self.operation(round.number).await?;
            done.operations += 1;
        }
        if let Some(pace) = pace {
            done.late = pace.late();
            done.max_lateness = pace.max_lateness();
        }
        Ok(done)
    }

    /// Ends its session.
    pub async fn stop(self) {
        self.session.close().await;
    }

    async fn operation(&mut self, round: u32) -> Result<(), WorkError> {
        let vars = Vars {
            n: self.operations + 1,
            worker: self.session.number(),
            round,
            seed: self.work.seed,
        };
        self.statement.clear();
        self.work.sql.render_into(&mut self.statement, &vars);
        self.session.run(&self.statement).await?;
        self.operations += 1;
        self.since_connect += 1;
        self.work.operations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A new backend, and then the old one's end.
    async fn reconnect(&mut self) -> Result<(), WorkError> {
        let fresh = connect(&self.work, self.session.number()).await?;
        std::mem::replace(&mut self.session, fresh).close().await;
        self.since_connect = 0;
        Ok(())
    }
}

async fn connect(work: &LoopWork, number: u32) -> Result<Session, WorkError> {
    let session = Session::open(&work.server, number).await?;
    (work.on_connect)(number, session.pid());
    Ok(session)
}
