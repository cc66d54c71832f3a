//! `Builds`: packages pushed by people, fetched by agents.

use crate::domain::build::BuildRecord;
use crate::domain::run::RunState;
use crate::rpc::server::Services;
use crate::rpc::status::{OrStatus as _, cut};
use pgsoak_analysis::releases::release_order;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::BuildRef;
use pgsoak_proto::wire;
use pgsoak_proto::wire::builds_server::Builds;
use pgsoak_proto::wire::push_build_piece::Part;
use std::{collections::BTreeSet, fs::File, io::Read as _, io::Seek as _, io::SeekFrom};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Pieces on their way to one agent.
const PIECES: usize = 4;
const PIECE: u64 = 256 << 10;

/// The service.
#[derive(Clone, Debug)]
pub struct BuildsService {
    services: Services,
}

impl BuildsService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    /// Digests that runs which are not over were given.
    async fn in_use(&self) -> Result<BTreeSet<String>, Status> {
        let mut digests = BTreeSet::new();
        for line in self.services.store.lines() {
            if matches!(line.record.state, RunState::Finished { .. }) {
                continue;
            }
            let input = self.services.store.input(line.record.run).await.or_status()?;
            let pinned = input.unwrap_or_default().packages;
            digests.extend(pinned.into_iter().map(|package| package.digest));
        }
        Ok(digests)
    }

    /// Forgets what is removed, or replaced by a newer one, and held by no run.
    async fn forget_unused(&self) -> Result<(), Status> {
        let in_use = self.in_use().await?;
        let builds = self.services.store.builds().await.or_status()?;
        let gone: Vec<String> = builds
            .into_iter()
            .filter(|build| build.is_removed && !in_use.contains(&build.digest))
            .map(|build| build.digest)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.services.store.forget_builds(gone).await.or_status()
    }
}

fn view(record: BuildRecord) -> wire::BuildView {
    let build = record.build().to_string();
    let BuildRecord { digest, bytes, manifest, files, is_major_proven, pushed_at, is_removed } =
        record;
    wire::BuildView {
        build,
        postgres: manifest.postgres,
        digest,
        bytes,
        pushed_at_unix_us: pushed_at.0,
        toolchain: manifest.toolchain,
        commit: manifest.commit,
        pgrx: manifest.pgrx,
        note: manifest.note,
        files: files.into_iter().map(|(name, bytes)| wire::BuildFile { name, bytes }).collect(),
        is_major_proven,
        is_removed,
    }
}

