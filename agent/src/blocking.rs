//! Work that blocks (files, /proc) goes to threads of its own, off the event loop.
//!
//! A simulation has one thread and no time of its own to wait for others: there the work is done where it is asked for, so that
//! virtual time stands still meanwhile and a seed gives the same day again.

use std::cell::Cell;
use tokio::task::{JoinHandle, JoinSet};

thread_local! {
    static IS_INLINE: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread does such work itself. For simulations: whatever else the thread runs waits meanwhile.
pub fn inline_on_this_thread() {
    IS_INLINE.set(true);
}

/// Starts `work` on a thread that may block.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if IS_INLINE.get() {
        tokio::spawn(async move { work() })
    } else {
        tokio::task::spawn_blocking(work)
    }
}

/// As [`spawn`], as one of a set.
pub(crate) fn spawn_in<T: Send + 'static>(
    set: &mut JoinSet<T>,
    work: impl FnOnce() -> T + Send + 'static,
) {
    if IS_INLINE.get() {
        set.spawn(async move { work() });
    } else {
        set.spawn_blocking(work);
    }
}
