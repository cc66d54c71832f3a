//! `FleetAdmin`: where agents stand, and what people decide about them.

use crate::domain::fleet::{Admission, FleetRecord};
use crate::engine::fleet::{AgentOrder, AgentRefused, FleetMember, VERSION};
use crate::rpc::server::Services;
use crate::rpc::status::{IntoStatus, OrStatus as _, cut};
use crate::rpc::view;
use pgsoak_proto::wire;
use pgsoak_proto::wire::fleet_admin_server::FleetAdmin;
use tonic::{Request, Response, Status};

/// Longest reason or note, in bytes.
const MAX_TEXT: usize = 2_000;

/// The service.
#[derive(Clone, Debug)]
pub struct FleetAdminService {
    services: Services,
}

impl IntoStatus for AgentRefused {
    fn into_status(self) -> Status {
        let text = cut(&self.to_string());
        match self {
            Self::Unknown(_) => Status::not_found(text),
            Self::Connected(_) | Self::Holds { .. } => Status::failed_precondition(text),
        }
    }
}

// === impl FleetAdminService ===

impl FleetAdminService {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    async fn members(
        &self,
        fits: impl Fn(&FleetMember) -> bool,
    ) -> Result<Response<wire::ListFleetResponse>, Status> {
        let fleet = self.services.engine.fleet().await.or_status()?;
        let members = fleet.into_iter().filter(|member| fits(member)).map(member).collect();
        let coordinator_version = VERSION.to_owned();
        Ok(Response::new(wire::ListFleetResponse { members, coordinator_version }))
    }
}

fn member(member: FleetMember) -> wire::FleetMember {
    let FleetMember { status, fleet, standing, health, closed } = member;
    let FleetRecord { admission, note, canary, .. } = fleet;
    let checked_at = canary.as_ref().and_then(|canary| canary.ended.as_ref()).map(|ended| ended.0);
    wire::FleetMember {
        agent: Some(view::agent(status)),
        standing: standing.label().to_owned(),
        health: health.label().to_owned(),
        closed,
        note,
        admitted_by: match admission {
            Admission::Waiting { .. } => String::new(),
            Admission::Approved { by, .. } => by,
        },
        checked_at_unix_us: checked_at.map_or(0, |at| at.0),
        check_run_id: canary.map(|canary| canary.run.to_string()).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl FleetAdmin for FleetAdminService {
    async fn list_fleet(
        &self,
        _: Request<wire::ListFleetRequest>,
    ) -> Result<Response<wire::ListFleetResponse>, Status> {
        self.members(|_| true).await
    }

    async fn order_agent(
        &self,
        request: Request<wire::OrderAgentRequest>,
    ) -> Result<Response<wire::ListFleetResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.order();
        let wire::OrderAgentRequest { name, text, .. } = request;
        if text.len() > MAX_TEXT {
            return Err(Status::invalid_argument(format!(
                "the text has {} bytes; at most {MAX_TEXT} are kept",
                text.len()
            )));
        }
        let text = text.trim().to_owned();
        let order = match wanted {
            wire::AgentOrder::Unspecified => {
                return Err(Status::invalid_argument("order is missing"));
            }
            wire::AgentOrder::Approve => AgentOrder::Approve,
            wire::AgentOrder::Drain => AgentOrder::Drain(text),
            wire::AgentOrder::Resume => AgentOrder::Resume,
            wire::AgentOrder::Remove => AgentOrder::Remove,
            wire::AgentOrder::Note => AgentOrder::Note(text),
        };
        self.services.engine.order_agent(name.clone(), order).await.or_status()?.or_status()?;
        self.members(|member| {
            member.status.record.name == name || member.status.record.agent.to_string() == name
        })
        .await
    }
}
