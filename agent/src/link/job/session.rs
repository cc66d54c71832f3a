//! What a job is told of the daemon's session with the coordinator. Only the newest counts: however many acknowledgements
//! come at once, nothing queues, and nothing is missed that matters.

use crate::link::connect::Outbox;
use tokio::sync::watch;

/// The session as a job sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionView {
    /// Another one whenever the session or the standing of the lease in it is another.
    pub number: u64,
    /// `None`: there is no session.
    pub outbox: Option<Outbox>,
    pub standing: Standing,
    /// Frames up to and with this one are durable at the coordinator, as far as it has said in this session.
    pub acknowledged: u64,
}

/// Whether a lease stands in a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Standing {
    /// The coordinator has not said so.
    #[default]
    Unknown,
    /// It does, and the coordinator has the frames up to this one.
    From(u64),
    /// It does, though the coordinator's Welcome did not know that the agent holds it.
    Confirmed,
}

/// The daemon's end.
#[derive(Debug, Default)]
pub(in crate::link) struct SessionTeller(watch::Sender<SessionView>);

// === impl SessionTeller ===

impl SessionTeller {
    pub(super) fn listen(&self) -> watch::Receiver<SessionView> {
        self.0.subscribe()
    }

    /// There is a session. With a high-water mark the lease stands, and evidence goes on from there.
    pub fn begins(&self, outbox: Outbox, high_water: Option<u64>) {
        self.0.send_modify(|view| {
            *view = SessionView {
                number: view.number.wrapping_add(1),
                outbox: Some(outbox),
                standing: high_water.map_or(Standing::Unknown, Standing::From),
                acknowledged: high_water.unwrap_or(0),
            };
        });
    }

    /// The coordinator says of a lease that its Welcome did not name that it stands.
    pub fn confirms(&self, outbox: Outbox) {
        self.0.send_if_modified(|view| {
            let is_news = matches!(view.standing, Standing::Unknown);
            if is_news {
                view.number = view.number.wrapping_add(1);
                view.outbox = Some(outbox);
                view.standing = Standing::Confirmed;
            }
            is_news
        });
    }

    pub fn is_lost(&self) {
        self.0.send_modify(|view| {
            *view = SessionView { number: view.number.wrapping_add(1), ..SessionView::default() };
        });
    }

    /// Frames up to and with this one are durable at the coordinator.
    pub fn acknowledges(&self, sequence: u64) {
        self.0.send_if_modified(|view| {
            let is_news = sequence > view.acknowledged;
            view.acknowledged = view.acknowledged.max(sequence);
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::unconnected()
    }

    #[test]
    fn only_the_newest_of_many_acknowledgements_is_seen() {
        let teller = SessionTeller::default();
        let mut view = teller.listen();
        teller.begins(outbox(), Some(40));
        for sequence in 41..=1000 {
            teller.acknowledges(sequence);
        }
        teller.acknowledges(900);
        assert!(view.has_changed().unwrap());
        let seen = view.borrow_and_update().clone();
        assert_eq!((seen.number, seen.acknowledged), (1, 1000));
        assert!(matches!(seen.standing, Standing::From(40)));
        teller.acknowledges(1000);
        assert!(!view.has_changed().unwrap(), "nothing new");
    }

    #[test]
    fn what_an_earlier_session_acknowledged_does_not_count_in_the_next() {
        let teller = SessionTeller::default();
        let view = teller.listen();
        teller.begins(outbox(), Some(0));
        teller.acknowledges(500);
        teller.is_lost();
        assert!(view.borrow().outbox.is_none());
        teller.begins(outbox(), Some(40));
        let seen = view.borrow();
        assert_eq!((seen.number, seen.acknowledged), (3, 40));
    }

    #[test]
    fn a_confirmation_does_not_hide_the_high_water_mark() {
        let teller = SessionTeller::default();
        let view = teller.listen();
        teller.begins(outbox(), Some(40));
        teller.confirms(outbox());
        assert!(matches!(view.borrow().standing, Standing::From(40)));
        teller.begins(outbox(), None);
        teller.confirms(outbox());
        assert!(matches!(view.borrow().standing, Standing::Confirmed));
    }
}
