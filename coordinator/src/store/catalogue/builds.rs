//! Builds in the catalogue, by the digest of their package file.

use crate::domain::build::BuildRecord;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};

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
        self.all(keys::BUILDS)
    }
}
