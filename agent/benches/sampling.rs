//! What a sample costs, beside the limit and its peers: one run, taking turns, medians of five rounds, CPU time only.
//!
//! `cargo bench -p pgsoak-agent --bench sampling [-- PROCESSES MIB]`. The processes are idle and touch MIB of memory each. psutil is measured
//! when the `python3` of the PATH, or the one that PGSOAK_BENCH_PYTHON names, has it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a bench: it fails aloud and prints"
)]

use pgsoak_agent::probe::{KernelProbe, Probe};
use pgsoak_agent::sampler::{Sampler, SamplerConfig};
use pgsoak_agent::spool::{SpoolLimits, SpoolWriter};
use pgsoak_proto::evidence::Body;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use std::{
    env, fs,
    hint::black_box,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const ROUNDS: usize = 5;
/// How long each contestant reads in each round.
const TURN: Duration = Duration::from_millis(800);
/// Ticks of the whole sampler come this often, so that a turn has many.
const TICK: Duration = Duration::from_millis(20);

/// Reads for a turn; CPU µs for one process once.
type Turn<'field> = Box<dyn FnMut() -> f64 + 'field>;

const PSUTIL: &str = r#"
import psutil, sys, time
pids = [int(word) for word in sys.stdin.readline().split()]
processes = [psutil.Process(pid) for pid in pids]
def read():
    for process in processes:
        with process.oneshot():
            process.memory_info(); process.cpu_times(); process.num_threads(); process.io_counters()
read()
for line in sys.stdin:
    seconds, end, count, before = float(line), time.monotonic(), 0, time.process_time()
    end += seconds
    while time.monotonic() < end:
        read(); count += len(processes)
    print((time.process_time() - before) * 1e6 / count, flush=True)
"#;

fn main() {
    let arguments: Vec<String> =
        env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
    };
    match arguments.first().map(String::as_str) {
        Some("idle") => return idle(number(1, 1)),
        Some("server") => return server(number(1, 1), number(2, 1)),
        _ => {}
    }
    let (processes, mib) = (number(0, 49), number(1, 16));
    if cfg!(debug_assertions) {
        println!("built without optimisation: the figures mean nothing");
    }
    let field = Field::start(processes, mib);
    println!(
        "{processes} idle processes of {mib} MiB; CPU µs for one process once, median of {ROUNDS} rounds"
    );

    let mut contestants: Vec<(&str, Turn<'_>)> = vec![
        (
            "limit: pread on kept-open stat, statm, status, io",
            Box::new(raw(&field, &["stat", "statm", "status", "io"])),
        ),
        ("pread on kept-open stat, status", Box::new(raw(&field, &["stat", "status"]))),
        ("probe: the same, parsed", Box::new(probe(&field))),
        (
            "sampler: host, discovery, columns",
            Box::new(|| sampler(&field, Duration::from_secs(1), false)),
        ),
        (
            "… with encoding and spool, frames of 50 rows",
            Box::new(|| sampler(&field, Duration::from_secs(1), true)),
        ),
        (
            "… with encoding and spool, a frame per tick",
            Box::new(|| sampler(&field, Duration::ZERO, true)),
        ),
        ("procfs crate, same four files", Box::new(procfs(&field))),
    ];
    if let Some(psutil) = Psutil::start(&field) {
        let mut psutil = psutil;
        contestants.push(("psutil oneshot", Box::new(move || psutil.turn())));
    } else {
        println!("psutil is left out: no python3 with it (PGSOAK_BENCH_PYTHON names one)");
    }
    let mut figures = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (figures, (_, turn)) in figures.iter_mut().zip(&mut contestants) {
            figures.push(turn());
        }
    }
    let medians: Vec<f64> = figures.into_iter().map(median).collect();
    println!("{:<52} {:>8} {:>8}", "", "µs", "× limit");
    for ((name, _), median) in contestants.iter().zip(&medians) {
        println!("{name:<52} {median:>8.1} {:>8.2}", median / medians[0]);
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// CPU time of this process, all threads.
fn cpu_of_all() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Calls `read`, which reads each process once, for a turn; µs for one process once.
fn turn(processes: usize, mut read: impl FnMut()) -> f64 {
    let (end, before) = (Instant::now() + TURN, cpu());
    let mut count = 0;
    while Instant::now() < end {
        read();
        count += processes;
    }
    (cpu() - before).as_secs_f64() * 1e6 / count as f64
}

/// What is read: a process with idle children.
struct Field {
    server: Child,
    pids: Vec<u32>,
}

impl Field {
    fn start(processes: usize, mib: usize) -> Self {
        let mut server = Command::new(env::current_exe().unwrap())
            .args(["server", &processes.to_string(), &mib.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // One letter from each child when it has its memory.
        let mut ready = vec![0; processes];
        server.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", server.id());
        let pids: Vec<u32> = fs::read_to_string(children)
            .unwrap()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(pids.len(), processes);
        Self { server, pids }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // The children read what the server reads, and end with it.
        drop(self.server.stdin.take());
        self.server.wait().unwrap();
    }
}

fn server(processes: usize, mib: usize) {
    let child = || {
        Command::new(env::current_exe().unwrap()).args(["idle", &mib.to_string()]).spawn().unwrap()
    };
    let children: Vec<Child> = (0..processes).map(|_| child()).collect();
    for mut child in children {
        child.wait().unwrap();
    }
}

fn idle(mib: usize) {
    let kept = black_box(vec![1_u8; mib << 20]);
    print!("r");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(kept);
}

fn raw<'field>(field: &'field Field, files: &[&str]) -> impl FnMut() -> f64 + use<'field> {
    let open = |path: String| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    };
    let descriptors: Vec<OwnedFd> = field
        .pids
        .iter()
        .flat_map(|pid| files.iter().map(move |file| format!("/proc/{pid}/{file}")))
        .map(open)
        .collect();
    let mut buffer = vec![0; 16 << 10];
    move || {
        turn(field.pids.len(), || {
            for descriptor in &descriptors {
                black_box(rustix::io::pread(descriptor, &mut buffer[..], 0).unwrap());
            }
        })
    }
}

