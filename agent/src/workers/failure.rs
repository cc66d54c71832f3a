//! Why a piece of work in the database did not come to its end.

use pgsoak_proto::chain::chain;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Longest statement that is kept with a failure, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 4 << 10;

/// A piece of work that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The server refused a statement.
    #[error("the server refused a statement: {message} (SQLSTATE {sqlstate})")]
    Statement {
        /// As it was sent, cut to [`MAX_STATEMENT_BYTES`].
        statement: String,
        /// Five characters.
        sqlstate: String,
        /// Of the server, with its detail and hint.
        message: String,
    },
    /// The connection ended under a statement: the backend or the whole server is gone.
    #[error("session {session} lost its connection: {message}")]
    Lost {
        /// Number of the session.
        session: u32,
        /// What was running, cut to [`MAX_STATEMENT_BYTES`]; empty: nothing.
        statement: String,
        /// What the connection said at its end.
        message: String,
    },
    /// No connection came about.
    #[error("session {session} cannot connect: {message}")]
    Connect {
        /// Number of the session.
        session: u32,
        /// Why.
        message: String,
    },
    /// The harness's own query was answered with something else than it asks for.
    #[error("'{query}' was answered with '{answer}'")]
    Answer {
        /// What was asked.
        query: String,
        /// What came back.
        answer: String,
    },
    /// The harness's own query took too long.
    #[error("session {session} did not answer within {} s: {query}", limit.as_secs())]
    Silent {
        /// Number of the session.
        session: u32,
        /// What was asked.
        query: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl WorkError {
    /// From what the driver says about `statement` in `session`.
    pub fn from_driver(session: u32, statement: &str, error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) if !ends_the_session(refusal.code()) => {
                let mut message = refusal.message().to_owned();
                for (word, more) in [("detail", refusal.detail()), ("hint", refusal.hint())] {
                    if let Some(more) = more {
                        message.push_str(&format!("; {word}: {more}"));
                    }
                }
                Self::Statement {
                    statement: cut(statement, MAX_STATEMENT_BYTES).to_owned(),
                    sqlstate: refusal.code().code().to_owned(),
                    message,
                }
            }
            _ => Self::Lost {
                session,
                statement: cut(statement, MAX_STATEMENT_BYTES).to_owned(),
                message: chain(error),
            },
        }
    }
}

/// Whether the server says goodbye with this code: shutdown, or another backend's crash.
fn ends_the_session(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
        .contains(code)
}

/// The beginning of `text`, at most `bytes` long, cut between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 0), "");
    }
}
