//! When each waiting job is likely to start, and where: the planner itself, played on into the future.
//!
//! What runs ends when it says so, or after the time that such jobs take; who is away stays away. So an estimate, and none for a
//! job that only an agent that is not there could run.

use crate::decide::arms::{are_replicas, are_siblings};
use crate::decide::estimate::expected;
use crate::decide::place::{Placement, Snapshot, place};
use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::Arm;
use std::collections::BTreeMap;

/// Jobs times agents that are looked at in all: about a tenth of a second.
const BUDGET: usize = 60 * 60 * 20;
/// Most jobs that get an estimate.
const MOST_JOBS: usize = 60;

/// A job that holds a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Running {
    /// Its run.
    pub run: RunId,
    /// Where.
    pub agent: AgentId,
    /// It has the host alone.
    pub exclusive: bool,
    /// It is one of its run's canaries.
    pub is_canary: bool,
    /// When it is likely to be over.
    pub ends_at: UnixUs,
}

/// Where and when the first jobs of the queue start.
pub fn forecast(
    snapshot: &Snapshot<'_>,
    running: &[Running],
) -> BTreeMap<JobId, (AgentId, UnixUs)> {
    let mut starts = BTreeMap::new();
    let mut world = snapshot.clone();
    let agents = world.agents.len().max(1);
    let most = (BUDGET / agents).isqrt().clamp(1, MOST_JOBS);
    world.waiting.truncate(most);
    let mut running = running.to_vec();
    while !world.waiting.is_empty() {
        let Placement { assign, .. } = place(&world);
        for (job, agent) in &assign {
            let Some(at) = world.waiting.iter().position(|waiting| waiting.spec.job == *job) else {
                continue;
            };
            let placed = world.waiting.remove(at);
            let spec = placed.spec;
            starts.insert(*job, (*agent, world.now));
            running.push(Running {
                run: spec.run,
                agent: *agent,
                exclusive: spec.exclusive,
                is_canary: spec.arm == Arm::Canary,
                ends_at: world.now.plus(expected(spec)),
            });
            *world.live_jobs.entry(spec.run).or_default() += 1;
            if spec.arm == Arm::Canary {
                *world.live_canaries.entry(spec.run).or_default() += 1;
            }
            if let Some(agent) = world.agents.get_mut(agent) {
                agent.jobs += 1;
                agent.has_exclusive |= spec.exclusive;
            }
            for other in &mut world.waiting {
                if are_replicas(other.spec, spec) {
                    *other.replicas_at.entry(*agent).or_default() += 1;
                }
                if are_siblings(other.spec, spec) {
                    other.siblings_at.insert(*agent);
                }
            }
        }
        if !go_on(&mut world, &mut running) {
            break;
        }
    }
    starts
}

/// To the next moment at which something changes; false when nothing will.
fn go_on(world: &mut Snapshot<'_>, running: &mut Vec<Running>) -> bool {
    let next_end = running.iter().map(|job| job.ends_at).min();
    let now = world.now;
    let next_start = world.waiting.iter().map(|job| job.not_before).filter(|at| *at > now).min();
    // Who refused a job a moment ago is asked again soon.
    let is_refused = world.waiting.iter().any(|job| !job.refused_by.is_empty());
    let Some(next) = [next_end, next_start, is_refused.then_some(now)].into_iter().flatten().min()
    else {
        return false;
    };
    world.now = next.max(now);
    for job in &mut world.waiting {
        job.refused_by.clear();
    }
    let (over, left): (Vec<Running>, Vec<Running>) =
        running.drain(..).partition(|job| job.ends_at <= world.now);
    *running = left;
    for job in over {
        if let Some(agent) = world.agents.get_mut(&job.agent) {
            agent.jobs = agent.jobs.saturating_sub(1);
            agent.has_exclusive =
                running.iter().any(|other| other.agent == job.agent && other.exclusive);
        }
        if let Some(live) = world.live_jobs.get_mut(&job.run) {
            *live = live.saturating_sub(1);
        }
        if job.is_canary
            && let Some(live) = world.live_canaries.get_mut(&job.run)
        {
            *live = live.saturating_sub(1);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fitness::tests::{capable, spec};
    use crate::decide::place::tests::{agent, id, snapshot, waiting};
    use pgsoak_proto::job::JobSpec;
    use proptest::prelude::*;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn hours(run: RunId, hours: u32) -> JobSpec {
        JobSpec { loop_for: Some(HOUR * hours), hard_end: HOUR * hours * 2, ..spec(run) }
    }

    #[test]
    fn the_queue_is_played_on() {
        let can = capable(1);
        let run = RunId::issue();
        let jobs = [hours(run, 1), hours(run, 1), hours(run, 1)];
        let mut world =
            snapshot(vec![agent("a", &can), agent("b", &can)], jobs.iter().map(waiting).collect());
        world.agents.get_mut(&id(1)).unwrap().jobs = 1;
        let held = Running {
            run: RunId::issue(),
            agent: id(1),
            exclusive: false,
            is_canary: false,
            ends_at: world.now.plus(HOUR / 2),
        };
        let starts = forecast(&world, &[held]);
        assert_eq!(starts[&jobs[0].job], (id(2), world.now));
        assert_eq!(starts[&jobs[1].job], (id(1), world.now.plus(HOUR / 2)));
        let third = starts[&jobs[2].job];
        assert_eq!(third.0, id(2));
        assert!(third.1 >= world.now.plus(HOUR) && third.1 < world.now.plus(HOUR * 2));
    }

    #[test]
    fn who_is_away_is_not_waited_for() {
        let can = capable(1);
        let job = hours(RunId::issue(), 1);
        let mut away = agent("a", &can);
        away.is_connected = false;
        assert!(forecast(&snapshot(vec![away], vec![waiting(&job)]), &[]).is_empty());
    }

    proptest! {
        /// At no moment has an agent more than its slots, and whatever can start does.
        #[test]
        fn the_future_keeps_the_rules_of_the_present(
            slots in prop::collection::vec(1_u32..3, 1..4),
            lengths in prop::collection::vec((1_u32..5, any::<bool>()), 1..15),
        ) {
            let can: Vec<_> = slots.iter().map(|slots| capable(*slots)).collect();
            let run = RunId::issue();
            let jobs: Vec<JobSpec> = lengths.iter().map(|(length, exclusive)| {
                JobSpec { exclusive: *exclusive, ..hours(run, *length) }
            }).collect();
            let world = snapshot(can.iter().map(|can| agent("x", can)).collect(), jobs.iter().map(waiting).collect());
            let starts = forecast(&world, &[]);
            prop_assert_eq!(starts.len(), jobs.len());
            for job in &jobs {
                let (at, began) = starts[&job.job];
                let beside: Vec<&JobSpec> = jobs.iter().filter(|other| {
                    let (where_, start) = starts[&other.job];
                    where_ == at && start <= began && start.plus(expected(other)) > began
                }).collect();
                prop_assert!(beside.len() <= world.agents[&at].capabilities.slots as usize);
                prop_assert!(beside.len() == 1 || beside.iter().all(|other| !other.exclusive));
            }
        }
    }
}
