//! What evidence was expected and what arrived; how jobs ended. Fails closed.
//!
//! | outcome | comes to | because |
//! | --- | --- | --- |
//! | finished | judged | |
//! | failed | `fail` | a statement or the server failed: the product's |
//! | infrastructure | `invalid` | the harness or the host failed |
//! | cancelled, timed out | `inconclusive` | too little evidence; nobody's fault is proven. A hang of the product ends here too, and says so |
//!
//! A finished attempt whose evidence has holes (frames missing, samples neither stored nor counted as gaps, a planned phase that did not
//! run, no beginning or no end) is `invalid`. More than a fifth of the ticks missing, a loop that was shorter than asked,
//! a session of which more than a fifth of the readings is missing, or a tool that saw less of the backends' time than the plan's
//! floor (99 % where it has none), or shows no sign of life in a session, is `inconclusive`. What the host went through (memory
//! pressure, swap, a clock that jumped) decides nothing by itself: it stands in the ledger, and beside a verdict that it may explain.

mod account;

use crate::evidence::JobEvidence;
use crate::result::{Environment, HarnessCost, JobResult, SampleLedger, Verdict};
use crate::stats::bytes;
use pgsoak_proto::job::{Arm, Outcome, Tool};
use pgsoak_workloads::workload::{Kind, Length};

/// Share of the backends' time that a tool must have seen, where the plan says nothing.
pub const COVERAGE_FLOOR: f64 = 0.99;

/// Share of ticks that may be missing.
pub const MISSING_TICKS: f64 = 0.2;

/// Missing readings of one session that are never worth a word.
const FEW_TICKS: u64 = 20;

/// Share of a loop's asked time that must have passed.
const SHORTEST_LOOP: f64 = 0.98;

/// Something that the ledger shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it comes to.
    pub verdict: Verdict,
    /// "statement", "server", "outcome", "evidence", "samples", "duration", "coverage", "phase …".
    pub subject: String,
    /// The phase's name; empty: the whole job.
    pub phase: String,
    /// Sentences for people.
    pub message: String,
}

impl Entry {
    fn new(verdict: Verdict, subject: &str, message: String) -> Self {
        Self { verdict, subject: subject.to_owned(), phase: String::new(), message }
    }
}

/// What is wrong with a job's evidence; empty: nothing. `floor`: share of the backends' time that the tool must have seen.
pub fn ledger(job: &JobEvidence, floor: f64) -> Vec<Entry> {
    let mut entries = Vec::new();
    match job.outcome {
        Outcome::Finished => {
            completeness(job, &mut entries);
            sampling(job, &mut entries);
            sessions(job, &mut entries);
            durations(job, &mut entries);
            coverage(job, floor, &mut entries);
            proof_of_life(job, floor, &mut entries);
        }
        Outcome::Failed => entries.push(failure(job)),
        Outcome::Infrastructure => entries.push(Entry::new(
            Verdict::Invalid,
            "outcome",
            format!("The harness or the host failed: {}", reason(job)),
        )),
        Outcome::Cancelled => entries.push(Entry::new(
            Verdict::Inconclusive,
            "outcome",
            format!("The job was cancelled: {}", reason(job)),
        )),
        Outcome::TimedOut => entries.push(Entry::new(
            Verdict::Inconclusive,
            "outcome",
            format!(
                "The job reached its hard end before its work was done: {} A longer hard end, or fewer operations, would let it finish; \
                 if it hung, the server's log says where.",
                reason(job)
            ),
        )),
    }
    entries
}

fn reason(job: &JobEvidence) -> String {
    let reason = job.reason.trim();
    let known = if reason.is_empty() {
        job.attempt.ended.as_ref().map_or("", |ended| ended.reason.trim())
    } else {
        reason
    };
    match known {
        "" => "no reason was given.".to_owned(),
        known if known.ends_with(['.', '!', '?']) => known.to_owned(),
        known => format!("{known}."),
    }
}

fn failure(job: &JobEvidence) -> Entry {
    let ended = job.attempt.ended.as_ref();
    let statement = ended.map_or("", |ended| ended.statement.as_str());
    let sqlstate = ended.map_or("", |ended| ended.sqlstate.as_str());
    if statement.is_empty() {
        return Entry::new(Verdict::Fail, "server", format!("The server failed: {}", reason(job)));
    }
    let state = if sqlstate.is_empty() { String::new() } else { format!(" (SQLSTATE {sqlstate})") };
    Entry::new(
        Verdict::Fail,
        "statement",
        format!(
            "A statement failed{state}: {} Statement: {}",
            reason(job),
            one_line(statement, 300)
        ),
    )
}

