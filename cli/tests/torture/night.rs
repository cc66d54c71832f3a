//! A schedule on three hosts that come in with a token: nothing runs before they are approved, then one run on all three at once, one
//! verdict.

use crate::fleet::{Fleet, RUN};
use crate::hosts::Network;
use crate::support::{stdout, text, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;

const TOKEN: &str = "a-token-of-this-test-alone";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_schedule_soaks_three_approved_hosts_and_ends_in_one_verdict() {
    let network = Network::new("n", 3);
    let mut fleet = Fleet::new(3, 1);
    fleet.listen("10.77.0.1:7420");
    fleet.coordinator.under = network.under("c");
    let token = fleet.dir.path().join("agent.token");
    std::fs::write(&token, TOKEN).unwrap();
    let variable = |name: &str| (name.to_owned(), text(&token).to_owned());
    fleet.coordinator.environment.push(variable("PGSOAK_TOKENS_AGENT_FILE"));
    for (number, agent) in (1..).zip(&mut fleet.agents) {
        agent.under = network.under(&format!("a{number}"));
        agent.environment.push(variable("PGSOAK_TOKEN_FILE"));
    }
    fleet.start();
    let members = lines(&stdout(&mut fleet.ask(&["agents", "--json"])));
    assert!(members.iter().all(|member| member["standing"] == "waiting"), "{members:#?}");

    let plan = fleet.plan(20, 3, "");
    let add = ["schedule", "add", text(&plan), "--cron", "0 22 * * *", "--time-zone", "UTC"];
    assert!(stdout(&mut fleet.ask(&add)).contains("22:00 UTC"));
    let run = stdout(&mut fleet.ask(&["schedule", "run-now", "steady"])).trim().to_owned();
    wait_for("the reason", RUN, || {
        let shown = stdout(&mut fleet.ask(&["runs", "show", &run]));
        shown.contains("waits for `pgsoak").then_some(())
    });
    for name in ["a1", "a2", "a3"] {
        let said = stdout(&mut fleet.ask(&["agents", "approve", name]));
        assert_eq!(said, format!("{name} is ready\n"));
    }
    assert_eq!(fleet.verdict(&run), "pass", "{:#}", fleet.report(&run));
    let report = fleet.report(&run);
    let jobs = report["jobs"].as_array().unwrap();
    let hosts: BTreeSet<&str> = jobs.iter().map(|job| job["agent"].as_str().unwrap()).collect();
    assert_eq!((jobs.len(), hosts.len()), (3, 3), "one replica on each host");
    let found = ["runs", "--label", "schedule=steady", "--json"];
    assert_eq!(lines(&stdout(&mut fleet.ask(&found))).len(), 1);
    let show = ["schedule", "show", "steady", "--json"];
    let schedule = &lines(&stdout(&mut fleet.ask(&show)))[0];
    assert_eq!(schedule["past"][0]["what"], "by hand");
    assert_eq!(schedule["past"][0]["run"], run.as_str());
    fleet.check_nothing_left();
}
