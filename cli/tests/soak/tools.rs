//! heaptrack and massif through the whole product: planted faults by function and bytes, what is kept, coverage. PostgreSQL 15 and 18.

use crate::support::{Soaked, file, folder, pgsoak, soak_in, stdout, text};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn plan(postgres: &str) -> String {
    format!(
        r#"
name = "tools"
[defaults]
postgres = "{postgres}"
build = "pgsoak_faults@1.0"
control = false

[[job]]
workload = ["fault_malloc_kept", "fault_malloc_lost", "fault_nothing", "fault_parallel_lost"]
tool = "heaptrack"
scale = 0.2
[[job]]
workload = "fault_malloc_kept"
tool = "massif"
scale = 0.2
"#
    )
}

fn findings<'a>(
    soaked: &'a Soaked,
    workload: &'a str,
    tool: &'a str,
) -> impl Iterator<Item = &'a Value> {
    let all = soaked.json["findings"].as_array().unwrap().iter();
    all.filter(move |found| found["workload"] == workload && found["tool"] == tool)
}

/// Kept raw files of all jobs.
fn kept(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut folders = vec![dir.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
                found.push(path);
            }
        }
    }
    found
}

fn sites_are_found(postgres: &str) {
    let dir = folder();
    let plan = file(dir.path(), "plan.toml", &plan(postgres));
    let soaked = soak_in(dir.path(), &plan);
    for job in soaked.json["jobs"].as_array().unwrap() {
        assert_eq!(job["outcome"], "finished", "{job:#}");
        assert!(job["coverage"].as_f64().unwrap() >= 0.99, "{job:#}");
    }
    for (workload, function) in
        [("fault_malloc_kept", "keep_block"), ("fault_malloc_lost", "lose_block")]
    {
        let failed: Vec<&Value> =
            findings(&soaked, workload, "heaptrack").filter(|f| f["verdict"] == "fail").collect();
        let [found] = failed[..] else { panic!("{workload}: {:#}", soaked.json["findings"]) };
        assert_eq!((&found["evidence"], &found["subject"]), (&"site".into(), &function.into()));
        assert_eq!(found["owner"], "extension");
        let bytes = found["bytes_per_operation"].as_f64().unwrap();
        assert!((bytes - 100.0).abs() < 1.0, "{workload}: {bytes} B");
        assert!(found["message"].as_str().unwrap().contains("pgsoak_faults.c:"), "{found:#}");
    }
    // A worker for each of 80 queries and for the check before them: most live for less than the time between two samples.
    let failed: Vec<&Value> = findings(&soaked, "fault_parallel_lost", "heaptrack")
        .filter(|f| f["verdict"] == "fail")
        .collect();
    let [found] = failed[..] else { panic!("{:#}", soaked.json["findings"]) };
    assert_eq!(found["subject"], "lose_block");
    assert_eq!(found["bytes_per_operation"], 81.0 * 20_000.0 / 80.0, "{found:#}");
    for found in findings(&soaked, "fault_nothing", "heaptrack") {
        assert_eq!(found["verdict"], "pass", "{found:#}");
    }
    // Both tools name who holds the planted blocks: 4,800 of 100 bytes.
    for tool in ["heaptrack", "massif"] {
        let all = soaked.json["holders"].as_array().unwrap();
        let holders =
            all.iter().find(|h| h["workload"] == "fault_malloc_kept" && h["tool"] == tool);
        let first = &holders.unwrap_or_else(|| panic!("{all:#?}"))["sites"][0];
        assert_eq!(
            (&first["function"], &first["owner"]),
            (&"keep_block".into(), &"extension".into())
        );
        let bytes = first["peak_bytes"].as_f64().unwrap();
        assert!((bytes - 480_000.0).abs() < 5_000.0, "{tool}: {first:#}");
    }
    assert_eq!((soaked.code, &soaked.json["verdict"]), (1, &"fail".into()));

    // What is kept can be read again, with names in it, though the server's own tree is gone.
    let whole = kept(dir.path(), |name| name.starts_with("ht.") && name.ends_with(".json.zst"));
    assert_eq!(whole.len(), 4 * 2, "one for each session: {whole:?}");
    let keeps = whole.iter().any(|file| {
        let top: Value =
            serde_json::from_str(&stdout(&mut pgsoak(&["heap", "top", text(file), "--json"])))
                .unwrap();
        let sites = top["sites"].as_array().unwrap();
        sites.iter().any(|site| site["function"] == "keep_block" && site["module"] != "")
    });
    assert!(keeps, "no kept digest names keep_block");
    let raw = kept(dir.path(), |name| name.starts_with("ht.") && name.ends_with(".raw.zst"));
    assert!(raw.len() >= 3 * 6, "every process left a file: {raw:?}");
}

#[test]
fn sites_of_planted_faults_on_postgres_15() {
    sites_are_found("15");
}

#[test]
fn sites_of_planted_faults_on_postgres_18() {
    sites_are_found("18");
}
