//! Opens the channel to a coordinator.

use crate::exit::Coded;
use pgsoak_proto::{
    MAX_MESSAGE_BYTES,
    wire::{
        builds_client::BuildsClient, bundles_client::BundlesClient, control_client::ControlClient,
        fleet_admin_client::FleetAdminClient, history_client::HistoryClient,
        schedules_client::SchedulesClient,
    },
};
use std::time::Duration;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Endpoint},
};

/// A connection whose requests carry the token of `PGSOAK_TOKEN`, if there is one.
pub type Channel = InterceptedService<transport::Channel, Bearer>;

/// What verbs call the coordinator through.
pub type Control = ControlClient<Channel>;

/// Adds the token to every request.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Bearer {
    fn of_environment() -> anyhow::Result<Self> {
        let Ok(token) = std::env::var("PGSOAK_TOKEN") else { return Ok(Self(None)) };
        let token = token.trim();
        if token.is_empty() {
            return Ok(Self(None));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Coded::usage("PGSOAK_TOKEN has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

/// Connects. `url` is `http://HOST:PORT` or `unix:PATH`.
///
/// # Errors
///
/// A malformed URL is wrong usage; nobody listening is "unreachable".
pub async fn connect(url: &str) -> anyhow::Result<Control> {
    channel(url).await.map(control)
}

/// The client of `Control` on a channel.
pub fn control(channel: Channel) -> Control {
    ControlClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The client of `History` on a channel.
pub fn history(channel: Channel) -> HistoryClient<Channel> {
    HistoryClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The client of `FleetAdmin` on a channel.
pub fn fleet_admin(channel: Channel) -> FleetAdminClient<Channel> {
    FleetAdminClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The client of `Schedules` on a channel.
pub fn schedules(channel: Channel) -> SchedulesClient<Channel> {
    SchedulesClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The client of `Bundles` on a channel.
pub fn bundles(channel: Channel) -> BundlesClient<Channel> {
    BundlesClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The client of `Builds` on a channel.
pub fn builds(channel: Channel) -> BuildsClient<Channel> {
    BuildsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A connection, for every service. `url` is `http://HOST:PORT` or `unix:PATH`.
///
/// # Errors
///
/// A malformed URL is wrong usage; nobody listening is "unreachable".
pub async fn channel(url: &str) -> anyhow::Result<Channel> {
    if !url.starts_with("unix:") && !url.starts_with("http://") {
        return Err(Coded::usage(format!(
            "coordinator '{url}' is neither http://HOST:PORT nor unix:PATH"
        ))
        .into());
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Coded::usage(format!("coordinator '{url}': {error}")))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|error| {
        Coded::unreachable(format!(
            "no coordinator answers at {url} ({}); start one with `pgsoak coordinator`, name another with --coordinator, or read the folder of `pgsoak run` with --data-dir",
            innermost(&error)
        ))
    })?;
    Ok(InterceptedService::new(channel, Bearer::of_environment()?))
}

/// A gRPC status as an error for people, with its exit code.
pub fn explain(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => {
            Coded::usage(status.message().to_owned()).into()
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            Coded::usage(format!("the coordinator refuses: {}", status.message())).into()
        }
        Code::Unavailable => {
            Coded::unreachable(format!("the coordinator is gone: {}", status.message())).into()
        }
        code => anyhow::anyhow!("the coordinator says {code:?}: {}", status.message()),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
