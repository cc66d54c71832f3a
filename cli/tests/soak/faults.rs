//! Planted faults: what wastes memory is found and named, what does not is left alone. PostgreSQL 15 and 18.

use crate::support::{Soaked, soak};
use serde_json::Value;

fn plan(postgres: &str) -> String {
    format!(
        r#"
name = "faults"
[defaults]
postgres = "{postgres}"
build = "pgsoak_faults@1.0"
control = false

[[job]]
workload = ["fault_malloc_kept", "fault_palloc_top", "fault_context_kept", "fault_spi_plan_kept", "fault_mmap_kept",
            "fault_cache_bounded", "fault_sawtooth", "fault_nothing"]
tool = "plain"
[[job]]
workload = ["fault_malloc_lost", "fault_nothing", "fault_fd_kept"]
tool = "memcheck"
scale = 0.1
[[job]]
workload = ["fault_invalid_read", "fault_invalid_write", "fault_uninitialised"]
tool = "memcheck"
scale = 0.02
"#
    )
}

/// The worst finding of a workload under a tool; `None`: none that is not a pass.
fn finding<'a>(soaked: &'a Soaked, workload: &str, tool: &str) -> Option<&'a Value> {
    soaked.json["findings"].as_array().unwrap().iter().find(|finding| {
        finding["workload"] == workload && finding["tool"] == tool && finding["verdict"] != "pass"
    })
}

fn must_fail(
    soaked: &Soaked,
    workload: &str,
    tool: &str,
    subject: &str,
    bytes: Option<f64>,
    within: f64,
) {
    let Some(found) = finding(soaked, workload, tool) else {
        panic!("{workload} under {tool} has no finding: {:#}", soaked.json["findings"]);
    };
    assert_eq!(found["verdict"], "fail", "{found:#}");
    let named = found["subject"].as_str().unwrap();
    assert!(named.contains(subject), "{workload}: '{named}' does not name '{subject}'");
    if let Some(bytes) = bytes {
        let measured = found["bytes_per_operation"].as_f64().unwrap();
        assert!(
            (measured - bytes).abs() <= within * bytes,
            "{workload}: {measured} B, not {bytes} B"
        );
    }
}

/// A busy machine may make the sampler late; each tick that it missed has its cause.
fn every_tick_is_accounted_for(job: &Value) {
    let count = |what: &str| job["samples"][what].as_u64().unwrap();
    let (expected, missed) = (count("expected"), count("expected") - count("stored"));
    let gaps = job["ledger"]["gaps"].as_array().unwrap();
    let told: u64 = gaps.iter().map(|gap| gap["ticks"].as_u64().unwrap()).sum();
    assert_eq!(told, missed, "{job:#}");
    assert!(gaps.iter().all(|gap| gap["cause"] == "sampler late"), "{job:#}");
    assert!(missed * 20 <= expected, "{job:#}");
}

fn every_fault_is_judged_rightly(postgres: &str, palloc_bytes: f64) {
    let soaked = soak(&plan(postgres));
    for job in soaked.json["jobs"].as_array().unwrap() {
        assert_eq!(job["outcome"], "finished", "{job:#}");
        every_tick_is_accounted_for(job);
    }
    // 100 bytes cost 112 of malloc.
    must_fail(&soaked, "fault_malloc_kept", "plain", "malloc outside contexts", Some(112.0), 0.05);
    must_fail(
        &soaked,
        "fault_palloc_top",
        "plain",
        "context TopMemoryContext",
        Some(palloc_bytes),
        0.05,
    );
    must_fail(&soaked, "fault_context_kept", "plain", "context ", None, 0.0);
    must_fail(&soaked, "fault_spi_plan_kept", "plain", "context CachedPlan", None, 0.0);
    must_fail(&soaked, "fault_mmap_kept", "plain", "outside malloc", Some(4096.0), 0.05);
    must_fail(&soaked, "fault_malloc_lost", "memcheck", "lose_block", Some(100.0), 0.000_1);
    let lost = finding(&soaked, "fault_malloc_lost", "memcheck").unwrap();
    assert!(lost["stack"].to_string().contains("faults_malloc_lost"), "{lost:#}");
    assert_eq!(lost["owner"], "extension");
    for (workload, what, function) in [
        ("fault_invalid_read", "Invalid read of size 1", "read_behind"),
        ("fault_invalid_write", "Invalid write of size 1", "write_behind"),
        ("fault_uninitialised", "uninitialised value", "decide_by"),
        ("fault_fd_kept", "File descriptor left open", "keep_descriptor"),
    ] {
        must_fail(&soaked, workload, "memcheck", what, None, 0.0);
        let found = finding(&soaked, workload, "memcheck").unwrap();
        assert!(found["stack"].to_string().contains(function), "{found:#}");
        assert_eq!(found["fingerprint"].as_str().unwrap().len(), 16);
    }
    for healthy in ["fault_cache_bounded", "fault_sawtooth", "fault_nothing"] {
        for tool in ["plain", "memcheck"] {
            let found = finding(&soaked, healthy, tool);
            assert!(found.is_none_or(|f| f["verdict"] != "fail"), "{:#}", found.unwrap());
        }
    }
    assert_eq!(soaked.code, 1);
    assert_eq!(soaked.json["verdict"], "fail");
    assert!(soaked.err.is_empty(), "something was logged: {}", soaked.err);
}

#[test]
fn planted_faults_on_postgres_15() {
    every_fault_is_judged_rightly("15", 144.0);
}

#[test]
fn planted_faults_on_postgres_18() {
    every_fault_is_judged_rightly("18", 136.0);
}

#[test]
fn vanilla_postgres_passes() {
    let plan = "name = \"v\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"vanilla_dml\"\nscale = 0.5\n";
    let soaked = soak(plan);
    assert_ne!(soaked.json["verdict"], "fail", "{:#}", soaked.json);
    assert_ne!(soaked.json["verdict"], "invalid", "{:#}", soaked.json);
}
