//! The analysis: pure, no async, no clock, no I/O beyond readers.
//!
//! Floors, lowest first: `result` (what programs read), `stats` · `stack` (names, fingerprints, owners) · `valgrind` (text to records) ·
//! `evidence` (frames to what a verdict reads) · `rounds` · `leaks`, `budgets`, `checks`, `ledger` (one line of evidence each) · `compare`
//! (candidate against baseline) · `verdict` (their combination) · `report`.

pub mod evidence;
pub mod heap;
pub mod report;
pub mod result;
pub mod stack;
pub mod valgrind;
pub mod verdict;
