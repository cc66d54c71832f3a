//! Identifiers of the things that are tracked.
//!
//! One newtype per noun, so that a run's id can never be passed where an agent's is meant.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A string that is not an id.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is not {what} id")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    #[source]
    source: uuid::Error,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// Version 7, so that ids sort by the time they were issued.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Issues a fresh id.
            pub fn issue() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes, in an order that sorts as the ids do.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the bytes of [`Self::as_bytes`].
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|source| InvalidId {
                    what: $what,
                    text: text.chars().take(64).collect(),
                    source,
                })
            }
        }
    };
}

id!(
    /// Names one execution of a plan.
    RunId,
    "a run"
);
id!(
    /// Names one job of a run.
    JobId,
    "a job"
);
id!(
    /// Names an agent; kept in its data folder, so it survives restarts and changes of name.
    AgentId,
    "an agent"
);
id!(
    /// Names a schedule; kept when it is replaced by another of its name.
    ScheduleId,
    "a schedule"
);
