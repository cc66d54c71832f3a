//! `pgsoak build`: packages of extensions for a whole fleet: pushed once, fetched by agents as jobs need them.

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use pgsoak_proto::wire;
use std::path::PathBuf;

mod pack;
mod registry;

/// `build`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak build push --from-registry pg_tviews@0.1.0-beta.34           build it here (deploy/build-extension.sh) and push it\n  pgsoak build push target/release/my_ext-pg18 --release 1.4.0-rc.1   what `cargo pgrx package` or `make install DESTDIR=` left\n  pgsoak build list\n  pgsoak build show pg_tviews@0.1.0-beta.34\n  pgsoak build rm pg_tviews@0.1.0-beta.20\n\nA plan names a build as NAME@RELEASE. Runs keep the package that was there when they were submitted, whoever pushes later.\nWhat was never pushed is looked for in the build cache of each agent."
)]
pub struct BuildArgs {
    /// What to do.
    #[command(subcommand)]
    pub inner: BuildInner,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum BuildInner {
    /// Pack an extension package and give it to the coordinator.
    Push(pack::PushArgs),
    /// List builds.
    List(ListArgs),
    /// Show a build with its files and where it comes from.
    Show(ShowArgs),
    /// Hand a build to no run any more.
    Rm(RmArgs),
}

/// `build list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only builds of this extension.
    pub extension: Option<String>,
    /// For programs: a line a build.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `build show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// NAME@RELEASE, or the beginning (8 digits or more) of a package's digest.
    pub build: String,
    /// For programs: a line a package.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `build rm`
#[derive(Debug, Args)]
pub struct RmArgs {
    /// NAME@RELEASE.
    pub build: String,
    /// Only the package for this major of PostgreSQL.
    #[arg(long, value_name = "MAJOR")]
    pub postgres: Option<u32>,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: BuildArgs) -> anyhow::Result<u8> {
    match args.inner {
        BuildInner::Push(args) => pack::push(args).await,
        BuildInner::List(args) => {
            let builds = find(&args.at, args.extension.unwrap_or_default()).await?;
            if args.json {
                return print_json(&builds);
            }
            if builds.is_empty() {
                verbs::print(
                    "no builds yet; push one with `pgsoak build push DIR` or `--from-registry NAME@VERSION`\n",
                )?;
                return Ok(exit::PASS);
            }
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
                "Build",
                "PostgreSQL",
                "Size",
                "Pushed",
                "Toolchain",
                "Commit",
                "Package",
            ]);
            for build in &builds {
                table.add_row([
                    if build.is_removed {
                        format!("{} (removed)", build.build)
                    } else {
                        build.build.clone()
                    },
                    build.postgres.to_string(),
                    size(build.bytes),
                    words::time(build.pushed_at_unix_us),
                    build.toolchain.clone(),
                    build.commit.chars().take(12).collect(),
                    build.digest.chars().take(12).collect(),
                ]);
            }
            verbs::print(&format!("{table}\n"))?;
            Ok(exit::PASS)
        }
        BuildInner::Show(args) => {
            let builds = find(&args.at, args.build.clone()).await?;
            if builds.is_empty() {
                return Err(Coded::usage(format!(
                    "there is no build {}; `pgsoak build list` lists those there are",
                    args.build
                ))
                .into());
            }
            if args.json {
                return print_json(&builds);
            }
            for build in &builds {
                verbs::print(&text(build))?;
            }
            Ok(exit::PASS)
        }
        BuildInner::Rm(args) => {
            let request = wire::RemoveBuildRequest {
                build: args.build.clone(),
                postgres: args.postgres.unwrap_or(0),
            };
            let removed = verbs::with_channel(&args.at, async |channel| {
                let answer = connect::builds(channel).remove(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner().removed)
            })
            .await?;
            verbs::print(&format!(
                "{} removed: {removed} package(s); runs that were given them keep them until they are over\n",
                args.build
            ))?;
            Ok(exit::PASS)
        }
    }
}

async fn find(at: &Where, build: String) -> anyhow::Result<Vec<wire::BuildView>> {
    verbs::with_channel(at, async |channel| {
        let answer = connect::builds(channel).list(wire::ListBuildsRequest { build }).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner().builds)
    })
    .await
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn size(bytes: u64) -> String {
    words::bytes(bytes as f64)
}

fn text(build: &wire::BuildView) -> String {
    let mut out = String::new();
    let mut row = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{key:<12}{value}\n"));
        }
    };
    row("Build", &build.build);
    let proven = match build.is_major_proven {
        true => "as its shared objects say",
        false => "as the package says; its shared objects could not be read for it",
    };
    row("PostgreSQL", &format!("{} ({proven})", build.postgres));
    row("Package", &build.digest);
    row("Size", &size(build.bytes));
    row("Pushed", &words::time(build.pushed_at_unix_us));
    row("Toolchain", &build.toolchain);
    row("pgrx", &build.pgrx);
    row("Commit", &build.commit);
    row("Note", &build.note);
    if build.is_removed {
        row("Removed", "kept for runs that were given it");
    }
    for file in &build.files {
        row("File", &format!("{} ({})", file.name, size(file.bytes)));
    }
    out.push('\n');
    out
}

fn print_json(builds: &[wire::BuildView]) -> anyhow::Result<u8> {
    for build in builds {
        verbs::print_json(&json(build))?;
    }
    Ok(exit::PASS)
}

fn json(build: &wire::BuildView) -> serde_json::Value {
    let files = build.files.iter();
    let files: Vec<_> =
        files.map(|file| serde_json::json!({"name": file.name, "bytes": file.bytes})).collect();
    serde_json::json!({
        "build": build.build,
        "postgres": build.postgres,
        "is_major_proven": build.is_major_proven,
        "digest": build.digest,
        "bytes": build.bytes,
        "pushed_at_unix_us": build.pushed_at_unix_us,
        "toolchain": build.toolchain,
        "pgrx": build.pgrx,
        "commit": build.commit,
        "note": build.note,
        "is_removed": build.is_removed,
        "files": files,
    })
}

/// A folder that goes away with what is in it.
fn scratch() -> anyhow::Result<Scratch> {
    let name = format!("pgsoak-build-{}", pgsoak_proto::id::RunId::issue());
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(Scratch(path))
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // A temporary folder: what stays is the system's to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
