//! Work that blocks (sled, files) goes to threads of its own, off the event loop.
//!
//! A simulation has one thread, and no time of its own to wait for others: there the work is done where it is asked for, and the
//! store's threads are waited for on the spot, so that virtual time stands still meanwhile and a seed gives the same day again.
//! It can also let this side die at the n-th step towards the disk: whoever takes it never returns.

use std::{
    cell::Cell,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

thread_local! {
    static IS_INLINE: Cell<bool> = const { Cell::new(false) };
    static STEPS_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread does such work itself. For simulations: whatever else the thread runs waits meanwhile.
pub fn inline_on_this_thread() {
    IS_INLINE.set(true);
}

/// On this thread nobody gets further than so many steps towards the disk from now on (before and after each write); `None`:
/// everybody does. For simulations, which end what stands still there.
pub fn die_after(steps: Option<u64>) {
    STEPS_LEFT.set(steps);
}

/// Whether somebody stands still because of [`die_after`].
pub fn is_dead() -> bool {
    STEPS_LEFT.get() == Some(0)
}

/// Before and after whatever makes something durable.
pub(crate) async fn step() {
    match STEPS_LEFT.get() {
        None => {}
        Some(0) => std::future::pending().await,
        Some(left) => {
            STEPS_LEFT.set(Some(left - 1));
            if left == 1 {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Starts `work` on a thread that may block.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if IS_INLINE.get() {
        tokio::spawn(async move { work() })
    } else {
        tokio::task::spawn_blocking(work)
    }
}

/// The answer of one of the store's threads; `None`: it has ended.
pub(crate) fn answer<T: Send + 'static>(
    reply: oneshot::Receiver<T>,
) -> impl Future<Output = Option<T>> + Send + use<T> {
    // Waited for right here, so the thread is done before anything else goes on.
    let answer = if IS_INLINE.get() { Answer::Now(wait(reply).ok()) } else { Answer::Later(reply) };
    async move {
        let answer = match answer {
            Answer::Now(answer) => answer,
            Answer::Later(reply) => reply.await.ok(),
        };
        step().await;
        answer
    }
}

enum Answer<T> {
    Now(Option<T>),
    Later(oneshot::Receiver<T>),
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks the thread, though it drives a runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    // Without the runtime's budget: nobody would renew it here.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_waited_for_on_the_spot_where_that_is_wanted() {
        for is_inline in [false, true] {
            let (tell, reply) = oneshot::channel();
            let asking = thread::spawn(move || {
                thread::sleep(std::time::Duration::from_millis(20));
                tell.send(7).unwrap();
            });
            IS_INLINE.set(is_inline);
            let answer = answer(reply);
            assert!(!is_inline || asking.is_finished() || asking.join().is_ok());
            assert_eq!(answer.await, Some(7));
        }
        IS_INLINE.set(false);
    }

    #[tokio::test]
    async fn nobody_gets_past_the_step_at_which_this_side_dies() {
        die_after(Some(2));
        step().await;
        assert!(!is_dead());
        let second = tokio::time::timeout(std::time::Duration::from_millis(5), step()).await;
        assert!(second.is_err() && is_dead());
        die_after(None);
        step().await;
    }
}
