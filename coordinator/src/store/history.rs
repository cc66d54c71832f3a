//! The history as the rest of the program asks for it: runs by filter, notes, pins, baselines, signatures.

use crate::decide::find::{self, Filter, LostPlace, Page, Sort};
use crate::domain::history::{Baseline, RunLine, Signature};
use crate::store::{Store, StoreError, blocking};
use pgsoak_proto::id::RunId;
use std::sync::Arc;

impl Store {
    /// A page of the runs that fit.
    ///
    /// # Errors
    ///
    /// The inner one when `after` is not among them.
    pub async fn find_runs(
        &self,
        filter: Filter,
        sort: Sort,
        is_descending: bool,
        after: Option<RunId>,
        limit: usize,
    ) -> Result<Result<Page, LostPlace>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || {
            let lines = catalogue.lines();
            Ok(find::page(lines.iter(), &filter, sort, is_descending, after, limit))
        })
        .await
    }

    /// All runs, oldest first, as of one moment.
    pub fn lines(&self) -> Vec<Arc<RunLine>> {
        self.catalogue.lines()
    }

    /// A run as the history has it.
    pub fn line(&self, run: RunId) -> Option<Arc<RunLine>> {
        self.catalogue.history_line(run)
    }

    /// What runs are compared with because somebody said so.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn baselines(&self) -> Result<Vec<Baseline>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.baselines()).await
    }

    /// Every leak signature that was ever seen.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn signatures(&self) -> Result<Vec<Signature>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.signatures()).await
    }
}
