//! Who may ask: a layer around every service that wants a token of the right kind in `authorization: Bearer SECRET`.
//!
//! Everything that is not an agent's session is for clients, so a service that is added later is never open by oversight; agents
//! may also fetch the packages of their jobs, and only `grpc.health.v1` is for everybody. Where no tokens are configured, and on the Unix socket, all may ask.

use crate::config::{Role, Token};
use crate::engine::fleet::Join;
use futures_util::future::{Either, Ready, ready};
use pgsoak_proto::wire::fleet_server::FleetServer;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::server::NamedService;
use tower::{Layer, Service};
use tracing::warn;

const HEALTH: &str = "/grpc.health.v1.Health/";
/// What agents ask beside their session.
const FOR_BOTH: [&str; 2] = ["/pgsoak.v1.Builds/Pinned", "/pgsoak.v1.Builds/Fetch"];

/// Whom a method is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Door {
    Agents,
    Both,
    Clients,
}

/// The layer. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct AuthLayer {
    /// `None`: everybody may ask.
    tokens: Option<Arc<[Known]>>,
}

/// A token, without its secret.
#[derive(Clone, Debug)]
struct Known {
    role: Role,
    digest: [u8; 32],
}

/// The service inside it.
#[derive(Clone, Debug)]
pub struct Auth<S> {
    layer: AuthLayer,
    inner: S,
}

// === impl AuthLayer ===

impl AuthLayer {
    /// Everybody may ask.
    pub(super) fn open() -> Self {
        Self { tokens: None }
    }

    /// Whoever has one of these.
    pub(super) fn new(tokens: &[Token]) -> Self {
        let known: Arc<[Known]> = tokens
            .iter()
            .map(|token| Known { role: token.role, digest: digest(token.secret.as_bytes()) })
            .collect();
        Self { tokens: (!known.is_empty()).then_some(known) }
    }

    /// Lets a request in, as an agent that joins so; or says why not.
    fn admit(&self, path: &str, authorization: Option<&[u8]>) -> Result<Join, Status> {
        let Some(tokens) = &self.tokens else { return Ok(Join::Open) };
        if path.starts_with(HEALTH) {
            return Ok(Join::Ask);
        }
        let door = Door::of(path);
        let Some(secret) = authorization.and_then(|text| text.strip_prefix(b"Bearer ")) else {
            let how = match door {
                Door::Agents => "set `token_file` (PGSOAK_TOKEN_FILE) of the agent",
                Door::Both | Door::Clients => "set PGSOAK_TOKEN, or use its Unix socket",
            };
            return Err(Status::unauthenticated(format!(
                "this coordinator asks for a token: {how}"
            )));
        };
        let given = digest(secret);
        // Digests are compared, so how long it takes says nothing about the secret.
        let Some(Known { role, .. }) = tokens.iter().find(|known| known.digest == given) else {
            return Err(Status::unauthenticated("the token is not one of this coordinator's"));
        };
        match (role, door) {
            (Role::ApprovedAgent, Door::Agents | Door::Both) => Ok(Join::AtOnce),
            (Role::Agent, Door::Agents | Door::Both)
            | (Role::Client, Door::Both | Door::Clients) => Ok(Join::Ask),
            (Role::Client, Door::Agents) => {
                Err(Status::permission_denied("the token is one for clients, not for agents"))
            }
            (Role::Agent | Role::ApprovedAgent, Door::Clients) => {
                Err(Status::permission_denied("the token is one for agents, not for clients"))
            }
        }
    }
}

// === impl Door ===

impl Door {
    fn of(path: &str) -> Self {
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let session = <FleetServer<super::fleet::FleetService> as NamedService>::NAME;
        match service {
            Some((service, _)) if service == session => Self::Agents,
            _ if FOR_BOTH.contains(&path) => Self::Both,
            _ => Self::Clients,
        }
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret.trim_ascii()).into()
}

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Auth { layer: self.clone(), inner }
    }
}

// === impl Auth ===

impl<S, B, R> Service<Request<B>> for Auth<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let authorization = request.headers().get("authorization").map(HeaderValue::as_bytes);
        match self.layer.admit(request.uri().path(), authorization) {
            Ok(join) => {
                request.extensions_mut().insert(join);
                Either::Right(self.inner.call(request))
            }
            Err(status) => {
                warn!(path = request.uri().path(), %status, "a request was refused");
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn token(role: Role, secret: &str) -> Token {
        Token { name: "t".to_owned(), role, secret: secret.to_owned() }
    }

    #[test]
    fn each_token_opens_its_own_door() {
        let layer = AuthLayer::new(&[
            token(Role::Agent, "aaaa"),
            token(Role::ApprovedAgent, "bbbb"),
            token(Role::Client, "cccc"),
        ]);
        let session = "/pgsoak.v1.Fleet/Session";
        let code = |path: &str, bearer: Option<&str>| {
            let bearer = bearer.map(|secret| format!("Bearer {secret}"));
            layer.admit(path, bearer.as_ref().map(String::as_bytes)).map_err(|s| s.code())
        };
        assert_eq!(code(session, Some("aaaa")), Ok(Join::Ask));
        assert_eq!(code(session, Some("bbbb")), Ok(Join::AtOnce));
        assert_eq!(code(session, Some("cccc")), Err(Code::PermissionDenied));
        assert_eq!(code(session, Some("dddd")), Err(Code::Unauthenticated));
        assert_eq!(code(session, None), Err(Code::Unauthenticated));
        for path in ["/pgsoak.v1.Control/SubmitRun", "/pgsoak.v1.Newer/Thing", "/"] {
            assert!(code(path, Some("cccc")).is_ok());
            assert_eq!(code(path, Some("aaaa")), Err(Code::PermissionDenied));
            assert_eq!(code(path, None), Err(Code::Unauthenticated));
        }
        for path in FOR_BOTH {
            let known = [Some("aaaa"), Some("bbbb"), Some("cccc")];
            assert!(known.iter().all(|secret| code(path, *secret).is_ok()));
            assert_eq!(code(path, None), Err(Code::Unauthenticated));
        }
        assert_eq!(code("/pgsoak.v1.Builds/Push", Some("bbbb")), Err(Code::PermissionDenied));
        assert!(code("/grpc.health.v1.Health/Check", None).is_ok());
        assert_eq!(AuthLayer::open().admit(session, None).unwrap(), Join::Open);
        assert_eq!(AuthLayer::new(&[]).admit(session, None).unwrap(), Join::Open);
    }
}
