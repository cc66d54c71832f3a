//! `Bundles`: a whole run out, and in.

use crate::domain::run::RunState;
use crate::engine::bundle::{self, Incoming, Records};
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus as _;
use crate::rpc::{control, evidence, view};
use pgsoak_proto::wire;
use pgsoak_proto::wire::bundle_piece::Part;
use pgsoak_proto::wire::bundles_server::Bundles;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Pieces on their way.
const PIECES: usize = 8;
/// Bytes of the records in one piece.
const PIECE: usize = 256 << 10;
/// Largest records: plans and workloads of a run with thousands of jobs are far below.
const MAX_RECORDS: usize = 256 << 20;

/// What a bundle without its end is told.
const CUT_OFF: &str = "the bundle is cut off: its last piece is missing";

type Pieces = mpsc::Sender<Result<wire::BundlePiece, Status>>;

/// The service.
#[derive(Clone, Debug)]
pub struct BundlesService {
    services: Services,
}

impl BundlesService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    /// Takes the pieces until the last; what came of them is in `incoming`.
    async fn receive(
        &self,
        mut pieces: Streaming<wire::BundlePiece>,
        incoming: &mut Option<Incoming>,
    ) -> Result<wire::BundleSummary, Status> {
        let mut json = Vec::new();
        let mut whole = None;
        while let Some(piece) = pieces.message().await? {
            let part = piece.part.ok_or_else(|| Status::invalid_argument("an empty piece"))?;
            if whole.is_some() {
                return Err(Status::invalid_argument("something follows the last piece"));
            }
            match (part, &mut *incoming) {
                (Part::Records(data), None) if json.len() + data.len() <= MAX_RECORDS => {
                    json.extend(data);
                }
                (Part::Records(_), _) => {
                    return Err(Status::invalid_argument(
                        "the records are too large, or come late",
                    ));
                }
                (part, None) => {
                    let begun = Incoming::begin(&self.services.store, &json).await.or_status()?;
                    json = Vec::new();
                    take(incoming.insert(begun), part, &mut whole).await?;
                }
                (part, Some(incoming)) => take(incoming, part, &mut whole).await?,
            }
        }
        let (Some(incoming), Some(whole)) = (incoming, whole) else {
            return Err(Status::data_loss(CUT_OFF));
        };
        if whole.frames != incoming.frames {
            let (came, of) = (incoming.frames, whole.frames);
            return Err(Status::data_loss(format!("{came} of {of} frames came")));
        }
        Ok(whole)
    }
}

fn piece(part: Part) -> Result<wire::BundlePiece, Status> {
    Ok(wire::BundlePiece { part: Some(part) })
}

/// Sends everything; false: nobody reads any more.
async fn export(services: &Services, run: &str, pieces: &Pieces) -> Result<bool, Status> {
    let run = control::find(services, run).await?;
    let snapshot = control::snapshot(services, run).await?;
    let records: Option<Records> = bundle::records(&services.store, run).await.or_status()?;
    let Some(records) = records else {
        return Err(Status::failed_precondition(format!(
            "run {run} is {}; it can be bundled when it is finished",
            snapshot.record.state.label()
        )));
    };
    let json = serde_json::to_vec(&records).map_err(|error| Status::internal(error.to_string()))?;
    for data in json.chunks(PIECE) {
        if pieces.send(piece(Part::Records(data.to_vec()))).await.is_err() {
            return Ok(false);
        }
    }
    let mut summary = wire::BundleSummary::default();
    let mut frames = evidence::frames(services, snapshot.clone(), None, false);
    while let Some(frame) = frames.recv().await {
        summary.frames += 1;
        if pieces.send(piece(Part::Frame(frame?))).await.is_err() {
            return Ok(false);
        }
    }
    for (of, index) in records.artifacts.iter().zip(0..) {
        summary.files += 1;
        if pieces.send(piece(Part::File(index))).await.is_err() {
            return Ok(false);
        }
        let read = evidence::artifact(services, &snapshot, of.job, of.attempt, &of.name);
        let mut data = read.await?;
        while let Some(found) = data.recv().await {
            if pieces.send(piece(Part::Data(found?.data))).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(pieces.send(piece(Part::Whole(summary))).await.is_ok())
}

#[tonic::async_trait]
impl Bundles for BundlesService {
    type ExportStream = ReceiverStream<Result<wire::BundlePiece, Status>>;

    async fn export(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let run = request.into_inner().run_id;
        let (pieces, stream) = mpsc::channel(PIECES);
        let services = self.services.clone();
        self.services.tasks.spawn(async move {
            if let Err(status) = export(&services, &run, &pieces).await {
                // A reader that is gone needs no error.
                let _ = pieces.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn import(
        &self,
        request: Request<Streaming<wire::BundlePiece>>,
    ) -> Result<Response<wire::ImportedRun>, Status> {
        let mut incoming = None;
        let received = self.receive(request.into_inner(), &mut incoming).await;
        let run = incoming.as_ref().map(Incoming::run);
        let done = match (received, incoming) {
            (Ok(whole), Some(incoming)) => {
                incoming.finish().await.or_status().map(|done| (whole, done))
            }
            (Err(status), _) => Err(status),
            (Ok(_), None) => Err(Status::data_loss(CUT_OFF)),
        };
        let store = &self.services.store;
        if let (Err(_), Some(run)) = (&done, run)
            && store.run(run).await.or_status()?.is_none()
        {
            store.discard(run).await.or_status()?;
        }
        let (whole, (record, replay)) = done?;
        let verdict = match &record.state {
            RunState::Finished { verdict, .. } => view::verdict(*verdict).to_owned(),
            _ => String::new(),
        };
        Ok(Response::new(wire::ImportedRun {
            run_id: record.run.to_string(),
            verdict,
            replay,
            frames: whole.frames,
            files: whole.files,
        }))
    }
}

async fn take(
    incoming: &mut Incoming,
    part: Part,
    whole: &mut Option<wire::BundleSummary>,
) -> Result<(), Status> {
    match part {
        Part::Frame(frame) => incoming.frame(frame).await,
        Part::File(index) => incoming.file(index).await,
        Part::Data(data) => incoming.data(data).await,
        Part::Whole(summary) => {
            *whole = Some(summary);
            Ok(())
        }
        Part::Records(_) => Ok(()),
    }
    .or_status()
}
