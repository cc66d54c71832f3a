//! Stored evidence and raw files as streams, with bounded memory.

use crate::domain::record::ArtifactRecord;
use crate::engine::handle::RunSnapshot;
use crate::rpc::server::Services;
use crate::rpc::status::{IntoStatus, OrStatus as _};
use crate::store::StoreError;
use crate::store::remote::Source;
use crate::store::run_db::StoredFrame;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use pgsoak_proto::id::JobId;
use pgsoak_proto::wire;
use std::{fs::File, io::Read as _, path::PathBuf};
use tokio::sync::mpsc;
use tonic::Status;

/// Frames on their way: each is 1 MiB at most.
const FRAMES: usize = 8;
/// Pieces of a file on their way.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// The frames of a run, job by job, attempt by attempt, in order.
pub(super) fn frames(
    services: &Services,
    snapshot: RunSnapshot,
    only: Option<JobId>,
    samples_only: bool,
) -> mpsc::Receiver<Result<wire::StoredFrame, Status>> {
    let (frames, stream) = mpsc::channel(FRAMES);
    let store = services.store.clone();
    services.tasks.spawn(async move {
        let run = snapshot.record.run;
        let jobs = snapshot.jobs.iter().filter(|job| only.is_none_or(|only| job.spec.job == only));
        for job in jobs {
            for attempt in 1..=job.record.state.attempts() {
                let (id, sink) = (job.spec.job, frames.clone());
                let read = store
                    .read_frames(run, id, attempt, move |found| {
                        let item = match found {
                            StoredFrame::Whole(frame) => {
                                if samples_only && !is_for_samples(&frame) {
                                    return true;
                                }
                                Ok(wire::StoredFrame {
                                    job_id: id.to_string(),
                                    attempt,
                                    frame: Some(*frame),
                                })
                            }
                            StoredFrame::Damaged { sequence, problem } => {
                                Err(Status::data_loss(format!(
                                    "frame {sequence} of job {id} attempt {attempt} is damaged: {problem}"
                                )))
                            }
                        };
                        // A reader that is gone ends the reading.
                        let is_whole = item.is_ok();
                        sink.blocking_send(item).is_ok() && is_whole
                    })
                    .await;
                if let Err(error) = read {
                    let _ = frames.send(Err(error.into_status())).await;
                    return;
                }
                if frames.is_closed() {
                    return;
                }
            }
        }
    });
    stream
}

fn is_for_samples(frame: &wire::Frame) -> bool {
    use wire::frame::Body;
    matches!(
        frame.body,
        Some(
            Body::Started(_) | Body::ProcessAppeared(_) | Body::ProcessEnded(_) | Body::Samples(_)
        )
    )
}

/// The bytes of a complete raw file.
pub(crate) async fn artifact(
    services: &Services,
    snapshot: &RunSnapshot,
    job: JobId,
    attempt: u32,
    name: &str,
) -> Result<mpsc::Receiver<Result<wire::ArtifactPiece, Status>>, Status> {
    let run = snapshot.record.run;
    let found = services.store.artifacts(run).await.or_status()?;
    let record: ArtifactRecord = found
        .into_iter()
        .find(|artifact| {
            artifact.job == job && artifact.attempt == attempt && artifact.name == name
        })
        .ok_or_else(|| {
            Status::not_found(format!(
                "job {job} attempt {attempt} has no artifact '{name}'; `pgsoak artifacts {run}` lists them"
            ))
        })?;
    if !record.is_complete {
        return Err(Status::failed_precondition(format!(
            "artifact '{name}' has not arrived as a whole"
        )));
    }
    let (pieces, stream) = mpsc::channel(PIECES);
    let path = match services.store.read_artifact(run, &record).await.or_status()? {
        Source::File(path) => path,
        Source::Stream(bytes) => {
            services.tasks.spawn(forward(bytes, pieces));
            return Ok(stream);
        }
    };
    services.tasks.spawn_blocking(move || {
        if let Err(error) = read(&path, &pieces) {
            let status = Status::data_loss(format!("read {}: {error}", path.display()));
            // A reader that is gone needs no error.
            let _ = pieces.blocking_send(Err(status));
        }
    });
    Ok(stream)
}

/// From the object store.
async fn forward(
    mut bytes: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
    pieces: mpsc::Sender<Result<wire::ArtifactPiece, Status>>,
) {
    while let Some(next) = bytes.next().await {
        let next = next.map_err(IntoStatus::into_status);
        let is_over = next.is_err();
        let mut sent = Ok(());
        match next {
            // An object store's pieces are as large as it likes.
            Ok(bytes) => {
                for data in bytes.chunks(PIECE) {
                    sent = pieces.send(Ok(wire::ArtifactPiece { data: data.to_vec() })).await;
                }
            }
            Err(status) => sent = pieces.send(Err(status)).await,
        }
        if is_over || sent.is_err() {
            return;
        }
    }
}

fn read(
    path: &PathBuf,
    pieces: &mpsc::Sender<Result<wire::ArtifactPiece, Status>>,
) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let data = buffer.get(..read).unwrap_or_default().to_vec();
        if pieces.blocking_send(Ok(wire::ArtifactPiece { data })).is_err() {
            return Ok(());
        }
    }
}
