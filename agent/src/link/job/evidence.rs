//! Sends a job's frames, a window of unacknowledged bytes at a time, and frees what is acknowledged.

use crate::blocking;
use crate::folder::JobFolder;
use crate::link::connect::Outbox;
use crate::spool::{Batch, ReadSpoolError, SpoolReader};
use pgsoak_proto::chain::chain;
use pgsoak_proto::job::Lease;
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body;
use std::{collections::VecDeque, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// Sent and not acknowledged: more is not read.
const WINDOW_BYTES: usize = 512 << 10;
/// Of one message: small, so that a heartbeat never waits long behind it.
const BATCH_BYTES: usize = 128 << 10;
/// Between two looks for segments that can go.
const RELEASE_EVERY: Duration = Duration::from_secs(30);
/// Between two log lines about a spool that cannot be read.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Uplink {
    dir: PathBuf,
    /// Away while it reads.
    reader: Option<SpoolReader>,
    acknowledged: u64,
    in_flight: VecDeque<Sent>,
    /// Nothing new at the last look.
    is_exhausted: bool,
    released_at: Instant,
    complained_at: Option<Instant>,
}

struct Sent {
    last: u64,
    bytes: usize,
}

// === impl Uplink ===

impl Uplink {
    pub fn new(folder: &JobFolder) -> Self {
        Self {
            dir: folder.spool(),
            reader: None,
            acknowledged: 0,
            in_flight: VecDeque::new(),
            is_exhausted: false,
            released_at: Instant::now(),
            complained_at: None,
        }
    }

    /// Everything up to and with this frame is durable at the coordinator.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A new session, and how far the coordinator is: further or less far than it was.
    pub fn restart(&mut self, high_water: u64) {
        self.acknowledged = high_water;
        self.in_flight.clear();
        self.is_exhausted = false;
        if let Some(reader) = &mut self.reader {
            reader.seek(high_water);
        }
    }

    pub fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(sequence);
        while self.in_flight.front().is_some_and(|sent| sent.last <= self.acknowledged) {
            self.in_flight.pop_front();
        }
    }

    /// There may be more than at the last look.
    pub fn look_again(&mut self) {
        self.is_exhausted = false;
    }

    /// Sends what there is and fits into the window and the queue.
    pub async fn pump(&mut self, outbox: &Outbox, lease: Lease) {
        loop {
            let in_flight: usize = self.in_flight.iter().map(|sent| sent.bytes).sum();
            if self.is_exhausted || in_flight >= WINDOW_BYTES {
                break;
            }
            let Some(room) = outbox.room() else { break };
            let Some((batch, lost_up_to)) = self.read().await else { break };
            let (Some(first), Some(last)) = (batch.frames.first(), batch.frames.last()) else {
                self.is_exhausted = true;
                break;
            };
            // Only what the coordinator does not have, and what is not on its way.
            let is_lost = lost_up_to > self.acknowledged && lost_up_to < first.sequence;
            self.in_flight.push_back(Sent { last: last.sequence, bytes: batch.bytes });
            room.send(wire::AgentMessage {
                body: Some(Body::Evidence(wire::EvidenceBatch {
                    lease: Some(lease.into()),
                    frames: batch.frames,
                    lost_up_to: if is_lost { lost_up_to } else { 0 },
                })),
            });
        }
    }

    /// The next batch, and up to where frames before it are lost.
    async fn read(&mut self) -> Option<(Batch, u64)> {
        let reader = self.reader.take();
        let mut reader = reader.unwrap_or_else(|| SpoolReader::open(&self.dir, self.acknowledged));
        let must_release = self.released_at.elapsed() >= RELEASE_EVERY;
        if must_release {
            self.released_at = Instant::now();
        }
        let acknowledged = self.acknowledged;
        let work = blocking::spawn(move || {
            let released = if must_release {
                reader.release(acknowledged, SpoolReader::GRACE, Instant::now().into_std())
            } else {
                Ok(0)
            };
            let batch = released.and_then(|_| reader.next_batch(BATCH_BYTES));
            let batch = match batch {
                Err(error @ ReadSpoolError::Damaged { .. }) => {
                    let sequence = reader.next_sequence();
                    match reader.skip_damage() {
                        Ok(true) => {
                            tracing::error!(
                                error = chain(&error),
                                from = sequence,
                                to = reader.lost_up_to(),
                                "frames are lost"
                            );
                            reader.next_batch(BATCH_BYTES)
                        }
                        // What is behind it is not there yet; the end of the runner cuts it.
                        Ok(false) => Err(error),
                        Err(error) => Err(error),
                    }
                }
                batch => batch,
            };
            (reader, batch)
        });
        let (reader, batch) = work.await.ok()?;
        let lost_up_to = reader.lost_up_to();
        self.reader = Some(reader);
        match batch {
            Ok(batch) => Some((batch, lost_up_to)),
            Err(error) => {
                self.is_exhausted = true;
                if self.complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    self.complained_at = Some(Instant::now());
                    tracing::error!(error = chain(&error), "evidence waits");
                }
                None
            }
        }
    }
}
