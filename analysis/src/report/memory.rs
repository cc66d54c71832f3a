//! Where memory is: the attribution ledger as a table and as stacked charts, and captures.

use crate::attribution::{Backend, backends, split};
use crate::evidence::{JobEvidence, RunEvidence};
use crate::figures::{bytes_text, count_text, rate_text};
use crate::report::chart::{Across, Area, Chart, Line};
use crate::report::table::Table;
use crate::result::{Attribution, Captured, RunResult, Shares};
use crate::stats::{Point, bytes};
use pgsoak_proto::evidence::AtRest;
use pgsoak_proto::job::Arm;
use std::collections::BTreeMap;

/// Sessions of one loop that the table shows: those that grew most.
const SESSIONS: usize = 3;

/// Most charts.
const CHARTS: usize = 16;

/// Contexts that have a colour of their own.
const NAMED: usize = 3;

/// Above the table of ledgers.
pub(super) const LEDGER: &str = "Where the memory is";

/// Below it.
pub(super) const LEDGER_WORDS: &str = "Growth of each session's backend from a third of its loop to the end, by double entry: RssAnon = memory contexts + malloc \
    outside contexts + the allocator's slack + unexplained (mmap, the program's own data; less than nothing: taken and not touched yet). \
    \"unknown\": not measured, and in no other column.";

/// Above the table of captures.
pub(super) const CAPTURES: &str = "Captured while it ran";

/// Growth by part; the sessions of a loop that grew most.
pub fn attributions(result: &RunResult) -> Table {
    let mut rows = Vec::new();
    let mut all: Vec<&Attribution> = result.attributions.iter().collect();
    all.sort_by_key(|of| of.arm);
    let key = |of: &Attribution| {
        (of.workload.clone(), of.phase.clone(), of.build.clone(), of.arm, of.agent.clone())
    };
    let mut groups: Vec<Vec<&Attribution>> = Vec::new();
    for of in all {
        match groups.iter_mut().find(|g| g.first().is_some_and(|first| key(first) == key(of))) {
            Some(group) => group.push(of),
            None => groups.push(vec![of]),
        }
    }
    for mut group in groups {
        let grew = |of: &Attribution| of.last.rss_anon_bytes - of.first.rss_anon_bytes;
        group.sort_by(|a, b| grew(b).total_cmp(&grew(a)).then(a.session.cmp(&b.session)));
        rows.extend(group.into_iter().take(SESSIONS).map(row));
    }
    Table {
        columns: vec![
            "Operation",
            "Session",
            "Operations",
            "RssAnon",
            "Contexts",
            "Malloc outside",
            "Slack",
            "Unexplained",
            "Build",
            "Known beside it",
        ],
        rows,
    }
}

fn row(of: &Attribution) -> Vec<String> {
    let growth = of.first.growth_to(&of.last);
    let operations = bytes(of.operations).max(1.0);
    let part = |part: Option<f64>| match part {
        None => "unknown".to_owned(),
        Some(part) => {
            let sign = if part > 0.0 { "+" } else { "" };
            format!("{sign}{} ({}/op)", bytes_text(part), rate_text(part / operations))
        }
    };
    let mut beside = Vec::new();
    if let Some(context) = of.contexts.first().filter(|c| c.last_bytes > c.first_bytes) {
        let grew = bytes(context.last_bytes) - bytes(context.first_bytes);
        beside.push(format!("most of the contexts: {} +{}", context.name, bytes_text(grew)));
    }
    if let Some(trimmed) = of.trimmed_bytes {
        beside.push(format!("malloc_trim gave back {}", bytes_text(trimmed)));
    }
    if let Some(rate) = of.heaptrack_bytes_per_operation {
        beside.push(format!("heaptrack: malloc as a whole {}/op", rate_text(rate)));
    }
    if of.readings_with_books < 2 {
        beside.push(
            "malloc was not asked for its books (needs gdb and the right to trace)".to_owned(),
        );
    }
    vec![
        format!("{}/{}", of.workload, of.phase),
        format!(
            "worker {}{}",
            of.session,
            if of.agent.is_empty() { String::new() } else { format!(" on {}", of.agent) }
        ),
        count_text(bytes(of.operations)),
        part(Some(growth.rss_anon_bytes)),
        part(growth.contexts_bytes),
        part(growth.malloc_outside_contexts_bytes),
        part(growth.allocator_slack_bytes),
        part(growth.unexplained_bytes),
        format!("{} ({})", of.build, of.arm),
        beside.join("; "),
    ]
}

