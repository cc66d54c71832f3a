//! A plain job that grows is followed by memcheck and heaptrack, whose stack ends up in its finding; captures while it runs. PostgreSQL 15 and 18.

use crate::support::{Soaked, file, folder, pgsoak, soak, stdout, text};
use serde_json::Value;

fn plan(postgres: &str) -> String {
    format!(
        r#"
name = "escalated"
[defaults]
postgres = "{postgres}"
build = "pgsoak_faults@1.0"
[[job]]
workload = ["fault_malloc_kept", "fault_nothing"]
scale = 0.5
escalate = true
"#
    )
}

fn jobs<'a>(soaked: &'a Soaked, workload: &'a str) -> Vec<&'a str> {
    let all = soaked.json["jobs"].as_array().unwrap().iter();
    all.filter(|job| job["workload"] == workload).map(|job| job["tool"].as_str().unwrap()).collect()
}

fn a_kept_block_is_named(postgres: &str) {
    let soaked = soak(&plan(postgres));
    for job in soaked.json["jobs"].as_array().unwrap() {
        assert_eq!(job["outcome"], "finished", "{job:#}");
        if job["tool"] != "plain" {
            let life = &job["proof_of_life"];
            assert_eq!(life[0], life[1], "{job:#}");
            assert_eq!(job["processes_seen"][0], job["processes_seen"][1], "{job:#}");
        }
    }
    assert_eq!(jobs(&soaked, "fault_malloc_kept"), ["plain", "memcheck", "heaptrack"]);
    assert_eq!(jobs(&soaked, "fault_nothing"), ["plain"], "what does not grow is left alone");

    let all = soaked.json["findings"].as_array().unwrap();
    let found = all.iter().find(|f| f["tool"] == "plain" && f["verdict"] == "fail");
    let found = found.unwrap_or_else(|| panic!("{all:#?}"));
    assert_eq!(found["workload"], "fault_malloc_kept");
    assert!(found["stack"].to_string().contains("keep_block"), "{found:#}");
    let bytes = found["bytes_per_operation"].as_f64().unwrap();
    assert!((bytes - 100.0).abs() < 1.0, "{bytes} B: memcheck's figure is exact");
    let agreeing = found["agreeing"].to_string();
    assert!(agreeing.contains("leak_record"), "{found:#}");

    // Its memory is malloc's, outside of contexts, by malloc's own books.
    let mut ledgers = soaked.json["attributions"].as_array().unwrap().iter();
    let ledger = ledgers.find(|l| l["workload"] == "fault_malloc_kept").unwrap();
    let grew = |part: &str| {
        let at = |end: &str| ledger[end][part].as_f64().unwrap_or_else(|| panic!("{ledger:#}"));
        (at("last") - at("first")) / ledger["operations"].as_f64().unwrap()
    };
    let outside = grew("malloc_outside_contexts_bytes");
    assert!((outside - 112.0).abs() < 12.0, "{outside} B of malloc outside contexts: {ledger:#}");
    for part in ["contexts_bytes", "unexplained_bytes"] {
        assert!(grew(part).abs() < 30.0, "{part}: {ledger:#}");
    }
    assert_eq!((soaked.code, &soaked.json["verdict"]), (1, &"fail".into()));
}

#[test]
fn a_kept_block_is_named_on_postgres_15() {
    a_kept_block_is_named("15");
}

#[test]
fn a_kept_block_is_named_on_postgres_18() {
    a_kept_block_is_named("18");
}

#[test]
fn check_says_what_may_follow() {
    let dir = folder();
    let plan = file(dir.path(), "plan.toml", &plan("18"));
    let said = stdout(&mut pgsoak(&["check", text(&plan), "--offline"]));
    assert!(said.contains("up to 4 short jobs follow (escalate)"), "{said}");
    let said = stdout(&mut pgsoak(&["check", text(&plan), "--offline", "--json"]));
    let follow: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let follow: Vec<&Value> = follow.iter().filter(|f| f["only_if_it_grows"] == true).collect();
    assert_eq!(follow.len(), 4);
    assert_eq!((&follow[0]["tool"], &follow[1]["tool"]), (&"memcheck".into(), &"heaptrack".into()));
}

/// Growth of a context, fast enough to be suspect within seconds.
#[test]
fn a_suspect_is_captured_while_it_runs_and_again_later() {
    let soaked = soak(
        "name = \"suspect\"\n[defaults]\npostgres = \"15\"\nbuild = \"pgsoak_faults@1.0\"\nfor = \"45s\"\n[[job]]\nworkload = \"fault_palloc_top\"\n",
    );
    let all = soaked.json["captures"].as_array().unwrap_or_else(|| panic!("{:#}", soaked.json));
    let of = &all[0];
    assert_eq!((&of["workload"], &of["who"]), (&"fault_palloc_top".into(), &"worker 1".into()));
    let (first, last) = (of["first_s"].as_f64().unwrap(), of["last_s"].as_f64().unwrap());
    assert!(last - first >= 5.0, "{of:#}");
    assert_eq!(of["contexts"][0]["name"], "TopMemoryContext", "{of:#}");
    assert!(of["statements"][0].as_str().unwrap().contains("faults_palloc_top"), "{of:#}");
    let findings = soaked.json["findings"].as_array().unwrap();
    let found = findings.iter().find(|f| f["verdict"] == "fail").unwrap();
    assert!(found["message"].as_str().unwrap().contains("Captured while it ran"), "{found:#}");
}
