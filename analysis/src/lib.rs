//! The analysis: pure, no async, no clock, no I/O beyond readers.
//!
//! Floors, lowest first: `stats` · `stack` · `valgrind` (text to records) · `evidence` (frames to what a verdict reads) ·
//! `result` · `rounds`, `leaks`, `budgets`, `checks`, `ledger` (one line of evidence each) · `verdict` (their combination) ·
//! `report`.

pub mod evidence;
pub mod result;
