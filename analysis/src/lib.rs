//! The analysis: pure, no async, no clock, no I/O beyond readers.
//!
//! Floors, lowest first: `result` (what programs read), `stats` · `change_points` (a figure over releases), `figures` (for people) · `trend` (growth over time) · `judge` (series
//! from anywhere) · `stack` (names, fingerprints, owners) · `heap` · `valgrind` (a tool's text to records), `malloc_info`, `context_log`, `suspicion` · `massif` ·
//! `evidence` (frames to what a verdict reads) · `rounds` · `leaks`, `budgets`, `checks`, `ledger` (one line of evidence each) ·
//! `captures` (of processes at work) · `attribution` (where memory is) ·
//! `sites` (heaptrack, massif), `suppressed` · `exits` (what processes lose by their end) · `facts` (all lines of all jobs) ·
//! `over_time` (growth of processes) · `sequential` (while it goes on), `horizon` (memory ahead), `compare` (candidate against baseline) · `releases` (figures
//! over releases) · `verdict` (their combination) · `report`.

pub mod attribution;
pub mod budgets;
pub mod captures;
pub mod change_points;
pub mod checks;
pub mod compare;
pub mod context_log;
pub mod evidence;
pub mod exits;
pub mod facts;
pub mod figures;
pub mod heap;
pub mod horizon;
pub mod judge;
pub mod leaks;
pub mod ledger;
pub mod malloc_info;
pub mod massif;
pub mod over_time;
pub mod releases;
pub mod report;
pub mod result;
pub mod rounds;
pub mod sequential;
pub mod sites;
pub mod stack;
pub mod stats;
pub mod suppressed;
pub mod suspicion;
pub mod trend;
pub mod valgrind;
pub mod verdict;
