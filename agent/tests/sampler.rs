//! The sampler on real processes, in real time.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use pgsoak_agent::probe::{self, ProcessSample, Script, ScriptedProbe};
use pgsoak_agent::sampler::{Sampler, SamplerConfig};
use pgsoak_proto::evidence::{Body, Samples};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

type Frames = Arc<Mutex<Vec<(Duration, Body)>>>;

/// A process that forks a child which grows by 32 MiB for each line it is sent, and says so.
const GROWER: &str = r#"
import os, sys
if os.fork() == 0:
    kept = []
    print(os.getpid(), flush=True)
    for _ in sys.stdin:
        kept.append(bytearray(os.urandom(1)) * (32 << 20))
        print("grown", flush=True)
    os._exit(0)
os.wait()
print("waited", flush=True)
import time
time.sleep(60)
"#;

struct Grower {
    parent: Child,
    child_pid: u32,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Grower {
    fn start() -> Self {
        let mut parent = Command::new("python3")
            .args(["-c", GROWER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let child_pid = lines.next().unwrap().unwrap().parse().unwrap();
        Self { input: parent.stdin.take(), parent, child_pid, lines }
    }

    fn grow(&mut self) {
        self.input.as_mut().unwrap().write_all(b"more\n").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), "grown");
    }

    /// Ends the child; returns when its parent has waited for it.
    fn end_child(&mut self) {
        self.input = None;
        assert_eq!(self.lines.next().unwrap().unwrap(), "waited");
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.input = None;
        self.parent.kill().unwrap();
        self.parent.wait().unwrap();
    }
}

fn keep(
    frames: &Frames,
) -> impl FnMut(Duration, &Body) -> Result<(), pgsoak_agent::sampler::AppendError> + Send + 'static
{
    let frames = Arc::clone(frames);
    move |elapsed, body| {
        frames.lock().unwrap().push((elapsed, body.clone()));
        Ok(())
    }
}

fn samples(frames: &Frames) -> Vec<Samples> {
    let frames = frames.lock().unwrap();
    frames
        .iter()
        .filter_map(|(_, body)| match body {
            Body::Samples(samples) => Some(samples.clone()),
            _ => None,
        })
        .collect()
}

/// All readings of one process, in order.
fn series(frames: &Frames, process: u32) -> Vec<u64> {
    let samples = samples(frames);
    let columns =
        samples.iter().flat_map(|samples| &samples.processes).filter(|p| p.process == process);
    columns.flat_map(|columns| columns.rss_anon_kib.clone()).collect()
}

#[tokio::test]
async fn a_growing_child_is_seen_to_grow_and_to_end() {
    let mut grower = Grower::start();
    let frames = Frames::default();
    let operations = Arc::new(AtomicU64::new(0));
    let every = Duration::from_millis(20);
    let config = SamplerConfig::new(grower.parent.id(), Instant::now(), every);
    let sampler = Sampler::start(config, keep(&frames), Arc::clone(&operations)).unwrap();
    let handle = sampler.handle().clone();

    let number = handle.number_of(grower.child_pid).await.unwrap().unwrap();
    assert_eq!(number, 1);
    handle.set_identity(grower.child_pid, "client backend", Some(3)).unwrap();
    handle.read_now().await.unwrap();
    let before = handle.use_of(grower.child_pid).await.unwrap().unwrap();
    assert_eq!((before.backend_type.as_str(), before.session), ("client backend", Some(3)));
    for _ in 0..4 {
        grower.grow();
    }
    operations.store(4, Ordering::Relaxed);
    handle.read_now().await.unwrap();
    let after = handle.use_of(grower.child_pid).await.unwrap().unwrap();
    let grown = after.anonymous_bytes - before.anonymous_bytes;
    // Four times 32 MiB, and what the interpreter needs for itself.
    assert!((128 << 20..136 << 20).contains(&grown), "{grown}");
    let at_rest = probe::rss_anon_now(grower.child_pid).unwrap().unwrap();
    assert!(at_rest.abs_diff(after.anonymous_bytes) < 1 << 20, "{at_rest} and {after:?}");

    grower.end_child();
    handle.read_now().await.unwrap();
    // What it was at its last reading stays known: a crash is told by it.
    let last = handle.use_of(grower.child_pid).await.unwrap().unwrap();
    assert_eq!((last.process, last.session), (number, Some(3)));
    assert!(last.peak_anonymous_bytes >= after.anonymous_bytes, "{last:?}");
    assert_eq!(handle.number_of(grower.child_pid).await.unwrap(), None);
    let stats = sampler.stop().await.unwrap();

    let kib = series(&frames, number);
    let (first, last) = (kib[0], kib[kib.len() - 1]);
    assert!(last - first >= 128 << 10, "{kib:?}");
    assert!(kib.is_sorted(), "{kib:?}");
    let bodies: Vec<Body> = frames.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
    assert!(bodies.contains(&Body::ProcessEnded(number)));
    let rows: usize = samples(&frames).iter().map(|samples| samples.ticks.len()).sum();
    assert_eq!(u64::try_from(rows).unwrap(), stats.ticks_sampled);
    assert!(stats.cpu_us > 0 && stats.failed_readings == 0, "{stats:?}");
    let host = &samples(&frames).last().unwrap().host.clone();
    assert_eq!(host.operations.last(), Some(&4));
    assert!(host.available_kib.iter().all(|&kib| kib > 0));
}

#[tokio::test]
async fn every_tick_is_sampled_or_stands_in_a_gap() {
    let grower = Grower::start();
    let frames = Frames::default();
    let mut config =
        SamplerConfig::new(grower.parent.id(), Instant::now(), Duration::from_millis(20));
    config.pss_share = 0.0;
    let mut keep = keep(&frames);
    let mut count = 0;
    let append = move |elapsed, body: &Body| {
        // Once, the spool takes long: ticks are missed.
        if matches!(body, Body::Samples(_)) {
            count += 1;
            if count == 1 {
                std::thread::sleep(Duration::from_millis(150));
            }
        }
        keep(elapsed, body)
    };
    let sampler = Sampler::start(config, append, Arc::default()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Seals, and goes on at another rate.
    sampler.handle().set_every(Duration::from_millis(50)).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stats = sampler.stop().await.unwrap();

    let mut ticks: Vec<u64> =
        samples(&frames).into_iter().flat_map(|samples| samples.ticks).collect();
    assert_eq!(u64::try_from(ticks.len()).unwrap(), stats.ticks_sampled);
    let mut missed = 0;
    for (_, body) in frames.lock().unwrap().iter() {
        if let Body::Gap(gap) = body {
            assert_eq!(gap.cause, "sampler late");
            ticks.extend(gap.first_tick..gap.first_tick + gap.ticks);
            missed += gap.ticks;
        }
    }
    assert!(missed >= 1);
    ticks.sort_unstable();
    assert_eq!(ticks, (0..stats.ticks).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_process_that_comes_between_ticks_has_its_number_at_once() {
    let probe = ScriptedProbe::default();
    let reading = ProcessSample { rss_anon_kib: 5, ..ProcessSample::default() };
    let script = |start_time_ticks| Script {
        start_time_ticks,
        readings: std::iter::repeat_n(Ok(reading), 50).collect(),
        ..Script::default()
    };
    probe.set(1, script(1));
    let frames = Frames::default();
    let config = SamplerConfig::new(1, Instant::now(), Duration::from_secs(3600));
    let sampler =
        Sampler::start_with(probe.clone(), config, keep(&frames), Arc::default()).unwrap();
    probe.set(50, script(2));
    let asked = Instant::now();
    assert_eq!(sampler.handle().number_of(50).await.unwrap(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(60));
    let appeared = frames.lock().unwrap().iter().any(|(_, body)| {
        matches!(body, Body::ProcessAppeared(appeared) if appeared.pid == 50 && appeared.start_time_ticks == 2)
    });
    assert!(appeared);
    let handle = sampler.handle().clone();
    sampler.stop().await.unwrap();
    assert!(handle.number_of(50).await.is_err());
}
