//! The outbox: messages to people that somebody has still to get, and what was said already.

use crate::domain::notice::Notice;
use crate::store::{Store, StoreError, blocking};

impl Store {
    /// Messages that wait, oldest first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn notices(&self) -> Result<Vec<Notice>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.notices()).await
    }
}
