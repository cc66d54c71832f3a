//! Checks of the workload: memory of work that was not done means nothing, so a check that does not hold makes the job invalid.

use crate::evidence::JobEvidence;
use std::collections::BTreeMap;

/// A check that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The phase's name.
    pub phase: String,
    /// Round of the first time; 0 for once phases.
    pub round: u32,
    /// How often it did not hold.
    pub times: usize,
    /// How often it was asked.
    pub asked: usize,
    /// What was asked.
    pub sql: String,
    /// What the server said the first time.
    pub answer: String,
}

/// The checks of a job that did not hold, each phase's once.
pub fn unmet(job: &JobEvidence) -> Vec<Unmet> {
    let mut by_phase: BTreeMap<(u32, &str), Unmet> = BTreeMap::new();
    let mut asked: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for check in &job.attempt.checks {
        let key = (check.phase, check.sql.as_str());
        *asked.entry(key).or_default() += 1;
        if check.holds {
            continue;
        }
        by_phase.entry(key).and_modify(|unmet| unmet.times += 1).or_insert_with(|| Unmet {
            phase: phase_name(job, check.phase),
            round: check.round,
            times: 1,
            asked: 0,
            sql: check.sql.clone(),
            answer: check.answer.clone(),
        });
    }
    by_phase
        .into_iter()
        .map(|(key, unmet)| Unmet {
            asked: asked.get(&key).copied().unwrap_or(unmet.times),
            ..unmet
        })
        .collect()
}

fn phase_name(job: &JobEvidence, number: u32) -> String {
    job.attempt
        .phases
        .iter()
        .find(|span| span.started.phase == number)
        .map_or_else(|| format!("phase {number}"), |span| span.started.name.clone())
}
