//! `pgsoak notify`: tries the coordinator's webhooks and mails, and shows which messages wait.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use clap::{Args, Subcommand};
use pgsoak_proto::wire::{self, notify_client::NotifyClient};

/// `notify`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak notify test              a message to everybody in the coordinator's settings\n  pgsoak notify test --target ci\n  pgsoak notify list              messages that somebody has still to get"
)]
pub struct NotifyArgs {
    /// What to do.
    #[command(subcommand)]
    pub inner: NotifyInner,
}

/// Verbs of `notify`.
#[derive(Debug, Subcommand)]
pub enum NotifyInner {
    /// Send a test message. Exit code 3 when somebody did not get it.
    Test {
        /// One target alone: the NAME of its [webhook.NAME] or [mail.NAME].
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Where.
        #[command(flatten)]
        at: Where,
    },
    /// List messages that wait, with what the last try said.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Where.
        #[command(flatten)]
        at: Where,
    },
}

pub async fn run(args: NotifyArgs) -> anyhow::Result<u8> {
    match args.inner {
        NotifyInner::Test { target, json, at } => test(target.unwrap_or_default(), json, &at).await,
        NotifyInner::List { json, at } => list(json, &at).await,
    }
}

async fn test(target: String, is_json: bool, at: &Where) -> anyhow::Result<u8> {
    let answer = verbs::with_channel(at, async |channel| {
        let answer =
            NotifyClient::new(channel).test_targets(wire::TestTargetsRequest { target }).await;
        answer.map_err(|status| connect::explain(&status))
    })
    .await?;
    let targets = answer.into_inner().targets;
    let is_good = targets.iter().all(|target| target.problem.is_empty());
    for wire::TestedTarget { target, channel, problem } in targets {
        if is_json {
            let delivered = problem.is_empty();
            verbs::print_json(&serde_json::json!({
                "target": target, "channel": channel, "delivered": delivered, "problem": problem,
            }))?;
        } else if problem.is_empty() {
            verbs::print(&format!("{target} ({channel}): delivered\n"))?;
        } else {
            verbs::print(&format!("{target} ({channel}): not delivered: {problem}\n"))?;
        }
    }
    Ok(if is_good { exit::PASS } else { exit::INVALID })
}

async fn list(is_json: bool, at: &Where) -> anyhow::Result<u8> {
    let answer = verbs::with_channel(at, async |channel| {
        let answer = NotifyClient::new(channel).list_waiting(wire::ListWaitingRequest {}).await;
        answer.map_err(|status| connect::explain(&status))
    })
    .await?;
    let messages = answer.into_inner().messages;
    if messages.is_empty() && !is_json {
        verbs::print("no message waits\n")?;
    }
    for wire::WaitingMessage { id, kind, title, lines, targets } in messages {
        if is_json {
            let targets: Vec<_> = targets
                .iter()
                .map(|target| {
                    serde_json::json!({
                        "target": target.target, "tries": target.tries,
                        "next_at_unix_us": target.next_at_unix_us, "problem": target.problem,
                    })
                })
                .collect();
            verbs::print_json(&serde_json::json!({
                "id": id, "kind": kind, "title": title, "lines": lines, "targets": targets,
            }))?;
            continue;
        }
        verbs::print(&format!("{kind}: {title}\n"))?;
        for target in targets {
            let name = target.target;
            verbs::print(&match target.tries {
                0 => format!("  {name}: not tried yet\n"),
                tries => format!(
                    "  {name}: {tries} tries, the next at {}: {}\n",
                    words::time(target.next_at_unix_us),
                    target.problem
                ),
            })?;
        }
    }
    Ok(exit::PASS)
}
