//! What was decided about agents, in the catalogue.

use crate::domain::fleet::FleetRecord;
use crate::store::StoreError;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::{Batch, Catalogue};
use pgsoak_proto::id::AgentId;

// === impl Batch ===

impl Batch {
    /// What was decided about an agent.
    pub fn fleet(&mut self, record: &FleetRecord) {
        self.put(&Key::Fleet(record.agent), record);
    }

    /// It is no part of the fleet any more.
    pub fn no_agent(&mut self, agent: AgentId) {
        self.removes.push(Key::Agent(agent).encode());
        self.removes.push(Key::Fleet(agent).encode());
    }
}

// === impl Catalogue ===

impl Catalogue {
    /// With what could not be read, as sentences.
    pub(super) fn fleet(&self) -> Result<(Vec<FleetRecord>, Vec<String>), StoreError> {
        let (mut found, mut damage) = (Vec::new(), Vec::new());
        self.scan(keys::FLEET, |record| {
            match record {
                Ok(record) => found.push(record),
                Err(error) => damage.push(error.to_string()),
            }
            true
        })?;
        Ok((found, damage))
    }
}