fn probe(field: &Field) -> impl FnMut() -> f64 {
    let mut probe = KernelProbe::new(field.server.id());
    let processes: Vec<_> =
        field.pids.iter().map(|&pid| probe.open(pid).unwrap().unwrap()).collect();
    move || {
        turn(processes.len(), || {
            for process in &processes {
                black_box(probe.sample(process).unwrap().unwrap());
            }
        })
    }
}

/// The whole sampler for a turn, all its threads: what an agent does, at fifty times its usual rate.
fn sampler(field: &Field, seal_every: Duration, to_spool: bool) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let spool = SpoolWriter::create(&folder.path().join("spool"), SpoolLimits::default()).unwrap();
    let writer = spool.clone();
    let append = move |elapsed, body: &Body| {
        if to_spool {
            writer.append(elapsed, body)?;
        } else {
            black_box(body);
        }
        Ok(())
    };
    let mut config = SamplerConfig::new(field.server.id(), Instant::now(), TICK);
    config.seal_every = seal_every;
    config.pss_share = 0.0;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Its first tick opens everything: not counted.
    let sampler = Sampler::start(config, append, Arc::default()).unwrap();
    let known = |sampler: &Sampler| runtime.block_on(sampler.handle().processes()).unwrap().len();
    assert_eq!(known(&sampler), field.pids.len() + 1);
    let first = runtime.block_on(sampler.handle().read_now()).unwrap();
    let before = cpu_of_all();
    std::thread::sleep(TURN);
    let spent = cpu_of_all() - before;
    let last = runtime.block_on(sampler.handle().read_now()).unwrap();
    runtime.block_on(sampler.stop()).unwrap();
    spool.close().unwrap();
    spent.as_secs_f64() * 1e6 / ((last - first) as f64 * (field.pids.len() + 1) as f64)
}

fn procfs(field: &Field) -> impl FnMut() -> f64 {
    let open = |&pid: &u32| procfs::process::Process::new(i32::try_from(pid).unwrap()).unwrap();
    let processes: Vec<_> = field.pids.iter().map(open).collect();
    move || {
        turn(processes.len(), || {
            for process in &processes {
                black_box(process.stat().unwrap());
                black_box(process.statm().unwrap());
                black_box(process.status().unwrap());
                black_box(process.io().unwrap());
            }
        })
    }
}

struct Psutil {
    python: Child,
    answers: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Psutil {
    fn start(field: &Field) -> Option<Self> {
        let python = env::var("PGSOAK_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has_it = Command::new(&python)
            .args(["-c", "import psutil"])
            .stderr(Stdio::null())
            .status()
            .ok()?
            .success();
        if !has_it {
            return None;
        }
        let mut python = Command::new(&python)
            .args(["-c", PSUTIL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let pids: Vec<String> = field.pids.iter().map(u32::to_string).collect();
        writeln!(python.stdin.as_mut()?, "{}", pids.join(" ")).ok()?;
        let answers = std::io::BufRead::lines(std::io::BufReader::new(python.stdout.take()?));
        Some(Self { python, answers })
    }

    fn turn(&mut self) -> f64 {
        writeln!(self.python.stdin.as_mut().unwrap(), "{}", TURN.as_secs_f64()).unwrap();
        self.answers.next().unwrap().unwrap().parse().unwrap()
    }
}

impl Drop for Psutil {
    fn drop(&mut self) {
        drop(self.python.stdin.take());
        self.python.wait().unwrap();
    }
}
