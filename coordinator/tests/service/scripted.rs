//! A coordinator in a temporary folder, and an agent that says what a test tells it to say.

use pgsoak_coordinator::app::{Running, start_with};
use pgsoak_coordinator::config::{CoordinatorConfig, HttpListen, KeepConfig, NotifyConfig};
use pgsoak_coordinator::domain::limits::Limits;
use pgsoak_proto::evidence::{AttemptEnded, AttemptStarted, Body, Frame, Gap};
use pgsoak_proto::id::AgentId;
use pgsoak_proto::job::{Lease, Outcome};
use pgsoak_proto::session::{
    AgentMessage, Assignment, Capabilities, CoordinatorMessage, EvidenceBatch, Heartbeat, HeldJob,
    Hello, JobProgress, JobStage, PostgresFound, Welcome,
};
use pgsoak_proto::wire;
use pgsoak_proto::wire::control_client::ControlClient;
use pgsoak_proto::wire::fleet_client::FleetClient;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Nothing in these tests takes longer on an idle machine; a busy one gets its time.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const WORKLOAD: &str = "name = \"w\"\nabout = \"one statement\"\n[[phase]]\nname = \"a\"\nkind = \"once\"\nsql = \"SELECT 1\"\n";

/// A plan of one job; `extra` are further keys of it.
pub fn plan(extra: &str) -> String {
    format!(
        "name = \"t\"\n[[job]]\nworkload = \"w\"\nbuild = \"vanilla\"\npostgres = \"18\"\n{extra}\n"
    )
}

/// Limits that end what has to end within a test.
pub fn limits() -> Limits {
    Limits {
        tick_every: Duration::from_millis(50),
        grace: Duration::from_millis(200),
        artifacts_wait: Duration::from_millis(1_500),
        refusal_pause: Duration::from_millis(100),
        look_pause: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// A data folder and its coordinator.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub lease_ttl: Duration,
    pub limits: Limits,
    /// Who is told of what.
    pub notify: NotifyConfig,
    /// Of the coordinator, beside those that a test needs.
    pub canary: Option<pgsoak_coordinator::config::CanaryPlan>,
    /// What is kept of runs that are over.
    pub keep: KeepConfig,
    /// Where raw files of runs that are over move to.
    pub artifacts_url: String,
    running: Option<Running>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(limits(), Duration::from_secs(20)).await
    }

    pub async fn with(limits: Limits, lease_ttl: Duration) -> Self {
        Self::told(limits, lease_ttl, NotifyConfig::default()).await
    }

    /// With messages to people.
    pub async fn told(limits: Limits, lease_ttl: Duration, notify: NotifyConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = Self {
            folder,
            lease_ttl,
            limits,
            notify,
            keep: KeepConfig::default(),
            artifacts_url: String::new(),
            canary: None,
            running: None,
        };
        stage.start().await;
        stage
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    pub fn config(&self) -> CoordinatorConfig {
        CoordinatorConfig {
            socket: Some(self.socket()),
            heartbeat_every: Duration::from_millis(500),
            lease_ttl: self.lease_ttl,
            http: HttpListen::At(([127, 0, 0, 1], 0).into()),
            notify: self.notify.clone(),
            canary: self.canary.clone(),
            keep: self.keep,
            artifacts_url: self.artifacts_url.clone(),
            ..CoordinatorConfig::new(self.data())
        }
    }

    pub async fn start(&mut self) {
        self.running = Some(start_with(self.config(), self.limits).await.unwrap());
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            timeout(PATIENCE, running.shutdown()).await.expect("it stops");
        }
    }

    /// Where the pages are.
    pub fn http(&self) -> SocketAddr {
        self.running.as_ref().and_then(|running| running.http).unwrap()
    }

    /// As a reload of the settings does it.
    pub async fn reconfigure(&mut self, notify: NotifyConfig) {
        self.notify = notify;
        self.running.as_ref().unwrap().reconfigure(&self.config()).await;
    }

    pub fn evidence_syncs(&self) -> u64 {
        self.running.as_ref().unwrap().evidence_syncs()
    }

    pub async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(channel(&self.socket()).await)
    }

    /// Submits a plan; its run's id.
    pub async fn submit(&self, plan: &str, key: &str) -> String {
        self.control().await.submit_run(submission(plan, key)).await.unwrap().into_inner().run_id
    }

    /// Waits until the run is as wanted.
    pub async fn until(&self, run: &str, wanted: impl Fn(&wire::RunView) -> bool) -> wire::RunView {
        let mut control = self.control().await;
        let mut last = None;
        let waiting = async {
            loop {
                let request = wire::GetRunRequest { run_id: run.to_owned() };
                let view = control.get_run(request).await.unwrap().into_inner();
                if wanted(&view) {
                    return view;
                }
                last = Some(view);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(view) => view,
            Err(_) => panic!("the run stays {last:#?}"),
        }
    }

    pub async fn finished(&self, run: &str) -> wire::RunView {
        self.until(run, |view| view.stage() == wire::RunStage::Finished).await
    }

    /// Sequences of everything that is stored of a run, by attempt.
    pub async fn stored(&self, run: &str) -> BTreeMap<u32, Vec<u64>> {
        let request = wire::ReadEvidenceRequest { run_id: run.to_owned(), ..Default::default() };
        let mut stream = self.control().await.read_evidence(request).await.unwrap().into_inner();
        let mut stored: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        while let Some(item) = stream.message().await.unwrap() {
            stored.entry(item.attempt).or_default().push(item.frame.unwrap().sequence);
        }
        stored
    }
}