#[tonic::async_trait]
impl Builds for BuildsService {
    async fn push(
        &self,
        request: Request<Streaming<wire::PushBuildPiece>>,
    ) -> Result<Response<wire::BuildView>, Status> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.and_then(|piece| piece.part);
        let Some(Part::Start(wire::PushBuild { digest, bytes })) = first else {
            return Err(Status::invalid_argument("the first piece must say what comes"));
        };
        let known = self.services.store.builds().await.or_status()?;
        if let Some(mut known) = known.into_iter().find(|known| known.digest == digest) {
            if known.is_removed {
                known.is_removed = false;
                known.pushed_at = self.services.engine.now();
                let changed = std::slice::from_ref(&known);
                self.services.store.keep_builds(changed).await.or_status()?;
            }
            return Ok(Response::new(view(known)));
        }
        let mut incoming = self.services.store.begin_build(digest, bytes).await.or_status()?;
        while let Some(piece) = pieces.message().await? {
            match piece.part {
                Some(Part::Data(data)) => incoming.add(&data).or_status()?,
                _ => return Err(Status::invalid_argument("a piece holds no data")),
            }
        }
        let now = self.services.engine.now();
        let record = self.services.store.finish_build(incoming, now).await.or_status()?;
        // What it replaces is kept for the runs that have it.
        let mut replaced = Vec::new();
        for mut older in self.services.store.builds().await.or_status()? {
            let is_same = older.build() == record.build()
                && older.manifest.postgres == record.manifest.postgres;
            if is_same && older.digest != record.digest && !older.is_removed {
                older.is_removed = true;
                replaced.push(older);
            }
        }
        if !replaced.is_empty() {
            self.services.store.keep_builds(&replaced).await.or_status()?;
        }
        self.forget_unused().await?;
        Ok(Response::new(view(record)))
    }

    async fn list(
        &self,
        request: Request<wire::ListBuildsRequest>,
    ) -> Result<Response<wire::ListBuildsResponse>, Status> {
        let wanted = request.into_inner().build;
        let mut builds = self.services.store.builds().await.or_status()?;
        builds.retain(|record| {
            wanted.is_empty()
                || record.build().to_string() == wanted
                || record.manifest.extension == wanted
                || (wanted.len() >= 8 && record.digest.starts_with(&wanted))
        });
        builds.sort_by(|a, b| {
            let (a, b) = (&a.manifest, &b.manifest);
            a.extension
                .cmp(&b.extension)
                .then_with(|| release_order(&a.release, &b.release))
                .then(a.postgres.cmp(&b.postgres))
        });
        let builds = builds.into_iter().map(view).collect();
        Ok(Response::new(wire::ListBuildsResponse { builds }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveBuildRequest>,
    ) -> Result<Response<wire::RemoveBuildResponse>, Status> {
        let wire::RemoveBuildRequest { build, postgres } = request.into_inner();
        let mut removed = Vec::new();
        for mut record in self.services.store.builds().await.or_status()? {
            let is_meant = record.build().to_string() == build
                && (postgres == 0 || record.manifest.postgres == postgres)
                && !record.is_removed;
            if is_meant {
                record.is_removed = true;
                removed.push(record);
            }
        }
        if removed.is_empty() {
            return Err(Status::not_found(cut(&format!(
                "there is no build {build} here; `pgsoak build list` lists those there are"
            ))));
        }
        self.services.store.keep_builds(&removed).await.or_status()?;
        self.forget_unused().await?;
        let removed = u32::try_from(removed.len()).unwrap_or(u32::MAX);
        Ok(Response::new(wire::RemoveBuildResponse { removed }))
    }

    async fn pinned(
        &self,
        request: Request<wire::PinnedBuildRequest>,
    ) -> Result<Response<wire::PinnedBuild>, Status> {
        let wire::PinnedBuildRequest { run_id, build, postgres } = request.into_inner();
        let run: RunId =
            run_id.parse().map_err(|_| Status::invalid_argument("run_id is not a run id"))?;
        let build: BuildRef = build.parse().map_err(|error: pgsoak_proto::job::InvalidBuild| {
            Status::invalid_argument(error.to_string())
        })?;
        let input = self.services.store.input(run).await.or_status()?.unwrap_or_default();
        let none = || {
            Status::not_found(cut(&format!(
                "run {run} was given no package of {build} for PostgreSQL {postgres}"
            )))
        };
        let package = input
            .packages
            .into_iter()
            .find(|package| package.build == build && package.postgres == postgres)
            .ok_or_else(none)?;
        let builds = self.services.store.builds().await.or_status()?;
        let Some(record) = builds.into_iter().find(|record| record.digest == package.digest) else {
            return Err(Status::data_loss(format!(
                "the package {} that run {run} was given is no longer kept",
                package.digest
            )));
        };
        Ok(Response::new(wire::PinnedBuild { digest: record.digest, bytes: record.bytes }))
    }

    type FetchStream = ReceiverStream<Result<wire::BuildPiece, Status>>;

    async fn fetch(
        &self,
        request: Request<wire::FetchBuildRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let wire::FetchBuildRequest { digest, offset } = request.into_inner();
        let none = || Status::not_found(cut(&format!("there is no package {digest} here")));
        let path = self.services.store.build_path(&digest).ok_or_else(none)?;
        let (pieces, stream) = mpsc::channel(PIECES);
        let opened = crate::blocking::spawn(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok::<_, std::io::Error>(file)
        });
        let Ok(Ok(mut file)) = opened.await else { return Err(none()) };
        self.services.tasks.spawn_blocking(move || {
            loop {
                let mut data = Vec::new();
                let piece = match (&mut file).take(PIECE).read_to_end(&mut data) {
                    Ok(0) => return,
                    Ok(_) => Ok(wire::BuildPiece { data }),
                    Err(error) => Err(Status::internal(format!("the package breaks off: {error}"))),
                };
                let is_last = piece.is_err();
                if pieces.blocking_send(piece).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
