//! Which jobs of a run belong together: replicas of one another, arms of one comparison, and whose turn is first.
//!
//! Where they go is `place`'s matter.

use pgsoak_proto::job::{Arm, JobSpec};
use std::collections::VecDeque;

/// Whether two jobs do the same work: alike but for their part, their build and their number among replicas.
fn is_same_work(a: &JobSpec, b: &JobSpec) -> bool {
    // Every field, so that a new one is thought of.
    let JobSpec {
        job: _,
        run,
        workload_name,
        workload_toml: _,
        tool,
        arm: _,
        build: _,
        postgres,
        loop_for,
        scale,
        sample_every,
        hard_end,
        seed,
        replica: _,
        exclusive,
        agents,
        on_lost,
        options,
    } = a;
    a.job != b.job
        && *run == b.run
        && *workload_name == b.workload_name
        && *tool == b.tool
        && *postgres == b.postgres
        && *loop_for == b.loop_for
        && scale.to_bits() == b.scale.to_bits()
        && *sample_every == b.sample_every
        && *hard_end == b.hard_end
        && *seed == b.seed
        && *exclusive == b.exclusive
        && *agents == b.agents
        && *on_lost == b.on_lost
        && *options == b.options
}

/// Whether two jobs are replicas of one another.
pub fn are_replicas(a: &JobSpec, b: &JobSpec) -> bool {
    a.replica != b.replica && a.arm == b.arm && is_same_work(a, b) && a.build == b.build
}

/// Whether two jobs are arms of one comparison: the same but for the build and its part.
pub fn are_siblings(a: &JobSpec, b: &JobSpec) -> bool {
    let is_compared = |arm| arm != Arm::Canary;
    is_compared(a.arm)
        && is_compared(b.arm)
        && a.arm != b.arm
        && a.replica == b.replica
        && is_same_work(a, b)
}

/// Where an arm stands among those that it is compared with: they take turns to be first.
fn turn(spec: &JobSpec) -> u32 {
    const ARMS: u32 = 3;
    let arm = match spec.arm {
        Arm::Candidate | Arm::Canary => 0,
        Arm::Baseline => 1,
        Arm::Control => 2,
    };
    let first = (spec.replica % ARMS + crc32c::crc32c(spec.workload_name.as_bytes()) % ARMS) % ARMS;
    (arm + ARMS - first) % ARMS
}

/// A run's jobs as they stand, arms of one comparison in their turns.
pub(super) fn in_turns<T>(jobs: Vec<T>, spec: impl Fn(&T) -> &JobSpec) -> VecDeque<T> {
    let mut ordered: Vec<T> = Vec::with_capacity(jobs.len());
    let mut group = 0;
    for job in jobs {
        let begins = ordered.last().is_none_or(|last| !are_siblings(spec(last), spec(&job)));
        if begins {
            group = ordered.len();
        }
        ordered.push(job);
        if let Some(arms) = ordered.get_mut(group..) {
            arms.sort_by_key(|job| turn(spec(job)));
        }
    }
    ordered.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fitness::tests::{capable, spec};
    use crate::decide::place::tests::{agent, id, snapshot, waiting};
    use crate::decide::place::{WaitingJob, place};
    use pgsoak_proto::id::{AgentId, RunId};
    use std::collections::{BTreeMap, BTreeSet};

    fn arms(run: RunId, workload: &str, replica: u32) -> Vec<JobSpec> {
        [Arm::Candidate, Arm::Baseline, Arm::Control]
            .map(|arm| JobSpec {
                arm,
                replica,
                workload_name: workload.to_owned(),
                workload_toml: String::new(),
                ..spec(run)
            })
            .to_vec()
    }

    #[test]
    fn what_is_compared_stays_on_one_host_unless_that_one_is_gone() {
        let can = capable(1);
        let run = RunId::issue();
        let jobs = arms(run, "w", 0);
        let agents = || vec![agent("a", &can), agent("b", &can)];
        let answer = place(&snapshot(agents(), jobs.iter().map(waiting).collect()));
        assert_eq!(answer.assign.len(), 1, "the others wait for its host: {:?}", answer.waits);
        assert!(
            answer.waits.values().all(|why| why.contains("b has not the arms")),
            "{:?}",
            answer.waits
        );
        // It refuses one of them (a package folder that is on another host): that one goes there.
        let mut refused = waiting(&jobs[1]);
        refused.siblings_at = BTreeSet::from([id(1)]);
        refused.refused_by = BTreeSet::from([id(1)]);
        assert_eq!(place(&snapshot(agents(), vec![refused])).assign, [(jobs[1].job, id(2))]);
        // The host is lost: the others go on elsewhere.
        let mut second = waiting(&jobs[1]);
        second.siblings_at = BTreeSet::from([id(1)]);
        let mut fleet = agents();
        fleet[0].is_connected = false;
        assert_eq!(place(&snapshot(fleet, vec![second])).assign, [(jobs[1].job, id(2))]);
        // With room for all they run side by side.
        let roomy = capable(3);
        let agents = vec![agent("a", &roomy), agent("b", &roomy)];
        let answer = place(&snapshot(agents, jobs.iter().map(waiting).collect()));
        let hosts: BTreeSet<AgentId> = answer.assign.iter().map(|(_, agent)| *agent).collect();
        assert_eq!((answer.assign.len(), hosts.len()), (3, 1));
    }

    #[test]
    fn over_all_replicas_every_arm_meets_every_host() {
        for slots in 1..4 {
            let can = capable(slots);
            let run = RunId::issue();
            let jobs: Vec<JobSpec> = (0..3).flat_map(|replica| arms(run, "w", replica)).collect();
            let mut at: BTreeMap<(Arm, AgentId), u32> = BTreeMap::new();
            let mut given: Vec<(&JobSpec, AgentId)> = Vec::new();
            // Round by round, as hosts become free.
            while given.len() < jobs.len() {
                let left = jobs.iter().filter(|job| !given.iter().any(|(g, _)| g.job == job.job));
                let queue: Vec<WaitingJob<'_>> = left
                    .map(|job| {
                        let mut waiting = waiting(job);
                        waiting.has_replicas = true;
                        for (other, agent) in &given {
                            if are_replicas(other, job) {
                                *waiting.replicas_at.entry(*agent).or_default() += 1;
                            }
                            if are_siblings(other, job) {
                                waiting.siblings_at.insert(*agent);
                            }
                        }
                        waiting
                    })
                    .collect();
                let agents = vec![agent("a", &can), agent("b", &can), agent("c", &can)];
                let answer = place(&snapshot(agents, queue));
                assert!(!answer.assign.is_empty(), "{:?}", answer.waits);
                for (job, agent) in answer.assign {
                    let spec = jobs.iter().find(|spec| spec.job == job).unwrap();
                    *at.entry((spec.arm, agent)).or_default() += 1;
                    given.push((spec, agent));
                }
            }
            assert_eq!(at.len(), 9, "{slots} slots: {at:?}");
            assert!(at.values().all(|times| *times == 1), "{slots} slots: {at:?}");
        }
    }

    #[test]
    fn no_arm_is_always_first() {
        let run = RunId::issue();
        let firsts: BTreeSet<Arm> = (0..3)
            .map(|replica| {
                let jobs = arms(run, "w", replica);
                let waiting: Vec<WaitingJob<'_>> = jobs.iter().map(waiting).collect();
                in_turns(waiting, |job| job.spec).front().unwrap().spec.arm
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }
}
