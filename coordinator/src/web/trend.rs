//! `/trend`: a workload's figures over releases, as `pgsoak trend` has them, with a chart of each.

use crate::rpc::status::OrStatus as _;
use crate::rpc::trend;
use crate::web::Web;
use crate::web::page::{self, Trouble};
use axum::{
    extract::{Query, State},
    response::Html,
};
use maud::{Markup, PreEscaped, html};
use pgsoak_analysis::compare::{FIGURES, figure_words};
use pgsoak_analysis::figures::bytes_text;
use pgsoak_analysis::releases::{NO_CHANGE, ReleaseFigure, ReleaseSeries, ReleaseTrend};
use pgsoak_analysis::report::release_chart;
use pgsoak_proto::job::Tool;
use pgsoak_proto::wire;
use serde::Deserialize;

/// What the URL asks for; empty: everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    workload: String,
    metric: String,
    phase: String,
    tool: String,
    extension: String,
    agent: String,
    /// A major.
    postgres: String,
}

/// The form, and the trend where a workload is named.
pub(super) async fn trend(
    State(web): State<Web>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, Trouble> {
    let known = web.services.store.workloads().await.or_status()?;
    let found = match asked.workload.trim() {
        "" => None,
        _ => Some(trend::found(&web.services, request(&asked)?).await?),
    };
    let content = html! {
        h1 { "Trend" }
        (form(&asked, &known))
        @match &found {
            Some(found) => (shown(found)),
            None if known.is_empty() => p.empty { "No run was judged yet. Start one with " code { "pgsoak submit PLAN" } "." },
            None => p.empty { "Choose a workload: its figures by release, and where their level changed." },
        }
    };
    Ok(page::page("Trend", "/trend", &content))
}

fn request(asked: &Asked) -> Result<wire::GetTrendRequest, Trouble> {
    let Asked { workload, metric, phase, tool, extension, agent, postgres } = asked;
    let fields = [
        ("workload", workload),
        ("metric", metric),
        ("phase", phase),
        ("tool", tool),
        ("extension", extension),
        ("agent", agent),
        ("postgres", postgres),
    ]
    .map(|(name, text)| (name, text.trim()));
    page::not_too_long(&fields)?;
    let [workload, metric, phase, tool, extension, agent, postgres] =
        fields.map(|(_, text)| text.to_owned());
    if !metric.is_empty() && !FIGURES.contains(&metric.as_str()) {
        let known = FIGURES.join(", ");
        return Err(Trouble::bad(format!("metric '{metric}' is none of {known}")));
    }
    if !postgres.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Trouble::bad(format!("postgres '{postgres}' is no major version, such as 18")));
    }
    let words = |word: String| if word.is_empty() { Vec::new() } else { vec![word] };
    Ok(wire::GetTrendRequest {
        workload,
        what: words(metric),
        phases: words(phase),
        tool,
        agents: words(agent),
        extension,
        postgres,
        since_unix_us: 0,
    })
}

fn form(asked: &Asked, known: &[String]) -> Markup {
    let fields = [
        ("phase", "Phase", &asked.phase),
        ("extension", "Extension", &asked.extension),
        ("agent", "Agent", &asked.agent),
        ("postgres", "PostgreSQL (18)", &asked.postgres),
    ];
    html! {
        form.filters method="get" action="/trend" {
            label { "Workload"
                select name="workload" {
                    @if asked.workload.is_empty() { option value="" { "choose" } }
                    @for name in known { option value=(name) selected[asked.workload == *name] { (name) } }
                }
            }
            label { "Metric"
                select name="metric" {
                    option value="" { "all" }
                    @for name in FIGURES { option value=(name) selected[asked.metric == name] { (figure_words(name)) } }
                }
            }
            label { "Tool"
                select name="tool" {
                    option value="" { "any" }
                    @for tool in Tool::ALL { option value=(tool.label()) selected[asked.tool == tool.label()] { (tool) } }
                }
            }
            @for (name, label, value) in fields {
                (page::field(name, label, value))
            }
            button type="submit" { "Show" }
            a href="/trend" { "Clear" }
        }
    }
}

