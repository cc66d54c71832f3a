//! The work of an attempt: from the package to the last phase.
//!
//! Runs in a task of its own that is aborted when the attempt is stopped; what must outlive it (server, sampler) it puts
//! into [`Holdings`], which the attempt winds up.

use crate::cluster::Cluster;
use crate::cluster::ClusterPlan;
use crate::cluster::DATABASE;
use crate::cluster::ServerEnd;
use crate::cluster::StartError;
use crate::environment::Environment;
use crate::folder::Assignment;
use crate::folder::JobFolder;
use crate::package::Package;
use crate::probe::OomWatch;
use crate::runner::course::Course;
use crate::runner::engine::CLIENT_BACKEND;
use crate::runner::engine::Engine;
use crate::runner::fault::Fault;
use crate::runner::instruments::Instruments;
use crate::runner::lookout::Lookout;
use crate::runner::lookout::Post;
use crate::runner::oom;
use crate::runner::progress::Progress;
use crate::runner::record::Record;
use crate::sampler::Sampler;
use crate::sampler::SamplerConfig;
use crate::sampler::SamplerHandle;
use crate::tools::{Tooling, Wishes};
use crate::tree::Installation;
use crate::tree::Tree;
use crate::workers::failure::WorkError;
use crate::workers::rest;
use crate::workers::session::Session;
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::{AttemptStarted, Body};
use pgsoak_proto::job::Tool;
use pgsoak_workloads::workload::Workload;
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

/// What is to be done, and where.
#[derive(Clone, Debug)]
pub struct Order {
    /// The job's folder.
    pub folder: JobFolder,
    /// What it says.
    pub assignment: Assignment,
}

/// What outlives the work.
#[derive(Debug, Default)]
pub struct Holdings {
    /// The tool, once it was found.
    pub tooling: OnceLock<Tooling>,
    /// The server, once it answers.
    pub cluster: OnceLock<Cluster>,
    /// The sampler, while it runs.
    sampler: Mutex<Option<Sampler>>,
    /// The first frame, as far as it is known, until it is written.
    started: Mutex<AttemptStarted>,
    /// The tool's word on sessions at rest.
    pub instruments: OnceLock<Arc<Instruments>>,
}

impl Holdings {
    /// Takes the sampler out.
    pub fn take_sampler(&self) -> Option<Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// For questions to the sampler, while it runs.
    fn sampler(&self) -> Option<SamplerHandle> {
        let sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        sampler.as_ref().map(|sampler| sampler.handle().clone())
    }

