//! Runs as people read them, and as programs do.

use crate::show::words;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use pgsoak_analysis::compare::SetComparison;
use pgsoak_proto::job::{Outcome, Tool};
use pgsoak_proto::wire;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;

/// The verdict, or where the run stands.
pub fn state(run: &wire::RunView) -> &str {
    match run.stage() {
        wire::RunStage::Queued => "queued",
        wire::RunStage::Running => "running",
        wire::RunStage::Cancelling => "stopping",
        wire::RunStage::Judging => "judging",
        wire::RunStage::Finished => &run.verdict,
        wire::RunStage::Unspecified => "?",
    }
}

fn color(state: &str) -> Color {
    match state {
        "pass" => Color::Green,
        "fail" => Color::Red,
        "inconclusive" | "invalid" => Color::Yellow,
        _ => Color::Reset,
    }
}

fn took(run: &wire::RunView) -> String {
    run.finished_at_unix_us
        .checked_sub(run.started_at_unix_us)
        .filter(|_| run.started_at_unix_us > 0)
        .map_or_else(String::new, |us| words::duration(Duration::from_micros(us)))
}

/// Builds of candidates and baselines.
fn builds(line: &wire::RunLine) -> String {
    let of = |arm: &str| {
        let found = line.builds.iter().filter(|build| build.arm == arm);
        found.map(|build| build.build.as_str()).collect::<Vec<_>>().join(", ")
    };
    match (of("candidate"), of("baseline")) {
        (candidate, baseline) if baseline.is_empty() => candidate,
        (candidate, baseline) => format!("{candidate} against {baseline}"),
    }
}

/// A run a line.
pub fn table(lines: &[wire::RunLine]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["Run", "Plan", "Build", "Submitted", "Took", "Jobs", "State", "Says"]);
    if !std::io::stdout().is_terminal() {
        table.set_width(200);
    }
    for line in lines {
        let Some(run) = &line.run else { continue };
        let mut says = run.sentence.clone();
        let marks = [
            (line.is_pinned, "pinned".to_owned()),
            (line.notes == 1, "1 note".to_owned()),
            (line.notes > 1, format!("{} notes", line.notes)),
        ];
        let marks: Vec<String> =
            marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
        if !marks.is_empty() {
            says.push_str(&format!(" [{}]", marks.join(", ")));
        }
        table.add_row([
            Cell::new(&run.run_id),
            Cell::new(&run.plan),
            Cell::new(builds(line)),
            Cell::new(words::time(run.submitted_at_unix_us)),
            Cell::new(took(run)),
            Cell::new(format!("{}/{}", run.jobs_over, run.jobs_total)),
            Cell::new(state(run)).fg(color(state(run))),
            Cell::new(says),
        ]);
    }
    table
}

/// One run, whole.
pub fn detail(detail: &wire::RunDetail) -> String {
    let (Some(run), Some(line)) = (&detail.run, &detail.line) else { return String::new() };
    let mut out = String::new();
    let mut row = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{key:<11}{value}\n"));
        }
    };
    row("Run", &run.run_id);
    row("Plan", &run.plan);
    row("State", state(run));
    row("Says", &run.sentence);
    row("Build", &builds(line));
    row("Workloads", &line.workloads.join(", "));
    row("Tools", &line.tools.join(", "));
    if run.stage() != wire::RunStage::Finished {
        row("Priority", &run.priority.to_string());
    }
    row("Agents", &line.agents.join(", "));
    row("Submitted", &words::time(run.submitted_at_unix_us));
    row("Started", &words::time(run.started_at_unix_us));
    row("Finished", &words::time(run.finished_at_unix_us));
    row("Took", &took(run));
    let labels: Vec<String> =
        line.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    row("Labels", &labels.join(", "));
    if let Some(pin) = &detail.pin {
        let reason = if pin.text.is_empty() { "no reason given" } else { &pin.text };
        row("Pinned", &format!("{} ({reason})", words::time(pin.at_unix_us)));
    }
    match (against(detail), &detail.baseline) {
        (Some(against), _) => row(
            "Against",
            &format!(
                "{} ({}): {}",
                against.comparison.before.label, against.why, against.comparison.sentence
            ),
        ),
        (None, Some(choice)) => row(
            "Baseline",
            &format!(
                "{} ({}); compare: pgsoak compare {} {}",
                choice.target, choice.why, choice.target, run.run_id
            ),
        ),
        (None, None) => {}
    }
    for note in &detail.notes {
        row("Note", &format!("{}: {}", words::time(note.at_unix_us), note.text));
    }
    out.push_str(&format!("\n{}\n", jobs(run)));
    out
}

