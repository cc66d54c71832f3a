//! Why an attempt did not run to its end, and what that is called in its last frame.
//!
//! One place decides between the product's failure and the harness's: a statement that the server refuses and a server
//! that dies are the product's, unless the host's disk made them so; everything else that goes wrong is the infrastructure's.

use crate::runner::stop::StopCause;
use crate::workers::failure::WorkError;
use crate::workers::failure::cut;
use pgsoak_proto::job::Outcome;

/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 2 << 10;

/// SQLSTATEs with which a server says that the host's disk failed it: `disk_full` and `io_error`.
const DISK_STATES: [&str; 2] = ["53100", "58030"];

/// What a server logs, as the system words it, before it dies of its host's disk.
const DISK_TROUBLE: [&str; 3] =
    ["No space left on device", "Read-only file system", "Input/output error"];

/// Why an attempt did not run to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody or something stopped it.
    Stopped(StopCause),
    /// Work in the database failed.
    Work {
        /// Name of the phase; empty: outside of any.
        phase: String,
        /// Line of the workload file; `None`: not found there.
        line: Option<usize>,
        /// What went wrong.
        error: WorkError,
    },
    /// A check of the workload was not true.
    Check {
        /// Name of the phase.
        phase: String,
        /// 0 for once phases.
        round: u32,
        /// What the server said.
        answer: String,
    },
    /// The server ended by itself.
    ServerGone {
        /// One sentence.
        how: String,
        /// What a session was running when it lost it; empty: nothing.
        statement: String,
    },
    /// The server did not start, and its log names the build's own library.
    BuildDoesNotStart(String),
    /// Anything of the harness or the host; holds the sentence.
    Infrastructure(String),
}

/// How an attempt ends, in the words of its last frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How.
    pub outcome: Outcome,
    /// One sentence; empty for finished.
    pub reason: String,
    /// The statement that failed; empty: none did.
    pub statement: String,
    /// Its SQLSTATE; empty: none.
    pub sqlstate: String,
}

impl Ending {
    /// Of an attempt that ran to its end.
    pub fn finished() -> Self {
        Self {
            outcome: Outcome::Finished,
            reason: String::new(),
            statement: String::new(),
            sqlstate: String::new(),
        }
    }

    /// A server that died over the host's disk is the host's failure; its log says so.
    pub fn with_log(mut self, server_log: &str) -> Self {
        if self.outcome != Outcome::Failed || !self.sqlstate.is_empty() {
            return self;
        }
        let trouble = server_log.lines().rev().find(|line| {
            ["PANIC:", "FATAL:"].iter().any(|level| line.contains(level))
                && DISK_TROUBLE.iter().any(|words| line.contains(words))
        });
        if let Some(line) = trouble {
            let reason =
                format!("the host's disk failed the server ({}); {}", line.trim(), self.reason);
            self.outcome = Outcome::Infrastructure;
            cut(&reason, MAX_REASON_BYTES).clone_into(&mut self.reason);
        }
        self
    }
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        let (mut statement, mut sqlstate) = (String::new(), String::new());
        let (outcome, reason) = match fault {
            Fault::Stopped(StopCause::Cancelled(reason)) => (Outcome::Cancelled, reason),
            Fault::Stopped(StopCause::HardEnd(limit)) => (
                Outcome::TimedOut,
                format!(
                    "reached the hard end of {} s; raise hard_end in the plan, or shorten the workload",
                    limit.as_secs()
                ),
            ),
            Fault::Work { phase, line, error } => {
                let place = place(&phase, line);
                match error {
                    WorkError::Statement { statement: text, sqlstate: code, message } => {
                        statement = text;
                        sqlstate = code;
                        let said = format!("{place}{message} (SQLSTATE {sqlstate})");
                        if DISK_STATES.contains(&sqlstate.as_str()) {
                            let reason = format!("the host's disk failed the server: {said}");
                            (Outcome::Infrastructure, reason)
                        } else {
                            (Outcome::Failed, said)
                        }
                    }
                    WorkError::Lost { session, statement: text, message } => {
                        statement = text;
                        let reason =
                            format!("{place}session {session} lost its backend: {message}");
                        (Outcome::Failed, reason)
                    }
                    // A server that takes no connections while it should is the product's; why is in its log.
                    error @ WorkError::Connect { .. } => {
                        (Outcome::Failed, format!("{place}{error}"))
                    }
                    error @ (WorkError::Answer { .. } | WorkError::Silent { .. }) => {
                        (Outcome::Infrastructure, format!("{place}{error}"))
                    }
                }
            }
            Fault::Check { phase, round, answer } => {
                let round = if round > 0 { format!(" after round {round}") } else { String::new() };
                (
                    Outcome::Infrastructure,
                    format!("check of phase {phase}{round} does not hold: {answer}"),
                )
            }
            Fault::ServerGone { how, statement: text } => {
                statement = text;
                (Outcome::Failed, how)
            }
            Fault::BuildDoesNotStart(how) => {
                (Outcome::Failed, format!("the server does not start with this build: {how}"))
            }
            Fault::Infrastructure(reason) => (Outcome::Infrastructure, reason),
        };
        Self { outcome, reason: cut(&reason, MAX_REASON_BYTES).to_owned(), statement, sqlstate }
    }
}

