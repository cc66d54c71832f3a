//! `Fleet`: opens a session task for every stream of an agent.

use crate::engine::fleet::Join;
use crate::rpc::server::Services;
use crate::rpc::session;
use pgsoak_proto::wire;
use pgsoak_proto::wire::fleet_server::Fleet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info_span};

/// Messages on their way to an agent. The session waits when it is full; the engine's own queue cuts it in the end.
const OUTBOUND: usize = 64;

/// The service.
#[derive(Clone, Debug)]
pub struct FleetService {
    services: Services,
}

impl FleetService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = ReceiverStream<Result<wire::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outbound, stream) = mpsc::channel(OUTBOUND);
        let services = self.services.clone();
        let join = request.extensions().get::<Join>().copied().unwrap_or_default();
        let inbound = request.into_inner();
        // The answer's head goes out at once: an agent may wait for it before it says hello.
        self.services.tasks.spawn(
            async move {
                if let Err(status) = session::run(&services, inbound, join, &outbound).await {
                    // Unavailable is our own word for "we end", which is no trouble.
                    if status.code() == tonic::Code::Unavailable {
                        tracing::info!(%status, "the session ended");
                    } else {
                        tracing::warn!(%status, "the session ended");
                    }
                    // An agent that is gone hears nothing, and that is fine.
                    let _ = outbound.send(Err(status)).await;
                }
            }
            .instrument(info_span!("session", agent = tracing::field::Empty)),
        );
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
