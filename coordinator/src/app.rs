//! Starts a coordinator and stops it again: lock, store, engine, servers. Every task is joined here.

use crate::config::{CoordinatorConfig, KeepConfig, NotifyConfig};
use crate::domain::limits::Limits;
use crate::engine::clock::Clock;
use crate::engine::handle::EngineHandle;
use crate::engine::housekeeping;
use crate::engine::notices::Audience;
use crate::engine::task;
use crate::rpc::server;
use crate::store::check::{self, Checked};
use crate::store::open::OpenStoreError;
use crate::store::remote::{Remote, RemoteError};
use crate::store::{Store, StoreError};
use crate::web::{self, Web};
use futures_util::Stream;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Connected;
use tracing::{Instrument, info, info_span, warn};

mod lock;
mod sockets;

/// How long open requests may go on after a shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or read.
    #[error("prepare the data folder {}: {source}", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another coordinator has it.
    #[error(
        "data folder {} is in use by another coordinator (pid {pid}); stop that one, or give this one another --data-dir",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// As the other one wrote it into its lock; "unknown" when it did not.
        pid: String,
    },
    /// The store does not open.
    #[error("open the store")]
    Store(#[from] OpenStoreError),
    /// What it holds cannot be read.
    #[error("read the store")]
    Load(#[from] StoreError),
    /// There is no such place for raw files.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The address is taken.
    #[error(
        "{address} is in use by another program; stop it, or choose another address with {flag} (port 0 takes a free one)"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
    },
    /// Somebody answers on the socket already.
    #[error("the Unix socket {} is in use by another program; stop it, or choose another one", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Listening failed for another reason.
    #[error("listen on {what}")]
    Listen {
        /// Address or path.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither TCP nor a socket.
    #[error("a coordinator needs an address to listen on (--listen) or a Unix socket")]
    NowhereToListen,
}

/// A coordinator that runs. Dropping it without [`Running::shutdown`] leaves its tasks behind.
#[derive(Debug)]
pub struct Running {
    /// Where it listens on TCP, with the real port.
    pub tcp: Option<SocketAddr>,
    /// Where it listens on a Unix socket.
    pub socket: Option<PathBuf>,
    /// Where pages, metrics and health are, with the real port.
    pub http: Option<SocketAddr>,
    /// Ends servers, sessions and streams.
    shutdown: CancellationToken,
    /// Ends the engine, after they have.
    engine_stop: CancellationToken,
    /// Fires when the engine ended by itself: the store cannot be written any more.
    engine_gone: CancellationToken,
    engine: JoinHandle<()>,
    servers: Vec<JoinHandle<()>>,
    streams: TaskTracker,
    handle: EngineHandle,
    notify: watch::Sender<Arc<NotifyConfig>>,
    outbox: JoinHandle<()>,
    keep: watch::Sender<Arc<KeepConfig>>,
    housekeeping: JoinHandle<()>,
    store: Store,
    _lock: lock::DataLock,
}

/// Starts a coordinator.
///
/// # Errors
///
/// Nothing runs when this fails.
pub async fn start(config: CoordinatorConfig) -> Result<Running, StartError> {
    start_with(config, Limits::default()).await
}

/// As [`start`], with other limits than the usual ones: for tests and simulations.
///
/// # Errors
///
/// As [`start`].
pub async fn start_with(config: CoordinatorConfig, limits: Limits) -> Result<Running, StartError> {
    if config.listen.is_none() && config.socket.is_none() {
        return Err(StartError::NowhereToListen);
    }
    let lock = lock::DataLock::take(&config.data_dir)?;
    let tcp = match config.listen {
        Some(address) => Some(sockets::tcp(address).await?),
        None => None,
    };
    let unix = match &config.socket {
        Some(path) => Some(sockets::unix(path).await?),
        None => None,
    };
    let http = sockets::http(config.http).await?;
    let http_address = http.as_ref().and_then(|listener| listener.local_addr().ok());
    let tcp_address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());

    let data_dir = config.data_dir.clone();
    let (mut running, services) =
        begin(config, limits, Clock::read().continuing(&data_dir), lock).await?;
    running.tcp = tcp_address;
    running.http = http_address;
    if let Some(listener) = http {
        let web = Web::new(services.clone(), &data_dir);
        let serving = web::serve(web, listener);
        running.servers.push(tokio::spawn(serving.instrument(info_span!("server", on = "http"))));
    }
    running.servers.extend(serve(tcp, unix, services).await);
    info!(tcp = ?tcp_address, http = ?http_address, socket = ?running.socket, "coordinator is up");
    Ok(running)
}

/// As [`start_with`], on connections that come from elsewhere than the settings' addresses, and with a clock of the caller's:
/// for simulations.
///
/// # Errors
///
/// As [`start`].
pub async fn start_on<I, C>(
    config: CoordinatorConfig,
    limits: Limits,
    clock: Clock,
    incoming: I,
) -> Result<Running, StartError>
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let lock = lock::DataLock::take(&config.data_dir)?;
    let (mut running, services) = begin(config, limits, clock, lock).await?;
    running.servers.push(tokio::spawn(server::serve(services, incoming).await));
    Ok(running)
}

