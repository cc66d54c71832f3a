//! A relay between agents and the coordinator that says messages twice, late and in another order. TCP never does; whoever stands
//! between (proxies that replay, streams that are opened again) may, and every call may come twice.

use crate::dice::Dice;
use crate::wire::{channel, incoming};
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body as Up;
use pgsoak_proto::wire::coordinator_message::Body as Down;
use pgsoak_proto::wire::fleet_client::FleetClient;
use pgsoak_proto::wire::fleet_server::{Fleet, FleetServer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages that may be said again later.
const REMEMBERED: usize = 12;
const QUEUE: usize = 64;

/// What passed: the highest acknowledgement of each attempt (job, attempt).
pub type Acknowledged = Arc<Mutex<BTreeMap<(String, u32), u64>>>;

/// The relay's service.
pub struct Relay {
    dice: Mutex<Dice>,
    acknowledged: Acknowledged,
}

/// Serves on this host until it is ended.
pub async fn serve(dice: Dice, acknowledged: Acknowledged) -> turmoil::Result {
    let relay = FleetServer::new(Relay { dice: Mutex::new(dice), acknowledged })
        .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
    let incoming = incoming().await;
    tonic::transport::Server::builder().add_service(relay).serve_with_incoming(incoming).await?;
    Ok(())
}

#[tonic::async_trait]
impl Fleet for Relay {
    type SessionStream = ReceiverStream<Result<wire::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut from_agent = request.into_inner();
        let (up, to_coordinator) = mpsc::channel(QUEUE);
        let (down, to_agent) = mpsc::channel(QUEUE);
        let (mut dice_up, mut dice_down) = {
            let mut dice = self.dice.lock().unwrap();
            (dice.fork(), dice.fork())
        };
        let acknowledged = Arc::clone(&self.acknowledged);
        tokio::spawn(async move {
            let opened = async {
                let channel = channel("coordinator")
                    .await
                    .map_err(|error| Status::unavailable(error.to_string()))?;
                let mut client = FleetClient::new(channel)
                    .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
                client.session(ReceiverStream::new(to_coordinator)).await.map(Response::into_inner)
            };
            let mut from_coordinator = match opened.await {
                Ok(opened) => opened,
                Err(status) => {
                    let _ = down.send(Err(status)).await;
                    return;
                }
            };
            let upwards = async {
                let mut said: VecDeque<wire::AgentMessage> = VecDeque::new();
                let mut held = None;
                while let Ok(Some(message)) = from_agent.message().await {
                    // Said once and first, by the contract.
                    let is_hello = matches!(message.body, Some(Up::Hello(_)));
                    if !is_hello && held.is_none() && dice_up.one_in(40) {
                        held = Some(message);
                        continue;
                    }
                    let mut next = vec![message.clone()];
                    next.extend(held.take());
                    if !is_hello {
                        if dice_up.one_in(25) {
                            next.push(message.clone());
                        }
                        said.push_back(message);
                        if said.len() > REMEMBERED {
                            said.pop_front();
                        }
                        if dice_up.one_in(40) {
                            let again = usize::try_from(dice_up.below(said.len() as u64)).unwrap();
                            next.extend(said.get(again).cloned());
                        }
                    }
                    for message in next {
                        if up.send(message).await.is_err() {
                            return;
                        }
                    }
                }
            };
            let downwards = async {
                let mut held = None;
                loop {
                    let message = match from_coordinator.message().await {
                        Ok(Some(message)) => message,
                        Ok(None) => return,
                        Err(status) => {
                            let _ = down.send(Err(status)).await;
                            return;
                        }
                    };
                    if let Some(Down::EvidenceAcknowledged(mark)) = &message.body
                        && let Some(lease) = &mark.lease
                    {
                        let mut known = acknowledged.lock().unwrap();
                        let highest =
                            known.entry((lease.job_id.clone(), lease.attempt)).or_default();
                        *highest = mark.sequence.max(*highest);
                    }
                    let is_welcome = matches!(message.body, Some(Down::Welcome(_)));
                    if !is_welcome && held.is_none() && dice_down.one_in(40) {
                        held = Some(message);
                        continue;
                    }
                    let mut next = vec![message.clone()];
                    next.extend(held.take());
                    if !is_welcome && dice_down.one_in(25) {
                        next.push(message);
                    }
                    for message in next {
                        if down.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = upwards => {}
                () = downwards => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}
