//! Several hosts: a coordinator and three agents in network namespaces, joined by veth through a bridge, with a cut link.

use crate::evidence;
use crate::fleet::Fleet;
use pgsoak_proto::wire::JobPlace;
use std::{
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

/// Minutes: longer than the lease (30 s), so that the agent counts as unreachable meanwhile, and than every timeout of the session.
const CUT: Duration = Duration::from_secs(130);

/// Runs a tool that must be there and must succeed.
pub fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); `make setup` installs it")
    });
    assert!(
        output.status.success(),
        "{program} {}: {} (the torture tests need root)",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Namespaces `…-sw` (the bridge), `…-c`, `…-a1` …; removed at the end.
pub struct Network {
    prefix: String,
    names: Vec<String>,
}

impl Network {
    /// `tag` tells the networks of tests that run at once apart.
    pub fn new(tag: &str, agents: usize) -> Self {
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root");
        let prefix = format!("pgsoak{}{tag}", process::id());
        let mut network = Self { prefix, names: Vec::new() };
        let switch = network.add("sw");
        tool("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        tool("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        let hosts = std::iter::once("c".to_owned()).chain((1..=agents).map(|n| format!("a{n}")));
        for (number, host) in (1..).zip(hosts) {
            let space = network.add(&host);
            let (port, peer) = (format!("p-{host}"), "eth0");
            tool(
                "ip",
                &[
                    "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", peer,
                    "netns", &space,
                ],
            );
            tool("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            tool(
                "ip",
                &["-n", &space, "addr", "add", &format!("10.77.0.{number}/24"), "dev", peer],
            );
            tool("ip", &["-n", &space, "link", "set", peer, "up"]);
            tool("ip", &["-n", &space, "link", "set", "lo", "up"]);
        }
        network
    }

    fn add(&mut self, host: &str) -> String {
        let name = format!("{}-{host}", self.prefix);
        tool("ip", &["netns", "add", &name]);
        self.names.push(name.clone());
        name
    }

    /// What a program runs under to be on a host.
    pub fn under(&self, host: &str) -> Vec<String> {
        ["ip", "netns", "exec", &format!("{}-{host}", self.prefix)].map(ToOwned::to_owned).to_vec()
    }

    fn set_link(&self, host: &str, state: &str) {
        let switch = format!("{}-sw", self.prefix);
        tool("ip", &["-n", &switch, "link", "set", &format!("p-{host}"), state]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// What two runs of one plan have in common whatever the network did: jobs, rounds, and every tick there.
fn shape(fleet: &Fleet, run: &str) -> Vec<(String, usize)> {
    assert_eq!(fleet.verdict(run), "pass", "{:#}", fleet.report(run));
    let report = fleet.report(run);
    let mut agents = Vec::new();
    for job in report["jobs"].as_array().unwrap() {
        assert_eq!(job["attempts"], 1, "{job:#}");
        assert_eq!(job["samples"]["expected"], job["samples"]["stored"], "{job:#}");
        assert_eq!(job["samples"]["gaps"], 0, "{job:#}");
        agents.push(job["agent"].as_str().unwrap().to_owned());
    }
    let stored = evidence::stored(&fleet.url(), run);
    assert_eq!(stored.len(), 3);
    let mut shape: Vec<(String, usize)> = Vec::new();
    for (((_, attempt), evidence), agent) in stored.iter().zip(agents) {
        assert_eq!(*attempt, 1);
        evidence.check_complete();
        shape.push((agent, evidence.rounds()));
    }
    shape.sort();
    fleet.check_nothing_left();
    shape
}

#[test]
fn a_cut_link_and_a_restarted_coordinator_change_nothing() {
    let network = Network::new("h", 3);
    let mut fleet = Fleet::new(3, 1);
    fleet.listen("10.77.0.1:7420");
    fleet.coordinator.under = network.under("c");
    for (number, agent) in (1..).zip(&mut fleet.agents) {
        agent.under = network.under(&format!("a{number}"));
    }
    fleet.start();
    let plan = fleet.plan(180, 3, "");

    let uncut = fleet.submit(&plan);
    let uncut = shape(&fleet, &uncut);
    let names: Vec<&str> = uncut.iter().map(|(agent, _)| agent.as_str()).collect();
    assert_eq!(names, ["a1", "a2", "a3"], "replicas go to different hosts");

    let run = fleet.submit(&plan);
    fleet.wait_for_samples(&run);
    network.set_link("a2", "down");
    let since = Instant::now();
    thread::sleep(CUT / 3);
    fleet.coordinator.kill();
    thread::sleep(Duration::from_secs(2));
    fleet.start_coordinator();
    let mut was_unreachable = false;
    while since.elapsed() < CUT {
        let view = evidence::view(&fleet.url(), &run);
        was_unreachable |= view.jobs.iter().any(|job| job.place() == JobPlace::Unreachable);
        thread::sleep(Duration::from_millis(500));
    }
    network.set_link("a2", "up");
    assert!(was_unreachable, "an agent that is cut off counts as unreachable, not as lost");
    assert_eq!(shape(&fleet, &run), uncut);
}
