//! Many agents at once: what a coordinator takes, and what that costs it.

use crate::agents;
use crate::made::{self, Shape};
use crate::usage;
use pgsoak_coordinator::{app, config::CoordinatorConfig};
use pgsoak_proto::evidence::{Body, Frame};
use pgsoak_proto::session::{AgentMessage, CoordinatorMessage, EvidenceBatch, Heartbeat};
use pgsoak_proto::wire;
use pgsoak_proto::wire::control_client::ControlClient;
use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint};

/// Jobs of one run: each run is a database of its own.
const JOBS: usize = 50;
/// Agents on one connection: real ones have one each, and a host that plays them all has not that many ports to waste.
const SHARED: usize = 50;
/// 50 processes at 1 Hz, ten values each.
const SHAPE: Shape = Shape {
    workers: 8,
    others: 42,
    ticks: 1_000_000,
    tick: Duration::from_secs(1),
    rounds: 1,
    leak: 0.0,
};
const VALUES: u64 = 9;

/// A coordinator until it is killed.
pub async fn coordinator(data: &Path) {
    let config = CoordinatorConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lease_ttl: Duration::from_secs(60),
        ..CoordinatorConfig::new(data)
    };
    let running = app::start(config).await.unwrap();
    println!("{}", running.tcp.unwrap());
    running.failed().await;
}

struct Counts {
    acknowledged_ticks: AtomicU64,
    slowest_us: AtomicU64,
    waits_us: AtomicU64,
    acks: AtomicU64,
    goes_on: AtomicBool,
    /// As fast as they are acknowledged, 60 ticks a batch; else one tick a second.
    is_flood: AtomicBool,
}

