//! What a coordinator needs to know to start.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// Checked settings of one coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinatorConfig {
    /// Catalogue, runs and artifacts. One coordinator at a time: it is locked.
    pub data_dir: PathBuf,
    /// TCP address; port 0 takes a free one; `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// Unix socket beside it; `None`: none.
    pub socket: Option<PathBuf>,
    /// How often agents send a heartbeat.
    pub heartbeat_every: Duration,
    /// Silence after which an agent counts as unreachable.
    pub lease_ttl: Duration,
    /// Where pages, metrics and health are (HTTP).
    pub http: HttpListen,
    /// Who is told of what.
    pub notify: NotifyConfig,
    /// Who may come in over TCP; empty: everybody, as on a host of one's own.
    pub tokens: Vec<Token>,
    /// The health check of agents; `None`: none.
    pub canary: Option<CanaryPlan>,
    /// Where raw files of runs that are over move to, as a URL; empty: they stay in the data folder.
    pub artifacts_url: String,
    /// What is kept of runs that are over, and how.
    pub keep: KeepConfig,
}

/// Runs that are over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeepConfig {
    /// Evidence of a run that is over for so long is packed.
    pub seal_after: Duration,
    /// Runs that are over for longer are removed. As below: `None` is no limit, and pinned runs and baselines stay.
    pub max_age: Option<Duration>,
    /// Runs at most.
    pub max_runs: Option<usize>,
    /// Of evidence and raw files of all runs.
    pub max_bytes: Option<u64>,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            seal_after: Duration::from_secs(3_600),
            max_age: None,
            max_runs: None,
            max_bytes: None,
        }
    }
}

/// Messages to people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotifyConfig {
    /// Who is told.
    pub targets: Vec<Target>,
    /// Where the pages are, for links: `http://HOST:PORT` without a slash at its end.
    pub link_base: String,
    /// An agent that was not heard for so long is worth a message; zero: never.
    pub agent_lost_after: Duration,
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Chosen by people; messages that wait are kept by it.
    pub name: String,
    /// Of what: the labels of `domain::notice::NoticeKind`.
    pub on: Vec<String>,
    /// How.
    pub channel: Channel,
}

/// How a message travels.
#[derive(Clone, Debug, PartialEq)]
pub enum Channel {
    /// HTTP POST.
    Webhook(Webhook),
    /// SMTP.
    Mail(Mail),
}

/// An HTTP receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// `http://` or `https://`.
    pub url: String,
    /// The body's form.
    pub format: Format,
    /// Key of the signature; `None`: not signed.
    pub secret: Option<Secret>,
}

/// The form of a webhook's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Our own fields.
    Json,
    /// As Slack and its likes take it.
    Slack,
}

/// A mail server and who gets mail by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept private.
    pub security: Security,
    /// User and password; `None`: no login.
    pub login: Option<(String, Secret)>,
    /// `Name <address>` or an address.
    pub from: String,
    /// At least one.
    pub to: Vec<String>,
}

/// How a connection to a mail server is kept private.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Security {
    /// Not at all: for a server on the same host.
    None,
    /// Begins in the clear, and goes on only when TLS is offered.
    StartTls,
    /// TLS from the beginning.
    Tls,
}

/// A text that is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl Channel ===

impl Channel {
    /// The word for it.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Mail(_) => "mail",
        }
    }
}

/// A secret that lets somebody in.
#[derive(Clone, PartialEq)]
pub struct Token {
    /// For logs.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// At least 16 characters.
    pub secret: String,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Agents, which wait for `agents approve`.
    Agent,
    /// Agents, which join at once.
    ApprovedAgent,
    /// People and programs that ask.
    Client,
}

/// A plan whose verdict must be `pass`, run on every agent from time to time.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryPlan {
    /// How often, for each agent.
    pub every: Duration,
    /// The plan's whole file.
    pub plan_toml: String,
    /// The workloads' whole files, by the name that the plan uses.
    pub workloads: BTreeMap<String, String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, role, .. } = self;
        f.debug_struct("Token").field("name", name).field("role", role).finish_non_exhaustive()
    }
}

/// Where the HTTP listener is; port 0 takes a free one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpListen {
    /// Nowhere: no pages, no metrics, no health.
    Off,
    /// Here, if the address is free: a second coordinator on a host starts without pages, and says so.
    IfFree(SocketAddr),
    /// Here, or the coordinator does not start.
    At(SocketAddr),
}

// === impl CoordinatorConfig ===

impl CoordinatorConfig {
    /// The usual settings on a data folder; listens nowhere.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: None,
            socket: None,
            heartbeat_every: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(30),
            http: HttpListen::Off,
            notify: NotifyConfig::default(),
            tokens: Vec::new(),
            canary: None,
            artifacts_url: String::new(),
            keep: KeepConfig::default(),
        }
    }
}