/// What a run was compared with when it was judged.
#[derive(serde::Deserialize)]
struct Against {
    why: String,
    comparison: SetComparison,
}

fn against(detail: &wire::RunDetail) -> Option<Against> {
    serde_json::from_str(&detail.against_json).ok()
}

fn jobs(run: &wire::RunView) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["Job", "Workload", "Tool", "Arm", "Build", "Agent", "State", "Why"]);
    if !std::io::stdout().is_terminal() {
        table.set_width(200);
    }
    for job in &run.jobs {
        let spec = job.spec.clone().unwrap_or_default();
        let arm = pgsoak_proto::job::Arm::try_from(spec.arm()).map_or("?", |arm| arm.label());
        table.add_row([
            spec.job_id.clone(),
            spec.workload_name.clone(),
            tool(&spec).to_owned(),
            arm.to_owned(),
            spec.build.clone(),
            job.agent.clone(),
            stands(job),
            match forecast(job) {
                Some(forecast) => format!("{forecast}; now {}", job.reason),
                None => why(job).to_owned(),
            },
        ]);
    }
    table
}

/// Where and when a waiting job is likely to start.
fn forecast(job: &wire::JobView) -> Option<String> {
    (!job.would_go.is_empty())
        .then(|| format!("likely on {} from {}", job.would_go, words::time(job.starts_at_unix_us)))
}

fn tool(spec: &wire::JobSpec) -> &'static str {
    Tool::try_from(spec.tool()).map_or("?", Tool::label)
}

fn place(job: &wire::JobView) -> String {
    job.place().as_str_name().trim_start_matches("JOB_PLACE_").to_lowercase()
}

/// How it ended, or where it is, with what was seen of it so far: "running, suspect".
fn stands(job: &wire::JobView) -> String {
    match (outcome(job), job.standing.as_str()) {
        (Some(outcome), _) => outcome.to_owned(),
        (None, "") => place(job),
        (None, standing) => format!("{}, {standing}", place(job)),
    }
}

/// Why it ended or waits; of a job that goes on what it is suspected of.
fn why(job: &wire::JobView) -> &str {
    if job.reason.is_empty() && outcome(job).is_none() { &job.standing_reason } else { &job.reason }
}

fn outcome(job: &wire::JobView) -> Option<&'static str> {
    Outcome::try_from(job.outcome()).map(Outcome::label).ok()
}

// === for programs ===

