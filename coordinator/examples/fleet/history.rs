//! Fills a coordinator with past runs and times what people ask of them.

use crate::agents::{self, Shapes};
use crate::made::{self, Shape};
use crate::usage;
use pgsoak_coordinator::{app, config::CoordinatorConfig};
use pgsoak_proto::evidence::Body;
use pgsoak_proto::wire;
use pgsoak_proto::wire::{
    builds_client::BuildsClient, control_client::ControlClient, history_client::HistoryClient,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    process,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

/// Agents that bring the runs.
const AGENTS: usize = 8;
const SLOTS: u32 = 8;
/// Runs under way at once.
const WINDOW: usize = 48;
/// Releases that the runs are spread over.
const RELEASES: usize = 50;
/// Times that each question is asked.
const ROUNDS: u32 = 20;

/// As a day of a soak at one reading a minute: 20 series of 1,440 points.
const FULL: Shape = Shape {
    workers: 4,
    others: 16,
    ticks: 1_440,
    tick: Duration::from_secs(60),
    rounds: 24,
    leak: 0.0,
};
const SHORT: Shape = Shape {
    workers: 1,
    others: 2,
    ticks: 30,
    tick: Duration::from_secs(10),
    rounds: 10,
    leak: 0.0,
};

fn shape(full: bool, number: usize) -> Shape {
    // Later releases lose a little: there is something to see.
    let leak = if number * 2 / RELEASES.max(1) >= 1 { 24.0 } else { 0.0 };
    Shape { leak, ..if full { FULL } else { SHORT } }
}

pub async fn measure(runs: usize, full_runs: usize) {
    let folder = std::env::temp_dir().join(format!("pgsoak-history-{}", process::id()));
    let config = CoordinatorConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lease_ttl: Duration::from_secs(3_600),
        ..CoordinatorConfig::new(folder.clone())
    };
    let running = app::start(config.clone()).await.unwrap();
    let url = format!("http://{}", running.tcp.unwrap());
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    push_builds(channel.clone()).await;
    let (began, cpu) = (Instant::now(), usage::cpu(process::id()));
    let (done, mut finished) = mpsc::channel(WINDOW);
    let shapes: Shapes = Arc::new(|spec| {
        let number = release_number(&spec.build.to_string());
        (shape(spec.workload_name == "full", number), spec.seed.wrapping_add(number as u64))
    });
    let agents: Vec<_> = (0..AGENTS)
        .map(|at| {
            let work = agents::work(
                channel.clone(),
                format!("made-{at}"),
                SLOTS,
                Arc::clone(&shapes),
                done.clone(),
            );
            tokio::spawn(work)
        })
        .collect();
    let mut under_way = 0;
    for at in 0..runs {
        submit(channel.clone(), at, at < full_runs).await;
        under_way += 1;
        while under_way >= WINDOW {
            finished.recv().await.unwrap();
            under_way -= 1;
        }
        if at % 500 == 499 {
            println!(
                "{} of {runs} runs submitted after {:.0} s",
                at + 1,
                began.elapsed().as_secs_f64()
            );
        }
    }
    for _ in 0..under_way {
        finished.recv().await.unwrap();
    }
    wait_for_verdicts(channel.clone(), runs).await;
    let spent = usage::cpu(process::id()) - cpu;
    println!(
        "{runs} runs ({full_runs} of 20 x 1,440 points) made and judged in {:.0} s, {:.1} ms CPU each with their agents",
        began.elapsed().as_secs_f64(),
        spent.as_secs_f64() * 1e3 / runs as f64
    );
    for agent in agents {
        agent.abort();
    }
    ask(channel).await;
    running.shutdown().await;

    let (bytes, blocks) = usage::disk(&folder);
    println!(
        "data folder: {:.1} MB in files, {:.1} MB of disk",
        bytes as f64 / 1e6,
        blocks as f64 / 1e6
    );
    let began = Instant::now();
    let running = app::start(config).await.unwrap();
    println!(
        "start on it: {:.2} s; resident {:.0} MB (peak {:.0} MB)",
        began.elapsed().as_secs_f64(),
        usage::memory(process::id(), "VmRSS") as f64 / 1e6,
        usage::memory(process::id(), "VmHWM") as f64 / 1e6
    );
    running.shutdown().await;
    std::fs::remove_dir_all(&folder).unwrap();
    if let Ok(path) = std::env::var("PGSOAK_POINTS") {
        leave_points(&path, full_runs);
    }
}