/// Suspects and last captures.
pub fn captures(result: &RunResult) -> Table {
    Table {
        columns: vec![
            "Operation",
            "Who",
            "When",
            "RssAnon",
            "Memory contexts, used",
            "Statement",
            "Why",
            "Build",
        ],
        rows: result.captures.iter().map(capture).collect(),
    }
}

fn capture(of: &Captured) -> Vec<String> {
    let is_pair = of.last_s > of.first_s;
    let when = match (of.before_end_s, is_pair) {
        (Some(before), _) => format!("{:.0} s, {before:.0} s before the end", of.last_s),
        (None, true) => format!(
            "{:.0} s to {:.0} s, {} operations",
            of.first_s,
            of.last_s,
            count_text(bytes(of.operations))
        ),
        (None, false) => format!("{:.0} s, once", of.first_s),
    };
    let held = |figure: u64| bytes_text(bytes(figure));
    let contexts: Vec<String> = of
        .contexts
        .iter()
        .map(|share| match is_pair {
            true => {
                let grew = bytes(share.last_bytes) - bytes(share.first_bytes);
                format!("{} {}{}", share.name, if grew > 0.0 { "+" } else { "" }, bytes_text(grew))
            }
            false => format!("{} {}", share.name, held(share.last_bytes)),
        })
        .collect();
    vec![
        format!("{}/{}", of.workload, of.phase),
        format!(
            "{} (pid {}){}",
            of.who,
            of.pid,
            if of.agent.is_empty() { String::new() } else { format!(" on {}", of.agent) }
        ),
        when,
        match is_pair {
            true => {
                format!("{} to {}", held(of.first_rss_anon_bytes), held(of.last_rss_anon_bytes))
            }
            false => held(of.last_rss_anon_bytes),
        },
        match (contexts.is_empty(), of.missing.is_empty()) {
            (false, _) => contexts.join(", "),
            (true, true) => "no change".to_owned(),
            (true, false) => format!("unknown: {}", of.missing),
        },
        of.statements
            .first()
            .map_or_else(|| "–".to_owned(), |sql| crate::ledger::one_line(sql, 200)),
        of.reason.clone(),
        format!("{} ({})", of.build, of.arm),
    ]
}

// === charts ===

/// A part of a stack: its name and class, and its bytes at each reading.
struct Layer {
    name: String,
    class: &'static str,
    heights: Vec<f64>,
}

/// A stacked chart and what stands around it.
pub(super) struct Stack {
    pub(super) title: String,
    pub(super) chart: Chart,
    /// Label and class.
    pub(super) keys: Vec<(String, String)>,
    pub(super) says: Vec<String>,
}

/// One chart a loop and job: the session that grew most.
pub(super) fn stacks(evidence: &RunEvidence) -> Vec<Stack> {
    let mut all = Vec::new();
    let mut jobs: Vec<&JobEvidence> =
        evidence.jobs.iter().filter(|job| job.spec.arm != Arm::Canary).collect();
    jobs.sort_by_key(|job| job.spec.arm == Arm::Control);
    for job in jobs {
        let mut by_phase: BTreeMap<&str, Backend<'_>> = BTreeMap::new();
        for backend in backends(job) {
            let grew = |of: &Backend<'_>| {
                let at =
                    |reading: Option<&&AtRest>| reading.map_or(0.0, |r| bytes(r.rss_anon_bytes));
                at(of.readings.last()) - at(of.readings.first())
            };
            match by_phase.get(backend.phase) {
                Some(known) if grew(known) >= grew(&backend) => {}
                _ => {
                    by_phase.insert(backend.phase, backend);
                }
            }
        }
        all.extend(by_phase.into_values().filter_map(|backend| stack(job, &backend)));
    }
    all.truncate(CHARTS);
    all
}

