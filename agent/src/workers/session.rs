//! One connection to the server under test: a session of the workload.
//!
//! Owned by the job's main part (session 0) or by a worker. Everything goes through the simple query protocol, so that a
//! backend sees what an ordinary client sends and keeps no prepared statements of the harness. The harness's own queries
//! have a time limit; a workload's statement has none but the job's hard end.

use crate::workers::failure::WorkError;
use pgsoak_proto::chain::chain;
use std::{future::poll_fn, time::Duration};
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow, Socket, tls::TlsStream,
};

/// How long a connection may take. Under memcheck a backend needs up to some seconds for its first answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

/// How long a query of the harness may take. Generous: under valgrind everything is 40 times slower.
pub const OWN_QUERY_LIMIT: Duration = Duration::from_secs(300);

/// How long the end of a connection is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A live connection.
#[derive(Debug)]
pub struct Session {
    number: u32,
    pid: u32,
    client: Client,
    /// Drives the connection; its value is what the connection ended with.
    connection: JoinHandle<Option<String>>,
}

impl Session {
    /// Connects as session `number`, to where `config` says, and learns its backend's pid.
    ///
    /// # Errors
    /// [`WorkError::Connect`] when there is no server, it refuses, or takes longer than two minutes.
    pub async fn open(config: &Config, number: u32) -> Result<Self, WorkError> {
        let refused = |message: String| WorkError::Connect { session: number, message };
        let mut config = config.clone();
        config.application_name(format!("pgsoak session {number}"));
        let (client, connection) = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls))
            .await
            .map_err(|_| refused(format!("no answer within {} s", CONNECT_LIMIT.as_secs())))?
            .map_err(|error| refused(chain(&error)))?;
        let connection = tokio::spawn(drive(connection));
        let mut session = Self { number, pid: 0, client, connection };
        const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";
        let answer = session.value(WHO).await?;
        session.pid =
            answer.parse().map_err(|_| WorkError::Answer { query: WHO.to_owned(), answer })?;
        Ok(session)
    }

    /// 0: main, 1 and up: worker.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Of its backend.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Runs a statement of the workload (or several, in one message) and throws its rows away. No time limit.
    ///
    /// # Errors
    /// [`WorkError::Statement`] or [`WorkError::Lost`].
    pub async fn run(&self, sql: &str) -> Result<(), WorkError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|error| WorkError::from_driver(self.number, sql, &error))
    }

    /// The rows of a query of the harness.
    ///
    /// # Errors
    /// As [`Self::run`], and [`WorkError::Silent`] after [`OWN_QUERY_LIMIT`].
    pub async fn rows(&self, query: &str) -> Result<Vec<SimpleQueryRow>, WorkError> {
        let silent = || WorkError::Silent {
            session: self.number,
            query: query.to_owned(),
            limit: OWN_QUERY_LIMIT,
        };
        let messages = tokio::time::timeout(OWN_QUERY_LIMIT, self.client.simple_query(query))
            .await
            .map_err(|_| silent())?
            .map_err(|error| WorkError::from_driver(self.number, query, &error))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The one value that a query answers with; NULL is the empty string.
    ///
    /// # Errors
    /// As [`Self::rows`], and [`WorkError::Answer`] when there is not exactly one row with one column.
    pub async fn value(&self, query: &str) -> Result<String, WorkError> {
        let rows = self.rows(query).await?;
        match rows.as_slice() {
            [row] if row.len() == 1 => {
                Ok(row.try_get(0).ok().flatten().unwrap_or_default().to_owned())
            }
            rows => Err(WorkError::Answer {
                query: query.to_owned(),
                answer: format!(
                    "{} rows of {} columns instead of one value",
                    rows.len(),
                    rows.first().map_or(0, SimpleQueryRow::len)
                ),
            }),
        }
    }

    /// Says goodbye to the backend and waits until the connection is closed, at most ten seconds.
    pub async fn close(mut self) {
        drop(self.client);
        if tokio::time::timeout(CLOSE_LIMIT, &mut self.connection).await.is_err() {
            self.connection.abort();
        }
    }
}

/// Drives a connection to its end. Notices are dropped unread: a workload may bring one with every operation, and the
/// server's log has what matters.
async fn drive<S>(mut connection: Connection<Socket, S>) -> Option<String>
where
    S: TlsStream + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(chain(&error)),
            None => return None,
        }
    }
}
