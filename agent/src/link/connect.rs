//! The session's stream: opened, lost, and opened again, for as long as the daemon lives.
//!
//! Owned and polled by the daemon's task. Decides nothing but when to try again.

use crate::config::{Endpoint, Token};
use crate::link::surroundings::Dial;
use futures_util::stream::{self, PollNext, Stream};
use hyper_util::rt::TokioIo;
use pgsoak_proto::chain::chain;
use pgsoak_proto::convert::InvalidMessage;
use pgsoak_proto::id::AgentId;
use pgsoak_proto::session::CoordinatorMessage;
use pgsoak_proto::wire;
use pgsoak_proto::wire::fleet_client::FleetClient;
use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    time::Duration,
};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tower::service_fn;

/// Messages that wait for the stream: the evidence windows of some jobs, a batch each.
const BULK_QUEUE: usize = 32;
/// Heartbeats and answers that wait for the stream; they overtake evidence.
const CONTROL_QUEUE: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte to the coordinator's answer, and from there to its first message.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// A long stream can die without a word: HTTP/2 pings find out, beside the heartbeats.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A session that lasted this long was a good one: the next pause is the first again.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// What happens to the session.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The pause is over: call [`Link::open`].
    Due,
    /// The coordinator has said something.
    Message(Box<CoordinatorMessage>),
    /// There is no session any more; a pause begins.
    Lost(String),
}

/// Where messages of the present session go. Cheap to clone; of no use once the session is lost.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    control: mpsc::Sender<wire::AgentMessage>,
    bulk: mpsc::Sender<wire::AgentMessage>,
}

pub(super) struct Link {
    agent: AgentId,
    endpoint: Endpoint,
    /// Instead of the endpoint.
    dial: Option<Dial>,
    bearer: Bearer,
    state: State,
    pause: Duration,
    losses: u64,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Opening(Opening),
    Open {
        messages: Box<Messages>,
        since: Instant,
        /// The coordinator has said something.
        is_greeted: bool,
    },
}

type Messages = tonic::Streaming<wire::CoordinatorMessage>;

type Opening = Pin<Box<dyn Future<Output = Result<Messages, String>> + Send>>;

// === impl Outbox ===

impl Outbox {
    /// One whose messages go nowhere.
    #[cfg(test)]
    pub fn unconnected() -> Self {
        let (control, _) = mpsc::channel(1);
        let (bulk, _) = mpsc::channel(1);
        Self { control, bulk }
    }

    /// A message that must not wait behind evidence. False: the session is lost, or will be.
    pub fn control(&self, body: wire::agent_message::Body) -> bool {
        self.control.try_send(wire::AgentMessage { body: Some(body) }).is_ok()
    }

    /// Room for one message of evidence; `None`: not now.
    pub fn room(&self) -> Option<mpsc::Permit<'_, wire::AgentMessage>> {
        self.bulk.try_reserve().ok()
    }
}

