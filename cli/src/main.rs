//! The `pgsoak` binary.

fn main() {}