/// A run for programs.
pub fn json(run: &wire::RunView) -> Value {
    let jobs: Vec<_> = run
        .jobs
        .iter()
        .map(|job| {
            let spec = job.spec.clone().unwrap_or_default();
            json!({
                "job": spec.job_id,
                "workload": spec.workload_name,
                "tool": tool(&spec),
                "build": spec.build,
                "would_go": Some(&job.would_go).filter(|agent| !agent.is_empty()),
                "starts_at_unix_us": Some(job.starts_at_unix_us).filter(|at| *at > 0),
                "place": place(job),
                "agent": job.agent,
                "attempts": job.attempts,
                "outcome": outcome(job),
                "reason": job.reason,
                "standing": Some(&job.standing).filter(|standing| !standing.is_empty()),
                "standing_reason": job.standing_reason,
                "phase": job.progress.as_ref().map(|p| p.phase.clone()),
                "round": job.progress.as_ref().map(|p| p.round),
                "done": job.progress.as_ref().map(|p| p.done),
                "left_ms": job.progress.as_ref().map(|p| p.left_ms),
                "stored_sequence": job.stored_sequence,
            })
        })
        .collect();
    json!({
        "run": run.run_id,
        "plan": run.plan,
        "state": state(run),
        "submitted_at_unix_us": run.submitted_at_unix_us,
        "started_at_unix_us": run.started_at_unix_us,
        "finished_at_unix_us": run.finished_at_unix_us,
        "verdict": if run.verdict.is_empty() { None } else { Some(&run.verdict) },
        "sentence": run.sentence,
        "jobs_total": run.jobs_total,
        "jobs_over": run.jobs_over,
        "is_cancelled": run.is_cancelled,
        "priority": run.priority,
        "jobs": jobs,
    })
}

/// A line of the history for programs: a run without its jobs.
pub fn line_json(line: &wire::RunLine) -> Value {
    let mut value = json(line.run.as_ref().unwrap_or(&wire::RunView::default()));
    if let Some(object) = value.as_object_mut() {
        object.remove("jobs");
        object.insert("workloads".to_owned(), json!(line.workloads));
        object.insert("tools".to_owned(), json!(line.tools));
        let builds = line.builds.iter().map(|of| json!({"build": of.build, "arm": of.arm}));
        object.insert("builds".to_owned(), Value::Array(builds.collect()));
        object.insert("agents".to_owned(), json!(line.agents));
        object.insert("labels".to_owned(), json!(line.labels));
        object.insert("is_pinned".to_owned(), json!(line.is_pinned));
        object.insert("notes".to_owned(), json!(line.notes));
    }
    value
}

/// A whole run for programs.
pub fn detail_json(detail: &wire::RunDetail) -> Value {
    let mut value = line_json(detail.line.as_ref().unwrap_or(&wire::RunLine::default()));
    let remark =
        |remark: &wire::Remark| json!({"at_unix_us": remark.at_unix_us, "text": remark.text});
    if let (Some(object), Some(run)) = (value.as_object_mut(), &detail.run) {
        let jobs = json(run).get("jobs").cloned().unwrap_or_default();
        object.insert("jobs".to_owned(), jobs);
        object.insert("notes".to_owned(), Value::Array(detail.notes.iter().map(remark).collect()));
        let against: Value = serde_json::from_str(&detail.against_json).unwrap_or_default();
        object.insert("against".to_owned(), against);
        let baseline = detail.baseline.as_ref().map_or(
            Value::Null,
            |choice| json!({"target": choice.target, "plan": choice.plan, "why": choice.why}),
        );
        object.insert("baseline".to_owned(), baseline);
        object.insert("pin".to_owned(), detail.pin.as_ref().map_or(Value::Null, remark));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_goes_on_shows_what_was_seen_of_it_so_far() {
        let mut job = wire::JobView {
            place: wire::JobPlace::Running.into(),
            standing: "suspect".to_owned(),
            standing_reason: "worker 3 grows by 900 B/s".to_owned(),
            ..wire::JobView::default()
        };
        let mut run = wire::RunView { jobs: vec![job.clone()], ..wire::RunView::default() };
        let table = jobs(&run).to_string();
        assert!(table.contains("running, suspect") && table.contains("worker 3"), "{table}");
        assert_eq!(json(&run)["jobs"][0]["standing"], "suspect");
        job.outcome = wire::Outcome::Finished.into();
        run.jobs = vec![job];
        let table = jobs(&run).to_string();
        assert!(
            table.contains("finished") && !table.contains("suspect") && !table.contains("worker 3"),
            "{table}"
        );
    }
}
