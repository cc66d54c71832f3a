//! The sampler's thread: waits for the next tick or a request, whichever comes first. A tick that is due goes before any request.

use crate::probe::Probe;
use crate::sampler::{
    Append, Request, SamplerConfig, SamplerStats,
    desk::Desk,
    grid::{Grid, Now},
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// Runs until asked to stop, or until nobody is left who could ask.
pub(super) fn run<P: Probe, A: Append>(
    mut desk: Desk<P, A>,
    config: &SamplerConfig,
    inbox: &Receiver<Request>,
) -> SamplerStats {
    let mut grid = Grid::new(config.every, now(config.origin));
    loop {
        let time = now(config.origin);
        if time.elapsed >= grid.due_at() {
            take(&mut desk, &mut grid, time);
            continue;
        }
        match inbox.recv_timeout(grid.due_at().saturating_sub(time.elapsed)) {
            Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(request) => serve(&mut desk, &mut grid, request, now(config.origin)),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    // A tick that came due while the stop was on its way is still owed.
    let time = now(config.origin);
    if time.elapsed >= grid.due_at() {
        take(&mut desk, &mut grid, time);
    }
    desk.seal(time.elapsed);
    desk.stats(grid.ticks())
}

/// Takes the tick that is due, and tells those that were missed.
fn take<P: Probe, A: Append>(desk: &mut Desk<P, A>, grid: &mut Grid, time: Now) {
    let due = grid.take(time);
    for gap in [due.suspended, due.late].into_iter().flatten() {
        tracing::warn!(ticks = gap.ticks, cause = %gap.cause, "ticks were missed");
        desk.gap(gap, time.elapsed);
    }
    desk.tick(due.tick, time.elapsed, grid.every());
}

fn serve<P: Probe, A: Append>(desk: &mut Desk<P, A>, grid: &mut Grid, request: Request, time: Now) {
    // Whoever asked and does not wait any more is no error of ours: answers may go nowhere.
    match request {
        Request::Identify { pid, backend_type, session } => {
            desk.identify(pid, &backend_type, session, time.elapsed);
        }
        Request::Every(every) => {
            grid.set_every(every, time);
            desk.seal(time.elapsed);
        }
        Request::ReadNow(reply) => {
            let tick = grid.extra();
            desk.tick(tick, time.elapsed, grid.due_at().saturating_sub(time.elapsed));
            let _ = reply.send(tick);
        }
        Request::NumberOf { pid, reply } => {
            let _ = reply.send(desk.number_of(pid, time.elapsed));
        }
        Request::UseOf { pid, reply } => {
            let _ = reply.send(desk.use_of(pid));
        }
        Request::Processes(reply) => {
            let _ = reply.send(desk.uses());
        }
        Request::ResetPeaks => desk.reset_peaks(),
        // Taken by the loop.
        Request::Stop => {}
    }
}

fn now(origin: Instant) -> Now {
    let since_boot = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order the difference errs by what lies between the two calls, and never below zero.
    let awake = since_boot(ClockId::Monotonic);
    let suspended = since_boot(ClockId::Boottime).saturating_sub(awake);
    Now { elapsed: origin.elapsed(), suspended }
}
