//! A plan's file, read and checked; every problem at once.

use super::{Floor, Plan, PlanJob};
use crate::file_error::FileError;
use crate::file_error::hint;
use crate::quantity::MAX_TIME;
use crate::suppression;
use crate::table::Entry;
use crate::table::Source;
use crate::table::Table;
use pgsoak_proto::job::{BuildRef, OnLost, PostgresRef, Tool, ToolOptions};
use std::{collections::BTreeMap, time::Duration};

const PLAN_KEYS: [&str; 10] = [
    "name",
    "about",
    "defaults",
    "job",
    "floor",
    "seed",
    "hard_end",
    "stop_when_proven",
    "canary",
    "priority",
];
const JOB_KEYS: [&str; 18] = [
    "workload",
    "tool",
    "postgres",
    "build",
    "baseline",
    "control",
    "for",
    "replicas",
    "sample_every",
    "scale",
    "exclusive",
    "agents",
    "hard_end",
    "seed",
    "on_lost",
    "suppressions",
    "pages_as_heap",
    "escalate",
];

/// Of a plan that says nothing.
const PRIORITY: u32 = 50;

pub(super) fn plan(file: &str, text: &str) -> Result<Plan, Vec<FileError>> {
    let source = Source::new(file, text);
    let read = source.parse().and_then(|root| read(Table::root(&source, &root)));
    match read {
        Some(plan) if !source.has_problems() => Ok(plan),
        _ => Err(source.into_problems()),
    }
}

/// What could be read; `None` only when the jobs cannot.
fn read(top: Table<'_, '_>) -> Option<Plan> {
    top.known("a plan", &PLAN_KEYS);
    let defaults = top.get("defaults").and_then(|entry| entry.table());
    if let Some(defaults) = defaults {
        let keys: Vec<_> = JOB_KEYS.iter().copied().filter(|key| *key != "workload").collect();
        defaults.known("[defaults]", &keys);
        for entry in ["seed", "hard_end"].iter().filter_map(|key| defaults.get(key)) {
            if top.get(entry.key).is_some() {
                entry.refuse("stands at the top of the plan as well; take one out");
            }
        }
    }
    let jobs = match top.get("job") {
        Some(entry) => entry.tables()?,
        None => Vec::new(),
    };
    if jobs.is_empty() {
        top.source.problem(0, "has no [[job]]: a plan needs at least one");
    }
    // Read on its own as well, so that a wrong default shows even where every job overrides it.
    let base = defaults.map_or_else(PlanJob::default, |table| job(table, &PlanJob::default()));
    // Of the top's keys only `seed` and `hard_end` are also keys of a job.
    let base = job(top, &base);
    Some(Plan {
        name: name(top),
        about: top.get("about").and_then(|entry| entry.text()).unwrap_or_default().to_owned(),
        jobs: jobs
            .into_iter()
            .map(|table| {
                table.known("a job", &JOB_KEYS);
                let mut job = job(table, &base);
                job.workloads = workloads(table);
                job
            })
            .collect(),
        priority: top.get("priority").and_then(|e| e.small(1, 100)).unwrap_or(PRIORITY),
        floor: top.get("floor").and_then(|entry| entry.table()).map(floor).unwrap_or_default(),
        stop_when_proven: top.get("stop_when_proven").and_then(|e| e.flag()).unwrap_or(false),
        canary: top.get("canary").and_then(|entry| entry.flag()).unwrap_or(false),
    })
}

