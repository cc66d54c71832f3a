//! `pgsoak samples`: the stored samples of a run, or with `--rounds` its readings at rest, as CSV, JSON lines or Parquet.

mod parquet;
mod rows;

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::verbs;
use crate::verbs::samples::parquet::ParquetFile;
use crate::verbs::samples::rows::{Cell, Column, Kind, Rows};
use anyhow::Context as _;
use clap::Args;
use pgsoak_proto::{
    evidence::{AtRest, Body, Frame, ProcessAppeared, Samples},
    wire,
};
use pgsoak_workloads::file_error::hint;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

/// `samples`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgsoak samples latest | head
  pgsoak samples 56d2668c --parquet run.parquet
  pgsoak samples latest --process autovacuum --from 1h --until 2h30m --metric rss_anon_kib,cpu_us
  pgsoak samples latest --rounds --json")]
pub struct SamplesArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// As CSV, one line per process and tick (the default).
    #[arg(long, conflicts_with_all = ["json", "parquet"])]
    pub csv: bool,
    /// As JSON, one object a line.
    #[arg(long, conflicts_with = "parquet")]
    pub json: bool,
    /// As a Parquet file (zstd); what is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub parquet: Option<PathBuf>,
    /// Only this job.
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// Only from this time of the job on, such as 90s or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<Duration>,
    /// Only up to this time of the job.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Duration>,
    /// Only these processes: a part of the backend's type, a PID, or `session=N`. May be repeated.
    #[arg(long, value_name = "WHO", conflicts_with = "rounds")]
    pub process: Vec<String>,
    /// Only these columns of readings, separated by commas.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "rounds")]
    pub metric: Vec<String>,
    /// Readings of sessions at rest instead of samples.
    #[arg(long)]
    pub rounds: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// Who and when, before the readings of a sample.
const WHO: [Column; 11] = [
    ("job", Kind::Text),
    ("attempt", Kind::Whole),
    ("workload", Kind::Text),
    ("tool", Kind::Text),
    ("build", Kind::Text),
    ("tick", Kind::Whole),
    ("elapsed_s", Kind::Real),
    ("process", Kind::Whole),
    ("pid", Kind::Whole),
    ("backend_type", Kind::Text),
    ("session", Kind::Whole),
];

/// Readings of a sample; KiB and microseconds as they are called, the rest are counts.
const METRICS: [&str; 12] = [
    "rss_anon_kib",
    "rss_file_kib",
    "rss_shmem_kib",
    "swap_kib",
    "data_kib",
    "cpu_us",
    "minor_faults",
    "major_faults",
    "threads",
    "pss_anon_kib",
    "operations",
    "host_available_kib",
];

/// One session at rest.
const ROUND: [Column; 13] = [
    ("job", Kind::Text),
    ("attempt", Kind::Whole),
    ("workload", Kind::Text),
    ("tool", Kind::Text),
    ("build", Kind::Text),
    ("phase", Kind::Text),
    ("round", Kind::Whole),
    ("session", Kind::Whole),
    ("process", Kind::Whole),
    ("operations", Kind::Whole),
    ("rss_anon_bytes", Kind::Whole),
    ("contexts_used_bytes", Kind::Whole),
    ("contexts_total_bytes", Kind::Whole),
];

/// What is wanted of the samples.
#[derive(Debug)]
struct Wanted {
    from_us: u64,
    until_us: u64,
    processes: Vec<String>,
    /// Places in [`METRICS`], rising.
    metrics: Vec<usize>,
    rounds: bool,
}

/// What is known of a job while its frames go by.
#[derive(Debug, Default)]
struct Job {
    workload: String,
    tool: String,
    build: String,
    /// By attempt and number.
    processes: BTreeMap<(u32, u32), ProcessAppeared>,
    phases: BTreeMap<u32, String>,
}

fn time(text: &str) -> Result<Duration, String> {
    pgsoak_workloads::quantity::time(text).map_err(|error| error.to_string())
}

// === impl Wanted ===

