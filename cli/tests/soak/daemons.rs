//! Coordinator and agent as daemons: every verb, and what survives `kill -9`.

use crate::support::{Daemons, file, left_in, show, stdout, text, wait_for};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

const TWO_MINUTES: Duration = Duration::from_secs(120);

fn plan(daemons: &Daemons, rounds: u32, rate: u32) -> PathBuf {
    let workload = format!(
        r#"
name = "steady"
[[phase]]
name = "table"
kind = "once"
sql = "CREATE TABLE t (a int, b text)"
[[phase]]
name = "steady"
kind = "loop"
operations = 100
rounds = {rounds}
rate = {rate}
sql = "INSERT INTO t VALUES (${{n}}, 'x'); DELETE FROM t WHERE a = ${{n}}"
check = "SELECT count(*) = 0 FROM t"
"#
    );
    file(daemons.dir.path(), "steady.toml", &workload);
    let plan = "name = \"steady\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"steady.toml\"\nsample_every = \"200ms\"\n";
    file(daemons.dir.path(), "plan.toml", plan)
}

fn submit(daemons: &Daemons, plan: &std::path::Path) -> String {
    stdout(&mut daemons.ask(&["submit", text(plan)])).trim().to_owned()
}

fn verdict_of(daemons: &Daemons, run: &str) -> String {
    wait_for("the run to end", TWO_MINUTES, || {
        daemons.state(run)["verdict"].as_str().map(ToOwned::to_owned)
    })
}

fn report(daemons: &Daemons, run: &str) -> Value {
    serde_json::from_str(&stdout(&mut daemons.ask(&["report", run, "--json"]))).unwrap()
}

/// Ticks of the stored samples, which must be 0, 1, 2 … without a hole.
fn ticks(daemons: &Daemons, run: &str) -> usize {
    let rows = stdout(&mut daemons.ask(&["samples", run, "--json"]));
    let mut ticks: Vec<u64> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["tick"].as_u64().unwrap())
        .collect();
    let mut pairs: Vec<(u64, u64)> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (row["tick"].as_u64().unwrap(), row["process"].as_u64().unwrap()))
        .collect();
    pairs.sort_unstable();
    assert!(pairs.windows(2).all(|pair| pair[0] != pair[1]), "a sample is stored twice");
    ticks.dedup();
    ticks.sort_unstable();
    ticks.dedup();
    ticks.len()
}

