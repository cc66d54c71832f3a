//! Builds a published extension on this host, with the scripts that also fill an agent's own cache; they come inside the program.

use crate::exit::Coded;
use crate::verbs::build::scratch;
use anyhow::Context;
use pgsoak_proto::job::BuildRef;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

const SCRIPTS: [(&str, &str); 3] = [
    ("build-extension.sh", include_str!("../../../../deploy/build-extension.sh")),
    ("get-postgres.sh", include_str!("../../../../deploy/get-postgres.sh")),
    ("cache-dir.sh", include_str!("../../../../deploy/cache-dir.sh")),
];

/// The package folder of `NAME@VERSION` in this host's build cache, built if it is not there.
pub(super) async fn build(wanted: &str, pg_config: Option<&Path>) -> anyhow::Result<PathBuf> {
    let build: BuildRef = wanted.parse().map_err(|error| Coded::usage(format!("{error}")))?;
    let BuildRef::Release { name, release } = build else {
        return Err(Coded::usage(format!("'{wanted}' is not NAME@VERSION")).into());
    };
    let scratch = scratch()?;
    for (file, text) in SCRIPTS {
        fs::write(scratch.0.join(file), text)?;
    }
    for (file, _) in SCRIPTS {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(scratch.0.join(file), fs::Permissions::from_mode(0o755))?;
    }
    let mut command = Command::new("bash");
    command.arg(scratch.0.join("build-extension.sh")).args([&name, &release]);
    if let Some(pg_config) = pg_config {
        command.arg(pg_config);
    }
    // What it says goes to the terminal; the folder comes last on its output.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("start bash")?;
    let output = child.wait_with_output().await.context("wait for the build")?;
    anyhow::ensure!(
        output.status.success(),
        "{wanted} could not be built; what went wrong stands above"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let folder = text.lines().last().unwrap_or_default().trim();
    anyhow::ensure!(!folder.is_empty(), "the build of {wanted} names no package folder");
    Ok(PathBuf::from(folder))
}
