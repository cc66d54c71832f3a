//! The combined verdict of a run: a deterministic function of its evidence.

use crate::evidence::RunEvidence;
use crate::result::{Detects, RunResult, Verdict};

/// Version of the judging engine; stands in every result, so that a replay knows what it repeats.
pub const ENGINE: u32 = 1;

/// Judges a run. The same evidence gives the same result, byte by byte.
pub fn judge(evidence: &RunEvidence) -> RunResult {
    RunResult {
        run: evidence.run,
        plan: evidence.plan.name.clone(),
        verdict: Verdict::Inconclusive,
        sentence: "inconclusive: nothing was judged".to_owned(),
        detects: Detects::default(),
        findings: Vec::new(),
        budgets: Vec::new(),
        comparisons: Vec::new(),
        jobs: Vec::new(),
        engine: ENGINE,
    }
}
