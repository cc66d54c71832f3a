//! The workload files that come with pgsoak, inside the binary.
