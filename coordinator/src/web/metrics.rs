//! `/metrics`: the text that Prometheus scrapes. Levels are counted at the scrape, the rest is counted while it happens.

use crate::engine::census::Census;
use crate::metrics::Metrics;
use crate::rpc::schedules;
use crate::web::{Web, page::Trouble};
use axum::{extract::State, http::header, response::IntoResponse};
use pgsoak_proto::wire;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::ConstCounter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::{collections::BTreeMap, sync::atomic::AtomicU64};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabel {
    state: &'static str,
}

/// Names that people chose, at most as many as there are schedules.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ScheduleLabel {
    schedule: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HealthLabel {
    health: &'static str,
}

type Level = Gauge<u64, AtomicU64>;

/// Everything, as of now.
pub(super) async fn metrics(State(web): State<Web>) -> Result<impl IntoResponse, Trouble> {
    let census = web.services.engine.census().await.map_err(Trouble::gone)?;
    let schedules = schedules::list(&web.services).await?;
    let runs = web.services.store.lines().len();
    let mut registry = registry(&web.services.engine.metrics, &census, runs, Own::read());
    register_schedules(&mut registry, &schedules);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    Ok((
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        text,
    ))
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    resident_bytes: u64,
    cpu_seconds: f64,
    open_files: u64,
}

fn registry(counts: &Metrics, census: &Census, runs: usize, own: Own) -> Registry {
    let mut registry = Registry::default();
    let by_state = |levels: &BTreeMap<&'static str, u64>| {
        let family: Family<StateLabel, Level> = Family::default();
        for (state, level) in levels {
            family.get_or_create(&StateLabel { state }).set(*level);
        }
        family
    };
    let level = |value: u64| {
        let gauge = Level::default();
        gauge.set(value);
        gauge
    };
    let seconds = |value: f64| {
        let gauge: Gauge<f64, AtomicU64> = Gauge::default();
        gauge.set(value);
        gauge
    };
    registry.register(
        "pgsoak_fleet_agents",
        "Agents by where they stand",
        by_state(&census.agents),
    );
    let health: Family<HealthLabel, Level> = Family::default();
    for (word, agents) in &census.health {
        health.get_or_create(&HealthLabel { health: word }).set(*agents);
    }
    registry.register(
        "pgsoak_fleet_health",
        "Agents by what their health checks say; a quarantined one is failing",
        health,
    );
    registry.register(
        "pgsoak_fleet_skewed_agents",
        "Agents of another version than the coordinator's",
        level(census.skewed),
    );
    registry.register("pgsoak_fleet_slots", "Slots of connected agents", by_state(&census.slots));
    registry.register(
        "pgsoak_queue_runs",
        "Runs that are not finished, by state",
        by_state(&census.runs),
    );
    registry.register(
        "pgsoak_queue_jobs",
        "Jobs of unfinished runs, by state",
        by_state(&census.jobs),
    );
    registry.register(
        "pgsoak_queue_longest_wait_seconds",
        "How long the job that waits longest has waited",
        seconds(census.longest_wait.as_secs_f64()),
    );
    registry.register(
        "pgsoak_history_runs",
        "Runs in the history",
        level(u64::try_from(runs).unwrap_or(u64::MAX)),
    );
    registry.register(
        "pgsoak_run_finished",
        "Runs judged since the start",
        counts.finished.clone(),
    );
    registry.register(
        "pgsoak_run_judging_seconds",
        "Time that judging a run took",
        counts.judging.clone(),
    );
    registry.register(
        "pgsoak_ingest_frames",
        "Frames of evidence made durable",
        counts.frames.clone(),
    );
    registry.register(
        "pgsoak_ingest_batches_failed",
        "Batches of evidence refused or not stored; agents send them again",
        counts.batches_failed.clone(),
    );
    registry.register(
        "pgsoak_ingest_lag_seconds",
        "Time from a batch's arrival to its acknowledgement",
        counts.lag.clone(),
    );
    registry.register(
        "pgsoak_notify_messages",
        "Messages to people by channel and result",
        counts.messages.clone(),
    );
    registry.register(
        "pgsoak_alert_raised",
        "Alerts: runs that did not happen, agents that were quarantined, clocks that jumped",
        counts.alerts.clone(),
    );
    registry.register(
        "pgsoak_process_resident_bytes",
        "Resident memory of the coordinator",
        level(own.resident_bytes),
    );
    registry.register(
        "pgsoak_process_open_files",
        "Open file descriptors of the coordinator",
        level(own.open_files),
    );
    registry.register(
        "pgsoak_process_cpu_seconds",
        "CPU time of the coordinator",
        ConstCounter::new(own.cpu_seconds),
    );
    registry
}

