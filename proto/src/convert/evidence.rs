//! Frames and their bodies, less samples and what memcheck found.

use crate::convert::{
    InvalidMessage, Within, cut, each, in_range, invalid, required, same_words, sha256, text, word,
};
use crate::evidence::{
    AtRest, AttemptEnded, AttemptStarted, Body, CheckResult, ContextUse, Frame, Gap, PhaseEnded,
    PhaseKind, PhaseStarted, ProcessAppeared, ToolCoverage,
};
use crate::wire;
use crate::wire::frame;
use std::time::Duration;

/// Of a check's answer.
pub const MAX_ANSWER_BYTES: usize = 4 << 10;

/// Of the server's log in the last frame.
pub const MAX_LOG_TAIL_BYTES: usize = 16 << 10;

same_words!(PhaseKind, wire::PhaseKind: Once, Loop);

impl TryFrom<wire::Frame> for Frame {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Frame) -> Result<Self, Self::Error> {
        let wire::Frame { sequence, elapsed_us, body } = wire;
        let body: Body = required(body, "body")?.try_into()?;
        let sequence = in_range(sequence, 1..=u64::MAX, "sequence")?;
        if matches!(body, Body::Started(_)) && sequence != 1 {
            return Err(invalid("sequence", format_args!("{sequence}, but `started` is always 1")));
        }
        Ok(Self { sequence, elapsed: Duration::from_micros(elapsed_us), body })
    }
}

impl From<&Frame> for wire::Frame {
    fn from(frame: &Frame) -> Self {
        let Frame { sequence, elapsed, body } = frame;
        Self {
            sequence: *sequence,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            body: Some(body.into()),
        }
    }
}

impl TryFrom<frame::Body> for Body {
    type Error = InvalidMessage;

    fn try_from(wire: frame::Body) -> Result<Self, Self::Error> {
        Ok(match wire {
            frame::Body::Started(w) => Self::Started(w.try_into().within("started")?),
            frame::Body::ProcessAppeared(w) => {
                Self::ProcessAppeared(w.try_into().within("process_appeared")?)
            }
            frame::Body::ProcessEnded(wire::ProcessEnded { process }) => {
                Self::ProcessEnded(process)
            }
            frame::Body::Samples(w) => Self::Samples(w.try_into().within("samples")?),
            frame::Body::PhaseStarted(w) => {
                Self::PhaseStarted(w.try_into().within("phase_started")?)
            }
            frame::Body::PhaseEnded(w) => Self::PhaseEnded(w.into()),
            frame::Body::AtRest(w) => Self::AtRest(w.try_into().within("at_rest")?),
            frame::Body::Check(w) => Self::Check(w.try_into().within("check")?),
            frame::Body::LeakCheck(w) => Self::LeakCheck(w.try_into().within("leak_check")?),
            frame::Body::MemcheckErrors(w) => {
                Self::MemcheckErrors(w.try_into().within("memcheck_errors")?)
            }
            frame::Body::Coverage(w) => Self::Coverage(w.try_into().within("coverage")?),
            frame::Body::Gap(w) => Self::Gap(w.try_into().within("gap")?),
            frame::Body::Ended(w) => Self::Ended(w.try_into().within("ended")?),
            frame::Body::SiteDigest(w) => Self::SiteDigest(w.try_into().within("site_digest")?),
            frame::Body::MemcheckExit(w) => {
                Self::MemcheckExit(w.try_into().within("memcheck_exit")?)
            }
            frame::Body::Capture(w) => Self::Capture(w.try_into().within("capture")?),
        })
    }
}

