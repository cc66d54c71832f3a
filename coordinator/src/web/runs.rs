//! `/runs`: the history as a list. Filters stand in the URL, so a view can be bookmarked and sent.

use crate::decide::find::{Filter, Page, Sort};
use crate::domain::history::RunLine;
use crate::domain::run::RunState;
use crate::domain::time::UnixUs;
use crate::rpc::status::OrStatus as _;
use crate::rpc::{control, view};
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{
    extract::{Query, State},
    response::Html,
};
use maud::{Markup, html};
use pgsoak_workloads::quantity;
use serde::Deserialize;

/// Runs on one page.
const PAGE: usize = 50;

/// What the URL asks for; empty: everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    verdict: String,
    plan: String,
    workload: String,
    build: String,
    agent: String,
    text: String,
    /// `7d`: submitted within that time.
    since: String,
    /// The run after which the page begins.
    after: String,
}

/// The list.
pub(super) async fn runs(
    State(web): State<Web>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, Trouble> {
    let services = &web.services;
    let filter = filter(&asked, services.engine.now())?;
    let after = match asked.after.as_str() {
        "" => None,
        text => Some(control::find(services, text).await?),
    };
    let found = services.store.find_runs(filter, Sort::Submitted, true, after, PAGE).await;
    let found = found.or_status()?.map_err(|lost| Trouble::bad(lost.to_string()))?;
    let content = html! {
        h1 { "Runs" }
        (form(&asked))
        (list(&found))
        @if let (true, Some(last)) = (found.has_more, found.runs.last()) {
            p { a rel="next" href=(next(&asked, last)) { "Older runs" } }
        }
    };
    Ok(page::page("Runs", "/runs", &content))
}

fn filter(asked: &Asked, now: UnixUs) -> Result<Filter, Trouble> {
    let words = |text: &String| -> Vec<String> {
        let text: String = text.trim().chars().take(page::MOST).collect();
        if text.is_empty() { Vec::new() } else { vec![text] }
    };
    let since = match asked.since.trim() {
        "" => None,
        text => {
            let ago =
                quantity::time(text).map_err(|error| Trouble::bad(format!("since: {error}")))?;
            let ago = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
            Some(UnixUs(now.0.saturating_sub(ago)))
        }
    };
    Ok(Filter {
        since,
        verdicts: words(&asked.verdict),
        plans: words(&asked.plan),
        workloads: words(&asked.workload),
        builds: words(&asked.build),
        agents: words(&asked.agent),
        text: asked.text.trim().chars().take(page::MOST).collect(),
        ..Filter::default()
    })
}

fn form(asked: &Asked) -> Markup {
    let verdicts = ["pass", "fail", "inconclusive", "invalid", "running", "queued"];
    let fields = [
        ("plan", "Plan", &asked.plan),
        ("workload", "Workload", &asked.workload),
        ("build", "Build", &asked.build),
        ("agent", "Agent", &asked.agent),
        ("since", "Since (7d)", &asked.since),
        ("text", "Text", &asked.text),
    ];
    html! {
        form.filters method="get" action="/runs" {
            label { "Verdict"
                select name="verdict" {
                    option value="" { "any" }
                    @for verdict in verdicts {
                        option value=(verdict) selected[asked.verdict == verdict] { (verdict) }
                    }
                }
            }
            @for (name, label, value) in fields {
                (page::field(name, label, value))
            }
            button type="submit" { "Show" }
            a href="/runs" { "Clear" }
        }
    }
}

fn list(found: &Page) -> Markup {
    if found.runs.is_empty() {
        return html! { p.empty { "No run fits. Start one with " code { "pgsoak submit PLAN" } "." } };
    }
    html! {
        p.quiet { (found.total) " run(s); times are UTC" }
        div.wide {
            table {
                thead { tr { th { "Verdict" } th { "Plan" } th { "Run" } th { "Submitted" } th { "Took" } th { "Jobs" } th { "What it came to" } } }
                tbody { @for line in &found.runs { (row(line)) } }
            }
        }
    }
}

fn row(line: &RunLine) -> Markup {
    let record = &line.record;
    let id = record.run.to_string();
    let (word, sentence, took) = match &record.state {
        RunState::Finished { started_at, finished_at, verdict, sentence, .. } => (
            view::verdict(*verdict),
            sentence.as_str(),
            started_at.map(|started| page::duration(finished_at.since(started))),
        ),
        state => (state.label(), "", None),
    };
    html! {
        tr {
            td { (badge(word)) }
            td { (record.plan) }
            td { a href={ "/runs/" (id) } { (page::short(&id)) } @if line.annotations.pin.is_some() { " " span title="pinned" { "📌" } } }
            td.nowrap { (page::time(record.submitted_at)) }
            td.nowrap { (took.unwrap_or_default()) }
            td.nowrap { (record.jobs_over) "/" (record.jobs.len()) }
            td.sentence { (sentence) }
        }
    }
}

fn next(asked: &Asked, last: &RunLine) -> String {
    let mut url = format!("/runs?after={}", last.record.run);
    let parts = [
        ("verdict", &asked.verdict),
        ("plan", &asked.plan),
        ("workload", &asked.workload),
        ("build", &asked.build),
        ("agent", &asked.agent),
        ("since", &asked.since),
        ("text", &asked.text),
    ];
    for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
        url.push_str(&format!("&{name}={}", encoded(value)));
    }
    url
}

/// Percent-encoded, all but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_shown_as_text() {
        let asked = Asked { text: "\"><script>alert(1)</script>".to_owned(), ..Asked::default() };
        let shown = form(&asked).into_string();
        assert!(!shown.contains("<script>") && shown.contains("&lt;script&gt;"), "{shown}");
        assert_eq!(encoded("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }

    #[test]
    fn since_is_a_time_or_is_refused() {
        let asked = |since: &str| Asked { since: since.to_owned(), ..Asked::default() };
        let now = UnixUs(10_000_000_000);
        assert_eq!(filter(&asked("1h"), now).unwrap().since, Some(UnixUs(6_400_000_000)));
        assert_eq!(filter(&asked(""), now).unwrap().since, None);
        assert!(filter(&asked("yesterday"), now).is_err());
    }
}