fn release(number: usize) -> String {
    format!("made@0.{}.0", number % RELEASES)
}

fn release_number(build: &str) -> usize {
    build.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// A package for each release: agents have none of their own.
async fn push_builds(channel: Channel) {
    use pgsoak_packages::{archive, manifest::Manifest};
    let folder = std::env::temp_dir().join(format!("pgsoak-made-{}", process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files: Vec<_> = ["made.so", "made.control"]
        .iter()
        .map(|name| {
            std::fs::write(folder.join(name), name).unwrap();
            ((*name).to_owned(), folder.join(name))
        })
        .collect();
    for number in 0..RELEASES {
        let manifest = Manifest {
            extension: "made".to_owned(),
            release: format!("0.{number}.0"),
            postgres: 18,
            ..Manifest::default()
        };
        let packed = folder.join("packed");
        let digest = archive::pack(&files, &manifest, &packed).unwrap();
        let data = std::fs::read(&packed).unwrap();
        use wire::push_build_piece::Part;
        let start = Part::Start(wire::PushBuild { digest, bytes: data.len() as u64 });
        let pieces =
            [start, Part::Data(data)].map(|part| wire::PushBuildPiece { part: Some(part) });
        BuildsClient::new(channel.clone()).push(tokio_stream::iter(pieces)).await.unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn submit(channel: Channel, at: usize, is_full: bool) {
    let (name, shape) = if is_full { ("full", FULL) } else { ("short", SHORT) };
    let plan = format!(
        "name = \"{}\"\n[[job]]\nworkload = \"{name}\"\nbuild = \"{}\"\npostgres = \"18\"\n",
        if is_full { "nightly" } else { ["smoke", "weekly", "branch"][at % 3] },
        release(at * RELEASES / 1_000)
    );
    let labels = BTreeMap::from([("branch".to_owned(), ["main", "dev"][at % 2].to_owned())]);
    let request = wire::SubmitRunRequest {
        plan_toml: plan,
        workloads: vec![wire::WorkloadFile {
            name: name.to_owned(),
            toml: made::workload(name, shape.workers, shape.rounds),
        }],
        client_key: format!("made-{at}"),
        labels,
        priority: 0,
    };
    ControlClient::new(channel).submit_run(request).await.unwrap();
}

async fn wait_for_verdicts(channel: Channel, runs: usize) {
    let mut history = HistoryClient::new(channel);
    loop {
        let verdicts = ["pass", "fail", "inconclusive", "invalid"].map(str::to_owned).to_vec();
        let filter = wire::RunFilter { verdicts, ..Default::default() };
        let request =
            wire::FindRunsRequest { filter: Some(filter), limit: 1, ..Default::default() };
        let found = history.find_runs(request).await.unwrap().into_inner();
        if found.total as usize >= runs {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn ask(channel: Channel) {
    let mut history =
        HistoryClient::new(channel).max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let filters = [
        ("runs, newest 20", wire::RunFilter::default()),
        (
            "runs --verdict fail",
            wire::RunFilter { verdicts: words(&["fail"]), ..Default::default() },
        ),
        (
            "runs --workload full --release 0.3*",
            wire::RunFilter {
                workloads: words(&["full"]),
                releases: words(&["0.3*"]),
                ..Default::default()
            },
        ),
        (
            "runs --label branch=dev --agent made-3",
            wire::RunFilter {
                labels: [("branch".to_owned(), "dev".to_owned())].into(),
                agents: words(&["made-3"]),
                ..Default::default()
            },
        ),
        (
            "runs --text 'context'",
            wire::RunFilter { text: "context".to_owned(), ..Default::default() },
        ),
        (
            "runs --text (nothing fits)",
            wire::RunFilter { text: "no such text".to_owned(), ..Default::default() },
        ),
    ];
    for (name, filter) in filters {
        for sort in [wire::RunSort::Submitted, wire::RunSort::Took] {
            let request = wire::FindRunsRequest {
                filter: Some(filter.clone()),
                sort: sort.into(),
                limit: 20,
                ..Default::default()
            };
            let mut fits = 0;
            let (median, worst, cpu) = timed(async || {
                fits = history.clone().find_runs(request.clone()).await.unwrap().into_inner().total;
            })
            .await;
            println!(
                "{name} (by {sort:?}; {fits} fit): median {median:.1} ms, worst {worst:.1} ms, CPU {cpu:.1} ms"
            );
        }
    }
    for (name, what) in
        [("trend full --metric level", words(&["level"])), ("trend full (every figure)", vec![])]
    {
        let request =
            wire::GetTrendRequest { workload: "full".to_owned(), what, ..Default::default() };
        let mut bytes = 0;
        let (median, worst, cpu) = timed(async || {
            bytes =
                history.clone().get_trend(request.clone()).await.unwrap().into_inner().json.len();
        })
        .await;
        println!(
            "{name} ({bytes} bytes): median {median:.1} ms, worst {worst:.1} ms, CPU {cpu:.1} ms"
        );
    }
    let filter = wire::RunFilter { workloads: words(&["full"]), ..Default::default() };
    let request = wire::FindRunsRequest { filter: Some(filter), limit: 1, ..Default::default() };
    let newest = history.find_runs(request).await.unwrap().into_inner();
    let Some(newest) = newest.runs.into_iter().find_map(|line| line.run) else { return };
    let request = wire::CompareRunsRequest {
        before: release(RELEASES - 2),
        after: newest.run_id,
        limit: 20,
        plan: String::new(),
    };
    let mut answer = String::new();
    let (median, worst, cpu) = timed(async || {
        let json = history.clone().compare_runs(request.clone()).await.unwrap().into_inner().json;
        let found: serde_json::Value = serde_json::from_str(&json).unwrap();
        answer = format!(
            "{} before, {} rows",
            found["before"]["runs"].as_array().unwrap().len(),
            found["rows"].as_array().unwrap().len()
        );
    })
    .await;
    println!(
        "compare RELEASE RUN ({answer}): median {median:.1} ms, worst {worst:.1} ms, CPU {cpu:.1} ms"
    );
}

/// Median and worst wall time, and CPU of this process (both ends of the call) for one, milliseconds.
async fn timed(mut ask: impl AsyncFnMut()) -> (f64, f64, f64) {
    ask().await;
    let cpu = usage::cpu(process::id());
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ask().await;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (usage::cpu(process::id()) - cpu).as_secs_f64() * 1e3 / f64::from(ROUNDS);
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1], cpu)
}

/// Run, release, series, second and KiB of every sample of the full runs: 4 + 4 + 4 + 4 + 8 bytes a point, little-endian.
fn leave_points(path: &str, full_runs: usize) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    for at in 0..full_runs {
        let number = at * RELEASES / 1_000;
        for frame in shape(true, number).attempt(number as u64 + 1) {
            let Body::Samples(samples) = frame.body else { continue };
            for process in &samples.processes {
                for (us, kib) in samples.elapsed_us.iter().zip(&process.rss_anon_kib) {
                    for part in [at as u32, number as u32, process.process, (us / 1_000_000) as u32]
                    {
                        out.write_all(&part.to_le_bytes()).unwrap();
                    }
                    out.write_all(&kib.to_le_bytes()).unwrap();
                }
            }
        }
    }
    out.flush().unwrap();
}
