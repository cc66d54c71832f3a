//! Sampling allocates nothing once it has settled. Alone in its program: the allocator counts for all of it.
#![allow(
    unsafe_code,
    reason = "a counting allocator can only be written so; it hands everything on to the system's"
)]

use pgsoak_agent::sampler::{Sampler, SamplerConfig};
use pgsoak_proto::evidence::Body;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Allocations of the thread that is called "sampler".
static BY_THE_SAMPLER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is counted.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        BY_THE_SAMPLER.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::test]
async fn a_settled_sampler_does_not_allocate() {
    let mut server =
        Command::new("sh").args(["-c", "sleep 60 & sleep 60 & sleep 60 & wait"]).spawn().unwrap();
    let readings = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&readings);
    let mut batches = 0_u32;
    let append = move |_: Duration, body: &Body| {
        if let Body::Samples(samples) = body {
            batches += 1;
            // By the third batch everything has its memory.
            if batches >= 3 {
                IS_COUNTED.with(|is_counted| is_counted.set(true));
                let rows = samples.processes.iter().map(|columns| columns.rss_anon_kib.len());
                counted.fetch_add(
                    rows.map(|rows| u64::try_from(rows).unwrap()).sum(),
                    Ordering::Relaxed,
                );
            }
        }
        Ok(())
    };
    let mut config = SamplerConfig::new(server.id(), Instant::now(), Duration::from_millis(10));
    config.seal_every = Duration::from_millis(200);
    // Readings of smaps_rollup open a file each, and are rare.
    config.pss_share = 0.0;
    let sampler = Sampler::start(config, append, Arc::default()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Before the stop, which may allocate.
    let allocations = BY_THE_SAMPLER.load(Ordering::Relaxed);
    let stats = sampler.stop().await.unwrap();
    let readings = readings.load(Ordering::Relaxed);
    for line in std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.id()))
        .unwrap()
        .split_whitespace()
    {
        let pid = rustix::process::Pid::from_raw(line.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    server.wait().unwrap();
    assert!(readings > 200, "{stats:?}");
    // A tick that was missed is written down with its cause, and that is text.
    let missed = stats.ticks - stats.ticks_sampled;
    assert!(
        allocations <= missed * 16,
        "{allocations} allocations in {readings} readings, {missed} ticks missed"
    );
}
