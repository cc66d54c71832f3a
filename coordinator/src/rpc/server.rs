//! The tonic server: services, layers, limits. One for TCP and one for the Unix socket, with the same services.

use crate::config::Token;
use crate::domain::limits::Limits;
use crate::engine::handle::EngineHandle;
use crate::notify::Targets;
use crate::rpc::auth::AuthLayer;
use crate::rpc::builds::BuildsService;
use crate::rpc::bundles::BundlesService;
use crate::rpc::control::ControlService;
use crate::rpc::fleet::FleetService;
use crate::rpc::fleet_admin::FleetAdminService;
use crate::rpc::history::HistoryService;
use crate::rpc::notify::NotifyService;
use crate::rpc::schedules::SchedulesService;
use crate::store::Store;
use futures_util::Stream;
use pgsoak_proto::wire::builds_server::BuildsServer;
use pgsoak_proto::wire::bundles_server::BundlesServer;
use pgsoak_proto::wire::control_server::ControlServer;
use pgsoak_proto::wire::fleet_admin_server::FleetAdminServer;
use pgsoak_proto::wire::fleet_server::FleetServer;
use pgsoak_proto::wire::history_server::HistoryServer;
use pgsoak_proto::wire::notify_server::NotifyServer;
use pgsoak_proto::wire::schedules_server::SchedulesServer;
use pgsoak_proto::{DESCRIPTORS, MAX_MESSAGE_BYTES};
use std::{io, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::{Connected, Router, TcpIncoming};
use tower::{
    ServiceBuilder,
    layer::util::{Identity, Stack},
    limit::GlobalConcurrencyLimitLayer,
    load_shed::LoadShedLayer,
};
use tracing::{error, info_span, warn};

/// Long streams die quietly in the field: a ping this often …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// … and an answer within this, or the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams on one connection.
const STREAMS: u32 = 256;
/// Unacknowledged bytes on a stream and on a connection: a few evidence batches.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// What the servers need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub(crate) engine: EngineHandle,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    /// Who is told of what.
    pub(crate) targets: Targets,
    /// Fires when sessions and streams are to end.
    pub(crate) shutdown: CancellationToken,
    /// Every session and stream; joined by `app`.
    pub(crate) tasks: TaskTracker,
    /// Over all connections of both servers.
    limit: GlobalConcurrencyLimitLayer,
    /// Of the TCP server.
    auth: AuthLayer,
}

type Layers = Stack<
    Stack<AuthLayer, Stack<GlobalConcurrencyLimitLayer, Stack<LoadShedLayer, Identity>>>,
    Identity,
>;

// === impl Services ===

impl Services {
    /// The services over an engine and its store.
    pub fn new(
        engine: EngineHandle,
        store: Store,
        limits: Limits,
        targets: Targets,
        shutdown: CancellationToken,
        tokens: &[Token],
    ) -> Self {
        let limit = GlobalConcurrencyLimitLayer::new(limits.max_requests);
        let auth = AuthLayer::new(tokens);
        let tasks = TaskTracker::new();
        Self { engine, store, limits, targets, shutdown, tasks, limit, auth }
    }

    /// Sessions and streams that are under way.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    async fn router(&self, auth: AuthLayer) -> Router<Layers> {
        let fleet = FleetServer::new(FleetService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let control = ControlServer::new(ControlService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let history = HistoryServer::new(HistoryService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let fleet_admin = FleetAdminServer::new(FleetAdminService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let schedules = SchedulesServer::new(SchedulesService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let builds = BuildsServer::new(BuildsService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let bundles = BundlesServer::new(BundlesService::new(self.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<FleetServer<FleetService>>().await;
        reporter.set_serving::<ControlServer<ControlService>>().await;
        let notify = NotifyServer::new(NotifyService::new(self.clone()));
        reporter.set_serving::<HistoryServer<HistoryService>>().await;
        reporter.set_serving::<FleetAdminServer<FleetAdminService>>().await;
        reporter.set_serving::<SchedulesServer<SchedulesService>>().await;
        reporter.set_serving::<NotifyServer<NotifyService>>().await;
        reporter.set_serving::<BuildsServer<BuildsService>>().await;
        reporter.set_serving::<BundlesServer<BundlesService>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Descriptors are part of the program: a failure is its fault, and the services work without.
        let v1 = reflection()
            .build_v1()
            .inspect_err(|error| error!(%error, "reflection does not start"))
            .ok();
        let v1alpha = reflection()
            .build_v1alpha()
            .inspect_err(|error| error!(%error, "reflection does not start"))
            .ok();
        tonic::transport::Server::builder()
            .trace_fn(|request| info_span!("request", path = request.uri().path()))
            // Of the answer's head: streams may go on for as long as they like.
            .timeout(self.limits.request_timeout)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .tcp_keepalive(Some(KEEPALIVE_EVERY))
            .tcp_nodelay(true)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .layer(
                ServiceBuilder::new()
                    .layer(LoadShedLayer::new())
                    .layer(self.limit.clone())
                    .layer(auth)
                    .into_inner(),
            )
            .add_service(health)
            .add_optional_service(v1)
            .add_optional_service(v1alpha)
            .add_service(fleet)
            .add_service(control)
            .add_service(history)
            .add_service(schedules)
            .add_service(notify)
            .add_service(fleet_admin)
            .add_service(builds)
            .add_service(bundles)
    }
}

/// Serves on TCP until the shutdown, then until open requests are done.
pub async fn serve_tcp(
    services: Services,
    listener: TcpListener,
) -> impl Future<Output = ()> + Send {
    let router = services.router(services.auth.clone()).await;
    let shutdown = services.shutdown.clone();
    async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served =
            router.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            warn!(%error, "the TCP server ended badly");
        }
    }
}

/// Serves connections from anywhere until the shutdown, then until open requests are done.
pub async fn serve<I, C>(services: Services, incoming: I) -> impl Future<Output = ()> + Send
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let router = services.router(AuthLayer::open()).await;
    let shutdown = services.shutdown.clone();
    async move {
        let served =
            router.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            warn!(%error, "the server ended badly");
        }
    }
}

/// Serves on a Unix socket until the shutdown, then until open requests are done.
pub async fn serve_unix(
    services: Services,
    listener: UnixListener,
) -> impl Future<Output = ()> + Send {
    let router = services.router(AuthLayer::open()).await;
    let shutdown = services.shutdown.clone();
    async move {
        let incoming = UnixListenerStream::new(listener);
        let served =
            router.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            warn!(%error, "the server on the Unix socket ended badly");
        }
    }
}