impl From<&Body> for frame::Body {
    fn from(body: &Body) -> Self {
        match body {
            Body::Started(b) => Self::Started(b.into()),
            Body::ProcessAppeared(b) => Self::ProcessAppeared(b.into()),
            Body::ProcessEnded(process) => {
                Self::ProcessEnded(wire::ProcessEnded { process: *process })
            }
            Body::Samples(b) => Self::Samples(b.into()),
            Body::PhaseStarted(b) => Self::PhaseStarted(b.into()),
            Body::PhaseEnded(b) => Self::PhaseEnded((*b).into()),
            Body::AtRest(b) => Self::AtRest(b.into()),
            Body::Check(b) => Self::Check(b.into()),
            Body::LeakCheck(b) => Self::LeakCheck(b.into()),
            Body::MemcheckErrors(b) => Self::MemcheckErrors(b.into()),
            Body::Coverage(b) => Self::Coverage((*b).into()),
            Body::Gap(b) => Self::Gap(b.into()),
            Body::Ended(b) => Self::Ended(b.into()),
            Body::SiteDigest(b) => Self::SiteDigest(b.into()),
            Body::MemcheckExit(b) => Self::MemcheckExit(b.into()),
            Body::Capture(b) => Self::Capture(b.into()),
        }
    }
}

impl TryFrom<wire::AttemptStarted> for AttemptStarted {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AttemptStarted) -> Result<Self, Self::Error> {
        let wire::AttemptStarted {
            started_at_unix_us,
            host,
            kernel,
            cpu_model,
            cores,
            memory_bytes,
            postgres_version,
            tool_version,
            build_digest,
            extension_version,
            settings,
            sample_every_ms,
        } = wire;
        let build_digest = if build_digest.is_empty() {
            build_digest
        } else {
            sha256(build_digest, "build_digest")?
        };
        Ok(Self {
            started_at_unix_us,
            host,
            kernel,
            cpu_model,
            cores: in_range(cores, 1..=u32::MAX, "cores")?,
            memory_bytes,
            postgres_version,
            tool_version,
            build_digest,
            extension_version,
            settings,
            sample_every_ms: in_range(sample_every_ms, 1..=u64::MAX, "sample_every_ms")?,
        })
    }
}

impl From<&AttemptStarted> for wire::AttemptStarted {
    fn from(started: &AttemptStarted) -> Self {
        let AttemptStarted {
            started_at_unix_us,
            host,
            kernel,
            cpu_model,
            cores,
            memory_bytes,
            postgres_version,
            tool_version,
            build_digest,
            extension_version,
            settings,
            sample_every_ms,
        } = started;
        Self {
            started_at_unix_us: *started_at_unix_us,
            host: host.clone(),
            kernel: kernel.clone(),
            cpu_model: cpu_model.clone(),
            cores: (*cores).max(1),
            memory_bytes: *memory_bytes,
            postgres_version: postgres_version.clone(),
            tool_version: tool_version.clone(),
            build_digest: build_digest.clone(),
            extension_version: extension_version.clone(),
            settings: settings.clone(),
            sample_every_ms: (*sample_every_ms).max(1),
        }
    }
}

impl TryFrom<wire::ProcessAppeared> for ProcessAppeared {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ProcessAppeared) -> Result<Self, Self::Error> {
        let wire::ProcessAppeared { process, pid, start_time_ticks, backend_type, session } = wire;
        let pid = in_range(pid, 1..=u32::MAX, "pid")?;
        Ok(Self { process, pid, start_time_ticks, backend_type, session })
    }
}

impl From<&ProcessAppeared> for wire::ProcessAppeared {
    fn from(appeared: &ProcessAppeared) -> Self {
        let ProcessAppeared { process, pid, start_time_ticks, backend_type, session } = appeared;
        Self {
            process: *process,
            pid: *pid,
            start_time_ticks: *start_time_ticks,
            backend_type: backend_type.clone(),
            session: *session,
        }
    }
}

impl TryFrom<wire::PhaseStarted> for PhaseStarted {
    type Error = InvalidMessage;

    fn try_from(wire: wire::PhaseStarted) -> Result<Self, Self::Error> {
        let wire::PhaseStarted { phase, name, kind, workers } = wire;
        let kind = word::<wire::PhaseKind, _>(kind, "kind")?;
        match (kind, workers) {
            (PhaseKind::Once, 0) | (PhaseKind::Loop, 1..) => {}
            _ => return Err(invalid("workers", "are 0 in a once phase and 1 or more in a loop")),
        }
        Ok(Self { phase, name, kind, workers })
    }
}

