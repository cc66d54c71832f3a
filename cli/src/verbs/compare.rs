//! `pgsoak compare`: is what came after worse than what came before; runs or releases, over all their stored evidence.

use crate::args::Where;
use crate::connect::{self, Control};
use crate::exit::{self, Coded};
use crate::show;
use crate::verbs;
use clap::Args;
use pgsoak_analysis::{
    compare::{JobFigures, Set, compare_sets},
    evidence::{AttemptEvidence, JobEvidence},
    result::Compared,
};
use pgsoak_proto::{
    evidence::Frame,
    job::{Arm, BuildRef, JobSpec, Outcome},
    wire,
};
use pgsoak_workloads::workload::Workload;
use std::collections::BTreeMap;

/// `compare`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak compare pg_tviews@0.1.0-beta.20 pg_tviews@0.1.0-beta.34    over all their stored runs\n  pgsoak compare 019a latest --json\n\nOf a run its candidate's jobs count; of a build every job that ran it as candidate or baseline.\nExit codes: 0 same or better, 1 worse, 2 can't tell."
)]
pub struct CompareArgs {
    /// What came before: a run's id (or a unique part of it, or `latest`) or a build (NAME@RELEASE, dir:PATH, system, vanilla).
    pub before: String,
    /// What came after.
    pub after: String,
    /// Most runs of a build, newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// Runs in one answer of the coordinator.
const PAGE: u32 = 200;

pub async fn run(args: CompareArgs) -> anyhow::Result<u8> {
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (before, after) = verbs::with_control(&args.at, async |control| {
        let before = set(control, &args.before, most).await?;
        let after = set(control, &args.after, most).await?;
        Ok((before, after))
    })
    .await?;
    let found = tokio::task::spawn_blocking(move || compare_sets(&before, &after)).await?;
    if args.json {
        verbs::print_json(&found)?;
    } else {
        verbs::print(&show::comparison::text(&found))?;
    }
    Ok(match found.answer {
        Compared::Same | Compared::Better => exit::PASS,
        Compared::Worse => exit::FAIL,
        Compared::CantTell => exit::INCONCLUSIVE,
    })
}

/// The jobs that somebody means: of a run its candidate's, of a build all that ran it.
async fn set(control: &mut Control, name: &str, most: usize) -> anyhow::Result<Set> {
    let is_build =
        name.contains('@') || name.contains(':') || name == "system" || name == "vanilla";
    if !is_build {
        let run = verbs::run_named(control, name).await?;
        let view = view(control, &run).await?;
        if view.stage() != wire::RunStage::Finished {
            return Err(Coded::usage(format!(
                "run {} is not finished; follow it with `pgsoak watch {}`",
                view.run_id, view.run_id
            ))
            .into());
        }
        let label = format!("run {}", view.run_id);
        let jobs = jobs(control, view, |spec| spec.arm == Arm::Candidate).await?;
        return Ok(Set { label, jobs });
    }
    let build: BuildRef = name.parse().map_err(|error| Coded::usage(format!("{error}")))?;
    let mut set = Set { label: name.to_owned(), jobs: Vec::new() };
    let (mut last, mut runs) = (String::new(), 0);
    'pages: loop {
        let request =
            wire::ListRunsRequest { limit: PAGE, before: last.clone(), plan: String::new() };
        let page = control.list_runs(request).await.map_err(|status| connect::explain(&status))?;
        let page = page.into_inner().runs;
        let Some(oldest) = page.last() else { break };
        last.clone_from(&oldest.run_id);
        for line in page.into_iter().filter(|run| run.stage() == wire::RunStage::Finished) {
            let view = view(control, &line.run_id).await?;
            let found =
                jobs(control, view, |spec| spec.arm != Arm::Control && spec.build == build).await?;
            runs += usize::from(!found.is_empty());
            set.jobs.extend(found);
            if runs >= most {
                break 'pages;
            }
        }
    }
    if set.jobs.is_empty() {
        return Err(Coded::usage(format!(
            "no stored run has a job of {build} as candidate or baseline; `pgsoak runs` lists what there is"
        ))
        .into());
    }
    Ok(set)
}

async fn view(control: &mut Control, run: &str) -> anyhow::Result<wire::RunView> {
    let request = wire::GetRunRequest { run_id: run.to_owned() };
    let answer = control.get_run(request).await.map_err(|status| connect::explain(&status))?;
    Ok(answer.into_inner())
}

/// The figures of the wanted jobs of a run. Evidence is read and let go job by job.
async fn jobs(
    control: &mut Control,
    view: wire::RunView,
    is_wanted: impl Fn(&JobSpec) -> bool,
) -> anyhow::Result<Vec<JobFigures>> {
    let mut wanted = Vec::new();
    for job in view.jobs {
        let (outcome, agent) = (job.outcome(), job.agent);
        let Some(spec) = job.spec else { continue };
        let spec = JobSpec::try_from(spec)?;
        if is_wanted(&spec) {
            wanted.push((spec, outcome, job.reason, agent, job.attempts));
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let request = wire::GetRunRequest { run_id: view.run_id.clone() };
    let input = control.get_run_input(request).await.map_err(|status| connect::explain(&status))?;
    let files: BTreeMap<String, String> =
        input.into_inner().workloads.into_iter().map(|file| (file.name, file.toml)).collect();
    let mut figures = Vec::with_capacity(wanted.len());
    for (mut spec, outcome, reason, agent, attempts) in wanted {
        spec.workload_toml = files.get(&spec.workload_name).cloned().unwrap_or_default();
        let workload =
            Workload::parse(&spec.workload_name, &spec.workload_toml).map_err(|problems| {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("run {}: {}", spec.run, problems.join("; "))
            })?;
        let frames = frames(control, &spec, attempts).await?;
        let job = move || {
            JobFigures::of(&JobEvidence {
                spec,
                workload,
                agent,
                attempts,
                outcome: Outcome::try_from(outcome).unwrap_or(Outcome::Infrastructure),
                reason,
                attempt: AttemptEvidence::from_frames(frames),
            })
        };
        figures.push(tokio::task::spawn_blocking(job).await?);
    }
    Ok(figures)
}

/// The frames of a job's last attempt.
async fn frames(
    control: &mut Control,
    spec: &JobSpec,
    attempts: u32,
) -> anyhow::Result<Vec<Frame>> {
    let request = wire::ReadEvidenceRequest {
        run_id: spec.run.to_string(),
        job_id: spec.job.to_string(),
        samples_only: false,
    };
    let answer =
        control.read_evidence(request).await.map_err(|status| connect::explain(&status))?;
    let mut stream = answer.into_inner();
    let mut frames = Vec::new();
    while let Some(stored) = stream.message().await.map_err(|status| connect::explain(&status))? {
        if stored.attempt == attempts
            && let Some(frame) = stored.frame
        {
            frames.push(Frame::try_from(frame)?);
        }
    }
    Ok(frames)
}