fn shown(trend: &ReleaseTrend) -> Markup {
    if let Some(lacks) = trend.lacks() {
        return html! { p.empty { (lacks) } };
    }
    let changes = trend.series.iter().any(|series| !series.changes.is_empty());
    html! {
        p.quiet { (trend.workload) " over " (trend.runs) " run(s); times are UTC." @if !changes { " " (NO_CHANGE) } }
        @for series in &trend.series { (section(series, trend)) }
    }
}

fn section(series: &ReleaseSeries, trend: &ReleaseTrend) -> Markup {
    let name = series.name(trend);
    let chart = release_chart(&format!("{}: {name} over releases", trend.workload), series);
    html! {
        h2 { (name) }
        @for change in &series.changes { p.note { "Changed: " (change.text()) } }
        // Made here, with its texts escaped.
        @if let Some(svg) = chart { figure.chart { (PreEscaped(svg)) } }
        div.wide {
            table {
                thead { tr { th { "Build" } th { "Jobs" } th { "Median" } th { "Least" } th { "Most" } th { "Last run" } th { "When" } } }
                tbody { @for figure in &series.releases { (row(figure)) } }
            }
        }
    }
}

fn row(figure: &ReleaseFigure) -> Markup {
    let run = figure.last_run.to_string();
    html! {
        tr {
            td { (figure.build) }
            td { (figure.values) }
            td.nowrap { (bytes_text(figure.median)) }
            td.nowrap { (bytes_text(figure.least)) }
            td.nowrap { (bytes_text(figure.most)) }
            td { a href={ "/runs/" (run) } { (page::short(&run)) } }
            td.nowrap { (page::time(crate::domain::time::UnixUs(figure.last_at_unix_us))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_analysis::compare::JobPoint;
    use pgsoak_analysis::compare::MetricName;
    use pgsoak_analysis::releases::{RunPoints, Wanted, over_releases};
    use pgsoak_proto::{id::RunId, job::Arm};

    #[test]
    fn a_change_is_drawn_and_said_and_names_are_text() {
        let point = |at: u32| {
            let (build, value) = if at < 8 { ("e@0.1", 100.0) } else { ("e@0.2<i>", 200.0) };
            let metric = MetricName {
                phase: "<b>".to_owned(),
                what: "peak".to_owned(),
                subject: String::new(),
            };
            RunPoints {
                run: RunId::issue(),
                at_unix_us: u64::from(at) + 1,
                jobs: vec![JobPoint {
                    workload: "w".to_owned(),
                    tool: Tool::Plain,
                    build: build.to_owned(),
                    arm: Arm::Candidate,
                    agent: "a".to_owned(),
                    postgres_version: "PostgreSQL 18.4".to_owned(),
                    length: "1 h".to_owned(),
                    values: vec![(metric, value)],
                }],
            }
        };
        let runs: Vec<RunPoints> = (0..16).map(point).collect();
        let page = shown(&over_releases("w", &runs, &Wanted::default())).into_string();
        assert!(page.contains("<svg") && page.contains("band warm"), "{page}");
        assert!(page.contains("Changed: 100 B before, 200 B from e@0.2&lt;i&gt; on"), "{page}");
        assert!(!page.contains("<i>") && !page.contains("<b>"), "{page}");
    }

    #[test]
    fn what_is_asked_is_checked() {
        let asked = |metric: &str, postgres: &str| Asked {
            workload: "w".to_owned(),
            metric: metric.to_owned(),
            postgres: postgres.to_owned(),
            ..Asked::default()
        };
        assert_eq!(request(&asked(" peak ", "18")).unwrap().what, ["peak"]);
        assert!(request(&asked("", "")).unwrap().what.is_empty());
        assert!(request(&asked("size", "")).is_err());
        assert!(request(&asked("", "x")).is_err());
        assert!(request(&Asked { phase: "x".repeat(300), ..Asked::default() }).is_err());
    }
}