impl Wanted {
    fn of(args: &SamplesArgs) -> anyhow::Result<Self> {
        let place = |name: &String| {
            METRICS.iter().position(|known| known == name).ok_or_else(|| {
                Coded::usage(format!("--metric: there is no '{name}'{}", hint(name, METRICS)))
            })
        };
        let mut metrics = args.metric.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        metrics.sort_unstable();
        metrics.dedup();
        if metrics.is_empty() {
            metrics = (0..METRICS.len()).collect();
        }
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (from_us, until_us) = (args.from.map_or(0, us), args.until.map_or(u64::MAX, us));
        anyhow::ensure!(from_us <= until_us, Coded::usage("--until is before --from".to_owned()));
        Ok(Self {
            from_us,
            until_us,
            processes: args.process.clone(),
            metrics,
            rounds: args.rounds,
        })
    }

    fn columns(&self) -> Vec<Column> {
        if self.rounds {
            return ROUND.to_vec();
        }
        let metrics = self.metrics.iter().filter_map(|at| METRICS.get(*at));
        WHO.into_iter().chain(metrics.map(|name| (*name, Kind::Whole))).collect()
    }

    fn is_in_time(&self, elapsed_us: u64) -> bool {
        (self.from_us..=self.until_us).contains(&elapsed_us)
    }

    fn is_process(&self, who: Option<&ProcessAppeared>) -> bool {
        let fits = |of: &String| {
            who.is_some_and(|who| {
                let session = of.strip_prefix("session=").map(str::parse::<u32>);
                match session {
                    Some(number) => number.ok().is_some_and(|number| who.session == Some(number)),
                    None => who.backend_type.contains(of.as_str()) || who.pid.to_string() == *of,
                }
            })
        };
        self.processes.is_empty() || self.processes.iter().any(fits)
    }
}

pub async fn run(args: SamplesArgs) -> anyhow::Result<u8> {
    let wanted = Wanted::of(&args)?;
    verbs::with_control(&args.at, async |control| {
        let run = verbs::run_named(control, &args.run).await?;
        let request = wire::GetRunRequest { run_id: run.clone() };
        let view = control
            .get_run(request)
            .await
            .map_err(|status| connect::explain(&status))?
            .into_inner();
        let mut jobs: HashMap<String, Job> = view
            .jobs
            .into_iter()
            .filter_map(|job| job.spec)
            .map(|spec| {
                let tool = pgsoak_proto::job::Tool::try_from(spec.tool())
                    .map_or("?", pgsoak_proto::job::Tool::label);
                let known = Job {
                    workload: spec.workload_name,
                    tool: tool.to_owned(),
                    build: spec.build,
                    ..Job::default()
                };
                (spec.job_id, known)
            })
            .collect();
        let columns = wanted.columns();
        let mut out = match &args.parquet {
            Some(path) => Rows::Parquet(Box::new(
                ParquetFile::create(path, &columns)
                    .with_context(|| format!("write {}", path.display()))?,
            )),
            None if args.json => Rows::json(columns),
            None => Rows::csv(&columns)?,
        };
        // Twice over the evidence: a process may be sampled before its type is learnt.
        for is_printing in [false, true] {
            let request = wire::ReadEvidenceRequest {
                run_id: view.run_id.clone(),
                job_id: args.job.clone().unwrap_or_default(),
                samples_only: !args.rounds,
            };
            let answer =
                control.read_evidence(request).await.map_err(|status| connect::explain(&status))?;
            let mut stream = answer.into_inner();
            while let Some(stored) =
                stream.message().await.map_err(|status| connect::explain(&status))?
            {
                let written = take(stored, &mut jobs, &wanted, is_printing.then_some(&mut out));
                if let Err(error) = written {
                    // `| head` is no failure.
                    return if is_broken_pipe(&error) { Ok(exit::PASS) } else { Err(error) };
                }
            }
        }
        match out.finish() {
            Err(error) if !is_broken_pipe(&error) => Err(error),
            _ => Ok(exit::PASS),
        }
    })
    .await
}

