//! Builds in the catalogue, by the digest of their package file.

use crate::domain::build::BuildRecord;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use tracing::warn;

impl Batch {
    /// A build.
    pub fn build(&mut self, build: &BuildRecord) {
        self.put(&Key::Build(&build.digest), build);
    }

    /// A build is forgotten.
    pub fn no_build(&mut self, digest: &str) {
        self.removes.push(Key::Build(digest).encode());
    }
}

impl Catalogue {
    pub(crate) fn builds(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let mut found = Vec::new();
        self.scan(keys::BUILDS, |record| {
            match record {
                Ok(record) => found.push(record),
                Err(error) => warn!(%error, "left out of a list"),
            }
            true
        })?;
        Ok(found)
    }
}