impl From<&PhaseStarted> for wire::PhaseStarted {
    fn from(started: &PhaseStarted) -> Self {
        let PhaseStarted { phase, name, kind, workers } = started;
        Self {
            phase: *phase,
            name: name.clone(),
            kind: wire::PhaseKind::from(*kind).into(),
            workers: match kind {
                PhaseKind::Once => 0,
                PhaseKind::Loop => (*workers).max(1),
            },
        }
    }
}

impl From<wire::PhaseEnded> for PhaseEnded {
    fn from(wire: wire::PhaseEnded) -> Self {
        let wire::PhaseEnded { phase, operations, late_operations, max_lateness_us, concluded } =
            wire;
        Self { phase, operations, late_operations, max_lateness_us, concluded }
    }
}

impl From<PhaseEnded> for wire::PhaseEnded {
    fn from(ended: PhaseEnded) -> Self {
        let PhaseEnded { phase, operations, late_operations, max_lateness_us, concluded } = ended;
        Self { phase, operations, late_operations, max_lateness_us, concluded }
    }
}

impl TryFrom<wire::AtRest> for AtRest {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AtRest) -> Result<Self, Self::Error> {
        let wire::AtRest {
            session,
            process,
            phase,
            round,
            operations,
            rss_anon_bytes,
            contexts,
            pss_anon_bytes,
            rows,
            trimmed_rss_anon_bytes,
            allocator,
        } = wire;
        let contexts: Vec<ContextUse> = each(contexts, "contexts")?;
        if !contexts.is_sorted_by(|a, b| a.name < b.name) {
            return Err(invalid("contexts", "are not in the order of their names, each once"));
        }
        Ok(Self {
            session,
            process,
            phase,
            round,
            operations,
            rss_anon_bytes,
            contexts,
            pss_anon_bytes,
            rows,
            trimmed_rss_anon_bytes,
            allocator: allocator.map(Into::into),
        })
    }
}

impl From<&AtRest> for wire::AtRest {
    fn from(at_rest: &AtRest) -> Self {
        let AtRest {
            session,
            process,
            phase,
            round,
            operations,
            rss_anon_bytes,
            contexts,
            pss_anon_bytes,
            rows,
            trimmed_rss_anon_bytes,
            allocator,
        } = at_rest;
        Self {
            session: *session,
            process: *process,
            phase: *phase,
            round: *round,
            operations: *operations,
            rss_anon_bytes: *rss_anon_bytes,
            contexts: by_name(contexts),
            pss_anon_bytes: *pss_anon_bytes,
            rows: *rows,
            trimmed_rss_anon_bytes: *trimmed_rss_anon_bytes,
            allocator: allocator.map(Into::into),
        }
    }
}

/// In the order of their names; those that share a name as one.
pub(super) fn by_name(contexts: &[ContextUse]) -> Vec<wire::ContextUse> {
    let mut sorted: Vec<wire::ContextUse> = contexts.iter().map(Into::into).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.dedup_by(|other, kept| {
        let is_same = other.name == kept.name;
        if is_same {
            kept.used_bytes = kept.used_bytes.saturating_add(other.used_bytes);
            kept.total_bytes = kept.total_bytes.saturating_add(other.total_bytes);
            kept.count = kept.count.saturating_add(other.count);
        }
        is_same
    });
    sorted
}

impl TryFrom<wire::ContextUse> for ContextUse {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ContextUse) -> Result<Self, Self::Error> {
        let wire::ContextUse { name, used_bytes, total_bytes, count } = wire;
        let count = in_range(count, 1..=u32::MAX, "count")?;
        Ok(Self { name, used_bytes, total_bytes, count })
    }
}

impl From<&ContextUse> for wire::ContextUse {
    fn from(context: &ContextUse) -> Self {
        let ContextUse { name, used_bytes, total_bytes, count } = context;
        Self {
            name: name.clone(),
            used_bytes: *used_bytes,
            total_bytes: *total_bytes,
            count: (*count).max(1),
        }
    }
}

impl TryFrom<wire::CheckResult> for CheckResult {
    type Error = InvalidMessage;