fn place(phase: &str, line: Option<usize>) -> String {
    match (phase, line) {
        ("", _) => String::new(),
        (phase, None) => format!("phase {phase}: "),
        (phase, Some(line)) => format!("phase {phase}, line {line} of the workload: "),
    }
}

/// The line of the workload file on which `statement`, as written there, begins: the first line that holds its first
/// line, behind the phase's name. `None` when it is written otherwise there (escapes).
pub fn line_of(workload_toml: &str, phase: &str, statement: &str) -> Option<usize> {
    let first = statement.lines().map(str::trim).find(|line| !line.is_empty())?;
    let names_phase = |line: &str| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim() == "name"
                && value.trim().trim_matches(['"', '\'']).split(['"', '\'']).next() == Some(phase)
        })
    };
    let mut lines = workload_toml.lines().zip(1_usize..);
    lines.by_ref().find(|(line, _)| names_phase(line))?;
    lines
        .take_while(|(line, _)| !line.trim_start().starts_with("[[phase]]"))
        .find(|(line, _)| line.contains(first))
        .map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_refused_statement_is_the_products_failure_with_its_place() {
        let error = WorkError::Statement {
            statement: "SELECT 1/0".into(),
            sqlstate: "22012".into(),
            message: "division by zero".into(),
        };
        let ending = Ending::from(Fault::Work { phase: "steady".into(), line: Some(12), error });
        assert_eq!(ending.outcome, Outcome::Failed);
        assert_eq!(
            ending.reason,
            "phase steady, line 12 of the workload: division by zero (SQLSTATE 22012)"
        );
        assert_eq!((ending.statement.as_str(), ending.sqlstate.as_str()), ("SELECT 1/0", "22012"));
    }

    #[test]
    fn product_and_infrastructure_never_share_an_outcome() {
        let outcome = |fault| Ending::from(fault).outcome;
        let check = Fault::Check { phase: "p".into(), round: 3, answer: "false".into() };
        assert_eq!(outcome(check), Outcome::Infrastructure);
        let gone = Fault::ServerGone { how: "signal 11".into(), statement: String::new() };
        assert_eq!(outcome(gone), Outcome::Failed);
        assert_eq!(outcome(Fault::Infrastructure("no disk".into())), Outcome::Infrastructure);
        let hard_end = StopCause::HardEnd(Duration::from_secs(5));
        assert_eq!(outcome(Fault::Stopped(hard_end)), Outcome::TimedOut);
        assert_eq!(outcome(Fault::Stopped(StopCause::Cancelled("x".into()))), Outcome::Cancelled);
    }

    #[test]
    fn a_full_disk_is_the_hosts_failure() {
        let error = WorkError::Statement {
            statement: "INSERT".into(),
            sqlstate: "53100".into(),
            message: "could not extend file: No space left on device".into(),
        };
        let ending = Ending::from(Fault::Work { phase: "p".into(), line: None, error });
        assert_eq!(ending.outcome, Outcome::Infrastructure);
        assert!(ending.reason.contains("host's disk"), "{}", ending.reason);

        let died = || {
            let how = "the server ended with signal 6".to_owned();
            Ending::from(Fault::ServerGone { how, statement: "INSERT".into() })
        };
        let log = "LOG: ready\nPANIC:  could not write to file: No space left on device\nLOG: gone";
        assert_eq!(died().with_log(log).outcome, Outcome::Infrastructure);
        assert!(died().with_log(log).reason.contains("signal 6"));
        assert_eq!(died().with_log("PANIC:  stuck spinlock").outcome, Outcome::Failed);
        assert_eq!(Ending::finished().with_log(log).outcome, Outcome::Finished);
    }

    #[test]
    fn a_statement_is_found_in_its_phase() {
        let toml = "name = \"w\"\n[[phase]]\nname = \"a\"\nsql = \"SELECT 1\"\n[[phase]]\nname = 'b' # two\nsql = '''\n  SELECT 1;\n  SELECT\n 2'''\n";
        assert_eq!(line_of(toml, "a", "SELECT 1"), Some(4));
        assert_eq!(line_of(toml, "b", "\n SELECT 1"), Some(8));
        assert_eq!(line_of(toml, "b", "SELECT\n 2"), Some(8), "the first line that holds it");
        assert_eq!(line_of(toml, "b", "SELECT 9"), None);
        assert_eq!(line_of(toml, "c", "SELECT 1"), None);
        assert_eq!(line_of("", "", ""), None);
    }
}
