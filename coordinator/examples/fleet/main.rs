//! Measures a coordinator with a made-up fleet: real sessions over loopback, evidence as runners make it, no PostgreSQL.
//!
//! ```text
//! cargo run --release -p pgsoak-coordinator --example fleet -- history [RUNS [FULL_RUNS]]   past runs asked for
//! cargo run --release -p pgsoak-coordinator --example fleet -- ingest [AGENTS [SECONDS]]    many agents at once
//! ```
//!
//! `history` fills a coordinator through `SubmitRun` and agents' sessions, then times what people ask; with `PGSOAK_POINTS=FILE` it
//! leaves the samples of the full runs behind for a peer (deploy/bench-history.sh asks DuckDB the same). `ingest` runs the coordinator
//! in a process of its own and reads that one's CPU and memory. Used by `make bench-history`; not part of the tests.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be made ends"
)]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod agents;
mod history;
mod ingest;
mod made;
mod usage;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        words.get(at).map_or(default, |word| word.parse().expect("a number"))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match words.first().map(String::as_str) {
        Some("history") => runtime.block_on(history::measure(number(1, 10_000), number(2, 1_000))),
        Some("ingest") => runtime.block_on(ingest::measure(number(1, 1_000), number(2, 60))),
        // What `ingest` starts.
        Some("coordinator") => {
            let data = words.get(1).expect("a data folder");
            runtime.block_on(ingest::coordinator(data.as_ref()));
        }
        _ => panic!("history or ingest"),
    }
}
