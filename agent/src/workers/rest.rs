//! What a session's memory contexts hold, asked in the session itself.
//!
//! One query, always the same, sent once before the first reading so that what the query itself warms (catalogue
//! caches, its plan) is not taken for growth. RssAnon is read by the caller before it, from outside.

use crate::workers::failure::WorkError;
use crate::workers::session::Session;
use pgsoak_proto::evidence::ContextUse;
use std::collections::BTreeMap;
use tokio_postgres::SimpleQueryRow;

/// First major with `pg_backend_memory_contexts`.
const FIRST_MAJOR: u32 = 14;

/// Names are sorted here, not by the server: its collation is the workload's business.
const CONTEXTS: &str = "SELECT name, pg_catalog.sum(used_bytes), pg_catalog.sum(total_bytes), pg_catalog.count(*) \
                        FROM pg_catalog.pg_backend_memory_contexts GROUP BY name";

/// Context bytes of `session` by name, sorted; empty when the server's `major` has no such view.
///
/// # Errors
/// Of the session; [`WorkError::Answer`] when a number is none.
pub async fn contexts(session: &Session, major: u32) -> Result<Vec<ContextUse>, WorkError> {
    if major < FIRST_MAJOR {
        return Ok(Vec::new());
    }
    let rows = session.rows(CONTEXTS).await?;
    let mut contexts = rows.iter().map(context).collect::<Result<Vec<_>, _>>()?;
    contexts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(contexts)
}

/// The number of rows a workload's `rows` query answers with.
///
/// # Errors
/// Of the session; [`WorkError::Answer`] when the answer is no whole number from 0 on.
pub async fn rows(session: &Session, query: &str) -> Result<u64, WorkError> {
    let answer = session.value(query).await?;
    answer.parse().map_err(|_| WorkError::Answer { query: query.to_owned(), answer })
}

/// Asks a check: `None` when it holds, else what the server said.
///
/// # Errors
/// Of the session. An answer that is not one value does not hold.
pub async fn check(session: &Session, query: &str) -> Result<Option<String>, WorkError> {
    match session.value(query).await {
        Ok(answer) if answer == "t" => Ok(None),
        Ok(answer) => Ok(Some(match answer.as_str() {
            "f" => "false".to_owned(),
            "" => "null".to_owned(),
            _ => answer,
        })),
        Err(WorkError::Answer { answer, .. }) => Ok(Some(answer)),
        Err(error) => Err(error),
    }
}

/// Settings that differ from what the server was built with.
///
/// # Errors
/// Of the session.
pub async fn settings(session: &Session) -> Result<BTreeMap<String, String>, WorkError> {
    const SETTINGS: &str = "SELECT name, pg_catalog.current_setting(name, true) \
                            FROM pg_catalog.pg_settings WHERE setting IS DISTINCT FROM boot_val";
    let rows = session.rows(SETTINGS).await?;
    let text = |row: &SimpleQueryRow, column: usize| {
        row.try_get(column).ok().flatten().unwrap_or_default().to_owned()
    };
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1))).collect())
}

/// Type of every server process that the server knows: pid, `backend_type`.
///
/// # Errors
/// Of the session. Rows without a pid or a type are left out.
pub async fn types(session: &Session) -> Result<Vec<(u32, String)>, WorkError> {
    const TYPES: &str = "SELECT pid, backend_type FROM pg_catalog.pg_stat_activity";
    let rows = session.rows(TYPES).await?;
    let typed = |row: &SimpleQueryRow| {
        let pid = row.try_get(0).ok()??.parse().ok()?;
        Some((pid, row.try_get(1).ok()??.to_owned()))
    };
    Ok(rows.iter().filter_map(typed).collect())
}

fn context(row: &SimpleQueryRow) -> Result<ContextUse, WorkError> {
    let text = |column: usize| row.try_get(column).ok().flatten().unwrap_or_default();
    let bad = |column: usize| WorkError::Answer {
        query: CONTEXTS.to_owned(),
        answer: format!("{}: {}", text(0), text(column)),
    };
    let number = |column: usize| text(column).parse::<u64>().map_err(|_| bad(column));
    Ok(ContextUse {
        name: text(0).to_owned(),
        used_bytes: number(1)?,
        total_bytes: number(2)?,
        count: u32::try_from(number(3)?).map_err(|_| bad(3))?,
    })
}
