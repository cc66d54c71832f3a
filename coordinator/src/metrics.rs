//! What the coordinator counts while it works. Labels come from enums, never from ids; `web::metrics` exports them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::sync::Arc;

/// One label of one word.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct VerdictLabel {
    /// `pass`, `fail`, `inconclusive`, `invalid`.
    pub verdict: &'static str,
}

/// How a message went out.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct DeliveryLabel {
    /// `webhook` or `mail`.
    pub channel: &'static str,
    /// `delivered`, `retried`, `given_up`.
    pub result: &'static str,
}

/// What somebody should look at.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct AlertLabel {
    /// `run_missed`, `agent_quarantined` and the like.
    pub kind: &'static str,
}

/// The counters. Cheap to clone: all clones count the same.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Counts>);

/// What is behind it.
#[derive(Debug)]
pub struct Counts {
    /// Runs judged since the start.
    pub finished: Family<VerdictLabel, Counter>,
    /// Seconds that judging a run took.
    pub judging: Histogram,
    /// Frames made durable.
    pub frames: Counter,
    /// Batches refused or not stored.
    pub batches_failed: Counter,
    /// Seconds from a batch's arrival to its acknowledgement: the ingest lag.
    pub lag: Histogram,
    /// Messages to people.
    pub messages: Family<DeliveryLabel, Counter>,
    /// Alerts raised.
    pub alerts: Family<AlertLabel, Counter>,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let finished: Family<VerdictLabel, Counter> = Family::default();
        let messages: Family<DeliveryLabel, Counter> = Family::default();
        // From the start, at 0: a rate over a series that begins with its first event misses that event.
        for verdict in ["pass", "fail", "inconclusive", "invalid"] {
            drop(finished.get_or_create(&VerdictLabel { verdict }));
        }
        for channel in ["webhook", "mail"] {
            for result in ["delivered", "retried", "given_up"] {
                drop(messages.get_or_create(&DeliveryLabel { channel, result }));
            }
        }
        Self(Arc::new(Counts {
            finished,
            judging: Histogram::new(exponential_buckets(0.01, 4.0, 8)),
            frames: Counter::default(),
            batches_failed: Counter::default(),
            lag: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            messages,
            alerts: Family::default(),
        }))
    }
}

impl std::ops::Deref for Metrics {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        &self.0
    }
}