/// What is known of each schedule.
fn register_schedules(registry: &mut Registry, schedules: &[wire::ScheduleView]) {
    let family = |of: fn(&wire::ScheduleView) -> Option<u64>| {
        let family: Family<ScheduleLabel, Level> = Family::default();
        for view in schedules {
            if let Some(value) = of(view) {
                family.get_or_create(&ScheduleLabel { schedule: view.name.clone() }).set(value);
            }
        }
        family
    };
    registry.register(
        "pgsoak_schedule_next_run_timestamp_seconds",
        "When the next run of a schedule is due; absent: it is paused, or no time comes",
        family(|view| view.next.as_ref().map(|next| next.due_unix_us / 1_000_000)),
    );
    registry.register(
        "pgsoak_schedule_absent_runs",
        "Alerts of a schedule since its last run on time: times without their run, runs without an agent",
        family(|view| Some(u64::from(view.unseen_alerts))),
    );
    registry.register(
        "pgsoak_schedule_owed_runs",
        "Missed times of a schedule that are still to be made up for",
        family(|view| Some(u64::try_from(view.owed_unix_us.len()).unwrap_or(u64::MAX))),
    );
    registry.register(
        "pgsoak_schedule_paused",
        "1: the schedule is paused",
        family(|view| Some(u64::from(view.is_paused))),
    );
}

// === impl Own ===

impl Own {
    /// From /proc; zeros where that says nothing.
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            let kib: u64 =
                line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1_024)
        });
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The command's name may hold spaces; what follows it does not.
        let ticks = stat.rsplit_once(')').map(|(_, rest)| {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let field =
                |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            field(11) + field(12)
        });
        #[expect(clippy::cast_precision_loss, reason = "100 everywhere")]
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident_bytes: resident.unwrap_or(0),
            cpu_seconds: ticks.unwrap_or(0.0) / per_second,
            open_files: u64::try_from(open).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::AlertLabel;
    use std::collections::BTreeSet;

    /// Names as Prometheus stores them (histograms without their suffixes), from the `# TYPE` lines.
    fn exported() -> BTreeSet<String> {
        // A family without a series says nothing at all.
        let metrics = Metrics::default();
        drop(metrics.alerts.get_or_create(&AlertLabel { kind: "run_missed" }));
        let mut registry = registry(&metrics, &Census::default(), 0, Own::default());
        let next = Some(wire::Tick { due_unix_us: 5_000_000, ..Default::default() });
        let view = wire::ScheduleView { name: "night".to_owned(), next, ..Default::default() };
        register_schedules(&mut registry, &[view]);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| {
                let (name, kind) = line.split_once(' ').unwrap();
                if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
            })
            .collect()
    }

    fn beside(path: &str) -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        std::fs::read_to_string(root.join(path)).unwrap()
    }

    /// Every word of a text that is the name of a metric of ours.
    fn named(text: &str) -> BTreeSet<String> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("pgsoak_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_list_of_metrics_is_what_is_exported() {
        let listed: BTreeSet<String> = beside("docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect();
        assert_eq!(listed, exported());
    }

    #[test]
    fn the_dashboard_names_metrics_that_exist() {
        let text = beside("deploy/grafana/pgsoak.json");
        let _: serde_json::Value = serde_json::from_str(&text).unwrap();
        let exported = exported();
        let named = named(&text);
        for name in &named {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(exported.contains(base) || exported.contains(name), "{name} is not exported");
        }
        assert!(named.len() > 8, "only {} metrics are shown", named.len());
    }

    #[test]
    fn names_begin_with_their_part_and_this_process_is_measured() {
        for name in exported() {
            assert!(name.starts_with("pgsoak_"), "{name}");
        }
        let own = Own::read();
        assert!(own.resident_bytes > 1_000_000 && own.open_files > 2, "{own:?}");
    }
}
