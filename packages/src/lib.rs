//! Extension packages as single files that travel between hosts: packed the same way everywhere, checked, unpacked without tricks.
//!
//! Floors, lowest first: `digest` · `magic` (which PostgreSQL a shared object fits) · `manifest` (what a package says of itself) ·
//! `archive` (pack, inspect, unpack).
//!
//! A package file is a tar under zstd that holds regular files side by side and nothing else: shared objects, control files, SQL
//! and `build.json`. Its name is the SHA-256 of its bytes. The same files give the same bytes, so a second push changes nothing.

pub mod archive;
pub mod digest;
pub mod magic;
pub mod manifest;
