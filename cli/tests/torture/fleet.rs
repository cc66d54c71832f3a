//! A coordinator and agents as processes of their own, each where and under what a test wants it.

use crate::support::{file, folder, left_in, pgsoak, stdout, text, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Starting takes about a second; a busy machine gets its time.
const START: Duration = Duration::from_secs(40);

/// The steady runs take a minute or two.
pub const RUN: Duration = Duration::from_secs(400);

/// A daemon: its arguments, what it runs under, and the process.
pub struct Part {
    /// Its data folder.
    pub data: PathBuf,
    /// Put before the command line, e.g. `ip netns exec NAME`.
    pub under: Vec<String>,
    /// Set for it.
    pub environment: Vec<(String, String)>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// All of it; ended at the end.
pub struct Fleet {
    /// Holds everything but what a test puts elsewhere.
    pub dir: TempDir,
    /// The coordinator.
    pub coordinator: Part,
    /// In the order of their names `a1`, `a2` …
    pub agents: Vec<Part>,
}

// === impl Part ===

impl Part {
    fn new(dir: &Path, name: &str, arguments: Vec<String>) -> Self {
        Self {
            data: dir.join(name),
            under: Vec::new(),
            environment: Vec::new(),
            arguments,
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Starts it; does not wait until it is up.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let bare = pgsoak(&[]);
        let program = bare.get_program().to_owned();
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(&self.arguments)
            .args(["--data-dir", text(&self.data)])
            .env_remove("PGSOAK_COORDINATOR")
            .env("PGSOAK_LOG", "info")
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// A signal to the daemon alone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether it was started and not killed by the test.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits until it has ended by itself; its exit code.
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        wait_for("the daemon to end", limit, || child.try_wait().unwrap()).code()
    }

    /// Everything that it logged.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

// === impl Fleet ===

impl Fleet {
    /// A coordinator on a Unix socket, and so many agents. Nothing is started.
    pub fn new(agents: usize, slots: u32) -> Self {
        let dir = folder();
        let socket = dir.path().join("c.sock");
        let coordinator = Part::new(
            dir.path(),
            "coordinator",
            ["coordinator", "--listen", "127.0.0.1:0", "--socket", text(&socket)]
                .map(ToOwned::to_owned)
                .to_vec(),
        );
        let url = format!("unix:{}", socket.display());
        let agents = (1..=agents)
            .map(|number| {
                let (name, slots) = (format!("a{number}"), slots.to_string());
                let arguments =
                    ["agent", "--coordinator", &url, "--name", &name, "--slots", &slots];
                Part::new(dir.path(), &name, arguments.map(ToOwned::to_owned).to_vec())
            })
            .collect();
        Self { dir, coordinator, agents }
    }

    /// The coordinator listens here as well, and agents use it.
    pub fn listen(&mut self, address: &str) {
        self.coordinator.arguments[2] = address.to_owned();
        for agent in &mut self.agents {
            agent.arguments[2] = format!("http://{address}");
        }
    }

    /// Starts everything.
    pub fn start(&mut self) {
        self.start_coordinator();
        for number in 0..self.agents.len() {
            self.agents[number].spawn();
        }
        self.wait_for_agents();
    }

    /// Starts the coordinator (again) and waits until it answers.
    pub fn start_coordinator(&mut self) {
        self.coordinator.spawn();
        self.wait_for_coordinator();
    }

    /// Waits until the coordinator answers.
    pub fn wait_for_coordinator(&self) {
        wait_for("the coordinator", START, || {
            self.ask(&["agents"]).output().unwrap().status.success().then_some(())
        });
    }

    /// Waits until every agent is connected.
    pub fn wait_for_agents(&self) {
        wait_for("the agents", START, || {
            let listed = stdout(&mut self.ask(&["agents", "--json"]));
            let connected = listed.matches("\"is_connected\":true").count();
            (connected == self.agents.len()).then_some(())
        });
    }

    /// Where verbs ask.
    pub fn url(&self) -> String {
        format!("unix:{}", self.dir.path().join("c.sock").display())
    }

    /// A verb that asks this coordinator.
    pub fn ask(&self, args: &[&str]) -> Command {
        let mut command = pgsoak(args);
        command.args(["--coordinator", &self.url()]);
        command
    }

    /// A steady workload on vanilla PostgreSQL 15 of about so many seconds, so many copies; `extra` are keys of the job.
    pub fn plan(&self, seconds: u32, replicas: u32, extra: &str) -> PathBuf {
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
rounds = {seconds}
rate = 100
sql = "INSERT INTO t VALUES (${{n}}, 'x'); DELETE FROM t WHERE a = ${{n}}"
check = "SELECT count(*) = 0 FROM t"
"#
        );
        file(self.dir.path(), "steady.toml", &workload);
        let plan = format!(
            "name = \"steady\"\n[defaults]\npostgres = \"15\"\nbuild = \"vanilla\"\n[[job]]\nworkload = \"steady.toml\"\nsample_every = \"200ms\"\nreplicas = {replicas}\n{extra}\n"
        );
        file(self.dir.path(), "plan.toml", &plan)
    }

    /// Gives a plan to the coordinator; the run.
    pub fn submit(&self, plan: &Path) -> String {
        stdout(&mut self.ask(&["submit", text(plan)])).trim().to_owned()
    }

    /// The run in the list; `None` while nobody answers.
    pub fn state(&self, run: &str) -> Option<Value> {
        let output = self.ask(&["runs", "--json"]).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        listed
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|value| value["run"] == run)
    }

    /// The verdict, once there is one.
    pub fn verdict_now(&self, run: &str) -> Option<String> {
        self.state(run)?["verdict"].as_str().filter(|v| !v.is_empty()).map(ToOwned::to_owned)
    }

    /// Waits for the verdict.
    pub fn verdict(&self, run: &str) -> String {
        wait_for("the verdict", RUN, || self.verdict_now(run))
    }

    /// The result.
    pub fn report(&self, run: &str) -> Value {
        serde_json::from_str(&stdout(&mut self.ask(&["report", run, "--json"]))).unwrap()
    }

    /// Waits until samples of every job arrive.
    pub fn wait_for_samples(&self, run: &str) {
        wait_for("samples of every job", RUN, || {
            let view = crate::evidence::view(&self.url(), run);
            view.jobs.iter().all(|job| job.stored_sequence > 20).then_some(())
        });
    }

    /// No process and no folder of any job is left.
    pub fn check_nothing_left(&self) {
        for agent in &self.agents {
            wait_for("the jobs' folders to go", Duration::from_secs(60), || {
                let jobs = fs::read_dir(agent.data.join("jobs")).map_or(0, Iterator::count);
                (jobs == 0).then_some(())
            });
            assert_eq!(left_in(&agent.data), Vec::<String>::new(), "processes are left");
            let refused = fs::read_dir(agent.data.join("refused")).map_or(0, Iterator::count);
            assert_eq!(refused, 0, "attempts were refused");
        }
    }

    /// The runner's pid of the only job of an agent.
    pub fn runner(&self, agent: usize) -> Pid {
        let job = only(&self.agents[agent].data.join("jobs"));
        let said: Value =
            serde_json::from_str(&fs::read_to_string(job.join("runner.json")).unwrap()).unwrap();
        pid(said["pid"].as_u64().unwrap())
    }

    /// The pid of the workload's worker 1: the newest client backend of the only job of an agent.
    pub fn backend(&self, agent: usize) -> Pid {
        let postmaster = self.postmaster(agent).as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let is_client = |pid: &u64| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("[local]")
        };
        let newest = children
            .unwrap()
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(is_client)
            .max();
        pid(newest.expect("a client backend"))
    }

    /// The postmaster's pid of the only job of an agent.
    pub fn postmaster(&self, agent: usize) -> Pid {
        let job = only(&self.agents[agent].data.join("jobs"));
        let lock = fs::read_to_string(job.join("data/postmaster.pid")).unwrap();
        pid(lock.lines().next().unwrap().trim().parse().unwrap())
    }
}

fn pid(raw: u64) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// The only folder in a folder.
fn only(dir: &Path) -> PathBuf {
    let found: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Sends a signal; the process must be there.
pub fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let parts = std::iter::once(&mut self.coordinator).chain(&mut self.agents);
        for part in parts {
            if thread::panicking() {
                let said = part.said();
                let tail: Vec<&str> = said.lines().rev().take(60).collect();
                eprintln!("=== {}", part.log.display());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            if let Some(mut child) = part.child.take() {
                let pid = Pid::from_child(&child);
                let _ = kill_process(pid, Signal::CONT);
                let _ = kill_process(pid, Signal::TERM);
                for _ in 0..50 {
                    if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(200));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // A failed test may leave runners; they live in the agents' folders and are ended with them.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let lies_in = fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|to| self.agents.iter().any(|agent| to.starts_with(&agent.data)));
            let found = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (lies_in, found.and_then(Pid::from_raw)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
