//! The outbox in the catalogue: messages that wait, and conditions that were said.

use crate::domain::notice::{Notice, NoticeId};
use crate::domain::time::UnixUs;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use crate::store::value;
use std::collections::BTreeSet;
use tracing::error;

// === impl Batch ===

impl Batch {
    /// A message that somebody has still to get.
    pub fn notice(&mut self, notice: &Notice) {
        self.put(&Key::Notice(notice.id), notice);
    }

    /// Everybody has it, or it is given up.
    pub fn notice_done(&mut self, id: NoticeId) {
        self.removes.push(Key::Notice(id).encode());
    }

    /// Something lasting was said; `None`: it is over.
    pub fn condition(&mut self, condition: &str, said_at: Option<UnixUs>) {
        match said_at {
            Some(at) => self.put(&Key::Condition(condition), &at),
            None => self.removes.push(Key::Condition(condition).encode()),
        }
    }
}

// === impl Catalogue ===

impl Catalogue {
    pub(crate) fn notices(&self) -> Result<Vec<Notice>, StoreError> {
        let mut found = Vec::new();
        self.scan(keys::NOTICES, |record| {
            match record {
                Ok(notice) => found.push(notice),
                Err(error) => error!(%error, "a message is damaged; nobody gets it"),
            }
            true
        })?;
        Ok(found)
    }

    pub(crate) fn conditions(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut found = BTreeSet::new();
        value::scan(&self.db.db, keys::CONDITIONS, |key, _| {
            found.extend(keys::condition_of(key));
            true
        })
        .map_err(|source| self.db.error("read", source))?;
        Ok(found)
    }
}
