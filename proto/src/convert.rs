//! Wire to checked and back. Nothing past this module sees a value that breaks the contract.

/// A message that breaks the contract. Names the field, always.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidMessage {
    /// The field, with its path from the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}