fn completeness(job: &JobEvidence, entries: &mut Vec<Entry>) {
    let attempt = &job.attempt;
    let mut invalid =
        |message: String| entries.push(Entry::new(Verdict::Invalid, "evidence", message));
    if attempt.started.is_none() {
        invalid("The evidence has no beginning: the first frame is missing.".to_owned());
    }
    if attempt.ended.is_none() {
        invalid("The evidence has no end: the last frame is missing.".to_owned());
    }
    if attempt.missing_frames > 0 {
        invalid(format!(
            "{} of {} frames of evidence are missing.",
            attempt.missing_frames, attempt.last_sequence
        ));
    }
    if let Some(ended) = &attempt.ended {
        let counted = sample_ledger(job);
        // By what was due, not by what was taken: samples that the spool left out were taken, and stand in a gap.
        let lost = ended.ticks.saturating_sub(counted.stored).saturating_sub(counted.gaps);
        // The tick in which the attempt ends may be on either side.
        if lost > 1 {
            invalid(format!(
                "{lost} samples were due and are neither stored nor counted as a gap ({} stored and {} in gaps of {} due).",
                counted.stored, counted.gaps, ended.ticks
            ));
        }
    }
    if job.spec.arm == Arm::Control {
        return;
    }
    for phase in &job.workload.phases {
        let ran = attempt
            .phases
            .iter()
            .any(|span| span.started.name == phase.name && span.ended.is_some());
        if !ran {
            entries.push(Entry {
                phase: phase.name.clone(),
                ..Entry::new(
                    Verdict::Invalid,
                    "phase",
                    format!(
                        "Phase {} did not run to its end, though the job says it finished.",
                        phase.name
                    ),
                )
            });
        }
    }
}

fn sampling(job: &JobEvidence, entries: &mut Vec<Entry>) {
    let counted = sample_ledger(job);
    let missing = counted.expected.saturating_sub(counted.stored);
    if counted.expected > 1 && bytes(missing) > MISSING_TICKS * bytes(counted.expected) {
        entries.push(Entry::new(
            Verdict::Inconclusive,
            "samples",
            format!(
                "{missing} of {} samples are missing ({} known gaps): nothing that rests on samples is judged.",
                counted.expected, counted.gaps
            ),
        ));
    }
}

/// Sessions that were read too seldom for what rests on their readings.
fn sessions(job: &JobEvidence, entries: &mut Vec<Entry>) {
    let thin: Vec<String> = account::account(job)
        .processes
        .into_iter()
        .filter(|one| {
            let missing = one.expected.saturating_sub(one.stored);
            let is_session = job
                .attempt
                .processes
                .get(&one.process)
                .is_some_and(|series| series.who.session.is_some());
            // A handful of ticks around a session's beginning and end is nobody's loss.
            is_session
                && missing > FEW_TICKS
                && bytes(missing) > MISSING_TICKS * bytes(one.expected)
        })
        .map(|one| {
            let missing = one.expected.saturating_sub(one.stored);
            format!("{} (pid {}): {missing} of {}", one.who, one.pid, one.expected)
        })
        .collect();
    if !thin.is_empty() {
        entries.push(Entry::new(
            Verdict::Inconclusive,
            "samples",
            format!(
                "Readings of sessions are missing: {}. What rests on them is not judged.",
                thin.join("; ")
            ),
        ));
    }
}

fn durations(job: &JobEvidence, entries: &mut Vec<Entry>) {
    for span in &job.attempt.phases {
        let Some(phase) = job.workload.phases.iter().find(|phase| phase.name == span.started.name)
        else {
            continue;
        };
        let Kind::Loop(shape) = &phase.kind else { continue };
        let asked = match (job.spec.loop_for, shape.length) {
            (Some(asked), _) | (None, Length::For(asked)) => asked,
            (None, Length::Rounds(_)) => continue,
        };
        // A loop whose leak was proven has done its work.
        if span.ended.is_some_and(|ended| ended.concluded) {
            continue;
        }
        let Some(ended) = span.ended_elapsed_us else { continue };
        let ran_s = bytes(ended.saturating_sub(span.started_elapsed_us)) / 1e6;
        if ran_s < SHORTEST_LOOP * asked.as_secs_f64() {
            entries.push(Entry {
                phase: phase.name.clone(),
                ..Entry::new(
                    Verdict::Inconclusive,
                    "duration",
                    format!("The loop ran {ran_s:.0} s; {:.0} s were asked.", asked.as_secs_f64()),
                )
            });
        }
    }
}

