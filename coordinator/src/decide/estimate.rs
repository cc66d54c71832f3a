//! How long a job is likely to take, from what it was asked alone.
//!
//! Its hard end is that length with much room (`workloads::expand::hard_end` says how much), so the room is taken off again.

use pgsoak_proto::job::{JobSpec, Tool};
use std::time::Duration;

/// In a hard end, beside the loops: once under `plain`, four times under the tools that slow a server down.
const ROOM: Duration = Duration::from_secs(35 * 60);
/// For the cluster and what runs once; the same factor.
const SETUP: Duration = Duration::from_secs(2 * 60);

/// An estimate, never longer than the hard end.
pub fn expected(spec: &JobSpec) -> Duration {
    let slow = if spec.tool == Tool::Plain { 1 } else { 4 };
    let loops = spec.hard_end.saturating_sub(ROOM * slow) * 10 / 11;
    let loops = loops.max(spec.loop_for.unwrap_or_default());
    loops.saturating_add(SETUP * slow).min(spec.hard_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fitness::tests::spec;
    use pgsoak_proto::id::RunId;

    #[test]
    fn the_room_of_a_hard_end_is_no_time_that_a_job_takes() {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        // 8 hours: 30 minutes, 8 h, a tenth, 5 minutes.
        let night = JobSpec { hard_end: minutes(35 + 528), loop_for: None, ..spec(RunId::issue()) };
        assert_eq!(expected(&night), minutes(480 + 2));
        let slow = JobSpec { tool: Tool::Memcheck, hard_end: minutes(140 + 528), ..night.clone() };
        assert_eq!(expected(&slow), minutes(480 + 8));
        // Somebody's own hard end, shorter than the room.
        let short = JobSpec { hard_end: minutes(10), loop_for: Some(minutes(5)), ..night.clone() };
        assert_eq!(expected(&short), minutes(7));
        assert_eq!(
            expected(&JobSpec { hard_end: minutes(1), loop_for: None, ..night }),
            minutes(1)
        );
    }
}