pub fn submission(plan: &str, key: &str) -> wire::SubmitRunRequest {
    wire::SubmitRunRequest {
        plan_toml: plan.to_owned(),
        workloads: vec![wire::WorkloadFile { name: "w".to_owned(), toml: WORKLOAD.to_owned() }],
        client_key: key.to_owned(),
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    Endpoint::from_static("http://coordinator")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                    UnixStream::connect(socket).await?,
                ))
            }
        }))
        .await
        .unwrap()
}

/// A request with a token.
pub fn with_token<T>(message: T, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// An agent that does nothing by itself.
pub struct Scripted {
    pub id: AgentId,
    pub name: String,
    pub slots: u32,
    to: Option<mpsc::Sender<wire::AgentMessage>>,
    from: Option<Streaming<wire::CoordinatorMessage>>,
}

impl Scripted {
    pub fn new(name: &str) -> Self {
        Self { id: AgentId::issue(), name: name.to_owned(), slots: 2, to: None, from: None }
    }

    pub fn hello(&self, held: Vec<HeldJob>) -> Hello {
        Hello {
            agent: self.id,
            name: self.name.clone(),
            protocol: pgsoak_proto::PROTOCOL,
            version: "0".to_owned(),
            capabilities: Capabilities {
                slots: self.slots,
                cores: 2,
                memory_bytes: 1 << 30,
                kernel: "6.1".to_owned(),
                tools: Vec::new(),
                postgres: vec![PostgresFound {
                    major: 18,
                    version: "PostgreSQL 18.4".to_owned(),
                    pg_config: "/pg18/bin/pg_config".into(),
                }],
                builds: Vec::new(),
                labels: BTreeMap::new(),
                host: "h".to_owned(),
            },
            held,
        }
    }

    /// Opens a session with this hello; the welcome.
    pub async fn open(&mut self, socket: &Path, hello: Hello) -> Result<Welcome, Status> {
        self.open_on(channel(socket).await, None, hello).await
    }

    /// The same on any connection, with a token.
    pub async fn open_on(
        &mut self,
        channel: Channel,
        token: Option<&str>,
        hello: Hello,
    ) -> Result<Welcome, Status> {
        let (to, messages) = mpsc::channel(64);
        let mut client = FleetClient::new(channel);
        let request = with_token(ReceiverStream::new(messages), token);
        let from = client.session(request).await?.into_inner();
        (self.to, self.from) = (Some(to), Some(from));
        self.say(AgentMessage::Hello(hello)).await;
        match self.next().await? {
            CoordinatorMessage::Welcome(welcome) => Ok(welcome),
            other => panic!("the first answer is {other:?}"),
        }
    }

    pub async fn connect(&mut self, socket: &Path, held: Vec<HeldJob>) -> Welcome {
        let hello = self.hello(held);
        self.open(socket, hello).await.unwrap()
    }

    pub fn disconnect(&mut self) {
        (self.to, self.from) = (None, None);
    }

    pub async fn say(&mut self, message: AgentMessage) {
        // A session that has ended says so at the next answer.
        let _ = self.to.as_ref().unwrap().send(message.into()).await;
    }

    /// What the coordinator says next; an end without a word is `Unknown`.
    pub async fn next(&mut self) -> Result<CoordinatorMessage, Status> {
        let from = self.from.as_mut().unwrap();
        let message = timeout(PATIENCE, from.message()).await.expect("an answer in time")?;
        let message = message.ok_or_else(|| Status::unknown("the session ended"))?;
        Ok(CoordinatorMessage::try_from(message).expect("the coordinator keeps the contract"))
    }

    pub async fn assignment(&mut self) -> Assignment {
        loop {
            match self.next().await.unwrap() {
                CoordinatorMessage::Assignment(assignment) => return assignment,
                CoordinatorMessage::HeartbeatAnswer(_) => {}
                other => panic!("not an assignment: {other:?}"),
            }
        }
    }

    pub async fn evidence(&mut self, lease: Lease, frames: Vec<Frame>) {
        self.say(AgentMessage::Evidence(EvidenceBatch { lease, frames, lost_up_to: 0 })).await;
    }

    /// Waits for an acknowledgement of this sequence; the fences of others are passed over.
    pub async fn acknowledged(&mut self, lease: Lease, sequence: u64) {
        loop {
            match self.next().await.unwrap() {
                CoordinatorMessage::EvidenceAcknowledged(mark) if mark.lease == lease => {
                    if mark.sequence >= sequence {
                        return;
                    }
                }
                CoordinatorMessage::HeartbeatAnswer(_) => {}
                other => panic!("not an acknowledgement: {other:?}"),
            }
        }
    }

    pub async fn heartbeat(&mut self, leases: &[Lease]) {
        self.heartbeat_of(leases, "").await;
    }

    /// A heartbeat of a host that takes no job, and why.
    pub async fn heartbeat_of(&mut self, leases: &[Lease], busy: &str) {
        let jobs = leases
            .iter()
            .map(|lease| JobProgress {
                lease: *lease,
                stage: JobStage::Running,
                phase: "a".to_owned(),
                round: 1,
                rounds: 0,
                operations: 5,
                done: 0.5,
                left_ms: 0,
                rss_anon_bytes: 1 << 20,
            })
            .collect();
        let busy = busy.to_owned();
        self.say(AgentMessage::Heartbeat(Heartbeat { sent_at_unix_us: 7, jobs, busy })).await;
        match self.next().await.unwrap() {
            CoordinatorMessage::HeartbeatAnswer(answer) => assert_eq!(answer.sent_at_unix_us, 7),
            other => panic!("not the answer to a heartbeat: {other:?}"),
        }
    }
}

pub fn held(lease: Lease, last_sequence: u64) -> HeldJob {
    HeldJob { lease, last_sequence, is_running: true }
}

/// Frames `first ..= last`: the first of an attempt says that it started, the others that nothing was read.
pub fn frames(first: u64, last: u64) -> Vec<Frame> {
    (first..=last)
        .map(|sequence| {
            let body = if sequence == 1 {
                Body::Started(AttemptStarted {
                    started_at_unix_us: 1,
                    host: "h".to_owned(),
                    kernel: "6.1".to_owned(),
                    cores: 2,
                    memory_bytes: 1 << 30,
                    postgres_version: "PostgreSQL 18.4".to_owned(),
                    sample_every_ms: 1_000,
                    ..AttemptStarted::default()
                })
            } else {
                Body::Gap(Gap { first_tick: sequence, ticks: 1, cause: "script".to_owned() })
            };
            Frame { sequence, elapsed: Duration::from_millis(sequence), body }
        })
        .collect()
}

/// The last frame.
pub fn ended(sequence: u64, outcome: Outcome, reason: &str) -> Frame {
    let body = Body::Ended(AttemptEnded {
        outcome,
        reason: reason.to_owned(),
        server_log_tail: String::new(),
        ticks: sequence,
        ticks_sampled: 0,
        sampler_cpu_us: 1,
        process_samples: 0,
        runner_cpu_us: 1,
        runner_peak_rss_bytes: 1,
        statement: String::new(),
        sqlstate: String::new(),
    });
    Frame { sequence, elapsed: Duration::from_millis(sequence), body }
}
