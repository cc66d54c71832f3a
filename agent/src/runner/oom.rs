//! A server process that the kernel killed for want of memory: who, how much, and whose doing it was.
//!
//! The product's, when the process held at least half of what there was to be had; else something else used the memory up, and
//! the host failed the server.

use crate::cluster::ServerEnd;
use crate::probe::OomKill;
use crate::runner::fault::Fault;
use crate::sampler::ProcessUse;

/// The fault, when the end of a server was such a kill. `used`: by the process that the log names, as the ticks saw it last;
/// `host_bytes`: the host's memory.
pub fn fault(
    end: &ServerEnd,
    kill: OomKill,
    used: Option<&ProcessUse>,
    host_bytes: u64,
    statement: &str,
) -> Option<Fault> {
    let crash =
        end.crash.as_ref().filter(|crash| crash.how.starts_with("terminated by signal 9"))?;
    let there_was = kill.limit_bytes.unwrap_or(host_bytes);
    let of = match kill.limit_bytes {
        Some(limit) => format!("the cgroup's limit of {}", mebibytes(limit)),
        None => format!("the host's {}", mebibytes(host_bytes)),
    };
    let held = used.map_or(0, |used| used.peak_anonymous_bytes.max(used.anonymous_bytes));
    let who = match used {
        Some(ProcessUse { backend_type, session: Some(session), .. }) => {
            format!("{backend_type} of session {session} (PID {})", crash.pid)
        }
        Some(used) => format!("{} (PID {})", used.backend_type, crash.pid),
        None => format!("{} (PID {})", crash.process, crash.pid),
    };
    let how_much = match held {
        0 => "it was not read before".to_owned(),
        held => format!("it held {} at its last readings", mebibytes(held)),
    };
    let ran = if statement.is_empty() {
        crash.statement.as_deref().unwrap_or_default()
    } else {
        statement
    };
    let ran = if ran.is_empty() { String::new() } else { format!(", while it ran: {ran}") };
    let sentence = format!("the kernel killed {who} for want of memory: {how_much}, of {of}{ran}");
    Some(if held.saturating_mul(2) >= there_was {
        Fault::ServerGone { how: sentence, statement: statement.to_owned() }
    } else {
        Fault::Infrastructure(format!(
            "{sentence}. Something else used the memory up, or it grew between two readings: give the job a host of its own, or sample more often"
        ))
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::log::Crash;

    fn end(how: &str) -> ServerEnd {
        let crash = Crash {
            process: "client backend".into(),
            pid: 12,
            how: how.into(),
            statement: Some("SELECT f()".into()),
        };
        ServerEnd { sentence: String::new(), crash: Some(crash), log_tail: String::new() }
    }

    fn used(mib: u64) -> ProcessUse {
        ProcessUse {
            process: 3,
            anonymous_bytes: mib << 20,
            peak_anonymous_bytes: mib << 20,
            backend_type: "client backend".into(),
            session: Some(1),
        }
    }

    const KILLED: &str = "terminated by signal 9: Killed";

    #[test]
    fn a_backend_that_held_most_of_the_memory_is_the_products_failure() {
        let kill = OomKill { limit_bytes: Some(512 << 20) };
        let Some(Fault::ServerGone { how, .. }) =
            fault(&end(KILLED), kill, Some(&used(400)), 1 << 34, "")
        else {
            panic!("not the product's")
        };
        assert_eq!(
            how,
            "the kernel killed client backend of session 1 (PID 12) for want of memory: it held 400 MiB at its last readings, \
             of the cgroup's limit of 512 MiB, while it ran: SELECT f()"
        );
    }

    #[test]
    fn a_small_backend_was_killed_for_somebody_else() {
        let kill = OomKill { limit_bytes: None };
        let Some(Fault::Infrastructure(why)) =
            fault(&end(KILLED), kill, Some(&used(20)), 1 << 30, "")
        else {
            panic!("not the host's")
        };
        assert!(why.contains("20 MiB") && why.contains("the host's 1024 MiB"), "{why}");
        let Some(Fault::Infrastructure(why)) = fault(&end(KILLED), kill, None, 1 << 30, "") else {
            panic!("not the host's")
        };
        assert!(why.contains("it was not read before"), "{why}");
    }

    #[test]
    fn another_end_is_none() {
        let kill = OomKill { limit_bytes: None };
        assert_eq!(
            fault(&end("terminated by signal 11"), kill, Some(&used(900)), 1 << 30, ""),
            None
        );
    }
}