fn name(top: Table<'_, '_>) -> String {
    let well_formed = |name: &str| {
        (1..=100).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    const RULE: &str = "must be 1 to 100 of letters, digits, '.', '_' and '-'";
    match top.get("name") {
        Some(entry) => match entry.text() {
            Some(name) if well_formed(name) => return name.to_owned(),
            Some(_) => entry.refuse(RULE),
            None => {}
        },
        None => return name_of_stem(top.source.stem()),
    }
    String::new()
}

/// A name for a plan whose file gives none.
fn name_of_stem(stem: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = stem.chars().take(100).map(word).collect();
    if name.is_empty() { "plan".to_owned() } else { name }
}

fn floor(table: Table<'_, '_>) -> Floor {
    table.known("[floor]", &["bytes_per_operation", "bytes_per_second", "coverage"]);
    let share = |key: &str| {
        let entry = table.get(key)?;
        let share = entry.number()?;
        if share <= 0.0 || share > 1.0 {
            entry.refuse("must be above 0 and at most 1: a share of the backends' seconds");
            return None;
        }
        Some(share)
    };
    let positive = |key: &str| {
        let entry = table.get(key)?;
        let number = if entry.is_number() { entry.number()? } else { entry.fractional_bytes()? };
        if number <= 0.0 {
            entry.refuse("must be above 0");
            return None;
        }
        Some(number)
    };
    Floor {
        bytes_per_operation: positive("bytes_per_operation"),
        bytes_per_second: positive("bytes_per_second"),
        coverage: share("coverage"),
    }
}

fn workloads(table: Table<'_, '_>) -> Vec<String> {
    let Some(entry) = table.get("workload") else {
        let problem = "a job needs `workload`: a name of the library or the path of a file";
        table.source.problem(table.line, problem);
        return Vec::new();
    };
    let Some(texts) = entry.texts() else { return Vec::new() };
    if texts.is_empty() {
        entry.refuse("names no workload");
    }
    let mut names: Vec<String> = Vec::with_capacity(texts.len());
    for text in texts {
        match text.text() {
            Some("") => text.refuse("names no workload"),
            Some(name) if names.iter().any(|known| known == name) => {
                text.refuse(format_args!("'{name}' stands in the list twice"));
            }
            Some(name) if name.len() > 1_000 => text.refuse("is longer than 1000 bytes"),
            Some(name) => names.push(name.to_owned()),
            None => {}
        }
    }
    names
}

/// A job's keys over `base`; a key that is absent or wrong keeps the value of `base`.
fn job(table: Table<'_, '_>, base: &PlanJob) -> PlanJob {
    let second = Duration::from_secs(1);
    PlanJob {
        workloads: Vec::new(),
        tools: table.get("tool").and_then(|e| tools(&e)).unwrap_or_else(|| base.tools.clone()),
        postgres: table
            .get("postgres")
            .and_then(|entry| postgres(&entry))
            .unwrap_or_else(|| base.postgres.clone()),
        build: table.get("build").and_then(|e| build(&e)).unwrap_or_else(|| base.build.clone()),
        baseline: match table.get("baseline") {
            Some(entry) if entry.is_text() && entry.text() == Some("none") => None,
            Some(entry) => build(&entry),
            None => base.baseline.clone(),
        },
        control: table.get("control").and_then(|e| e.flag()).unwrap_or(base.control),
        loop_for: table.get("for").and_then(|e| e.time(second, MAX_TIME)).or(base.loop_for),
        replicas: table.get("replicas").and_then(|e| e.small(1, 1_000)).unwrap_or(base.replicas),
        sample_every: table
            .get("sample_every")
            .and_then(|entry| entry.time(second / 10, second * 3_600))
            .unwrap_or(base.sample_every),
        scale: table.get("scale").and_then(|entry| scale(&entry)).unwrap_or(base.scale),
        exclusive: table.get("exclusive").and_then(|e| e.flag()).unwrap_or(base.exclusive),
        agents: table.get("agents").and_then(|e| labels(&e)).unwrap_or_else(|| base.agents.clone()),
        hard_end: table.get("hard_end").and_then(|e| e.time(second, MAX_TIME)).or(base.hard_end),
        seed: table
            .get("seed")
            .and_then(|entry| entry.whole(0, i64::MAX.unsigned_abs()))
            .unwrap_or(base.seed),
        on_lost: table.get("on_lost").and_then(|e| on_lost(&e)).unwrap_or(base.on_lost),
        options: ToolOptions {
            suppressions: table
                .get("suppressions")
                .and_then(|entry| suppressions(&entry))
                .unwrap_or_else(|| base.options.suppressions.clone()),
            pages_as_heap: table
                .get("pages_as_heap")
                .and_then(|entry| entry.flag())
                .unwrap_or(base.options.pages_as_heap),
        },
        escalate: table.get("escalate").and_then(|e| e.flag()).unwrap_or(base.escalate),
    }
}

/// valgrind's own format, in the plan itself: so that it goes wherever the plan goes.
fn suppressions(entry: &Entry<'_, '_>) -> Option<String> {
    let text = entry.text()?;
    match suppression::suppressions(text) {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            entry.refuse(error);
            None
        }
    }
}

fn tools(entry: &Entry<'_, '_>) -> Option<Vec<Tool>> {
    let texts = entry.texts()?;
    if texts.is_empty() {
        entry.refuse("names no tool");
        return None;
    }
    let mut tools = Vec::with_capacity(texts.len());
    for text in texts {
        let name = text.text()?;
        match Tool::ALL.iter().find(|tool| tool.label() == name) {
            Some(tool) if tools.contains(tool) => {
                text.refuse(format_args!("'{name}' stands in the list twice"));
            }
            Some(tool) => tools.push(*tool),
            None => {
                let short: String = name.chars().take(40).collect();
                let hint = hint(name, Tool::ALL.map(Tool::label));
                text.refuse(format_args!("unknown tool '{short}'{hint}"));
                return None;
            }
        }
    }
    Some(tools)
}

fn postgres(entry: &Entry<'_, '_>) -> Option<PostgresRef> {
    if entry.is_number() {
        return entry.small(10, 99).map(PostgresRef::Major);
    }
    entry.text()?.parse().map_err(|error| entry.refuse(error)).ok()
}

fn build(entry: &Entry<'_, '_>) -> Option<BuildRef> {
    entry.text()?.parse().map_err(|error| entry.refuse(error)).ok()
}

fn on_lost(entry: &Entry<'_, '_>) -> Option<OnLost> {
    let word = entry.text()?;
    let found = [OnLost::Wait, OnLost::Retry].into_iter().find(|policy| policy.label() == word);
    if found.is_none() {
        entry.refuse("must be \"wait\" (for its host, and never again) or \"retry\" (on any host)");
    }
    found
}

fn scale(entry: &Entry<'_, '_>) -> Option<f64> {
    let scale = entry.number()?;
    if scale <= 0.0 || scale > 1_000.0 {
        entry.refuse("must be above 0 and at most 1000");
        return None;
    }
    Some(scale)
}

fn labels(entry: &Entry<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in entry.table()?.entries() {
        let value = label.text()?;
        let word = |word: &str| (1..=63).contains(&word.len()) && !word.contains(['\n', '=', ',']);
        if !word(label.key) || !word(value) {
            label.refuse("a label is 1 to 63 characters without '=', ',' and line ends");
            return None;
        }
        labels.insert(label.key.to_owned(), value.to_owned());
    }
    Some(labels)
}

impl Default for PlanJob {
    fn default() -> Self {
        Self {
            workloads: Vec::new(),
            tools: vec![Tool::Plain],
            postgres: PostgresRef::Major(18),
            build: BuildRef::System,
            baseline: None,
            control: false,
            loop_for: None,
            replicas: 1,
            sample_every: Duration::from_secs(1),
            scale: 1.0,
            exclusive: false,
            agents: BTreeMap::new(),
            hard_end: None,
            seed: 1,
            on_lost: OnLost::Wait,
            options: ToolOptions::default(),
            escalate: false,
        }
    }
}
