//! Live progress of a run on standard error: bars on a terminal, plain lines elsewhere.

use crate::show::screen::Screen;
use crate::show::words;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgsoak_proto::wire;
use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// Between two plain lines where nothing but figures changed.
const PLAIN_EVERY: Duration = Duration::from_secs(15);

/// Shows one run after another state of it.
pub enum Progress {
    /// Nothing is wanted.
    Quiet,
    /// Bars.
    Bars(Bars),
    /// A line whenever something happens, and every few seconds.
    Plain(Plain),
    /// The whole terminal (`pgsoak watch`).
    Screen(Screen),
}

/// On a terminal.
pub struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    jobs: HashMap<String, ProgressBar>,
}

/// Elsewhere.
pub struct Plain {
    last: Option<Instant>,
    over: HashMap<String, bool>,
}

impl Progress {
    /// As the terminal allows.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            let all = MultiProgress::new();
            let whole = all.add(ProgressBar::new(1000));
            whole.set_style(style("{prefix:.bold} [{bar:40}] {msg}"));
            Self::Bars(Bars { all, whole, jobs: HashMap::new() })
        } else {
            Self::Plain(Plain { last: None, over: HashMap::new() })
        }
    }

    /// The run is now so.
    pub fn show(&mut self, run: &wire::RunView) {
        match self {
            Self::Quiet => {}
            Self::Bars(bars) => bars.show(run),
            Self::Plain(plain) => plain.show(run),
            Self::Screen(screen) => screen.show(run),
        }
    }

    /// Takes the bars away, so that what follows stands alone.
    pub fn finish(&mut self) {
        match self {
            Self::Quiet | Self::Plain(_) => {}
            Self::Bars(bars) => {
                for bar in bars.jobs.values() {
                    bar.finish_and_clear();
                }
                bars.whole.finish_and_clear();
            }
            Self::Screen(screen) => screen.close(),
        }
    }
}

impl Bars {
    fn show(&mut self, run: &wire::RunView) {
        self.whole.set_prefix(format!("{} {}", run.plan, short(&run.run_id)));
        self.whole.set_position(permille(share_done(run)));
        self.whole.set_message(summary(run));
        for job in &run.jobs {
            let Some(spec) = &job.spec else { continue };
            let is_live = is_live(job);
            if is_live && !self.jobs.contains_key(&spec.job_id) {
                let bar = self.all.add(ProgressBar::new(1000));
                bar.set_style(style("  [{bar:24}] {msg}"));
                self.jobs.insert(spec.job_id.clone(), bar);
            }
            if let Some(bar) = self.jobs.get(&spec.job_id) {
                if is_live {
                    bar.set_position(permille(job.progress.as_ref().map_or(0.0, |p| p.done)));
                    bar.set_message(job_line(job));
                } else if !bar.is_finished() {
                    bar.finish_and_clear();
                    if job.place() == wire::JobPlace::Over {
                        let _ = self.all.println(job_line(job));
                    }
                }
            }
        }
    }
}

impl Plain {
    fn show(&mut self, run: &wire::RunView) {
        let mut err = std::io::stderr().lock();
        for job in &run.jobs {
            let Some(spec) = &job.spec else { continue };
            let is_over = job.place() == wire::JobPlace::Over;
            if is_over && self.over.insert(spec.job_id.clone(), true).is_none() {
                let _ = writeln!(err, "{}", job_line(job));
            }
        }
        if self.last.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last = Some(Instant::now());
            let _ = writeln!(err, "{} {}: {}", run.plan, short(&run.run_id), summary(run));
            for job in run.jobs.iter().filter(|job| is_live(job)) {
                let _ = writeln!(err, "  {}", job_line(job));
            }
        }
    }
}

/// The end of a run's id: the part that differs between runs of one minute.
pub fn short(run: &str) -> &str {
    run.get(run.len().saturating_sub(12)..).unwrap_or(run)
}