#[test]
fn every_verb_works_against_daemons() {
    let daemons = Daemons::start();
    let plan = plan(&daemons, 12, 200);
    let checked = stdout(&mut daemons.ask(&["check", text(&plan), "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&checked).unwrap()["agent"], "a");

    let waited =
        daemons.ask(&["submit", text(&plan), "--wait", "--json", "--quiet"]).output().unwrap();
    let result: Value =
        serde_json::from_slice(&waited.stdout).unwrap_or_else(|_| panic!("{}", show(&waited)));
    assert_eq!(waited.status.code(), Some(0), "{}", show(&waited));
    assert_eq!(result["verdict"], "pass");
    let run = result["run"].as_str().unwrap();
    assert_eq!(result["jobs"][0]["agent"], "a");

    assert!(stdout(&mut daemons.ask(&["runs"])).contains(run));
    assert!(stdout(&mut daemons.ask(&["watch", run])).starts_with("Pass: "));
    assert!(stdout(&mut daemons.ask(&["report", run])).contains("# "));
    assert!(stdout(&mut daemons.ask(&["report", run, "--format", "junit"])).contains("<testsuite"));
    assert_eq!(report(&daemons, run), result);
    let csv = stdout(&mut daemons.ask(&["samples", "latest", "--csv"]));
    assert!(csv.starts_with("job,attempt,workload") && csv.contains(",client backend,"), "{csv}");
    assert!(!csv.contains(",unknown,"), "every process of a run of seconds is known at its end");
    assert!(ticks(&daemons, run) > 20);
    let rounds = stdout(&mut daemons.ask(&["samples", run, "--rounds"]));
    assert!(rounds.lines().count() > 12, "{rounds}");
    let artifacts = stdout(&mut daemons.ask(&["artifacts", run, "--json"]));
    assert!(artifacts.contains("server.log"), "{artifacts}");
    let to = daemons.dir.path().join("artifacts");
    stdout(&mut daemons.ask(&["artifacts", run, "--to", text(&to)]));
    let fetched = std::fs::read_dir(&to).unwrap().next().unwrap().unwrap().path();
    assert!(fetched.join("server.log.zst").metadata().unwrap().len() > 0);
    // Judging the stored evidence again gives the same bytes.
    let once = stdout(&mut daemons.ask(&["report", run, "--json"]));
    let again = stdout(&mut daemons.ask(&["report", run, "--json", "--replay"]));
    assert_eq!(once, again);
}

#[test]
fn a_submit_that_is_repeated_gives_the_same_run() {
    let daemons = Daemons::start();
    let plan = plan(&daemons, 12, 500);
    let ask = || stdout(&mut daemons.ask(&["submit", text(&plan), "--client-key", "once"]));
    let first = ask();
    assert_eq!(first, ask());
    assert_eq!(verdict_of(&daemons, first.trim()), "pass");
}

#[test]
fn a_killed_coordinator_loses_nothing() {
    let mut daemons = Daemons::start();
    let plan = plan(&daemons, 30, 200);
    let run = submit(&daemons, &plan);
    wait_for("samples", TWO_MINUTES, || (ticks(&daemons, &run) > 5).then_some(()));
    daemons.kill_coordinator();
    std::thread::sleep(Duration::from_secs(5));
    daemons.start_coordinator();
    assert_eq!(verdict_of(&daemons, &run), "pass");
    let result = report(&daemons, &run);
    let samples = &result["jobs"][0]["samples"];
    assert_eq!(samples["expected"], samples["stored"], "{samples}");
    assert_eq!(samples["gaps"], 0);
    assert_eq!(result["jobs"][0]["attempts"], 1);
    let stored = u64::try_from(ticks(&daemons, &run)).unwrap();
    assert_eq!(samples["stored"], stored);
}

#[test]
fn a_killed_agent_daemon_adopts_its_runner_again() {
    let mut daemons = Daemons::start();
    let plan = plan(&daemons, 30, 200);
    let run = submit(&daemons, &plan);
    wait_for("samples", TWO_MINUTES, || (ticks(&daemons, &run) > 5).then_some(()));
    daemons.kill_agent();
    std::thread::sleep(Duration::from_secs(3));
    daemons.start_agent();
    assert_eq!(verdict_of(&daemons, &run), "pass");
    let result = report(&daemons, &run);
    assert_eq!(result["jobs"][0]["attempts"], 1);
    assert_eq!(result["jobs"][0]["samples"]["expected"], result["jobs"][0]["samples"]["stored"]);
}

#[test]
fn cancel_leaves_no_process() {
    let daemons = Daemons::start();
    let plan = plan(&daemons, 1000, 100);
    let run = submit(&daemons, &plan);
    wait_for("the server", TWO_MINUTES, || {
        left_in(&daemons.dir.path().join("agent"))
            .iter()
            .any(|line| line.contains("postgres"))
            .then_some(())
    });
    stdout(&mut daemons.ask(&["cancel", &run, "--wait", "--json"]));
    assert_eq!(left_in(&daemons.dir.path().join("agent")), Vec::<String>::new());
    stdout(&mut daemons.ask(&["cancel", &run, "--json"]));
    let result = report(&daemons, &run);
    assert_eq!(result["jobs"][0]["outcome"], "cancelled");
    assert_ne!(result["verdict"], "pass");
}

#[test]
fn an_interrupted_run_cleans_up() {
    let dir = crate::support::folder();
    let workload = "name = \"long\"\n[[phase]]\nname = \"a\"\nkind = \"loop\"\nfor = \"10m\"\nrate = 50\nsql = \"SELECT 1\"\n";
    file(dir.path(), "long.toml", workload);
    let plan = file(
        dir.path(),
        "plan.toml",
        "name = \"p\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"long.toml\"\n",
    );
    let mut child = crate::support::pgsoak(&[
        "run",
        text(&plan),
        "--data-dir",
        text(&dir.path().join("data")),
        "--quiet",
    ])
    .stdout(std::process::Stdio::null())
    .spawn()
    .unwrap();
    wait_for("the server", TWO_MINUTES, || {
        left_in(dir.path()).iter().any(|line| line.contains("postgres")).then_some(())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_ne!(status.code(), Some(0));
    assert_eq!(left_in(dir.path()), Vec::<String>::new());
    let jobs = std::fs::read_dir(dir.path().join("data/agent/jobs")).unwrap().count();
    assert_eq!(jobs, 0, "a job's folder is left");
}
