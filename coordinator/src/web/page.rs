//! The frame of every page, its trouble, and figures as people read them.

use crate::domain::time::UnixUs;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use std::time::Duration;
use tonic::{Code, Status};

/// A page that cannot be shown.
#[derive(Debug)]
pub(super) struct Trouble {
    status: StatusCode,
    says: String,
}

/// A whole page. `at` is the part of the navigation that it belongs to.
pub(super) fn page(title: &str, at: &str, content: &Markup) -> Html<String> {
    let parts = [
        ("/runs", "Runs"),
        ("/agents", "Agents"),
        ("/schedules", "Schedules"),
        ("/trend", "Trend"),
        ("/compare", "Compare"),
    ];
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · pgsoak" }
                link rel="stylesheet" href="/assets/style.css";
                link rel="icon" href="data:,";
                script src="/assets/live.js" defer {}
            }
            body {
                header {
                    a.brand href="/runs" { "pgsoak" }
                    nav {
                        @for (path, name) in parts {
                            @if path == at { a.here href=(path) { (name) } } @else { a href=(path) { (name) } }
                        }
                    }
                }
                main { (content) }
            }
        }
    };
    Html(markup.into_string())
}

/// Most characters of one argument.
pub(super) const MOST: usize = 200;

/// A text of a form.
pub(super) fn field(name: &str, label: &str, value: &str) -> Markup {
    html! { label { (label) input type="text" name=(name) value=(value) maxlength=(MOST); } }
}

/// What somebody typed is no book.
pub(super) fn not_too_long(fields: &[(&str, &str)]) -> Result<(), Trouble> {
    match fields.iter().find(|(_, text)| text.chars().count() > MOST) {
        Some((name, _)) => Err(Trouble::bad(format!("'{name}' is longer than {MOST} characters"))),
        None => Ok(()),
    }
}

/// A verdict or a state as a coloured word.
pub(super) fn badge(word: &str) -> Markup {
    let class: String =
        word.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    html! { span class={ "badge " (class) } { (word) } }
}

/// A time of day for people, with the exact one behind it.
pub(super) fn time(at: UnixUs) -> Markup {
    if at.0 == 0 {
        return html! {};
    }
    let exact = at.to_string();
    let shown = exact.get(..16).unwrap_or(&exact).replace('T', " ");
    html! { time datetime=(exact) title=(exact) { (shown) } }
}

/// `1 h 04 m`, `3 m 10 s`, `12 s`.
pub(super) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} m {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} m"),
    }
}

/// The end of an id: the part that differs between runs of one minute.
pub(super) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(12)..).unwrap_or(id)
}

// === impl Trouble ===

impl Trouble {
    /// The engine has ended.
    pub(super) fn gone(error: crate::engine::handle::EngineGone) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, says: error.to_string() }
    }

    /// Something in the URL is wrong.
    pub(super) fn bad(says: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, says: says.into() }
    }

    /// There is no such page.
    pub(super) fn nowhere() -> Self {
        Self { status: StatusCode::NOT_FOUND, says: "There is no such page.".to_owned() }
    }
}

/// The one table of HTTP codes.
impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            // There is a run, and what was asked of it is not there yet.
            Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status: code, says: status.message().to_owned() }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let content = html! {
            h1 { (self.status.canonical_reason().unwrap_or("Trouble")) }
            p { (self.says) }
            p { a href="/runs" { "All runs" } }
        };
        (self.status, page("Trouble", "", &content)).into_response()
    }
}
