//! `/compare`: two runs or builds, before against after, as `pgsoak compare` says it.

use crate::rpc::compare;
use crate::web::Web;
use crate::web::page::{self, Trouble, badge};
use axum::{
    extract::{Query, State},
    response::Html,
};
use maud::{Markup, html};
use pgsoak_analysis::compare::{SetComparison, SetRow};
use pgsoak_proto::job::Arm;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Builds that the form suggests.
const SUGGESTED: usize = 100;

/// What the URL asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    before: String,
    after: String,
    plan: String,
}

/// The form, and the answer where both sides are named.
pub(super) async fn compare(
    State(web): State<Web>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, Trouble> {
    let [before, after, plan] = [&asked.before, &asked.after, &asked.plan].map(|text| text.trim());
    page::not_too_long(&[("before", before), ("after", after), ("plan", plan)])?;
    let found = match (before, after) {
        ("", "") => None,
        ("", _) => return Err(Trouble::bad(lacks("before"))),
        (_, "") => return Err(Trouble::bad(lacks("after"))),
        sides => Some(compare::compare(&web.services, sides, plan, compare::COMPARED).await?),
    };
    let builds: BTreeSet<String> = web
        .services
        .store
        .lines()
        .iter()
        .flat_map(|line| line.facts.builds.iter())
        .filter(|(arm, _)| *arm != Arm::Control)
        .map(|(_, build)| build.clone())
        .collect();
    let content = html! {
        h1 { "Compare" }
        (form(&asked, &builds))
        @match &found {
            Some(found) => (answer(found)),
            None => p.empty {
                "Is what came after worse than what came before? Name two runs (an id, a unique part of it, " code { "latest" }
                ") or two builds (" code { "NAME@RELEASE" } "), of which the newest " (compare::COMPARED) " runs count."
            },
        }
    };
    Ok(page::page("Compare", "/compare", &content))
}

fn lacks(side: &str) -> String {
    format!("'{side}' is missing: name a run (an id, or latest) or a build (NAME@RELEASE) there")
}

fn form(asked: &Asked, builds: &BTreeSet<String>) -> Markup {
    let fields = [
        ("before", "Before", &asked.before),
        ("after", "After", &asked.after),
        ("plan", "Plan (of builds)", &asked.plan),
    ];
    html! {
        form.filters.roomy method="get" action="/compare" {
            @for (name, label, value) in fields {
                label { (label)
                    input type="text" name=(name) value=(value) maxlength=(page::MOST) list=[(name != "plan").then_some("builds")];
                }
            }
            datalist id="builds" { @for build in builds.iter().rev().take(SUGGESTED) { option value=(build) {} } }
            button type="submit" { "Compare" }
            a href="/compare" { "Clear" }
        }
    }
}

fn answer(found: &SetComparison) -> Markup {
    let (shown, left_out) = found.shown();
    html! {
        p.verdict { (badge(found.answer.label())) (found.reason()) }
        p.quiet { "Before: " (found.before.text()) br; "After: " (found.after.text()) }
        @if !shown.is_empty() {
            div.wide {
                table {
                    thead { tr { th { "Answer" } th { "Workload / phase" } th { "Figure" } th { "Before" } th { "After" } th { "Difference" } th { "Note" } } }
                    tbody { @for row in shown { (line(row)) } }
                }
            }
        }
        @if !left_out.is_empty() { p.quiet { (left_out) } }
        @if !found.notes.is_empty() {
            h2 { "Notes" }
            ul { @for note in &found.notes { li { (note) } } }
        }
    }
}

fn line(row: &SetRow) -> Markup {
    let (before, after) = row.amounts();
    html! {
        tr {
            td { (badge(row.answer.label())) }
            td { (row.place()) }
            td { (row.figure()) }
            td.nowrap { (before) }
            td.nowrap { (after) }
            td.nowrap { (row.difference()) }
            td.sentence { (row.message) }
        }
    }
}