    /// What is known of the ground.
    pub fn ground(&self) -> AttemptStarted {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know(&self, learn: impl FnOnce(&mut AttemptStarted)) {
        learn(&mut self.started.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// How long a server that is about to die is waited for after a session has lost it.
fn dying_time(tool: Tool) -> Duration {
    Duration::from_secs(if tool == Tool::Plain { 5 } else { 60 })
}

/// Does all of it.
///
/// # Errors
/// The first thing that goes wrong.
pub async fn work(
    order: Order,
    holdings: Arc<Holdings>,
    record: Record,
    progress: Progress,
) -> Result<(), Fault> {
    let spec = &order.assignment.spec;
    holdings.know(|ground| {
        *ground = Environment::read().attempt_started();
        ground.sample_every_ms = u64::try_from(spec.sample_every.as_millis()).unwrap_or(u64::MAX);
    });
    let file = format!("{}.toml", spec.workload_name);
    let workload = Workload::parse(&file, &spec.workload_toml).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Fault::Infrastructure(format!("the workload cannot be used: {}", problems.join("; ")))
    })?;
    let course = Course::of(&workload, spec);
    let tree = prepare(&order, &course, &holdings).await?;
    let Some(tooling) = holdings.tooling.get() else {
        return Err(Fault::Infrastructure("the tool was not prepared".to_owned()));
    };
    let plan = ClusterPlan {
        folder: order.folder.path(),
        cache_dir: &order.assignment.cache_dir,
        preload: &course.preload,
        settings: &course.settings,
        sessions: course.sessions(),
    };
    let cluster =
        Cluster::start(plan, &tree, tooling).await.map_err(|error| no_server(&error, &course))?;
    let cluster = holdings.cluster.get_or_init(|| cluster);
    let watch = OomWatch::begin(cluster.postmaster());

    let (end, statement) = tokio::select! {
        biased;
        done = phases(&order, &course, cluster, &holdings, &tree, record, progress) => match done {
            Err(fault) => by_the_server(fault, cluster, spec.tool).await?,
            Ok(()) => return Ok(()),
        },
        end = cluster.ended() => (end, String::new()),
    };
    Err(gone(end, statement, &watch, &holdings).await)
}

/// A server that has ended by itself; a kill for want of memory is told from a crash.
async fn gone(end: ServerEnd, statement: String, watch: &OomWatch, holdings: &Holdings) -> Fault {
    if let Some(kill) = watch.kill() {
        let sampler = holdings.sampler();
        let used = match (&sampler, &end.crash) {
            (Some(sampler), Some(crash)) => sampler.use_of(crash.pid).await.ok().flatten(),
            _ => None,
        };
        let host_bytes = holdings.ground().memory_bytes;
        if let Some(fault) = oom::fault(&end, kill, used.as_ref(), host_bytes, &statement) {
            return fault;
        }
    }
    Fault::ServerGone { how: end.sentence, statement }
}

/// Package, private tree, tool: everything that is there before a server is.
async fn prepare(order: &Order, course: &Course, holdings: &Arc<Holdings>) -> Result<Tree, Fault> {
    let (order, extension, holdings) =
        (order.clone(), course.extension.clone(), Arc::clone(holdings));
    let prepared = tokio::task::spawn_blocking(move || {
        let infra = |error: &(dyn std::error::Error + 'static)| Fault::Infrastructure(chain(error));
        let spec = &order.assignment.spec;
        let installation =
            Installation::inspect(&order.assignment.pg_config).map_err(|e| infra(&e))?;
        let wishes = Wishes {
            options: (*spec.options).clone(),
            postgres_suppressions: installation.valgrind_suppressions(),
        };
        let folder = order.folder.path().join("tool");
        let tooling = Tooling::prepare_with(spec.tool, &folder, &wishes).map_err(|e| infra(&e))?;
        holdings.know(|ground| ground.tool_version.clone_from(&tooling.version));
        holdings.know(|ground| ground.postgres_version.clone_from(&installation.version));
        let package = Package::resolve(
            &spec.build,
            &order.assignment.cache_dir,
            installation.major,
            extension.as_deref(),
        )
        .map_err(|e| infra(&e))?;
        holdings.know(|ground| ground.build_digest.clone_from(&package.digest));
        let tree = Tree::build(&installation, &package, &order.folder.path().join("tree"))
            .map_err(|e| infra(&e))?;
        let version = extension.and_then(|extension| tree.default_version(&extension));
        holdings.know(|ground| ground.extension_version = version.unwrap_or_default());
        holdings.tooling.get_or_init(|| tooling);
        Ok(tree)
    });
    prepared
        .await
        .map_err(|error| Fault::Infrastructure(format!("the preparation ended: {error}")))?
}

/// From the first session to the last phase.
async fn phases(
    order: &Order,
    course: &Course,
    cluster: &Cluster,
    holdings: &Holdings,
    tree: &Tree,
    record: Record,
    progress: Progress,
) -> Result<(), Fault> {
    let early = |error: WorkError| Fault::Work { phase: String::new(), line: None, error };
    let server = cluster.connect_config();
    let main = Session::open(&server, 0).await.map_err(early)?;
    let settings = rest::settings(&main).await.map_err(early)?;
    holdings.know(|ground| ground.settings = settings);
    record.write(&Body::Started(holdings.ground()))?;

    let operations = Arc::new(AtomicU64::new(0));
    let config = SamplerConfig::new(
        cluster.postmaster(),
        record.origin(),
        order.assignment.spec.sample_every,
    );
    let to_record = record.clone();
    let append = move |elapsed, body: &Body| to_record.append(elapsed, body).map_err(Into::into);
    let sampler = Sampler::start(config, append, Arc::clone(&operations))
        .map_err(|error| Fault::Infrastructure(chain(&error)))?;
    let handle = sampler.handle().clone();
    *holdings.sampler.lock().unwrap_or_else(PoisonError::into_inner) = Some(sampler);
    handle
        .set_identity(main.pid(), CLIENT_BACKEND, Some(0))
        .map_err(|error| Fault::Infrastructure(error.to_string()))?;

    let Some(tooling) = holdings.tooling.get() else {
        return Err(Fault::Infrastructure("the tool was not prepared".to_owned()));
    };
    let instruments = Arc::clone(
        holdings.instruments.get_or_init(|| Arc::new(Instruments::new(tooling.clone()))),
    );
    instruments.remember_postmaster(cluster.postmaster());
    let spec = &order.assignment.spec;
    let lookout = (spec.tool == Tool::Plain).then(|| {
        Lookout::start(Post {
            server: server.clone(),
            major: tree.installation.major,
            log: order.folder.path().join("logs").join("server.log"),
            sampler: handle.clone(),
            record: record.clone(),
            operations: Arc::clone(&operations),
        })
    });
    let mut engine = Engine {
        lookout,
        spec: order.assignment.spec.clone(),
        server,
        major: tree.installation.major,
        record,
        sampler: handle,
        instruments,
        progress,
        operations,
        main,
        conclude_file: order.folder.conclude_file(),
        types_asked_at: None,
    };
    engine.warm().await?;
    engine.run(&course.steps).await?;
    engine.main.close().await;
    Ok(())
}

/// A server that does not start is the product's failure when its log names a library of the job's own: without it the
/// same cluster starts. Everything else is the host's or the harness's.
fn no_server(error: &StartError, course: &Course) -> Fault {
    let blames_the_build = error.log_tail().is_some_and(|tail| {
        course
            .preload
            .iter()
            .chain(&course.extension)
            .any(|library| tail.contains(library.as_str()))
    });
    if blames_the_build {
        Fault::BuildDoesNotStart(chain(error))
    } else {
        Fault::Infrastructure(format!("no server for database {DATABASE}: {}", chain(error)))
    }
}

/// A session that loses its backend is often the first to see the server die: then that is the fault, and the statement what it
/// ran.
async fn by_the_server(
    fault: Fault,
    cluster: &Cluster,
    tool: Tool,
) -> Result<(ServerEnd, String), Fault> {
    let statement = match &fault {
        Fault::Work { error: WorkError::Lost { statement, .. }, .. } => statement.clone(),
        Fault::Work { error: WorkError::Connect { .. }, .. } => String::new(),
        _ => return Err(fault),
    };
    match tokio::time::timeout(dying_time(tool), cluster.ended()).await {
        Ok(end) => Ok((end, statement)),
        Err(_) => Err(fault),
    }
}
