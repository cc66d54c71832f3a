//! Agents that speak the real protocol and have their evidence ready.

use crate::made::Shape;
use pgsoak_proto::evidence::Frame;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::{JobSpec, Lease};
use pgsoak_proto::session::{
    AgentMessage, Capabilities, CoordinatorMessage, EvidenceBatch, Hello, PostgresFound,
};
use pgsoak_proto::wire;
use pgsoak_proto::wire::fleet_client::FleetClient;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Frames in one batch: far below the largest message.
const BATCH: usize = 16;

/// What a job of a made-up run is like.
pub type Shapes = Arc<dyn Fn(&JobSpec) -> (Shape, u64) + Send + Sync>;

/// How an agent introduces itself.
pub fn hello(name: String, slots: u32) -> Hello {
    Hello {
        agent: AgentId::issue(),
        name,
        protocol: pgsoak_proto::PROTOCOL,
        version: "made".to_owned(),
        capabilities: Capabilities {
            slots,
            cores: 2,
            memory_bytes: 4 << 30,
            kernel: "6.1".to_owned(),
            tools: Vec::new(),
            postgres: vec![PostgresFound {
                major: 18,
                version: "PostgreSQL 18.4".to_owned(),
                pg_config: "/made/bin/pg_config".into(),
            }],
            builds: Vec::new(),
            labels: BTreeMap::new(),
            host: "made".to_owned(),
        },
        held: Vec::new(),
    }
}

/// Opens a session.
pub async fn session(
    channel: Channel,
    hello: Hello,
) -> (mpsc::Sender<wire::AgentMessage>, tonic::Streaming<wire::CoordinatorMessage>) {
    let (to, messages) = mpsc::channel(64);
    let mut client = FleetClient::new(channel)
        .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
    to.send(AgentMessage::Hello(hello).into()).await.unwrap();
    let from = client.session(ReceiverStream::new(messages)).await.unwrap().into_inner();
    (to, from)
}

/// Brings every job that it is given to its end at once, until the session ends. Says each run that it was released from.
pub async fn work(
    channel: Channel,
    name: String,
    slots: u32,
    shapes: Shapes,
    done: mpsc::Sender<()>,
) {
    let (to, mut from) = session(channel, hello(name, slots)).await;
    let mut last: HashMap<Lease, u64> = HashMap::new();
    while let Ok(Some(message)) = from.message().await {
        match CoordinatorMessage::try_from(message).unwrap() {
            CoordinatorMessage::Assignment(assignment) => {
                let (shape, seed) = shapes(&assignment.spec);
                let frames: Vec<Frame> = shape.attempt(seed);
                last.insert(assignment.lease, frames.len() as u64);
                for batch in frames.chunks(BATCH) {
                    let batch = EvidenceBatch {
                        lease: assignment.lease,
                        frames: batch.to_vec(),
                        lost_up_to: 0,
                    };
                    to.send(AgentMessage::Evidence(batch).into()).await.unwrap();
                }
            }
            CoordinatorMessage::EvidenceAcknowledged(mark)
                if last.get(&mark.lease) == Some(&mark.sequence) =>
            {
                to.send(AgentMessage::Delivered(mark.lease).into()).await.unwrap();
            }
            CoordinatorMessage::Release(lease) => {
                last.remove(&lease);
                if done.send(()).await.is_err() {
                    return;
                }
            }
            _ => {}
        }
    }
}
