//! Queues messages to people in the same write as what they are about: none is lost, and none is made twice.
//!
//! Something that lasts (a known finding, an agent that is away) is a *condition*: it is said when it begins, and remembered.

use crate::config::{CoordinatorConfig, NotifyConfig};
use crate::domain::alert::{Alert, AlertKind};
use crate::domain::notice::{self, Notice, NoticeId, NoticeKind, Says, Waiting};
use crate::domain::time::UnixUs;
use crate::engine::state::State;
use pgsoak_analysis::result::RunResult;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tracing::{info, warn};

/// Who wants to hear of what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Audience {
    /// By the target's name.
    pub targets: BTreeMap<String, BTreeSet<NoticeKind>>,
    /// An agent that was not heard for so long is worth a message.
    pub agent_lost_after: Duration,
}

/// What the engine remembers of messages.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    pub(crate) audience: Audience,
    /// Conditions that were said.
    pub(crate) conditions: BTreeSet<String>,
    /// The number of the last message.
    pub(crate) last: u64,
}

impl Notices {
    pub(crate) fn new(config: &CoordinatorConfig) -> Self {
        Self { audience: Audience::of(&config.notify), ..Self::default() }
    }
}

// === impl Audience ===

impl Audience {
    /// As the settings want it.
    pub fn of(config: &NotifyConfig) -> Self {
        let targets = config
            .targets
            .iter()
            .map(|target| {
                let wants = |kind: &NoticeKind| target.on.iter().any(|on| on == kind.label());
                (target.name.clone(), NoticeKind::CHOICE.into_iter().filter(wants).collect())
            })
            .collect();
        Self { targets, agent_lost_after: config.agent_lost_after }
    }
}

impl State {
    /// Queues a message for everybody who wants to hear of its kind.
    pub(crate) fn tell_people(&mut self, says: Says) {
        let wanted = self.notices.audience.targets.iter();
        let waiting: BTreeMap<String, Waiting> = wanted
            .filter(|(_, kinds)| kinds.contains(&says.kind))
            .map(|(target, _)| (target.clone(), Waiting::default()))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = self.now();
        // Rises over restarts as well: times do, and messages are fewer than microseconds.
        self.notices.last = at.0.max(self.notices.last.saturating_add(1));
        let notice = Notice { id: NoticeId(self.notices.last), at, says, waiting };
        info!(
            id = notice.id.0,
            kind = notice.says.kind.label(),
            title = notice.says.title,
            "a message is queued"
        );
        self.effects.batch.notice(&notice);
        self.effects.has_notices = true;
    }

    /// Says that something lasting has begun, once.
    pub(crate) fn raise(&mut self, condition: &str, says: Says) {
        if self.notices.conditions.insert(condition.to_owned()) {
            let at = self.now();
            self.effects.batch.condition(condition, Some(at));
            self.tell_people(says);
        }
    }

    /// It is over: the next time it is news again.
    pub(crate) fn clear(&mut self, condition: &str) {
        if self.notices.conditions.remove(condition) {
            self.effects.batch.condition(condition, None);
        }
    }

    /// An alert was made.
    pub(crate) fn tell_of_alert(&mut self, alert: &Alert) {
        let Alert { at: _, kind, subject, text } = alert;
        let (kind, title) = match kind {
            AlertKind::AgentQuarantined => {
                (NoticeKind::Agent, format!("Agent {subject} is quarantined"))
            }
            AlertKind::ClockJumped => {
                (NoticeKind::Schedule, "The coordinator's clock jumped".to_owned())
            }
            AlertKind::RunMissed
            | AlertKind::RunSkipped
            | AlertKind::RunStuck
            | AlertKind::RunFailedToStart => (
                NoticeKind::Schedule,
                format!("Schedule {subject}: {}", kind.label().replace('_', " ")),
            ),
        };
        self.tell_people(notice::says(kind, &title, vec![text.clone()], None));
    }

    /// A run was judged.
    pub(crate) fn tell_of_run(&mut self, json: &str) {
        let result: RunResult = match serde_json::from_str(json) {
            Ok(result) => result,
            Err(error) => {
                warn!(%error, "a result cannot be read; nobody is told of it");
                return;
            }
        };
        for says in notice::about_run(&result) {
            self.tell_people(says);
        }
        let new = notice::new_findings(&result, |known| self.notices.conditions.contains(known));
        for (at, found) in new.into_iter().enumerate() {
            if at < notice::most_new_findings() {
                self.raise(&found.condition, found.says);
            } else if self.notices.conditions.insert(found.condition.clone()) {
                let now = self.now();
                self.effects.batch.condition(&found.condition, Some(now));
            }
        }
    }

    /// Agents that are away for long, and those that are back.
    pub(crate) fn tell_of_agents(&mut self, now: UnixUs) {
        let patience = self.notices.audience.agent_lost_after;
        if patience.is_zero() {
            return;
        }
        let mut away = Vec::new();
        let mut back = Vec::new();
        for (id, agent) in &self.agents {
            let condition = format!("agent-away/{id}");
            let is_known = self.notices.conditions.contains(&condition);
            if agent.session.is_some() {
                if is_known {
                    back.push(condition);
                }
            } else if !is_known && now.since(agent.seen_at.max(self.listening_since)) >= patience {
                let jobs = self.live_jobs_of(*id).count();
                let lines = vec![
                    format!("It was last heard at {}.", agent.seen_at),
                    format!(
                        "It holds {jobs} job(s); they go on by themselves as long as the host lives."
                    ),
                ];
                let title = format!("Agent {} is away", agent.record.name);
                away.push((condition, notice::says(NoticeKind::Agent, &title, lines, None)));
            }
        }
        for condition in back {
            self.clear(&condition);
        }
        for (condition, says) in away {
            self.raise(&condition, says);
        }
    }
}
