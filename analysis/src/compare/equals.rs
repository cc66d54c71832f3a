//! What runs of one build differ by: pairs of earlier jobs of equal builds on one host.

use crate::compare::figures::JobFigures;
use std::collections::BTreeMap;

/// Two jobs of one build on one host, in different runs, the earlier first.
pub(super) type EqualPair<'a> = (&'a JobFigures, &'a JobFigures);

/// Pairs that are looked at, the newest: what runs differed by long ago says little.
const MOST_PAIRS: usize = 30;

/// Pairs of jobs that did the same work and as much of it as `like`. No job is in two pairs, so that they are independent.
pub(super) fn equal_pairs<'a>(jobs: &[&'a JobFigures], like: &JobFigures) -> Vec<EqualPair<'a>> {
    let mut by_host: BTreeMap<(&str, &str), Vec<&JobFigures>> = BTreeMap::new();
    let is_alike = |job: &&JobFigures| {
        job.unsound.is_none()
            && (job.workload.as_str(), job.tool) == (like.workload.as_str(), like.tool)
            && (job.work.as_str(), job.length.as_str())
                == (like.work.as_str(), like.length.as_str())
    };
    for job in jobs.iter().copied().filter(is_alike) {
        by_host.entry((&job.agent, &job.build)).or_default().push(job);
    }
    let mut pairs: Vec<EqualPair<'a>> = Vec::new();
    for jobs in by_host.values_mut() {
        jobs.sort_by_key(|job| (job.started_at_unix_us, job.run));
        let mut open: Option<&JobFigures> = None;
        for job in jobs {
            match open {
                Some(first) if first.run != job.run => {
                    pairs.push((first, job));
                    open = None;
                }
                // Replicas within one run share its fate: the first stands for them.
                Some(_) => {}
                None => open = Some(job),
            }
        }
    }
    pairs.sort_by_key(|(_, later)| std::cmp::Reverse((later.started_at_unix_us, later.run)));
    pairs.truncate(MOST_PAIRS);
    pairs
}
