//! Jobs and leases.

use crate::convert::{
    InvalidMessage, cut, in_range, invalid, milliseconds, parsed, same_words, text, word,
};
use crate::job::{Arm, JobSpec, Lease, OnLost, Outcome, Tool, ToolOptions};
use crate::wire;
use std::time::Duration;

const WORKLOAD_NAME_BYTES: usize = 200;
const WORKLOAD_TOML_BYTES: usize = 1 << 20;
const SAMPLE_EVERY_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const HARD_END_MS: std::ops::RangeInclusive<u64> = 1_000..=30 * 24 * 3_600 * 1_000;
const SUPPRESSIONS_BYTES: usize = 256 << 10;
const MAX_SCALE: f64 = 1000.0;

same_words!(Tool, wire::Tool: Plain, Memcheck, Massif, Heaptrack);
same_words!(Arm, wire::Arm: Candidate, Baseline, Control, Canary);
same_words!(Outcome, wire::Outcome: Finished, Failed, Infrastructure, Cancelled, TimedOut);

impl TryFrom<wire::Lease> for Lease {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Lease) -> Result<Self, Self::Error> {
        let wire::Lease { job_id, attempt, fence } = wire;
        Ok(Self {
            job: parsed(&job_id, "job_id")?,
            attempt: in_range(attempt, 1..=u32::MAX, "attempt")?,
            fence: in_range(fence, 1..=u64::MAX, "fence")?,
        })
    }
}

impl From<Lease> for wire::Lease {
    fn from(lease: Lease) -> Self {
        let Lease { job, attempt, fence } = lease;
        Self { job_id: job.to_string(), attempt, fence }
    }
}

impl TryFrom<wire::JobSpec> for JobSpec {
    type Error = InvalidMessage;

    fn try_from(wire: wire::JobSpec) -> Result<Self, Self::Error> {
        let wire::JobSpec {
            job_id,
            run_id,
            workload_name,
            workload_toml,
            tool,
            arm,
            build,
            postgres,
            loop_for_ms,
            scale,
            sample_every_ms,
            hard_end_ms,
            seed,
            replica,
            exclusive,
            agents,
            on_lost,
            options,
        } = wire;
        if !(scale > 0.0 && scale <= MAX_SCALE) {
            return Err(invalid("scale", format_args!("{scale} is not in (0, {MAX_SCALE}]")));
        }
        Ok(Self {
            job: parsed(&job_id, "job_id")?,
            run: parsed(&run_id, "run_id")?,
            workload_name: text(workload_name, 1..=WORKLOAD_NAME_BYTES, "workload_name")?,
            workload_toml: text(workload_toml, 0..=WORKLOAD_TOML_BYTES, "workload_toml")?,
            tool: word::<wire::Tool, _>(tool, "tool")?,
            arm: word::<wire::Arm, _>(arm, "arm")?,
            build: parsed(&build, "build")?,
            postgres: parsed(&postgres, "postgres")?,
            loop_for: (loop_for_ms > 0).then(|| Duration::from_millis(loop_for_ms)),
            scale,
            sample_every: Duration::from_millis(in_range(
                sample_every_ms,
                SAMPLE_EVERY_MS,
                "sample_every_ms",
            )?),
            hard_end: Duration::from_millis(in_range(hard_end_ms, HARD_END_MS, "hard_end_ms")?),
            seed,
            replica,
            exclusive,
            agents,
            on_lost: match wire::OnLost::try_from(on_lost) {
                Ok(wire::OnLost::Unspecified | wire::OnLost::Wait) => OnLost::Wait,
                Ok(wire::OnLost::Retry) => OnLost::Retry,
                Err(_) => return Err(invalid("on_lost", format_args!("{on_lost} is unknown"))),
            },
            options: Box::new(options.map(ToolOptions::try_from).transpose()?.unwrap_or_default()),
        })
    }
}

impl From<&JobSpec> for wire::JobSpec {
    fn from(spec: &JobSpec) -> Self {
        let JobSpec {
            job,
            run,
            workload_name,
            workload_toml,
            tool,
            arm,
            build,
            postgres,
            loop_for,
            scale,
            sample_every,
            hard_end,
            seed,
            replica,
            exclusive,
            agents,
            on_lost,
            options,
        } = spec;
        Self {
            job_id: job.to_string(),
            run_id: run.to_string(),
            workload_name: cut(workload_name, WORKLOAD_NAME_BYTES),
            workload_toml: workload_toml.clone(),
            tool: wire::Tool::from(*tool).into(),
            arm: wire::Arm::from(*arm).into(),
            build: build.to_string(),
            postgres: postgres.to_string(),
            loop_for_ms: loop_for.map_or(0, milliseconds),
            scale: *scale,
            sample_every_ms: milliseconds(*sample_every),
            hard_end_ms: milliseconds(*hard_end),
            seed: *seed,
            replica: *replica,
            exclusive: *exclusive,
            agents: agents.clone(),
            on_lost: match on_lost {
                OnLost::Wait => wire::OnLost::Wait,
                OnLost::Retry => wire::OnLost::Retry,
            }
            .into(),
            options: (**options != ToolOptions::default()).then(|| (&**options).into()),
        }
    }
}

impl TryFrom<wire::ToolOptions> for ToolOptions {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ToolOptions) -> Result<Self, Self::Error> {
        let wire::ToolOptions { suppressions, pages_as_heap } = wire;
        let suppressions = text(suppressions, 0..=SUPPRESSIONS_BYTES, "options.suppressions")?;
        Ok(Self { suppressions, pages_as_heap })
    }
}

impl From<&ToolOptions> for wire::ToolOptions {
    fn from(options: &ToolOptions) -> Self {
        let ToolOptions { suppressions, pages_as_heap } = options;
        Self { suppressions: suppressions.clone(), pages_as_heap: *pages_as_heap }
    }
}
