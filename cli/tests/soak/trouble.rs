//! Bad input and trouble: a clear error or outcome each, and nothing hangs.

use crate::support::{Daemons, file, folder, pgsoak, show, soak, text};
use std::process::Output;

const USAGE: i32 = 64;
const UNREACHABLE: i32 = 69;

const TINY: &str = r#"
name = "tiny"
[[phase]]
name = "steady"
kind = "loop"
operations = 20
rounds = 12
sql = "SELECT 1"
"#;

fn run(plan: &str) -> Output {
    let dir = folder();
    file(dir.path(), "tiny.toml", TINY);
    let plan = file(dir.path(), "plan.toml", plan);
    pgsoak(&["run", text(&plan), "--data-dir", text(&dir.path().join("data")), "--quiet"])
        .output()
        .unwrap()
}

fn refused(plan: &str, said: &[&str]) {
    let output = run(plan);
    assert_eq!(output.status.code(), Some(USAGE), "{}", show(&output));
    let err = String::from_utf8_lossy(&output.stderr);
    for word in said {
        assert!(err.contains(word), "'{word}' is not in: {err}");
    }
}

#[test]
fn a_plan_with_a_wrong_key_names_file_line_and_the_nearest_key() {
    refused(
        "name = \"p\"\n[[job]]\nworklod = \"tiny.toml\"\n",
        &["plan.toml:3", "worklod", "workload"],
    );
}

#[test]
fn a_plan_with_a_wrong_type_or_unit_names_file_and_line() {
    refused(
        "name = \"p\"\n[[job]]\nworkload = \"tiny.toml\"\nfor = \"24 parsecs\"\n",
        &["plan.toml:4", "parsecs"],
    );
    refused(
        "name = \"p\"\n[[job]]\nworkload = \"tiny.toml\"\nreplicas = \"three\"\n",
        &["plan.toml:4", "replicas"],
    );
}

#[test]
fn an_unknown_workload_says_what_there_is() {
    refused(
        "name = \"p\"\n[[job]]\nworkload = \"tview_dlm\"\n",
        &["plan.toml:3", "tview_dlm", "tview_dml"],
    );
    refused("name = \"p\"\n[[job]]\nworkload = \"absent.toml\"\n", &["plan.toml:3", "absent.toml"]);
}

#[test]
fn wrong_usage_and_an_absent_coordinator_have_their_own_exit_codes() {
    let usage = pgsoak(&["run"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(USAGE), "{}", show(&usage));
    let absent = pgsoak(&["runs", "--coordinator", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(UNREACHABLE), "{}", show(&absent));
    let nonsense = pgsoak(&["runs", "--coordinator", "nonsense"]).output().unwrap();
    assert_eq!(nonsense.status.code(), Some(USAGE), "{}", show(&nonsense));
}

#[test]
fn a_build_that_is_nowhere_makes_the_run_invalid_and_says_how_to_get_it() {
    let plan = "name = \"p\"\n[defaults]\npostgres = \"18\"\nbuild = \"pg_tviews@9.9.9\"\n[[job]]\nworkload = \"tview_load\"\n";
    let soaked = soak(plan);
    assert_eq!(soaked.code, 3, "{:#}", soaked.json);
    assert_eq!(soaked.json["verdict"], "invalid");
    assert!(
        soaked.json.to_string().contains("build-extension.sh pg_tviews 9.9.9"),
        "{:#}",
        soaked.json
    );
}

#[test]
fn a_package_without_its_shared_object_makes_the_run_invalid() {
    let dir = folder();
    file(dir.path(), "pgsoak_faults.control", "default_version = '1.0'\n");
    let plan = format!(
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"dir:{}\"\n[[job]]\nworkload = \"fault_nothing\"\n",
        dir.path().display()
    );
    let soaked = soak(&plan);
    assert_eq!(soaked.code, 3, "{:#}", soaked.json);
    assert!(soaked.json.to_string().contains(".so"), "{:#}", soaked.json);
}

#[test]
fn a_postgres_that_is_not_here_makes_the_run_invalid() {
    let soaked = soak(
        "name = \"p\"\n[defaults]\npostgres = \"17\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"fault_nothing\"\n",
    );
    assert_eq!(soaked.code, 3, "{:#}", soaked.json);
    assert!(soaked.json.to_string().contains("17"), "{:#}", soaked.json);
}

#[test]
fn a_statement_that_fails_is_the_products_failure_and_is_named() {
    let dir = folder();
    let workload = r#"
name = "broken"
[[phase]]
name = "setup"
kind = "once"
sql = "CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT a / 0 FROM t"
"#;
    file(dir.path(), "broken.toml", workload);
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"broken.toml\"\n",
    );
    let soaked = crate::support::soak_in(dir.path(), &plan);
    assert_eq!(soaked.code, 1, "{:#}", soaked.json);
    let text = soaked.json.to_string();
    assert!(text.contains("22012") && text.contains("a / 0"), "{text}");
    assert_eq!(soaked.json["jobs"][0]["outcome"], "failed");
}

#[test]
fn a_check_that_does_not_hold_makes_the_run_invalid() {
    let dir = folder();
    let workload = "name = \"unchecked\"\n[[phase]]\nname = \"setup\"\nkind = \"once\"\nsql = \"CREATE TABLE t (a int)\"\ncheck = \"SELECT count(*) = 1 FROM t\"\n";
    file(dir.path(), "unchecked.toml", workload);
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"unchecked.toml\"\n",
    );
    let soaked = crate::support::soak_in(dir.path(), &plan);
    assert_eq!(soaked.code, 3, "{:#}", soaked.json);
    assert!(soaked.json.to_string().contains("setup"), "{:#}", soaked.json);
}

#[test]
fn a_server_that_does_not_start_shows_its_logs_last_lines() {
    let dir = folder();
    let workload = "name = \"nostart\"\n[cluster]\nsettings = { shared_buffers = \"nonsense\" }\n[[phase]]\nname = \"a\"\nkind = \"once\"\nsql = \"SELECT 1\"\n";
    file(dir.path(), "nostart.toml", workload);
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"nostart.toml\"\n",
    );
    let soaked = crate::support::soak_in(dir.path(), &plan);
    assert_eq!(soaked.code, 3, "{:#}", soaked.json);
    assert!(soaked.json.to_string().contains("invalid value for parameter"), "{:#}", soaked.json);
}

#[test]
fn a_data_folder_or_a_port_in_use_is_said() {
    let daemons = Daemons::start();
    let data = daemons.dir.path().join("coordinator");
    let second = pgsoak(&["coordinator", "--listen", "127.0.0.1:0", "--data-dir", text(&data)])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && err.contains("in use") && err.contains(text(&data)),
        "{}",
        show(&second)
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = daemons.dir.path().join("other");
    let third = pgsoak(&["coordinator", "--listen", &address, "--data-dir", text(&other)])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&third.stderr);
    assert!(!third.status.success() && err.contains(&address), "{}", show(&third));
}

#[test]
fn without_valgrind_a_memcheck_job_says_what_is_missing() {
    let dir = folder();
    file(dir.path(), "tiny.toml", TINY);
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"tiny.toml\"\ntool = \"memcheck\"\n",
    );
    // A PATH without valgrind: only what the shell itself needs.
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let output = pgsoak(&[
        "run",
        text(&plan),
        "--data-dir",
        text(&dir.path().join("data")),
        "--json",
        "--quiet",
    ])
    .env("PATH", &bin)
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("memcheck"), "{}", show(&output));
}