pub async fn measure(agents: usize, seconds: usize) {
    let folder = std::env::temp_dir().join(format!("pgsoak-ingest-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("coordinator")
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    let url = format!("http://{}", line.trim());
    let pid = child.id();
    let counts = Arc::new(Counts {
        acknowledged_ticks: AtomicU64::new(0),
        slowest_us: AtomicU64::new(0),
        waits_us: AtomicU64::new(0),
        acks: AtomicU64::new(0),
        goes_on: AtomicBool::new(true),
        is_flood: AtomicBool::new(false),
    });
    let mut tasks = Vec::new();
    let mut channel = None;
    for at in 0..agents {
        if at % SHARED == 0 {
            channel = Some(Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap());
        }
        let (channel, counts) = (channel.clone().unwrap(), Arc::clone(&counts));
        tasks.push(tokio::spawn(work(channel, format!("made-{at}"), counts)));
    }
    let channel = channel.unwrap();
    for at in 0..agents.div_ceil(JOBS) {
        let plan = format!(
            "name = \"many\"\n[[job]]\nworkload = \"w\"\nbuild = \"vanilla\"\npostgres = \"18\"\nreplicas = {}\n",
            JOBS.min(agents - at * JOBS)
        );
        let request = wire::SubmitRunRequest {
            plan_toml: plan,
            workloads: vec![wire::WorkloadFile {
                name: "w".to_owned(),
                toml: made::workload("w", 8, 1),
            }],
            client_key: format!("many-{at}"),
            ..Default::default()
        };
        ControlClient::new(channel.clone()).submit_run(request).await.unwrap();
    }
    // Until every agent has its job and has brought something.
    while counts.acks.load(Ordering::Relaxed) < 3 * agents as u64 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!(
        "{agents} agents with {} processes each, in {} runs",
        SHAPE.processes(),
        agents.div_ceil(JOBS)
    );
    stretch("1 Hz", pid, &counts, Duration::from_secs(seconds as u64)).await;
    counts.is_flood.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3)).await;
    stretch("as fast as it goes", pid, &counts, Duration::from_secs(20)).await;
    counts.goes_on.store(false, Ordering::Relaxed);
    for task in tasks {
        task.abort();
    }
    let (bytes, blocks) = usage::disk(&folder);
    println!(
        "data folder: {:.1} MB in files, {:.1} MB of disk",
        bytes as f64 / 1e6,
        blocks as f64 / 1e6
    );
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn stretch(name: &str, pid: u32, counts: &Counts, lasts: Duration) {
    let before = (
        usage::cpu(pid),
        counts.acknowledged_ticks.load(Ordering::Relaxed),
        counts.waits_us.swap(0, Ordering::Relaxed),
        counts.acks.load(Ordering::Relaxed),
    );
    counts.slowest_us.store(0, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(lasts).await;
    let passed = began.elapsed().as_secs_f64();
    let cpu = (usage::cpu(pid) - before.0).as_secs_f64();
    let ticks = counts.acknowledged_ticks.load(Ordering::Relaxed) - before.1;
    let acks = counts.acks.load(Ordering::Relaxed) - before.3;
    let values = (ticks * u64::from(SHAPE.processes()) * VALUES) as f64;
    println!(
        "{name}: {:.0} values/s durable, {:.2} cores, {:.2} M values per CPU second; to the acknowledgement mean {:.0} ms, slowest {:.0} ms; resident {:.0} MB (peak {:.0} MB)",
        values / passed,
        cpu / passed,
        values / cpu.max(0.01) / 1e6,
        counts.waits_us.load(Ordering::Relaxed) as f64 / acks.max(1) as f64 / 1e3,
        counts.slowest_us.load(Ordering::Relaxed) as f64 / 1e3,
        usage::memory(pid, "VmRSS") as f64 / 1e6,
        usage::memory(pid, "VmHWM") as f64 / 1e6,
    );
}

async fn work(channel: Channel, name: String, counts: Arc<Counts>) {
    let (to, mut from) = agents::session(channel, agents::hello(name, 1)).await;
    let mut job: Option<(pgsoak_proto::job::Lease, u64, u64)> = None;
    let mut sent: Option<(u64, u64, Instant)> = None;
    let mut beat = tokio::time::interval(Duration::from_secs(5));
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_due = false;
    while counts.goes_on.load(Ordering::Relaxed) {
        let is_flood = counts.is_flood.load(Ordering::Relaxed);
        tokio::select! {
            message = from.message() => {
                let Ok(Some(message)) = message else { return };
                match CoordinatorMessage::try_from(message).unwrap() {
                    CoordinatorMessage::Assignment(assignment) => {
                        let frames: Vec<Frame> = SHAPE.opening().into_iter().zip(1..)
                            .map(|(body, sequence)| Frame { sequence, elapsed: Duration::ZERO, body })
                            .collect();
                        job = Some((assignment.lease, frames.len() as u64, 0));
                        let batch = EvidenceBatch { lease: assignment.lease, frames, lost_up_to: 0 };
                        to.send(AgentMessage::Evidence(batch).into()).await.unwrap();
                    }
                    CoordinatorMessage::EvidenceAcknowledged(mark) => {
                        if let Some((sequence, ticks, at)) = sent && mark.sequence >= sequence {
                            let us = at.elapsed().as_micros() as u64;
                            counts.slowest_us.fetch_max(us, Ordering::Relaxed);
                            counts.waits_us.fetch_add(us, Ordering::Relaxed);
                            counts.acks.fetch_add(1, Ordering::Relaxed);
                            counts.acknowledged_ticks.fetch_add(ticks, Ordering::Relaxed);
                            sent = None;
                        }
                    }
                    _ => {}
                }
            }
            _ = beat.tick() => {
                let heartbeat = Heartbeat { sent_at_unix_us: 1, jobs: Vec::new(), busy: String::new() };
                to.send(AgentMessage::Heartbeat(heartbeat).into()).await.unwrap();
            }
            _ = tick.tick(), if !is_flood => is_due = true,
        }
        if sent.is_none()
            && (is_due || is_flood)
            && let Some((lease, sequence, ticks)) = &mut job
        {
            is_due = false;
            let more = if is_flood { 60 } else { 1 };
            let samples = SHAPE.samples(*ticks, *ticks + more, *ticks);
            (*sequence, *ticks) = (*sequence + 1, *ticks + more);
            let frame = Frame {
                sequence: *sequence,
                elapsed: Duration::from_secs(*ticks),
                body: Body::Samples(samples),
            };
            let batch = EvidenceBatch { lease: *lease, frames: vec![frame], lost_up_to: 0 };
            sent = Some((*sequence, more, Instant::now()));
            to.send(AgentMessage::Evidence(batch).into()).await.unwrap();
        }
    }
}
