//! Schedules and alerts in the catalogue.

use crate::domain::alert::Alert;
use crate::domain::record::RunInput;
use crate::domain::schedule::ScheduleRecord;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use crate::store::{Store, StoreError, blocking};
use pgsoak_proto::id::ScheduleId;
use std::collections::VecDeque;
use tracing::warn;

/// Schedules with their files, and what could not be read, as sentences.
pub(crate) type StoredSchedules = (Vec<(ScheduleRecord, RunInput)>, Vec<String>);

// === impl Batch ===

impl Batch {
    /// A schedule.
    pub fn schedule(&mut self, record: &ScheduleRecord) {
        self.put(&Key::Schedule(record.schedule), record);
    }

    /// Its plan and workloads.
    pub fn schedule_files(&mut self, schedule: ScheduleId, input: &RunInput) {
        self.put(&Key::ScheduleFiles(schedule), input);
    }

    /// It is no more.
    pub fn no_schedule(&mut self, schedule: ScheduleId) {
        self.removes.push(Key::Schedule(schedule).encode());
        self.removes.push(Key::ScheduleFiles(schedule).encode());
    }

    /// An alert; `number` tells those of one moment apart.
    pub fn alert(&mut self, alert: &Alert, number: u32) {
        self.put(&Key::Alert(alert.at, number), alert);
    }
}

// === impl Catalogue ===

impl Catalogue {
    pub(super) fn schedules(&self) -> Result<StoredSchedules, StoreError> {
        let mut records: Vec<ScheduleRecord> = Vec::new();
        let mut damage = Vec::new();
        self.scan(keys::SCHEDULES, |record| {
            match record {
                Ok(record) => records.push(record),
                Err(error) => damage.push(error.to_string()),
            }
            true
        })?;
        let mut found = Vec::new();
        for record in records {
            match self.get::<RunInput>(&Key::ScheduleFiles(record.schedule)) {
                Ok(Some(input)) => found.push((record, input)),
                Ok(None) => damage.push(format!("schedule {}: its files are missing", record.name)),
                Err(error) => damage.push(format!("schedule {}: {error}", record.name)),
            }
        }
        Ok((found, damage))
    }

    /// Newest first, at most `most`.
    pub(crate) fn alerts(&self, most: usize) -> Result<Vec<Alert>, StoreError> {
        let mut last = VecDeque::new();
        self.scan(keys::ALERTS, |alert: Result<Alert, _>| {
            match alert {
                Ok(alert) => {
                    last.push_front(alert);
                    last.truncate(most);
                }
                Err(error) => warn!(%error, "left out of a list"),
            }
            true
        })?;
        Ok(last.into())
    }
}

// === impl Store ===

impl Store {
    /// What somebody should look at: newest first, at most `most`.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn alerts(&self, most: usize) -> Result<Vec<Alert>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.alerts(most)).await
    }
}
