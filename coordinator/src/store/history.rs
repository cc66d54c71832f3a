//! The history as the rest of the program asks for it: runs by filter, notes, pins, baselines, signatures.

use crate::decide::find::{self, Filter, LostPlace, Page, Sort};
use crate::domain::history::{Against, Baseline, RunLine, Signature};
use crate::store::{Store, StoreError, blocking};
use pgsoak_analysis::compare::JobFigures;
use pgsoak_analysis::releases::RunPoints;
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

    /// The figures of a run's jobs; `None`: they were never kept, or by another version of the engine.
    ///
    /// # Errors
    ///
    /// When the store is going down.
    pub async fn figures(&self, run: RunId) -> Result<Option<Vec<JobFigures>>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || Ok(catalogue.figures(run))).await
    }

    /// What a run was compared with when it was judged.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn against(&self, run: RunId) -> Result<Option<Against>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.against(run)).await
    }

    /// The points of every run of a workload, oldest first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn points(&self, workload: String) -> Result<Vec<RunPoints>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.points(&workload)).await
    }

    /// Workloads of which points are kept.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn workloads(&self) -> Result<Vec<String>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.workloads()).await
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
