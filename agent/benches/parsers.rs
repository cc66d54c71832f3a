//! The parsers of the sampler's hot path, without the kernel: what of a sample is ours.
#![allow(missing_docs, reason = "what criterion's macros make")]

use criterion::{Criterion, criterion_group, criterion_main};
use pgsoak_agent::probe::parse;
use std::{fs, hint::black_box};

fn parsers(criterion: &mut Criterion) {
    // This process's own text: what the kernel writes now.
    let text = |file: &str| fs::read(format!("/proc/self/{file}")).unwrap_or_default();
    let (stat, status) = (text("stat"), text("status"));
    criterion.bench_function("stat", |bencher| bencher.iter(|| parse::stat(black_box(&stat))));
    criterion
        .bench_function("status", |bencher| bencher.iter(|| parse::status(black_box(&status))));
    let meminfo = fs::read("/proc/meminfo").unwrap_or_default();
    criterion.bench_function("meminfo", |bencher| {
        bencher.iter(|| parse::kib_line(black_box(&meminfo), b"MemAvailable:"));
    });
}

criterion_group!(benches, parsers);
criterion_main!(benches);