fn stack(job: &JobEvidence, backend: &Backend<'_>) -> Option<Stack> {
    // With malloc's books all parts are known; without them nothing is drawn beyond contexts.
    let with_books: Vec<&AtRest> =
        backend.readings.iter().copied().filter(|r| r.allocator.is_some()).collect();
    let has_books = with_books.len() >= 2;
    let readings: Vec<&AtRest> = if has_books { with_books } else { thin(&backend.readings) };
    if readings.len() < 2 {
        return None;
    }
    let shares: Vec<Shares> = readings.iter().map(|reading| split(reading)).collect();
    let layers = layers(&readings, &shares, has_books);
    let mut chart = Chart {
        title: format!(
            "Where RssAnon is over operations, {}, phase {}, worker {}",
            job.workload.name, backend.phase, backend.session
        ),
        across: Across::Operations,
        bands: Vec::new(),
        areas: Vec::new(),
        lines: Vec::new(),
    };
    let at = |number: usize, y: f64| Point {
        x: readings.get(number).map_or(0.0, |r| bytes(r.operations)),
        y,
    };
    let mut floor = vec![0.0; readings.len()];
    let mut keys = Vec::new();
    for layer in layers {
        let top: Vec<f64> =
            floor.iter().zip(&layer.heights).map(|(low, height)| low + height.max(0.0)).collect();
        let points = |ys: &[f64]| ys.iter().enumerate().map(|(number, y)| at(number, *y)).collect();
        chart.areas.push(Area {
            low: points(&floor),
            high: points(&top),
            class: layer.class,
            name: layer.name.clone(),
        });
        keys.push((layer.name, format!("key-{}", layer.class)));
        floor = top;
    }
    chart.lines.push(Line {
        points: shares.iter().enumerate().map(|(number, s)| at(number, s.rss_anon_bytes)).collect(),
        class: "main".to_owned(),
        name: "RssAnon".to_owned(),
    });
    keys.push(("RssAnon".to_owned(), "main".to_owned()));
    let mut says = vec![format!(
        "Worker {} (the one that grew most), {} of {} readings at rest. A stack above the line: memory that was taken and not touched yet.",
        backend.session,
        readings.len(),
        backend.readings.len()
    )];
    if !has_books {
        says.push("malloc was not asked for its books here (needs gdb and the right to trace): what contexts do not hold is not split.".to_owned());
    }
    let title = format!(
        "{}, phase {}: {} ({}) on {}",
        job.workload.name, backend.phase, job.spec.build, job.spec.arm, job.agent
    );
    Some(Stack { title, chart, keys, says })
}

/// At most 120 readings, the first and the last among them.
fn thin<'a>(readings: &[&'a AtRest]) -> Vec<&'a AtRest> {
    let every = readings.len().div_ceil(120).max(1);
    let last = readings.len().saturating_sub(1);
    readings
        .iter()
        .enumerate()
        .filter(|(at, _)| at % every == 0 || *at == last)
        .map(|(_, reading)| *reading)
        .collect()
}

fn layers(readings: &[&AtRest], shares: &[Shares], has_books: bool) -> Vec<Layer> {
    const CLASSES: [&str; NAMED] = ["stack-0", "stack-1", "stack-2"];
    let held = |reading: &AtRest, name: &str| {
        reading.contexts.iter().find(|c| c.name == name).map_or(0.0, |c| bytes(c.total_bytes))
    };
    let known: Vec<f64> = shares.iter().map(|s| s.contexts_bytes.unwrap_or(0.0)).collect();
    let mut layers = Vec::new();
    if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
        let grown =
            crate::captures::changes(&first.contexts, &last.contexts, NAMED, |c| c.total_bytes);
        let grown: Vec<String> =
            grown.into_iter().filter(|c| c.last_bytes > c.first_bytes).map(|c| c.name).collect();
        let named = |reading: &AtRest| grown.iter().map(|name| held(reading, name)).sum::<f64>();
        let rest = readings.iter().zip(&known).map(|(reading, all)| all - named(reading)).collect();
        layers.push(Layer {
            name: "other contexts".to_owned(),
            class: "stack-rest",
            heights: rest,
        });
        for (name, class) in grown.iter().zip(CLASSES) {
            let heights = readings.iter().map(|reading| held(reading, name)).collect();
            layers.push(Layer { name: format!("context {name}"), class, heights });
        }
    }
    let part = |of: fn(&Shares) -> Option<f64>| -> Vec<f64> {
        shares.iter().map(|shares| of(shares).unwrap_or(0.0)).collect()
    };
    if has_books {
        let more = [
            ("malloc outside contexts", "stack-malloc", part(|s| s.malloc_outside_contexts_bytes)),
            ("slack of the allocator", "stack-slack", part(|s| s.allocator_slack_bytes)),
            ("unexplained", "stack-unknown", part(|s| s.unexplained_bytes)),
        ];
        layers.extend(more.map(|(name, class, heights)| Layer {
            name: name.to_owned(),
            class,
            heights,
        }));
    } else {
        let heights = shares.iter().zip(&known).map(|(s, all)| s.rss_anon_bytes - all).collect();
        layers.push(Layer { name: "not split".to_owned(), class: "stack-unknown", heights });
    }
    layers
}
