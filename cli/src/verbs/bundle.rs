//! `pgsoak bundle`: a whole run as a file, and such a file into a coordinator.

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::verbs;
use anyhow::Context;
use clap::{Args, Subcommand};
use pgsoak_proto::{MAX_MESSAGE_BYTES, wire};
use prost::Message as _;
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How such a file begins, before zstd does.
const MAGIC: &[u8] = b"pgsoak bundle 1\n";
const LEVEL: i32 = 6;
/// Pieces on their way.
const PIECES: usize = 8;

/// `bundle`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  pgsoak bundle latest leak-in-refresh.pgsoak          everything that is stored of a run\n  pgsoak bundle import leak-in-refresh.pgsoak          on another coordinator, which judges it again\n\nAn import is accepted when the evidence, judged there, gives the result that came with it."
)]
pub struct BundleArgs {
    /// Import instead.
    #[command(subcommand)]
    pub inner: Option<BundleInner>,
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(required = true)]
    pub run: Option<String>,
    /// Where to; must not exist.
    #[arg(required = true)]
    pub file: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// Import instead.
#[derive(Debug, Subcommand)]
pub enum BundleInner {
    /// Give a bundle to a coordinator.
    Import(ImportArgs),
}

/// `bundle import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `pgsoak bundle RUN FILE` wrote.
    pub file: PathBuf,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: BundleArgs) -> anyhow::Result<u8> {
    match (args.inner, args.run, args.file) {
        (Some(BundleInner::Import(args)), ..) => import(args).await,
        (None, Some(run), Some(file)) => export(run, &file, &args.at).await,
        _ => Err(Coded::usage("name a run and a file, or `import FILE`").into()),
    }
}

async fn export(run_id: String, file: &Path, at: &Where) -> anyhow::Result<u8> {
    anyhow::ensure!(!file.exists(), "{} is there already", file.display());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = file.with_file_name(name);
    let written = verbs::with_channel(at, async |channel| {
        let request = wire::GetRunRequest { run_id };
        let answer = connect::bundles(channel).export(request).await;
        let mut pieces = answer.map_err(|status| connect::explain(&status))?.into_inner();
        let out = File::create(&partial).with_context(|| format!("make {}", partial.display()))?;
        let mut out = BufWriter::new(out);
        out.write_all(MAGIC)?;
        let mut packer = zstd::Encoder::new(out, LEVEL)?;
        let mut whole = None;
        while let Some(piece) =
            pieces.message().await.map_err(|status| connect::explain(&status))?
        {
            packer.write_all(&piece.encode_length_delimited_to_vec())?;
            if let Some(wire::bundle_piece::Part::Whole(summary)) = piece.part {
                whole = Some(summary);
            }
        }
        let out = packer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.sync_all()?;
        whole.context("the coordinator did not come to the end of the run")
    });
    let whole = match written.await {
        Ok(whole) => whole,
        Err(error) => {
            // Half a bundle is none.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    fs::rename(&partial, file)?;
    let bytes = fs::metadata(file)?.len();
    verbs::print(&format!(
        "{}: {} frames, {} raw files, {bytes} bytes\n",
        file.display(),
        whole.frames,
        whole.files
    ))?;
    Ok(exit::PASS)
}

async fn import(args: ImportArgs) -> anyhow::Result<u8> {
    let mut file = BufReader::new(
        File::open(&args.file).with_context(|| format!("read {}", args.file.display()))?,
    );
    let mut magic = [0; MAGIC.len()];
    let is_bundle = file.read_exact(&mut magic).is_ok() && magic == MAGIC;
    if !is_bundle {
        return Err(Coded::usage(format!("{} is no bundle of pgsoak", args.file.display())).into());
    }
    let taken = verbs::with_channel(&args.at, async |channel| {
        let (pieces, stream) = mpsc::channel(PIECES);
        let reading = tokio::task::spawn_blocking(move || send(file, &pieces));
        let answer = connect::bundles(channel).import(ReceiverStream::new(stream)).await;
        // What is wrong with the file says more than what the coordinator missed of it.
        reading.await?.with_context(|| format!("read {}", args.file.display()))?;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
    })
    .await?;
    if args.json {
        verbs::print_json(&serde_json::json!({
            "run": taken.run_id, "verdict": taken.verdict, "replay": taken.replay,
            "frames": taken.frames, "files": taken.files,
        }))?;
    } else {
        verbs::print(&format!(
            "run {}: {} (judged again: {}); {} frames, {} raw files\n",
            taken.run_id, taken.verdict, taken.replay, taken.frames, taken.files
        ))?;
    }
    Ok(exit::PASS)
}

fn send(file: impl Read, pieces: &mpsc::Sender<wire::BundlePiece>) -> io::Result<()> {
    let mut unpacker = BufReader::new(zstd::Decoder::new(file)?);
    while let Some(length) = length(&mut unpacker)? {
        if length > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece is too large"));
        }
        let mut bytes = vec![0; length];
        unpacker.read_exact(&mut bytes)?;
        let piece = wire::BundlePiece::decode(bytes.as_slice())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if pieces.blocking_send(piece).is_err() {
            // Refused: the answer says why.
            return Ok(());
        }
    }
    Ok(())
}

/// A protobuf length; `None`: the end.
fn length(from: &mut impl Read) -> io::Result<Option<usize>> {
    let mut value = 0_usize;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        if from.read(&mut byte)? == 0 {
            return match shift {
                0 => Ok(None),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let [byte] = byte;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a length has no end"))
}