    fn try_from(wire: wire::CheckResult) -> Result<Self, Self::Error> {
        let wire::CheckResult { phase, round, holds, sql, answer } = wire;
        let answer = text(answer, 0..=MAX_ANSWER_BYTES, "answer")?;
        Ok(Self { phase, round, holds, sql, answer })
    }
}

impl From<&CheckResult> for wire::CheckResult {
    fn from(check: &CheckResult) -> Self {
        let CheckResult { phase, round, holds, sql, answer } = check;
        Self {
            phase: *phase,
            round: *round,
            holds: *holds,
            sql: sql.clone(),
            answer: cut(answer, MAX_ANSWER_BYTES),
        }
    }
}

impl TryFrom<wire::ToolCoverage> for ToolCoverage {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ToolCoverage) -> Result<Self, Self::Error> {
        let wire::ToolCoverage {
            processes_expected,
            processes_seen,
            backend_us,
            backend_us_seen,
            proof,
        } = wire;
        let proof = proof.map(TryInto::try_into).transpose().within("proof")?;
        Ok(Self { processes_expected, processes_seen, backend_us, backend_us_seen, proof })
    }
}

impl From<ToolCoverage> for wire::ToolCoverage {
    fn from(coverage: ToolCoverage) -> Self {
        let ToolCoverage { processes_expected, processes_seen, backend_us, backend_us_seen, proof } =
            coverage;
        let proof = proof.map(Into::into);
        Self { processes_expected, processes_seen, backend_us, backend_us_seen, proof }
    }
}

impl TryFrom<wire::Gap> for Gap {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Gap) -> Result<Self, Self::Error> {
        let wire::Gap { first_tick, ticks, cause } = wire;
        let ticks = in_range(ticks, 1..=u64::MAX, "ticks")?;
        if first_tick.checked_add(ticks).is_none() {
            return Err(invalid("ticks", "reach past the last tick there can be"));
        }
        Ok(Self { first_tick, ticks, cause })
    }
}

impl From<&Gap> for wire::Gap {
    fn from(gap: &Gap) -> Self {
        let Gap { first_tick, ticks, cause } = gap;
        Self { first_tick: *first_tick, ticks: (*ticks).max(1), cause: cause.clone() }
    }
}

impl TryFrom<wire::AttemptEnded> for AttemptEnded {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AttemptEnded) -> Result<Self, Self::Error> {
        let wire::AttemptEnded {
            outcome,
            reason,
            server_log_tail,
            ticks,
            ticks_sampled,
            sampler_cpu_us,
            process_samples,
            runner_cpu_us,
            runner_peak_rss_bytes,
            statement,
            sqlstate,
        } = wire;
        Ok(Self {
            outcome: word::<wire::Outcome, _>(outcome, "outcome")?,
            reason,
            server_log_tail: text(server_log_tail, 0..=MAX_LOG_TAIL_BYTES, "server_log_tail")?,
            ticks,
            ticks_sampled,
            sampler_cpu_us,
            process_samples,
            runner_cpu_us,
            runner_peak_rss_bytes,
            statement,
            sqlstate,
        })
    }
}

impl From<&AttemptEnded> for wire::AttemptEnded {
    fn from(ended: &AttemptEnded) -> Self {
        let AttemptEnded {
            outcome,
            reason,
            server_log_tail,
            ticks,
            ticks_sampled,
            sampler_cpu_us,
            process_samples,
            runner_cpu_us,
            runner_peak_rss_bytes,
            statement,
            sqlstate,
        } = ended;
        // The tail is what counts: its last bytes.
        let start = server_log_tail
            .ceil_char_boundary(server_log_tail.len().saturating_sub(MAX_LOG_TAIL_BYTES));
        Self {
            outcome: wire::Outcome::from(*outcome).into(),
            reason: reason.clone(),
            server_log_tail: server_log_tail.get(start..).unwrap_or_default().to_owned(),
            ticks: *ticks,
            ticks_sampled: *ticks_sampled,
            sampler_cpu_us: *sampler_cpu_us,
            process_samples: *process_samples,
            runner_cpu_us: *runner_cpu_us,
            runner_peak_rss_bytes: *runner_peak_rss_bytes,
            statement: statement.clone(),
            sqlstate: sqlstate.clone(),
        }
    }
}
