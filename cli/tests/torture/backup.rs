//! `pgsoak backup` and `pgsoak coordinator --check`.