/// Everything but the servers.
async fn begin(
    config: CoordinatorConfig,
    limits: Limits,
    clock: Clock,
    lock: lock::DataLock,
) -> Result<(Running, server::Services), StartError> {
    let remote = match config.artifacts_url.as_str() {
        "" => None,
        url => Some(Remote::open(url)?),
    };
    let store = Store::open(&config.data_dir).await?.with_remote(remote);
    let shutdown = CancellationToken::new();
    let engine_stop = CancellationToken::new();
    let engine_gone = CancellationToken::new();
    let (handle, engine) =
        task::spawn(&config, limits, clock, store.clone(), engine_stop.clone()).await?;
    let (notify, targets) = watch::channel(Arc::new(config.notify.clone()));
    let outbox = tokio::spawn(
        crate::notify::run(handle.clone(), store.clone(), targets.clone(), shutdown.clone())
            .instrument(info_span!("notify")),
    );
    let (keep, kept) = watch::channel(Arc::new(config.keep));
    let housekeeping = tokio::spawn(
        housekeeping::run(
            store.clone(),
            handle.clone(),
            kept,
            limits.housekeeping_every,
            shutdown.clone(),
        )
        .instrument(info_span!("housekeeping")),
    );
    let engine = tokio::spawn({
        let engine_gone = engine_gone.clone();
        async move {
            if let Err(error) = engine.await {
                tracing::error!(%error, "the engine ended badly");
            }
            engine_gone.cancel();
        }
    });
    let services = server::Services::new(
        handle.clone(),
        store.clone(),
        limits,
        targets,
        shutdown.clone(),
        &config.tokens,
    );
    let running = Running {
        tcp: None,
        socket: config.socket,
        http: None,
        shutdown,
        engine_stop,
        engine_gone,
        engine,
        servers: Vec::new(),
        streams: services.tasks().clone(),
        handle,
        notify,
        outbox,
        keep,
        housekeeping,
        store,
        _lock: lock,
    };
    info!(data = %config.data_dir.display(), "the data folder is open");
    Ok((running, services))
}

/// Verifies the data folder of a coordinator that is not at work. Blocks.
///
/// # Errors
///
/// When there is none, when a coordinator works in it, or when its catalogue cannot be read at all.
pub fn check(data: &Path) -> Result<Checked, StartError> {
    if !data.join("catalogue").is_dir() {
        let source = io::Error::new(io::ErrorKind::NotFound, "it holds no coordinator's data");
        return Err(StartError::DataFolder { path: data.to_owned(), source });
    }
    let _lock = lock::DataLock::take(data)?;
    Ok(check::check(data)?)
}

async fn serve(
    tcp: Option<tokio::net::TcpListener>,
    unix: Option<tokio::net::UnixListener>,
    services: server::Services,
) -> Vec<JoinHandle<()>> {
    let mut servers = Vec::new();
    if let Some(listener) = tcp {
        let serving = server::serve_tcp(services.clone(), listener).await;
        servers.push(tokio::spawn(serving.instrument(info_span!("server", on = "tcp"))));
    }
    if let Some(listener) = unix {
        let serving = server::serve_unix(services, listener).await;
        servers.push(tokio::spawn(serving.instrument(info_span!("server", on = "unix"))));
    }
    servers
}

// === impl Running ===

impl Running {
    /// Ends everything: no new requests, sessions closed, state synced, tasks joined.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        for server in self.servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(DRAIN, server).await.is_err() {
                warn!("requests did not end in time; they are cut off");
                abort.abort();
            }
        }
        self.streams.close();
        if tokio::time::timeout(DRAIN, self.streams.wait()).await.is_err() {
            warn!(
                streams = self.streams.len(),
                "streams did not end in time; they are left behind"
            );
        }
        // A delivery that is under way has its own patience, and is recorded.
        if let Err(error) = self.outbox.await {
            warn!(%error, "the outbox ended badly");
        }
        if let Err(error) = self.housekeeping.await {
            warn!(%error, "the housekeeping ended badly");
        }
        self.engine_stop.cancel();
        if let Err(error) = self.engine.await {
            warn!(%error, "the engine ended badly");
        }
        self.store.close().await;
        if let Some(path) = &self.socket {
            // It may be gone already; that is what is wanted.
            let _ = std::fs::remove_file(path);
        }
        info!("coordinator is down");
    }

    /// What it has stored, for whoever watches over a simulation.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes what settings may change at run time from `config`: who is told of what, what is kept.
    pub async fn reconfigure(&self, config: &CoordinatorConfig) {
        self.keep.send_replace(Arc::new(config.keep));
        self.notify.send_replace(Arc::new(config.notify.clone()));
        // An engine that is gone needs no audience.
        let _ = self.handle.set_audience(Audience::of(&config.notify)).await;
    }

    /// How often evidence was synced to the disk, for tests of the order of things.
    pub fn evidence_syncs(&self) -> u64 {
        self.store.evidence_syncs()
    }

    /// Waits until the coordinator cannot go on by itself (its store cannot be written).
    pub async fn failed(&self) {
        self.engine_gone.cancelled().await;
    }
}
