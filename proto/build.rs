//! Compiles the .proto files with protox: no protoc on the machine.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: &[&str] = &[
    "pgsoak/v1/job.proto",
    "pgsoak/v1/evidence.proto",
    "pgsoak/v1/session.proto",
    "pgsoak/v1/control.proto",
    "pgsoak/v1/history.proto",
    "pgsoak/v1/schedules.proto",
    "pgsoak/v1/notify.proto",
    "pgsoak/v1/fleet_admin.proto",
    "pgsoak/v1/builds.proto",
    "pgsoak/v1/bundles.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Served by gRPC reflection.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Ordered maps: a message that is sent again has the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
