//! A copy of everything as a stream, with bounded memory.

use crate::rpc::server::Services;
use crate::rpc::status::IntoStatus as _;
use crate::store::copy::{CopyPart, CopySummary};
use pgsoak_proto::wire;
use pgsoak_proto::wire::backup_piece::Part;
use tokio::sync::mpsc;
use tonic::Status;

/// Pieces on their way: each is about half a MiB.
const PIECES: usize = 4;

/// The pieces, in order.
pub(super) fn pieces(services: &Services) -> mpsc::Receiver<Result<wire::BackupPiece, Status>> {
    let (pieces, stream) = mpsc::channel(PIECES);
    let store = services.store.clone();
    services.tasks.spawn(async move {
        let sink = pieces.clone();
        // A reader that is gone ends the reading.
        let copied = store
            .copy(move |part| {
                sink.blocking_send(Ok(wire::BackupPiece { part: Some(part.into()) })).is_ok()
            })
            .await;
        let last = match copied {
            Ok(CopySummary { runs, entries, files, bytes }) => {
                let whole = wire::BackupSummary { runs, entries, files, bytes };
                Ok(wire::BackupPiece { part: Some(Part::Whole(whole)) })
            }
            Err(error) => Err(error.into_status()),
        };
        let _ = pieces.send(last).await;
    });
    stream
}

impl From<CopyPart> for Part {
    fn from(part: CopyPart) -> Self {
        let entries = |run_id, entries: Vec<(Vec<u8>, Vec<u8>)>| {
            let entries =
                entries.into_iter().map(|(key, value)| wire::StoredEntry { key, value }).collect();
            Self::Entries(wire::StoredEntries { run_id, entries })
        };
        match part {
            CopyPart::Catalogue(found) => entries(String::new(), found),
            CopyPart::Run(run, found) => entries(run.to_string(), found),
            CopyPart::File { path, offset, data } => {
                let path = path.to_string_lossy().into_owned();
                Self::File(wire::StoredFile { path, offset, data })
            }
        }
    }
}
