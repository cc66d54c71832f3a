//! `build push`: finds the files of a package, says what they are, packs and sends them.

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::verbs;
use crate::verbs::build::{json, registry, scratch, text};
use anyhow::Context;
use clap::Args;
use pgsoak_agent::package::Package;
use pgsoak_packages::archive;
use pgsoak_packages::magic;
use pgsoak_packages::manifest::{self, Manifest};
use pgsoak_proto::job::BuildRef;
use pgsoak_proto::wire;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces on their way.
const PIECES: usize = 4;

/// `build push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A package folder: an extension's files under any prefix.
    #[arg(required_unless_present = "from_registry", conflicts_with = "from_registry")]
    pub dir: Option<PathBuf>,
    /// Build a published extension here first, as deploy/build-extension.sh does (minutes).
    #[arg(long, value_name = "NAME@VERSION")]
    pub from_registry: Option<String>,
    /// With --from-registry: build for the server of this pg_config; default: the PostgreSQL 18 of deploy/get-postgres.sh.
    #[arg(long, value_name = "PATH", requires = "from_registry")]
    pub pg_config: Option<PathBuf>,
    /// The extension's name; default: build.json's, or the one control file's.
    #[arg(long)]
    pub name: Option<String>,
    /// Its release; default: build.json's, or the control file's default_version.
    #[arg(long)]
    pub release: Option<String>,
    /// The major of PostgreSQL it was built for; default: build.json's, or the shared object's.
    #[arg(long, value_name = "MAJOR")]
    pub postgres: Option<u32>,
    /// Commit of the sources; default: of the repository that the folder lies in.
    #[arg(long)]
    pub commit: Option<String>,
    /// What people should know of it.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub note: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn push(args: PushArgs) -> anyhow::Result<u8> {
    let dir = match (&args.dir, &args.from_registry) {
        (Some(dir), _) => dir.clone(),
        (None, Some(wanted)) => registry::build(wanted, args.pg_config.as_deref()).await?,
        (None, None) => {
            return Err(Coded::usage("name a package folder, or --from-registry").into());
        }
    };
    let scratch = scratch()?;
    let packed = scratch.0.join("package");
    let to = packed.clone();
    let (at, is_json) = (args.at.clone(), args.json);
    let packing = tokio::task::spawn_blocking(move || pack(&dir, &args, &to));
    let digest = packing.await??;
    let bytes = fs::metadata(&packed)?.len();
    let view = verbs::with_channel(&at, async |channel| {
        let (pieces, stream) = mpsc::channel(PIECES);
        let start = wire::PushBuild { digest: digest.clone(), bytes };
        let reading = tokio::task::spawn_blocking({
            let packed = packed.clone();
            move || send(&packed, start, &pieces)
        });
        let answer = connect::builds(channel).push(ReceiverStream::new(stream)).await;
        let view = answer.map_err(|status| connect::explain(&status))?.into_inner();
        reading.await?.context("read the packed package")?;
        Ok(view)
    })
    .await?;
    if is_json {
        verbs::print_json(&json(&view))?;
    } else {
        verbs::print(&text(&view))?;
    }
    Ok(exit::PASS)
}

fn send(
    packed: &Path,
    start: wire::PushBuild,
    pieces: &mpsc::Sender<wire::PushBuildPiece>,
) -> std::io::Result<()> {
    use wire::push_build_piece::Part;
    let mut file = fs::File::open(packed)?;
    let mut part = Part::Start(start);
    loop {
        // A coordinator that knows the package takes no more of it.
        if pieces.blocking_send(wire::PushBuildPiece { part: Some(part) }).is_err() {
            return Ok(());
        }
        let mut data = Vec::new();
        let most = u64::try_from(pgsoak_proto::MAX_CHUNK_BYTES).unwrap_or(u64::MAX);
        if (&mut file).take(most).read_to_end(&mut data)? == 0 {
            return Ok(());
        }
        part = Part::Data(data);
    }
}

/// Packs the folder; the digest.
fn pack(dir: &Path, args: &PushArgs, to: &Path) -> anyhow::Result<String> {
    let dir = fs::canonicalize(dir)
        .with_context(|| format!("read the package folder {}", dir.display()))?;
    let said: Option<Manifest> = fs::read(dir.join(manifest::FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let said = said.unwrap_or_default();
    // The major is checked by whoever unpacks it, by the shared object's own word: here every one is let through.
    let declared = args.postgres.unwrap_or(said.postgres);
    let package = Package::resolve(&BuildRef::Dir(dir.clone()), Path::new(""), declared, None)?;
    let name = match (&args.name, said.extension.as_str()) {
        (Some(name), _) => name.clone(),
        (None, "") => only_extension(&package)?,
        (None, name) => name.to_owned(),
    };
    let release = match (&args.release, said.release.as_str()) {
        (Some(release), _) => release.clone(),
        (None, "") => package.default_version(&name).ok_or_else(|| {
            Coded::usage(format!("{name}.control has no default_version; say --release"))
        })?,
        (None, release) => release.to_owned(),
    };
    let build: BuildRef =
        format!("{name}@{release}").parse().map_err(|error| Coded::usage(format!("{error}")))?;
    let postgres = match declared {
        0 => package
            .files
            .iter()
            .filter(|file| file.name.ends_with(".so"))
            .find_map(|file| magic::major(&fs::read(&file.path).ok()?))
            .ok_or_else(|| {
                Coded::usage(format!(
                    "{build}: the shared object does not say which PostgreSQL it fits; say --postgres MAJOR"
                ))
            })?,
        major => major,
    };
    let manifest = Manifest {
        extension: name,
        release,
        postgres,
        commit: args.commit.clone().or_else(|| commit_of(&dir)).unwrap_or(said.commit),
        note: args.note.clone(),
        ..said
    };
    let files: Vec<(String, PathBuf)> =
        package.files.into_iter().map(|file| (file.name, file.path)).collect();
    Ok(archive::pack(&files, &manifest, to)?)
}

fn only_extension(package: &Package) -> anyhow::Result<String> {
    let mut names: Vec<&str> = package.extensions().collect();
    names.sort_unstable();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        [] => Err(Coded::usage("the folder holds no control file (*.control)").into()),
        several => Err(Coded::usage(format!(
            "the folder holds several extensions ({}); say --name",
            several.join(", ")
        ))
        .into()),
    }
}

/// The commit of the repository that a folder lies in; with `-dirty` when it was changed since.
fn commit_of(dir: &Path) -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    Some(if is_changed { format!("{commit}-dirty") } else { commit })
}
