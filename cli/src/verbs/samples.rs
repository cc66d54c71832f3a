//! `pgsoak samples`: the stored samples of a run, or with `--rounds` its readings at rest, as CSV or JSON lines.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::verbs;
use clap::Args;
use pgsoak_proto::{
    evidence::{AtRest, Body, Frame, ProcessAppeared, Samples},
    wire,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufWriter, Write},
};

/// `samples`
#[derive(Debug, Args)]
pub struct SamplesArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// As CSV, one line per process and tick (the default).
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// As JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Only this job.
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// Readings of sessions at rest instead of samples.
    #[arg(long)]
    pub rounds: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// One process at one tick.
#[derive(Debug, Serialize)]
struct SampleRow<'a> {
    job: &'a str,
    attempt: u32,
    workload: &'a str,
    tool: &'a str,
    build: &'a str,
    tick: u64,
    elapsed_s: f64,
    process: u32,
    pid: u32,
    backend_type: &'a str,
    session: Option<u32>,
    rss_anon_kib: Option<u64>,
    rss_file_kib: Option<u64>,
    rss_shmem_kib: Option<u64>,
    swap_kib: Option<u64>,
    data_kib: Option<u64>,
    cpu_us: Option<u64>,
    minor_faults: Option<u64>,
    major_faults: Option<u64>,
    threads: Option<u64>,
    pss_anon_kib: Option<u64>,
    operations: Option<u64>,
    host_available_kib: Option<u64>,
}

/// One session at rest.
#[derive(Debug, Serialize)]
struct RoundRow<'a> {
    job: &'a str,
    attempt: u32,
    workload: &'a str,
    tool: &'a str,
    build: &'a str,
    phase: &'a str,
    round: u32,
    session: u32,
    process: u32,
    operations: u64,
    rss_anon_bytes: u64,
    contexts_used_bytes: u64,
    contexts_total_bytes: u64,
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

pub async fn run(args: SamplesArgs) -> anyhow::Result<u8> {
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
        // Twice over the evidence: a process may be sampled before its type is learnt.
        let mut out = Rows::new(args.json);
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
                let written = take(stored, &mut jobs, args.rounds, is_printing.then_some(&mut out));
                if let Err(error) = written {
                    // `| head` is no failure.
                    return if is_broken_pipe(&error) { Ok(exit::PASS) } else { Err(error) };
                }
            }
        }
        match out.flush() {
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
    rounds: bool,
    out: Option<&mut Rows>,
) -> anyhow::Result<()> {
    let wire::StoredFrame { job_id, attempt, frame } = stored;
    let Some(frame) = frame else { return Ok(()) };
    let job = jobs.entry(job_id.clone()).or_default();
    match (Frame::try_from(frame)?.body, out) {
        (Body::ProcessAppeared(who), None) => {
            job.processes.insert((attempt, who.process), who);
        }
        (Body::PhaseStarted(phase), None) => {
            job.phases.insert(phase.phase, phase.name);
        }
        (Body::Samples(samples), Some(out)) if !rounds => {
            out.samples(&job_id, attempt, job, &samples)?;
        }
        (Body::AtRest(reading), Some(out)) if rounds => {
            out.reading(&job_id, attempt, job, &reading)?;
        }
        _ => {}
    }
    Ok(())
}

/// Writes rows to standard output.
enum Rows {
    Csv(Box<csv::Writer<std::io::Stdout>>),
    Json(BufWriter<std::io::Stdout>),
}

impl Rows {
    fn new(json: bool) -> Self {
        if json {
            Self::Json(BufWriter::new(std::io::stdout()))
        } else {
            Self::Csv(Box::new(csv::Writer::from_writer(std::io::stdout())))
        }
    }

    fn row(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        match self {
            Self::Csv(writer) => writer.serialize(row)?,
            Self::Json(writer) => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Csv(writer) => writer.flush()?,
            Self::Json(writer) => writer.flush()?,
        }
        Ok(())
    }

    fn samples(
        &mut self,
        id: &str,
        attempt: u32,
        job: &Job,
        samples: &Samples,
    ) -> anyhow::Result<()> {
        for (row, (tick, elapsed_us)) in samples.ticks.iter().zip(&samples.elapsed_us).enumerate() {
            for process in &samples.processes {
                let Some(at) = usize::try_from(process.first_row)
                    .ok()
                    .and_then(|first| row.checked_sub(first))
                else {
                    continue;
                };
                if process.rss_anon_kib.get(at).is_none() {
                    continue;
                }
                let who = job.processes.get(&(attempt, process.process));
                #[expect(clippy::cast_precision_loss, reason = "microseconds of days fit")]
                let elapsed_s = *elapsed_us as f64 / 1e6;
                self.row(&SampleRow {
                    job: id,
                    attempt,
                    workload: &job.workload,
                    tool: &job.tool,
                    build: &job.build,
                    tick: *tick,
                    elapsed_s,
                    process: process.process,
                    pid: who.map_or(0, |who| who.pid),
                    backend_type: who.map_or("unknown", |who| &who.backend_type),
                    session: who.and_then(|who| who.session),
                    rss_anon_kib: process.rss_anon_kib.get(at).copied(),
                    rss_file_kib: process.rss_file_kib.get(at).copied(),
                    rss_shmem_kib: process.rss_shmem_kib.get(at).copied(),
                    swap_kib: process.swap_kib.get(at).copied(),
                    data_kib: process.data_kib.get(at).copied(),
                    cpu_us: process.cpu_us.get(at).copied(),
                    minor_faults: process.minor_faults.get(at).copied(),
                    major_faults: process.major_faults.get(at).copied(),
                    threads: process.threads.get(at).copied(),
                    pss_anon_kib: process.pss_anon_kib.get(at).copied().filter(|kib| *kib > 0),
                    operations: samples.host.operations.get(row).copied(),
                    host_available_kib: samples.host.available_kib.get(row).copied(),
                })?;
            }
        }
        Ok(())
    }

    fn reading(
        &mut self,
        id: &str,
        attempt: u32,
        job: &Job,
        reading: &AtRest,
    ) -> anyhow::Result<()> {
        self.row(&RoundRow {
            job: id,
            attempt,
            workload: &job.workload,
            tool: &job.tool,
            build: &job.build,
            phase: job.phases.get(&reading.phase).map_or("?", String::as_str),
            round: reading.round,
            session: reading.session,
            process: reading.process,
            operations: reading.operations,
            rss_anon_bytes: reading.rss_anon_bytes,
            contexts_used_bytes: reading.contexts.iter().map(|c| c.used_bytes).sum(),
            contexts_total_bytes: reading.contexts.iter().map(|c| c.total_bytes).sum(),
        })
    }
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
