//! A coordinator that does what a test says: real tonic on a Unix socket, one session at a time, nothing by itself.

use pgsoak_proto::job::Lease;
use pgsoak_proto::session::{
    AgentMessage, CoordinatorMessage, Heartbeat, Hello, HighWater, Refusal, Welcome,
};
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body;
use pgsoak_proto::wire::fleet_server::{Fleet, FleetServer};
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Coordinator {
    path: PathBuf,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

/// One session of an agent. Dropping it cuts the connection.
pub struct Session {
    from: mpsc::Receiver<wire::AgentMessage>,
    to: mpsc::Sender<Result<wire::CoordinatorMessage, Status>>,
    /// Heartbeats so far.
    pub heartbeats: Vec<Heartbeat>,
}

/// What a coordinator has stored of one attempt.
#[derive(Default)]
pub struct Stored {
    /// Encoded, by sequence.
    pub frames: BTreeMap<u64, Vec<u8>>,
    /// Frames that came although they were there.
    pub repeats: usize,
    pub artifacts: BTreeMap<String, Vec<u8>>,
    pub is_delivered: bool,
}

struct Service {
    sessions: Mutex<mpsc::Sender<Session>>,
}

#[tonic::async_trait]
impl Fleet for Service {
    type SessionStream =
        Pin<Box<dyn Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (from_tx, from) = mpsc::channel(1);
        let (to, to_rx) = mpsc::channel(100);
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if from_tx.send(message).await.is_err() {
                    return;
                }
            }
        });
        let session = Session { from, to, heartbeats: Vec::new() };
        self.sessions.lock().await.send(session).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(to_rx))))
    }
}

impl Coordinator {
    pub fn listen(path: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (sessions_tx, sessions) = mpsc::channel(8);
        let service = FleetServer::new(Service { sessions: Mutex::new(sessions_tx) })
            .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { path: path.to_owned(), sessions, server }
    }

    /// The next session, and what the agent says first.
    pub async fn accept(&mut self) -> (Session, Hello) {
        let mut session = timeout(PATIENCE, self.sessions.recv()).await.unwrap().unwrap();
        match session.receive().await {
            AgentMessage::Hello(hello) => (session, hello),
            other => panic!("not a Hello: {other:?}"),
        }
    }

    /// Nobody listens any more.
    pub async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
        std::fs::remove_file(&self.path).unwrap();
    }
}

impl Session {
    /// The next message that is no heartbeat.
    pub async fn receive(&mut self) -> AgentMessage {
        loop {
            let message = timeout(PATIENCE, self.from.recv()).await;
            let message = message.expect("the agent says nothing").expect("the session is over");
            match AgentMessage::try_from(message).unwrap() {
                AgentMessage::Heartbeat(heartbeat) => self.heartbeats.push(heartbeat),
                message => return message,
            }
        }
    }

    /// Waits for so many heartbeats more.
    pub async fn beats(&mut self, count: usize) -> &[Heartbeat] {
        let until = self.heartbeats.len() + count;
        while self.heartbeats.len() < until {
            let message = timeout(PATIENCE, self.from.recv()).await.unwrap().unwrap();
            if let AgentMessage::Heartbeat(heartbeat) = AgentMessage::try_from(message).unwrap() {
                self.heartbeats.push(heartbeat);
            }
        }
        &self.heartbeats
    }

    pub async fn say(&self, message: CoordinatorMessage) {
        self.to.send(Ok(message.into())).await.unwrap();
    }

    pub async fn welcome(&self, high_water: &[(Lease, u64)]) {
        let high_water =
            high_water.iter().map(|&(lease, sequence)| HighWater { lease, sequence }).collect();
        self.say(CoordinatorMessage::Welcome(Welcome {
            coordinator_version: "scripted".into(),
            heartbeat_every: Duration::from_millis(100),
            lease_ttl: Duration::from_secs(60),
            high_water,
        }))
        .await;
    }

    pub async fn cancel(&self, lease: Lease) {
        self.say(CoordinatorMessage::Cancel(Refusal { lease, reason: "by hand".into() })).await;
    }

    pub async fn acknowledge(&self, lease: Lease, sequence: u64) {
        self.say(CoordinatorMessage::EvidenceAcknowledged(HighWater { lease, sequence })).await;
    }

    /// Stores and acknowledges what comes, until `is_enough`.
    pub async fn store(
        &mut self,
        lease: Lease,
        stored: &mut Stored,
        mut is_enough: impl FnMut(&Stored) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough(stored) {
            assert!(Instant::now() < deadline, "not enough: {:?}", stored.frames.keys().last());
            match timeout(PATIENCE, self.from.recv()).await.unwrap().unwrap().body.unwrap() {
                Body::Evidence(batch) => {
                    assert_eq!(Lease::try_from(batch.lease.unwrap()).unwrap(), lease);
                    assert_eq!(batch.lost_up_to, 0);
                    stored.take(batch.frames);
                    self.acknowledge(lease, stored.high_water()).await;
                }
                Body::Artifact(chunk) => {
                    let file = stored.artifacts.entry(chunk.name.clone()).or_default();
                    assert!(chunk.offset as usize <= file.len(), "a hole in an artifact");
                    file.truncate(chunk.offset as usize);
                    file.extend_from_slice(&chunk.data);
                    let received_bytes = file.len() as u64;
                    let lease = Some(lease.into());
                    let name = chunk.name;
                    let answer = wire::ArtifactAcknowledged { lease, name, received_bytes };
                    let body = wire::coordinator_message::Body::ArtifactAcknowledged(answer);
                    let message = wire::CoordinatorMessage { body: Some(body) };
                    self.to.send(Ok(message)).await.unwrap();
                }
                Body::Delivered(_) => stored.is_delivered = true,
                Body::Heartbeat(heartbeat) => {
                    self.heartbeats.push(Heartbeat::try_from(heartbeat).unwrap());
                }
                other => panic!("not evidence: {other:?}"),
            }
        }
    }

    /// Waits for the answer to a cancel; evidence that comes before it is stored.
    pub async fn cancelled(&mut self, lease: Lease, stored: &mut Stored) {
        loop {
            match self.receive().await {
                AgentMessage::CancelAcknowledged(answer) => {
                    assert_eq!(answer, lease);
                    return;
                }
                AgentMessage::Evidence(batch) => {
                    stored.take(batch.frames.iter().map(Into::into).collect());
                    self.acknowledge(lease, stored.high_water()).await;
                }
                other => panic!("neither evidence nor the answer to a cancel: {other:?}"),
            }
        }
    }
}

impl Stored {
    pub fn take(&mut self, frames: Vec<wire::Frame>) {
        for frame in frames {
            let bytes = frame.encode_to_vec();
            match self.frames.insert(frame.sequence, bytes.clone()) {
                None => {}
                Some(before) => {
                    assert_eq!(before, bytes, "frame {} has changed", frame.sequence);
                    self.repeats += 1;
                }
            }
        }
    }

    /// The last sequence without a hole before it.
    pub fn high_water(&self) -> u64 {
        self.frames.keys().zip(1..).take_while(|(have, due)| *have == due).count() as u64
    }

    pub fn last(&self) -> Option<wire::Frame> {
        self.frames.values().last().map(|bytes| wire::Frame::decode(bytes.as_slice()).unwrap())
    }

    /// The last frame, if it is the end of the attempt.
    pub fn ended(&self) -> Option<wire::AttemptEnded> {
        match self.last()?.body? {
            wire::frame::Body::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Everything from the first frame to the end is there.
    pub fn is_complete(&self) -> bool {
        self.ended().is_some() && self.high_water() == self.frames.len() as u64
    }
}
