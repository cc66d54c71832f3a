//! Runs the binary in folders of its own.

use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The binary under test.
pub const PGSOAK: &str = env!("CARGO_BIN_EXE_pgsoak");

/// A folder that the unprivileged user can reach, gone at the end.
pub fn folder() -> TempDir {
    let dir = tempfile::Builder::new().prefix("pgsoak-test-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The binary with arguments; its environment names no coordinator.
pub fn pgsoak(args: &[&str]) -> Command {
    let mut command = Command::new(PGSOAK);
    command.args(args).env_remove("PGSOAK_COORDINATOR").env("PGSOAK_LOG", "warn");
    command
}

/// Writes a file and gives its path.
pub fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// What a run came to.
pub struct Soaked {
    /// Exit code.
    pub code: i32,
    /// The result.
    pub json: Value,
    /// Standard error.
    pub err: String,
}

/// `pgsoak run` on a plan in a folder of its own.
pub fn soak(plan: &str) -> Soaked {
    let dir = folder();
    let plan = file(dir.path(), "plan.toml", plan);
    soak_in(dir.path(), &plan)
}

/// `pgsoak run` on a plan file with its data in `dir`.
pub fn soak_in(dir: &Path, plan: &Path) -> Soaked {
    let output =
        pgsoak(&["run", text(plan), "--data-dir", text(&dir.join("data")), "--json", "--quiet"])
            .output()
            .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let out = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&out)
        .unwrap_or_else(|error| panic!("no result ({error}): {out}\n{err}"));
    assert_eq!(left_in(dir), Vec::<String>::new(), "processes left behind");
    Soaked { code: output.status.code().unwrap(), json, err }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Standard output of a command that must succeed.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", show(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Both outputs and the code.
pub fn show(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Command lines of all processes that live in a folder (by their working folder or their executable).
pub fn left_in(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let proc = entry.path();
        let lies_in =
            |link: &str| fs::read_link(proc.join(link)).is_ok_and(|to| to.starts_with(dir));
        if lies_in("cwd") || lies_in("exe") {
            let line = fs::read(proc.join("cmdline")).unwrap_or_default();
            left.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    left
}

/// Asks until the answer is there.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// A coordinator and an agent as processes of their own, ended at the end.
pub struct Daemons {
    /// Holds everything.
    pub dir: TempDir,
    coordinator: Option<Child>,
    agent: Option<Child>,
}

impl Daemons {
    /// Starts both.
    pub fn start() -> Self {
        let mut daemons = Self { dir: folder(), coordinator: None, agent: None };
        daemons.start_coordinator();
        daemons.start_agent();
        daemons
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> String {
        format!("unix:{}", self.dir.path().join("c.sock").display())
    }

    /// A verb that asks this coordinator.
    pub fn ask(&self, args: &[&str]) -> Command {
        let mut command = pgsoak(args);
        command.args(["--coordinator", &self.url()]);
        command
    }

    /// Starts the coordinator (again).
    pub fn start_coordinator(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("coordinator.log"))
            .unwrap();
        let data = self.dir.path().join("coordinator");
        let socket = self.dir.path().join("c.sock");
        let child = pgsoak(&[
            "coordinator",
            "--listen",
            "127.0.0.1:0",
            "--socket",
            text(&socket),
            "--data-dir",
            text(&data),
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
        self.coordinator = Some(child);
        wait_for("the coordinator", Duration::from_secs(20), || {
            self.ask(&["agents"]).output().unwrap().status.success().then_some(())
        });
    }

    /// Starts the agent (again).
    pub fn start_agent(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        let data = self.dir.path().join("agent");
        let child = pgsoak(&[
            "agent",
            "--coordinator",
            &self.url(),
            "--data-dir",
            text(&data),
            "--name",
            "a",
            "--slots",
            "2",
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
        self.agent = Some(child);
        wait_for("the agent", Duration::from_secs(20), || {
            let agents = stdout(&mut self.ask(&["agents", "--json"]));
            agents.contains("\"is_connected\":true").then_some(())
        });
    }

    /// `kill -9` of the coordinator.
    pub fn kill_coordinator(&mut self) {
        let mut child = self.coordinator.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `kill -9` of the agent's daemon.
    pub fn kill_agent(&mut self) {
        let mut child = self.agent.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The run as `watch --json` would show it now.
    pub fn state(&self, run: &str) -> Value {
        let line = stdout(&mut self.ask(&["runs", "--json"]))
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|value| value["run"] == run);
        line.unwrap()
    }

    /// Everything that the daemons logged.
    pub fn logs(&self) -> String {
        ["coordinator.log", "agent.log"]
            .iter()
            .map(|name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .collect()
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.logs());
        }
        for child in [&mut self.agent, &mut self.coordinator].into_iter().flatten() {
            let pid = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
        // A failed test may leave runners; they live in the folder and are ended with it.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let lies_in = fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|to| to.starts_with(self.dir.path()));
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .and_then(rustix::process::Pid::from_raw);
            if let (true, Some(pid)) = (lies_in, pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
