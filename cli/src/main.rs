//! The `pgsoak` binary: parses the command line, runs one verb, turns its answer into an exit code.
//!
//! Floors, lowest first: `exit`, `folders`, `log`, `args` · `connect`, `plan_files` · `embedded` · `settings` (of the daemons) · `show` (tables, progress) · `verbs`.

mod args;
mod connect;
mod embedded;
mod exit;
mod folders;
mod log;
mod plan_files;
mod settings;
mod show;
mod verbs;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let parsed = match verbs::Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are answers; everything else is wrong usage, which has its own exit code.
            let code = if error.use_stderr() { exit::USAGE } else { exit::PASS };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(verbs::dispatch(parsed))
}
