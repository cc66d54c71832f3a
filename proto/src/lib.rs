//! The wire of pgsoak and the checked types behind it.
//!
//! Floors, lowest first: `wire`, `chain` · `id` · `job` · `evidence` · `session` · `convert` (wire to checked and back). `wire` is generated
//! from `pgsoak/v1/*.proto`; nothing past `convert` doubts a value again.

pub mod chain;
pub mod convert;
pub mod evidence;
pub mod id;
pub mod job;
pub mod session;

/// Generated from `pgsoak/v1/*.proto`. Untrusted: see [`convert`].
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::nursery, rust_2018_idioms)]
pub mod wire {
    tonic::include_proto!("pgsoak.v1");
}

/// The encoded `FileDescriptorSet` of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Version of the protocol that an agent and a coordinator must share.
pub const PROTOCOL: u32 = 1;

/// Largest gRPC message either side takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Largest encoded [`wire::EvidenceBatch`], in bytes.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Largest encoded [`wire::Frame`], in bytes: a batch takes one, with room for its lease.
pub const MAX_FRAME_BYTES: usize = MAX_BATCH_BYTES - 1024;

/// Most bytes of data in one [`wire::ArtifactChunk`].
pub const MAX_CHUNK_BYTES: usize = 256 << 10;
