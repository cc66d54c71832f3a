//! The real pg_tviews on PostgreSQL 18: candidate, baseline and control, plain and under memcheck.

use crate::support::soak;

#[test]
fn two_releases_and_vanilla_are_soaked_and_compared() {
    let plan = r#"
name = "tviews"
[defaults]
postgres = "18"
build = "pg_tviews@0.1.0-beta.34"
baseline = "pg_tviews@0.1.0-beta.20"
control = true
[[job]]
workload = ["tview_load", "tview_small"]
[[job]]
workload = "tview_dml"
scale = 0.1
[[job]]
workload = "tview_dml"
tool = "memcheck"
scale = 0.01
"#;
    let soaked = soak(plan);
    let jobs = soaked.json["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 12);
    for job in jobs {
        assert_eq!(job["outcome"], "finished", "{job:#}");
    }
    let arms: std::collections::BTreeSet<_> =
        jobs.iter().map(|job| job["arm"].as_str().unwrap()).collect();
    assert_eq!(arms.into_iter().collect::<Vec<_>>(), ["baseline", "candidate", "control"]);
    let budgets = soaked.json["budgets"].as_array().unwrap();
    let load =
        budgets.iter().find(|b| b["workload"] == "tview_load" && b["arm"] == "candidate").unwrap();
    assert_eq!(load["verdict"], "pass", "{load:#}");
    assert!(load["measured_bytes"].as_f64().unwrap() > 0.0);
    assert!(!soaked.json["comparisons"].as_array().unwrap().is_empty());
    // Coverage of the tool: every backend of the workload was seen.
    for job in jobs.iter().filter(|job| job["tool"] == "memcheck") {
        assert!(job["coverage"].as_f64().unwrap() >= 0.99, "{job:#}");
    }
    assert_ne!(soaked.json["verdict"], "invalid", "{:#}", soaked.json);
}