/// One line about a job.
pub fn job_line(job: &wire::JobView) -> String {
    let Some(spec) = &job.spec else { return String::new() };
    let name = format!("{} {} {}", spec.workload_name, label(spec.tool()), spec.build);
    let place = match job.place() {
        wire::JobPlace::Over => {
            let outcome = pgsoak_proto::job::Outcome::try_from(job.outcome())
                .map_or("over", pgsoak_proto::job::Outcome::label);
            return if job.reason.is_empty() {
                format!("{name}: {outcome}")
            } else {
                format!("{name}: {outcome} ({})", job.reason)
            };
        }
        wire::JobPlace::Waiting => return format!("{name}: waits ({})", job.reason),
        wire::JobPlace::Unreachable => " [agent unreachable]",
        wire::JobPlace::Cancelling => " [stopping]",
        _ => "",
    };
    let Some(progress) = &job.progress else {
        return format!("{name}: starting on {}{place}", job.agent);
    };
    let what = stage(progress);
    let left = if progress.left_ms > 0 {
        format!(", {} left", words::duration(Duration::from_millis(progress.left_ms)))
    } else {
        String::new()
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let memory = words::bytes(progress.rss_anon_bytes as f64);
    let standing = match (job.standing.as_str(), job.standing_reason.as_str()) {
        ("" | "early", _) => String::new(),
        (standing, "") => format!(", {standing} so far"),
        (standing, reason) => format!(", {}: {reason}", standing.to_uppercase()),
    };
    format!("{name} on {}: {what}{left}, {memory}{place}{standing}", job.agent)
}

/// What a job does now: the stage that it is in, or the phase with its round.
pub(super) fn stage(progress: &wire::JobProgress) -> String {
    match progress.stage() {
        wire::JobStage::Preparing => "preparing".to_owned(),
        wire::JobStage::Finishing => "stopping the server".to_owned(),
        wire::JobStage::Ended => "sending evidence".to_owned(),
        _ if progress.rounds > 0 => {
            format!("{} {}/{}", progress.phase, progress.round, progress.rounds)
        }
        _ if progress.round > 0 => format!("{} round {}", progress.phase, progress.round),
        _ => progress.phase.clone(),
    }
}

pub(super) fn label(tool: wire::Tool) -> &'static str {
    pgsoak_proto::job::Tool::try_from(tool).map_or("?", pgsoak_proto::job::Tool::label)
}

pub(super) fn is_live(job: &wire::JobView) -> bool {
    !matches!(
        job.place(),
        wire::JobPlace::Waiting | wire::JobPlace::Over | wire::JobPlace::Unspecified
    )
}

pub(super) fn share_done(run: &wire::RunView) -> f64 {
    if run.jobs.is_empty() {
        return 0.0;
    }
    let done: f64 = run
        .jobs
        .iter()
        .map(|job| match job.place() {
            wire::JobPlace::Over => 1.0,
            _ => job.progress.as_ref().map_or(0.0, |p| p.done.clamp(0.0, 1.0)),
        })
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a count of jobs")]
    let total = run.jobs.len() as f64;
    done / total
}

fn permille(share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let permille = (share.clamp(0.0, 1.0) * 1000.0) as u64;
    permille
}

/// Stage, jobs over, and the time left by what has been done so far.
pub(super) fn summary(run: &wire::RunView) -> String {
    let stage = match run.stage() {
        wire::RunStage::Queued => "queued",
        wire::RunStage::Running => "running",
        wire::RunStage::Cancelling => "stopping",
        wire::RunStage::Judging => "judging",
        wire::RunStage::Finished => return run.sentence.clone(),
        wire::RunStage::Unspecified => "?",
    };
    let share = share_done(run);
    let left = started_ago(run)
        .filter(|_| share > 0.02)
        .map(|ago| format!(", about {} left", words::duration(ago.mul_f64((1.0 - share) / share))))
        .unwrap_or_default();
    format!(
        "{stage}, {} of {} jobs over, {:.0} %{left}",
        run.jobs_over,
        run.jobs_total,
        share * 100.0
    )
}

fn started_ago(run: &wire::RunView) -> Option<Duration> {
    let started = i64::try_from(run.started_at_unix_us).ok().filter(|us| *us > 0)?;
    let now = jiff::Timestamp::now().as_microsecond();
    u64::try_from(now.checked_sub(started)?).ok().map(Duration::from_micros)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