fn coverage(job: &JobEvidence, floor: f64, entries: &mut Vec<Entry>) {
    if job.spec.tool == Tool::Plain {
        return;
    }
    let tool = job.spec.tool;
    match covered(job) {
        None => entries.push(Entry::new(
            Verdict::Inconclusive,
            "coverage",
            format!("Nobody says how much of the server {tool} saw."),
        )),
        Some(share) if share < floor => entries.push(Entry::new(
            Verdict::Inconclusive,
            "coverage",
            format!(
                "{tool} saw {:.1} % of the backends' time{}; {} % are needed to say that it found nothing.",
                100.0 * share,
                job.attempt.coverage.map_or_else(String::new, |known| format!(
                    " and {} of {} processes",
                    known.processes_seen, known.processes_expected
                )),
                (100_000.0 * floor).round() / 1_000.0,
            ),
        )),
        Some(_) => {}
    }
}

/// A tool that says nothing of an allocation which every backend makes was not alive there, whatever files it left.
fn proof_of_life(job: &JobEvidence, floor: f64, entries: &mut Vec<Entry>) {
    let Some(proof) = job.attempt.coverage.and_then(|coverage| coverage.proof) else { return };
    if job.spec.tool == Tool::Plain || f64::from(proof.shown) >= floor * f64::from(proof.sessions) {
        return;
    }
    entries.push(Entry::new(
        Verdict::Inconclusive,
        "proof of life",
        format!(
            "{} shows an allocation that every backend makes (a memory context's block; where pages are counted, a mapped library) in {} of {} sessions: of the others it says \
             nothing, so nothing that it did not find counts.",
            job.spec.tool, proof.shown, proof.sessions
        ),
    ));
}

/// Share of the backends' time that the tool saw, in [0, 1]; `None`: not measured, or a tool of which nobody was seen.
pub fn covered(job: &JobEvidence) -> Option<f64> {
    let coverage = job.attempt.coverage?;
    if coverage.backend_us == 0 {
        return None;
    }
    Some((bytes(coverage.backend_us_seen) / bytes(coverage.backend_us)).clamp(0.0, 1.0))
}

/// Ticks due, stored and known to be missing.
pub fn sample_ledger(job: &JobEvidence) -> SampleLedger {
    let attempt = &job.attempt;
    let stored = u64::try_from(attempt.ticks_elapsed_us.len()).unwrap_or(u64::MAX);
    let gaps = attempt.gaps.iter().fold(0, |sum: u64, gap| sum.saturating_add(gap.ticks));
    let expected = match &attempt.ended {
        Some(ended) => ended.ticks.max(stored),
        None => stored.saturating_add(gaps),
    };
    SampleLedger { expected, stored, gaps }
}

/// The job as results show it.
pub fn job_result(job: &JobEvidence) -> JobResult {
    let ended = job.attempt.ended.as_ref();
    let per = |whole: u64, parts: u64| (parts > 0).then(|| bytes(whole) / bytes(parts));
    JobResult {
        job: job.spec.job,
        workload: job.workload.name.clone(),
        tool: job.spec.tool,
        build: job.spec.build.to_string(),
        arm: job.spec.arm,
        agent: job.agent.clone(),
        outcome: job.outcome,
        reason: job.reason.clone(),
        attempts: job.attempts,
        samples: sample_ledger(job),
        ledger: job.attempt.started.is_some().then(|| account::account(job)),
        coverage: match job.spec.tool {
            Tool::Plain => {
                let counted = sample_ledger(job);
                per(counted.stored, counted.expected)
            }
            _ => covered(job),
        },
        processes_seen: job
            .attempt
            .coverage
            .filter(|_| job.spec.tool != Tool::Plain)
            .map(|known| (known.processes_seen, known.processes_expected)),
        proof_of_life: job
            .attempt
            .coverage
            .and_then(|known| known.proof)
            .map(|proof| (proof.shown, proof.sessions)),
        harness: HarnessCost {
            sampler_us_per_tick: ended.and_then(|e| per(e.sampler_cpu_us, e.ticks_sampled)),
            sampler_us_per_process_sample: ended
                .and_then(|e| per(e.sampler_cpu_us, e.process_samples)),
            runner_peak_rss_bytes: ended.map(|e| e.runner_peak_rss_bytes).filter(|peak| *peak > 0),
        },
        environment: job.attempt.started.as_ref().map(|started| Environment {
            host: started.host.clone(),
            kernel: started.kernel.clone(),
            cpu_model: started.cpu_model.clone(),
            cores: started.cores,
            memory_bytes: started.memory_bytes,
            postgres_version: started.postgres_version.clone(),
            tool_version: started.tool_version.clone(),
            build_digest: started.build_digest.clone(),
            extension_version: started.extension_version.clone(),
            started_at_unix_us: started.started_at_unix_us,
            sample_every_ms: started.sample_every_ms,
        }),
        server_log_tail: ended.map(|e| e.server_log_tail.clone()).unwrap_or_default(),
    }
}

/// White space folded, cut to so many characters.
pub fn one_line(text: &str, most: usize) -> String {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if folded.chars().count() <= most {
        return folded;
    }
    folded.chars().take(most).chain(['…']).collect()
}
