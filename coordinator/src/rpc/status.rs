//! The one table of status codes: what went wrong, as gRPC says it.

use crate::domain::short_id::FindRunError;
use crate::engine::bundle::ImportError;
use crate::engine::comparing::SetError;
use crate::engine::handle::{EngineGone, HelloRefused};
use crate::engine::judging::JudgeError;
use crate::engine::retention::RetentionError;
use crate::store::StoreError;
use crate::store::builds::PushError;
use pgsoak_proto::chain::chain;
use pgsoak_proto::convert::InvalidMessage;
use pgsoak_workloads::file_error::FileError;
use tonic::Status;

/// Bytes of a status message. It travels in a header; clients take 16 KiB of those, percent-encoded.
const MAX_TEXT: usize = 3_000;

/// An error that a request can end in.
pub(crate) trait IntoStatus {
    fn into_status(self) -> Status;
}

/// `?` on errors of the lower floors.
pub(crate) trait OrStatus<T> {
    fn or_status(self) -> Result<T, Status>;
}

impl<T, E: IntoStatus> OrStatus<T> for Result<T, E> {
    fn or_status(self) -> Result<T, Status> {
        self.map_err(IntoStatus::into_status)
    }
}

impl IntoStatus for EngineGone {
    fn into_status(self) -> Status {
        Status::unavailable(self.to_string())
    }
}

impl IntoStatus for FindRunError {
    fn into_status(self) -> Status {
        match &self {
            Self::Malformed(_) | Self::Ambiguous { .. } => {
                Status::invalid_argument(self.to_string())
            }
            Self::Unknown(_) => Status::not_found(self.to_string()),
        }
    }
}

impl IntoStatus for HelloRefused {
    fn into_status(self) -> Status {
        match &self {
            Self::Protocol { .. } => Status::failed_precondition(self.to_string()),
            Self::NameTaken { .. } | Self::NameHeld { .. } => {
                Status::already_exists(self.to_string())
            }
        }
    }
}

impl IntoStatus for InvalidMessage {
    fn into_status(self) -> Status {
        Status::invalid_argument(cut(&self.to_string()))
    }
}

impl IntoStatus for Vec<FileError> {
    /// Every problem on a line of its own, as far as there is room.
    fn into_status(self) -> Status {
        let mut text = String::new();
        for (index, problem) in self.iter().enumerate() {
            let line = problem.to_string();
            if text.len() + line.len() > MAX_TEXT {
                let left = self.len() - index;
                text.push_str(&format!("… and {left} more problem(s)"));
                break;
            }
            if index > 0 {
                text.push('\n');
            }
            text.push_str(&line);
        }
        Status::invalid_argument(text)
    }
}

impl IntoStatus for StoreError {
    fn into_status(self) -> Status {
        let text = cut(&chain(&self));
        match self {
            Self::Damaged { .. } => Status::data_loss(text),
            Self::Closed => Status::unavailable(text),
            // The coordinator is well; where the raw files lie is not.
            Self::Remote { .. } => Status::internal(text),
            Self::Sealed { .. } => Status::failed_precondition(text),
            Self::Sled { .. } | Self::Io { .. } | Self::Open(_) => Status::internal(text),
        }
    }
}

impl IntoStatus for JudgeError {
    fn into_status(self) -> Status {
        Status::internal(cut(&self.to_string()))
    }
}

impl IntoStatus for ImportError {
    fn into_status(self) -> Status {
        let text = cut(&chain(&self));
        match self {
            Self::Malformed(_) => Status::invalid_argument(text),
            Self::Known(_) => Status::failed_precondition(text),
            Self::OtherResult { .. } | Self::Append(_) | Self::Artifact(_) => {
                Status::data_loss(text)
            }
            Self::Judge(error) => error.into_status(),
            Self::Store(error) => error.into_status(),
        }
    }
}

impl IntoStatus for RetentionError {
    fn into_status(self) -> Status {
        match self {
            Self::Store(error) => error.into_status(),
            Self::Gone(error) => error.into_status(),
        }
    }
}

impl IntoStatus for PushError {
    fn into_status(self) -> Status {
        let text = cut(&chain(&self));
        match self {
            Self::TooLarge { .. } | Self::Refused(_) => Status::invalid_argument(text),
            Self::Damaged { .. } => Status::data_loss(text),
            Self::Store(error) => error.into_status(),
        }
    }
}

impl IntoStatus for SetError {
    fn into_status(self) -> Status {
        match self {
            Self::Unfinished(_) => Status::failed_precondition(self.to_string()),
            Self::Broke(_) => Status::internal(self.to_string()),
            Self::Unknown(_) | Self::NoRuns(_) => Status::not_found(self.to_string()),
            Self::Store(error) => error.into_status(),
            Self::Judge(error) => error.into_status(),
        }
    }
}

pub(super) fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_problems_fit_a_header() {
        let problems: Vec<FileError> = (1..500)
            .map(|line| FileError {
                file: "plan.toml".to_owned(),
                line,
                problem: "unknown key 'replicsa'; did you mean 'replicas'?".to_owned(),
            })
            .collect();
        let status = problems.into_status();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().len() < MAX_TEXT + 100);
        assert!(status.message().starts_with("plan.toml:1: unknown key"));
        assert!(status.message().contains("more problem(s)"), "{}", status.message());
    }
}
