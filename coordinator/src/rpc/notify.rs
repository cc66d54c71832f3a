//! `Notify`: test messages, and what waits in the outbox.

use crate::domain::notice::{Notice, NoticeId, NoticeKind, says};
use crate::notify;
use crate::rpc::server::Services;
use crate::rpc::status::OrStatus as _;
use pgsoak_proto::wire;
use pgsoak_proto::wire::notify_server::Notify;
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone, Debug)]
pub struct NotifyService {
    services: Services,
}

impl NotifyService {
    pub(super) const fn new(services: Services) -> Self {
        Self { services }
    }
}

#[tonic::async_trait]
impl Notify for NotifyService {
    async fn test_targets(
        &self,
        request: Request<wire::TestTargetsRequest>,
    ) -> Result<Response<wire::TestTargetsResponse>, Status> {
        let wanted = request.into_inner().target;
        let config = Arc::clone(&self.services.targets.borrow());
        let chosen: Vec<_> = config
            .targets
            .iter()
            .filter(|target| wanted.is_empty() || target.name == wanted)
            .collect();
        if chosen.is_empty() {
            let known: Vec<_> = config.targets.iter().map(|target| target.name.as_str()).collect();
            return Err(Status::failed_precondition(match known.is_empty() {
                true => "nobody is told of anything: the coordinator's settings have neither [webhook.NAME] nor [mail.NAME]"
                    .to_owned(),
                false => format!("there is no target '{wanted}'; known: {}", known.join(", ")),
            }));
        }
        let at = self.services.engine.now();
        let lines = vec![
            "This is a test; nothing happened.".to_owned(),
            "Messages about runs look like this: what it came to, what matters most, how the jobs ended.".to_owned(),
        ];
        let notice = Notice {
            id: NoticeId(at.0),
            at,
            says: says(NoticeKind::Test, "Test message of pgsoak", lines, None),
            waiting: BTreeMap::new(),
        };
        let sending = chosen.iter().map(|target| notify::send(&config, target, &notice));
        let results = futures_util::future::join_all(sending).await;
        let targets = chosen
            .iter()
            .zip(results)
            .map(|(target, result)| wire::TestedTarget {
                target: target.name.clone(),
                channel: target.channel.label().to_owned(),
                problem: result.err().unwrap_or_default(),
            })
            .collect();
        Ok(Response::new(wire::TestTargetsResponse { targets }))
    }

    async fn list_waiting(
        &self,
        _request: Request<wire::ListWaitingRequest>,
    ) -> Result<Response<wire::ListWaitingResponse>, Status> {
        let waiting = self.services.store.notices().await.or_status()?;
        let messages = waiting
            .into_iter()
            .map(|notice| wire::WaitingMessage {
                id: notice.id.0,
                kind: notice.says.kind.label().to_owned(),
                title: notice.says.title,
                lines: notice.says.lines,
                targets: notice
                    .waiting
                    .into_iter()
                    .map(|(target, waiting)| wire::WaitingTarget {
                        target,
                        tries: waiting.tries,
                        next_at_unix_us: waiting.next_at.0,
                        problem: waiting.problem,
                    })
                    .collect(),
            })
            .collect();
        Ok(Response::new(wire::ListWaitingResponse { messages }))
    }
}
