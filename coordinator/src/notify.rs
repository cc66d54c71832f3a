//! Sends what the engine queued for people: webhooks and mail. One task owns the outbox; nothing here touches a run.
//!
//! A message stands in the catalogue until each target has it (`store::notices`). Each target is served by itself, oldest message
//! first and one at a time, so that a dead server neither holds up the others nor is asked by every message that waits for it.
//! What was delivered is recorded before the next message goes out. Only a kill between the server's answer and that record can
//! make a message go out twice; it has the same number then.

mod mail;
mod webhook;

use crate::config::{Channel, NotifyConfig, Target};
use crate::decide::retry::{self, Next};
use crate::domain::notice::{Notice, Says};
use crate::engine::handle::EngineHandle;
use crate::metrics::{DeliveryLabel, Metrics};
use crate::store::catalogue::Batch;
use crate::store::{Store, StoreError};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// One delivery may take so long: less than a shutdown waits.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks when nothing is due earlier.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After the outbox could not be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Who is told, as it may change while the coordinator works.
pub type Targets = watch::Receiver<Arc<NotifyConfig>>;

/// What came of a delivery.
struct Delivered {
    notice: Notice,
    target: String,
    channel: &'static str,
    result: Result<(), String>,
}

struct Outbox {
    engine: EngineHandle,
    store: Store,
    metrics: Metrics,
    targets: Targets,
    under_way: JoinSet<Delivered>,
    /// Targets with a delivery under way.
    busy: BTreeSet<String>,
}

/// Serves the outbox until the shutdown; deliveries that are under way then are waited for and recorded.
pub async fn run(
    engine: EngineHandle,
    store: Store,
    targets: Targets,
    shutdown: CancellationToken,
) {
    let metrics = engine.metrics.clone();
    let outbox = Outbox {
        engine,
        store,
        metrics,
        targets,
        under_way: JoinSet::new(),
        busy: BTreeSet::new(),
    };
    outbox.run(shutdown).await;
}

/// Sends a message to a target at once.
///
/// # Errors
///
/// What went wrong, for people; never names a secret.
pub async fn send(config: &NotifyConfig, target: &Target, notice: &Notice) -> Result<(), String> {
    let link = notice.says.run.map(|run| format!("{}/runs/{run}", config.link_base));
    let sending = async {
        match &target.channel {
            Channel::Webhook(webhook) => webhook::send(webhook, notice, link.as_deref()).await,
            Channel::Mail(mail) => mail::send(mail, notice, link.as_deref()).await,
        }
    };
    match timeout(PATIENCE, sending).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// A message as plain lines.
fn text(says: &Says, link: Option<&str>) -> String {
    let mut text = says.title.clone();
    for line in says.lines.iter().map(String::as_str).chain(link) {
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// An error with its causes, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    pgsoak_proto::chain::chain(error)
}

// === impl Outbox ===

impl Outbox {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let pause = match self.start_due().await {
                Ok(pause) => pause,
                Err(error) => {
                    warn!(error = causes(&error), "the outbox cannot be read");
                    STORE_PAUSE
                }
            };
            let queued = self.engine.has_notices.clone();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = self.under_way.join_next() => match done {
                    Ok(done) => self.record(done).await,
                    Err(error) => {
                        error!(%error, "a delivery broke off");
                        self.busy.clear();
                    }
                },
                () = queued.notified() => {}
                changed = self.targets.changed() => if changed.is_err() { break },
                () = sleep(pause) => {}
            }
        }
        while let Some(done) = self.under_way.join_next().await {
            if let Ok(done) = done {
                self.record(done).await;
            }
        }
    }

    /// Starts the oldest message that is due for each target that has none under way; how long until the next is due.
    async fn start_due(&mut self) -> Result<Duration, StoreError> {
        let config = Arc::clone(&self.targets.borrow_and_update());
        let now = self.engine.now();
        let mut pause = LOOK_EVERY;
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for notice in self.store.notices().await? {
            for (name, waiting) in &notice.waiting {
                // Only the oldest of a target: order is kept, and a server that is down is asked once.
                if !seen.insert(name.clone()) || self.busy.contains(name) {
                    continue;
                }
                let Some(target) = config.targets.iter().find(|target| target.name == *name) else {
                    // It may come back with the next settings; the message grows old until then.
                    if now.since(notice.at) >= retry::GIVE_UP_AFTER {
                        self.forget(&notice, name).await?;
                    }
                    seen.remove(name);
                    continue;
                };
                if waiting.next_at > now {
                    pause = pause.min(waiting.next_at.since(now));
                    continue;
                }
                self.busy.insert(name.clone());
                let (config, target, notice) =
                    (Arc::clone(&config), target.clone(), notice.clone());
                self.under_way.spawn(async move {
                    let result = send(&config, &target, &notice).await;
                    let channel = target.channel.label();
                    Delivered { notice, target: target.name, channel, result }
                });
            }
        }
        Ok(pause.max(Duration::from_millis(10)))
    }

    /// Writes down what came of a delivery; tries again until that is durable.
    async fn record(&mut self, done: Delivered) {
        let Delivered { notice, target, channel, result } = done;
        let id = notice.id;
        let (label, next) = match result {
            Ok(()) => {
                info!(id = id.0, target, title = notice.says.title, "a message was delivered");
                ("delivered", None)
            }
            Err(problem) => {
                match retry::after(&notice, &target, problem.clone(), self.engine.now()) {
                    Next::Retry(waiting) => {
                        warn!(
                            id = id.0,
                            target,
                            problem,
                            tries = waiting.tries,
                            "a message was not delivered; once more later"
                        );
                        ("retried", Some(waiting))
                    }
                    Next::GiveUp => {
                        error!(
                            id = id.0,
                            target,
                            problem,
                            title = notice.says.title,
                            "a message is given up"
                        );
                        ("given_up", None)
                    }
                }
            }
        };
        self.metrics.messages.get_or_create(&DeliveryLabel { channel, result: label }).inc();
        loop {
            // Others of the same message may have been recorded meanwhile.
            let written = match self.current(&notice).await {
                Ok(None) => Ok(()),
                Ok(Some(mut current)) => {
                    match next.clone() {
                        Some(waiting) => drop(current.waiting.insert(target.clone(), waiting)),
                        None => drop(current.waiting.remove(&target)),
                    }
                    self.write(&current).await
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(()) | Err(StoreError::Closed) => break,
                Err(error) => {
                    error!(error = causes(&error), "the outbox cannot be written");
                    sleep(STORE_PAUSE).await;
                }
            }
        }
        self.busy.remove(&target);
    }

    async fn current(&self, notice: &Notice) -> Result<Option<Notice>, StoreError> {
        Ok(self.store.notices().await?.into_iter().find(|stored| stored.id == notice.id))
    }

    async fn forget(&self, notice: &Notice, target: &str) -> Result<(), StoreError> {
        if let Some(mut current) = self.current(notice).await? {
            current.waiting.remove(target);
            self.write(&current).await?;
        }
        Ok(())
    }

    async fn write(&self, notice: &Notice) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        if notice.waiting.is_empty() {
            batch.notice_done(notice.id);
        } else {
            batch.notice(notice);
        }
        self.store.commit(batch).await
    }
}
