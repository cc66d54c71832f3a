//! People: submit plans and cancel runs over the same network, ask again until they are answered, and then once more.

use crate::script::WORKLOAD;
use crate::wire::channel;
use pgsoak_proto::wire::control_client::ControlClient;
use pgsoak_proto::wire::{CancelRunRequest, SubmitRunRequest, WorkloadFile};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Status;

/// Between two tries, and longest wait for an answer.
const PAUSE: Duration = Duration::from_secs(20);

/// What somebody wants.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A run of this plan under a key.
    Submit {
        /// The client key.
        key: String,
        /// The plan's text.
        plan: String,
    },
    /// The end of the run of a key.
    Cancel {
        /// The client key that it was submitted with.
        key: String,
    },
}

/// What people want and what they were told.
#[derive(Debug, Default)]
pub struct Desk {
    /// Not yet taken up.
    pub wishes: VecDeque<Wish>,
    /// Runs by key, as they were answered.
    pub runs: BTreeMap<String, String>,
    /// Keys whose runs somebody asked to cancel, answered or not.
    pub cancelled: BTreeSet<String>,
    /// Wishes that are being asked for.
    pub open: usize,
}

/// Serves the desk on this host, one task a wish.
pub async fn work(desk: Arc<Mutex<Desk>>) -> turmoil::Result {
    let mut asking = tokio::task::JoinSet::new();
    loop {
        while let Some(asked) = asking.try_join_next() {
            asked?;
        }
        let wish = {
            let mut desk = desk.lock().unwrap();
            let wish = desk.wishes.pop_front();
            desk.open += usize::from(wish.is_some());
            wish
        };
        if let Some(wish) = wish {
            let desk = Arc::clone(&desk);
            asking.spawn(async move {
                ask(&desk, wish).await;
                desk.lock().unwrap().open -= 1;
            });
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn ask(desk: &Mutex<Desk>, wish: Wish) {
    match wish {
        Wish::Submit { key, plan } => {
            // The second time as if the first had never been answered.
            for _ in 0..2 {
                let run = until_answered(|| submit(&key, &plan)).await;
                let mut desk = desk.lock().unwrap();
                let known = desk.runs.entry(key.clone()).or_insert_with(|| run.clone());
                assert_eq!(*known, run, "one key gave two runs");
            }
        }
        Wish::Cancel { key } => {
            let run = loop {
                if let Some(run) = desk.lock().unwrap().runs.get(&key).cloned() {
                    break run;
                }
                tokio::time::sleep(PAUSE).await;
            };
            for _ in 0..2 {
                until_answered(|| cancel(&run)).await;
            }
        }
    }
}

async fn until_answered<T, F: Future<Output = Result<T, Status>>>(
    mut request: impl FnMut() -> F,
) -> T {
    loop {
        match tokio::time::timeout(PAUSE, request()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(status)) => {
                let is_refused =
                    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::NotFound);
                assert!(!is_refused, "people are told {status}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn client() -> Result<ControlClient<tonic::transport::Channel>, Status> {
    let channel =
        channel("coordinator").await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(ControlClient::new(channel))
}

async fn submit(key: &str, plan: &str) -> Result<String, Status> {
    let request = SubmitRunRequest {
        plan_toml: plan.to_owned(),
        workloads: vec![WorkloadFile { name: "w".to_owned(), toml: WORKLOAD.to_owned() }],
        client_key: key.to_owned(),
        ..SubmitRunRequest::default()
    };
    Ok(client().await?.submit_run(request).await?.into_inner().run_id)
}

async fn cancel(run: &str) -> Result<(), Status> {
    let request = CancelRunRequest { run_id: run.to_owned(), reason: "by hand".to_owned() };
    client().await?.cancel_run(request).await?;
    Ok(())
}