/// Adds the agent's token to what it asks.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// A token that cannot be sent is none: the coordinator says that it misses one.
    pub fn new(token: Option<&Token>) -> Self {
        let value = token.and_then(|token| format!("Bearer {}", token.expose()).parse().ok());
        Self(value.map(|mut value: MetadataValue<Ascii>| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

// === impl Link ===

impl Link {
    /// Due at once.
    pub fn new(
        agent: AgentId,
        endpoint: Endpoint,
        dial: Option<Dial>,
        token: Option<&Token>,
    ) -> Self {
        let bearer = Bearer::new(token);
        let state = State::Waiting(Box::pin(tokio::time::sleep(Duration::ZERO)));
        Self { agent, endpoint, dial, bearer, state, pause: FIRST_PAUSE, losses: 0 }
    }

    /// Opens a session with this as its first message. What is sent to the outbox follows it.
    pub fn open(&mut self, hello: wire::Hello) -> Outbox {
        let (control, control_rx) = mpsc::channel(CONTROL_QUEUE);
        let (bulk, bulk_rx) = mpsc::channel(BULK_QUEUE);
        let first = wire::AgentMessage { body: Some(wire::agent_message::Body::Hello(hello)) };
        let messages = outbound(first, control_rx, bulk_rx);
        let (endpoint, dial) = (self.endpoint.clone(), self.dial.clone());
        let bearer = self.bearer.clone();
        self.state = State::Opening(Box::pin(async move {
            match tokio::time::timeout(OPEN_TIMEOUT, open(&endpoint, dial, bearer, messages)).await
            {
                Ok(opened) => opened,
                Err(_) => Err("no answer in time".to_owned()),
            }
        }));
        Outbox { control, bulk }
    }

    /// The next event. May be dropped and called again.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    sleep.await;
                    // Until the daemon opens it: no second event.
                    self.state = State::Opening(Box::pin(std::future::pending()));
                    return LinkEvent::Due;
                }
                State::Opening(opening) => match opening.await {
                    Ok(messages) => {
                        self.state = State::Open {
                            messages: Box::new(messages),
                            since: Instant::now(),
                            is_greeted: false,
                        };
                    }
                    Err(reason) => return self.lose(reason),
                },
                State::Open { messages, since, is_greeted } => {
                    // A proxy between may answer for a coordinator that is not there: its silence is seen only here.
                    let message = if *is_greeted {
                        messages.message().await
                    } else {
                        let until = *since + OPEN_TIMEOUT;
                        match tokio::time::timeout_at(until, messages.message()).await {
                            Ok(message) => message,
                            Err(_) => return self.lose("no welcome in time".to_owned()),
                        }
                    };
                    *is_greeted = true;
                    let said = match message {
                        Ok(Some(message)) => CoordinatorMessage::try_from(message),
                        Ok(None) => return self.lose("the coordinator ended it".to_owned()),
                        Err(status) => {
                            let reason = format!("{:?}: {}", status.code(), status.message());
                            return self.lose(reason);
                        }
                    };
                    return match said {
                        Ok(message) => LinkEvent::Message(Box::new(message)),
                        Err(error @ InvalidMessage { .. }) => {
                            self.lose(format!("a message breaks the protocol: {error}"))
                        }
                    };
                }
            }
        }
    }

    /// Ends the session, if there is one, and begins a pause: longer after every failure, different on every agent.
    pub fn lose(&mut self, reason: String) -> LinkEvent {
        if let State::Open { since, .. } = &self.state
            && since.elapsed() >= GOOD_SESSION
        {
            self.pause = FIRST_PAUSE;
        }
        self.losses = self.losses.wrapping_add(1);
        let pause = jittered(self.pause, self.agent, self.losses);
        self.state = State::Waiting(Box::pin(tokio::time::sleep(pause)));
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        LinkEvent::Lost(reason)
    }
}

/// Half to all of the pause: another share for each agent and each loss, which is all that is asked of it.
fn jittered(pause: Duration, agent: AgentId, losses: u64) -> Duration {
    let mut hasher = DefaultHasher::new();
    (agent, losses).hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
    pause / 2 + pause.saturating_mul(share) / 2000
}

fn outbound(
    hello: wire::AgentMessage,
    control: mpsc::Receiver<wire::AgentMessage>,
    bulk: mpsc::Receiver<wire::AgentMessage>,
) -> impl Stream<Item = wire::AgentMessage> + Send + 'static {
    let rest = stream::select_with_strategy(
        ReceiverStream::new(control),
        ReceiverStream::new(bulk),
        |(): &mut ()| PollNext::Left,
    );
    tokio_stream::StreamExt::chain(tokio_stream::once(hello), rest)
}

async fn open(
    endpoint: &Endpoint,
    dial: Option<Dial>,
    bearer: Bearer,
    messages: impl Stream<Item = wire::AgentMessage> + Send + 'static,
) -> Result<Messages, String> {
    let channel = connect(endpoint, dial).await.map_err(|error| chain(&error))?;
    let mut client = FleetClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
    let answer = client
        .session(messages)
        .await
        .map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    Ok(answer.into_inner())
}

pub(super) async fn connect(
    endpoint: &Endpoint,
    dial: Option<Dial>,
) -> Result<Channel, tonic::transport::Error> {
    let url = match endpoint {
        Endpoint::Tcp(url) => url.clone(),
        // Never resolved: the connector goes to the socket.
        Endpoint::Unix(_) => "http://coordinator".to_owned(),
    };
    let transport = tonic::transport::Endpoint::try_from(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if let Some(dial) = dial {
        let connector = service_fn(move |_| {
            let connecting = dial();
            async move { connecting.await.map(TokioIo::new) }
        });
        return transport.connect_with_connector(connector).await;
    }
    match endpoint {
        Endpoint::Tcp(_) => transport.connect().await,
        Endpoint::Unix(path) => {
            let path = path.clone();
            let connector = service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            transport.connect_with_connector(connector).await
        }
    }
}
