//! A message by HTTP POST, signed; as JSON of our own, or as Slack and its likes take it.

use crate::config::{Format, Webhook};
use crate::domain::notice::{Notice, Says};
use crate::notify::{causes, text};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, redirect::Policy};
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::OnceLock;

/// Of an answer that is no success, so much is kept.
const ANSWER: usize = 200;

/// Sends it. Any answer of 2xx is a success; redirects are not followed.
pub(super) async fn send(
    webhook: &Webhook,
    notice: &Notice,
    link: Option<&str>,
) -> Result<(), String> {
    let body = match webhook.format {
        Format::Json => own(notice, link),
        Format::Slack => slack(&notice.says, link),
    }
    .to_string();
    let stamp = notice.at.0 / 1_000_000;
    let mut request = client()?
        .post(&webhook.url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("pgsoak/", env!("CARGO_PKG_VERSION")))
        .header("x-pgsoak-id", notice.id.0.to_string())
        .header("x-pgsoak-timestamp", stamp.to_string());
    if let Some(secret) = &webhook.secret {
        let signature = signature(secret.expose(), stamp, &body);
        request = request.header("x-pgsoak-signature", format!("sha256={signature}"));
    }
    // The URL of a Slack hook is its secret: it is left out of what is said.
    let answer = request.body(body).send().await.map_err(|error| causes(&error.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said = answer.text().await.unwrap_or_default();
    let said: String =
        said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(ANSWER).collect();
    Err(format!("the server answers {status}: {said}"))
}

/// HMAC-SHA256 of the timestamp, a point, and the body; hex.
fn signature(secret: &str, stamp: u64, body: &str) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(stamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn own(notice: &Notice, link: Option<&str>) -> Value {
    let Says { kind, title, lines, run } = &notice.says;
    json!({
        "id": notice.id.0,
        "at": notice.at.to_string(),
        "kind": kind.label(),
        "class": kind.class(),
        "title": title,
        "lines": lines,
        "run": run.map(|run| run.to_string()),
        "link": link,
    })
}

fn slack(says: &Says, link: Option<&str>) -> Value {
    // The three characters that Slack gives a meaning.
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut shown = format!("*{}*", escaped(&says.title));
    for line in &says.lines {
        shown.push('\n');
        shown.push_str(&escaped(line));
    }
    if let Some(link) = link {
        shown.push_str(&format!("\n<{link}|Open the run>"));
    }
    json!({ "text": shown, "attachments": [{ "fallback": text(says, link) }] })
}

/// One client for all: it keeps connections.
fn client() -> Result<&'static Client, String> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            // Somebody else may have installed one: then that one is used.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Client::builder().redirect(Policy::none()).build().map_err(|error| causes(&error))
        })
        .as_ref()
        .map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::{NoticeKind, says};

    #[test]
    fn a_signature_is_the_one_that_everybody_computes() {
        // printf '1.{}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature("secret", 1, "{}"),
            "1122767b193110cfec322b6f199b599edbf608ed087f2d27afb0b97d99523908"
        );
    }

    #[test]
    fn slack_gets_no_markup_of_ours() {
        let says = says(NoticeKind::Fail, "a <b> & c", vec!["<!channel>".to_owned()], None);
        let body = slack(&says, Some("http://x/runs/1"));
        let shown = body["text"].as_str().unwrap();
        assert_eq!(
            shown,
            "*a &lt;b&gt; &amp; c*\n&lt;!channel&gt;\n<http://x/runs/1|Open the run>"
        );
    }
}