/// Learns from one frame, or prints it.
fn take(
    stored: wire::StoredFrame,
    jobs: &mut HashMap<String, Job>,
    wanted: &Wanted,
    out: Option<&mut Rows>,
) -> anyhow::Result<()> {
    let wire::StoredFrame { job_id, attempt, frame } = stored;
    let Some(frame) = frame else { return Ok(()) };
    let job = jobs.entry(job_id.clone()).or_default();
    let frame = Frame::try_from(frame)?;
    let elapsed_us = u64::try_from(frame.elapsed.as_micros()).unwrap_or(u64::MAX);
    match (frame.body, out) {
        (Body::ProcessAppeared(who), None) => {
            job.processes.insert((attempt, who.process), who);
        }
        (Body::PhaseStarted(phase), None) => {
            job.phases.insert(phase.phase, phase.name);
        }
        (Body::Samples(of), Some(out)) if !wanted.rounds => {
            samples(out, wanted, (&job_id, attempt), job, &of)?;
        }
        (Body::AtRest(of), Some(out)) if wanted.rounds && wanted.is_in_time(elapsed_us) => {
            reading(out, (&job_id, attempt), job, &of)?;
        }
        _ => {}
    }
    Ok(())
}

fn samples(
    out: &mut Rows,
    wanted: &Wanted,
    (id, attempt): (&str, u32),
    job: &Job,
    of: &Samples,
) -> anyhow::Result<()> {
    let mut cells = Vec::with_capacity(WHO.len() + METRICS.len());
    for (row, (tick, elapsed_us)) in of.ticks.iter().zip(&of.elapsed_us).enumerate() {
        if !wanted.is_in_time(*elapsed_us) {
            continue;
        }
        for process in &of.processes {
            let first = usize::try_from(process.first_row).ok();
            let Some(at) = first.and_then(|first| row.checked_sub(first)) else { continue };
            let who = job.processes.get(&(attempt, process.process));
            if process.rss_anon_kib.get(at).is_none() || !wanted.is_process(who) {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "microseconds of days fit")]
            let elapsed_s = *elapsed_us as f64 / 1e6;
            let of_process = |column: &[u64]| column.get(at).copied();
            let metrics: [Option<u64>; METRICS.len()] = [
                of_process(&process.rss_anon_kib),
                of_process(&process.rss_file_kib),
                of_process(&process.rss_shmem_kib),
                of_process(&process.swap_kib),
                of_process(&process.data_kib),
                of_process(&process.cpu_us),
                of_process(&process.minor_faults),
                of_process(&process.major_faults),
                of_process(&process.threads),
                of_process(&process.pss_anon_kib).filter(|kib| *kib > 0),
                of.host.operations.get(row).copied(),
                of.host.available_kib.get(row).copied(),
            ];
            cells.clear();
            cells.extend([
                Cell::Text(id),
                Cell::Whole(attempt.into()),
                Cell::Text(&job.workload),
                Cell::Text(&job.tool),
                Cell::Text(&job.build),
                Cell::Whole(*tick),
                Cell::Real(elapsed_s),
                Cell::Whole(process.process.into()),
                Cell::Whole(who.map_or(0, |who| who.pid).into()),
                Cell::Text(who.map_or("unknown", |who| &who.backend_type)),
                who.and_then(|who| who.session).map(u64::from).into(),
            ]);
            let wanted = wanted.metrics.iter().map(|at| metrics.get(*at).copied().flatten());
            cells.extend(wanted.map(Cell::from));
            out.row(&cells)?;
        }
    }
    Ok(())
}

fn reading(
    out: &mut Rows,
    (id, attempt): (&str, u32),
    job: &Job,
    of: &AtRest,
) -> anyhow::Result<()> {
    out.row(&[
        Cell::Text(id),
        Cell::Whole(attempt.into()),
        Cell::Text(&job.workload),
        Cell::Text(&job.tool),
        Cell::Text(&job.build),
        Cell::Text(job.phases.get(&of.phase).map_or("?", String::as_str)),
        Cell::Whole(of.round.into()),
        Cell::Whole(of.session.into()),
        Cell::Whole(of.process.into()),
        Cell::Whole(of.operations),
        Cell::Whole(of.rss_anon_bytes),
        Cell::Whole(of.contexts.iter().map(|context| context.used_bytes).sum()),
        Cell::Whole(of.contexts.iter().map(|context| context.total_bytes).sum()),
    ])
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let csv = cause.downcast_ref::<csv::Error>().and_then(|error| match error.kind() {
            csv::ErrorKind::Io(error) => Some(error.kind()),
            _ => None,
        });
        io.or(csv) == Some(std::io::ErrorKind::BrokenPipe)
    })
}
