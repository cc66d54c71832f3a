//! Which waiting job goes to which agent, and for each that stays, why.
//!
//! Fair: the run of the highest priority comes first; of several the one with the fewest live jobs, then the one that was
//! submitted first; within a run the order of its plan. A job that cannot go anywhere holds nobody up, except that a job that
//! wants a host alone reserves the one it will get, so that small jobs do not starve it.
//!
//! A release must not win or lose by its host. Arms that are compared go to one host where they can; without replicas they wait
//! for it. Replicas of an arm go to different hosts, so over all replicas every arm meets the same hosts. Which arm comes first
//! changes from replica to replica and from workload to workload.

use crate::decide::arms::{are_replicas, are_siblings, in_turns};
use crate::decide::fitness::{lacks, listed};
use crate::decide::stages::Stages;
use crate::domain::build::PinnedPackage;
use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::JobSpec;
use pgsoak_proto::session::Capabilities;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Everything the decision may depend on.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Now.
    pub now: UnixUs,
    /// All that are known. Walked in the order of their ids.
    pub agents: BTreeMap<AgentId, AgentSnapshot<'a>>,
    /// In the order in which their runs were submitted, and within a run in the order of its plan.
    pub waiting: Vec<WaitingJob<'a>>,
    /// Jobs of each run that have an agent.
    pub live_jobs: BTreeMap<RunId, usize>,
    /// Of these, canaries.
    pub live_canaries: BTreeMap<RunId, usize>,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct AgentSnapshot<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it can do.
    pub capabilities: &'a Capabilities,
    /// Has a session and is heard.
    pub is_connected: bool,
    /// Jobs that hold a slot of it.
    pub jobs: usize,
    /// One of them wants the host alone.
    pub has_exclusive: bool,
    /// Why it gets no jobs, as part of a sentence: drained, not approved, quarantined, busy.
    pub closed: Option<String>,
    /// The same for health checks, which come in spite of a quarantine.
    pub closed_to_checks: Option<String>,
}

/// One waiting job.
#[derive(Clone, Debug)]
pub struct WaitingJob<'a> {
    /// What it asks for.
    pub spec: &'a JobSpec,
    /// Not before.
    pub not_before: UnixUs,
    /// Why its last attempt was lost; empty: there was none.
    pub lost: &'a str,
    /// Agents that replicas of the same job went to, as often as they did.
    pub replicas_at: BTreeMap<AgentId, usize>,
    /// Agents that refused it, for a while.
    pub refused_by: BTreeSet<AgentId>,
    /// Agents that have, or had, another arm of the same comparison.
    pub siblings_at: BTreeSet<AgentId>,
    /// There are replicas of it, which even hosts out.
    pub has_replicas: bool,
    /// Of its run; higher comes first.
    pub priority: u32,
    /// It checks its agent's health.
    pub is_health_check: bool,
    /// What its agent can fetch.
    pub packages: &'a [PinnedPackage],
}

/// What to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Placement {
    /// In order.
    pub assign: Vec<(JobId, AgentId)>,
    /// For every job that stays: a sentence.
    pub waits: BTreeMap<JobId, String>,
    /// Of these, the ones that no agent that was ever here could run, while at least one is connected.
    pub unplaceable: BTreeSet<JobId>,
}

/// How full an agent is while the decision is being made.
struct Load {
    jobs: usize,
    has_exclusive: bool,
    is_reserved: bool,
}

/// Places as many waiting jobs as there is room for. The same snapshot always yields the same answer.
pub fn place(snapshot: &Snapshot<'_>) -> Placement {
    let mut placement = Placement::default();
    let mut loads: BTreeMap<AgentId, Load> = snapshot
        .agents
        .iter()
        .map(|(id, agent)| {
            let load =
                Load { jobs: agent.jobs, has_exclusive: agent.has_exclusive, is_reserved: false };
            (*id, load)
        })
        .collect();
    let mut live = snapshot.live_jobs.clone();
    let mut by_run: Vec<(RunId, Vec<&WaitingJob<'_>>)> = Vec::new();
    for job in &snapshot.waiting {
        match by_run.iter_mut().find(|(run, _)| *run == job.spec.run) {
            Some((_, jobs)) => jobs.push(job),
            None => by_run.push((job.spec.run, vec![job])),
        }
    }
    let mut queues: Vec<(RunId, VecDeque<&WaitingJob<'_>>)> =
        by_run.into_iter().map(|(run, jobs)| (run, in_turns(jobs, |job| job.spec))).collect();
    let mut placed: Vec<(&JobSpec, AgentId)> = Vec::new();
    let mut stages = Stages::default();
    while let Some(position) = queues
        .iter()
        .enumerate()
        .filter(|(_, (_, queue))| !queue.is_empty())
        .min_by_key(|(index, (run, queue))| {
            let priority = queue.front().map_or(0, |job| job.priority);
            (std::cmp::Reverse(priority), live.get(run).copied().unwrap_or(0), *index)
        })
        .map(|(index, _)| index)
    {
        let Some((run, queue)) = queues.get_mut(position) else { break };
        let Some(job) = queue.pop_front() else { break };
        if let Err(why) = stages.turn(snapshot, job.spec) {
            placement.waits.insert(job.spec.job, why.to_owned());
            continue;
        }
        let mut replicas_at = job.replicas_at.clone();
        let mut siblings_at = job.siblings_at.clone();
        for (spec, agent) in &placed {
            if are_replicas(spec, job.spec) {
                *replicas_at.entry(*agent).or_default() += 1;
            }
            if are_siblings(spec, job.spec) {
                siblings_at.insert(*agent);
            }
        }
        match choose(snapshot, job, &replicas_at, &siblings_at, &mut loads) {
            Ok(agent) => {
                if let Some(load) = loads.get_mut(&agent) {
                    load.jobs += 1;
                    load.has_exclusive |= job.spec.exclusive;
                }
                *live.entry(*run).or_default() += 1;
                placed.push((job.spec, agent));
                placement.assign.push((job.spec.job, agent));
            }
            Err(why) => {
                if is_unplaceable(snapshot, job) {
                    placement.unplaceable.insert(job.spec.job);
                }
                let why = if job.lost.is_empty() {
                    why
                } else {
                    format!("{why} (the attempt before was lost: {})", job.lost)
                };
                placement.waits.insert(job.spec.job, why);
            }
        }
    }
    placement
}

/// Whether somebody is there, and nobody who was ever there has what the job needs.
fn is_unplaceable(snapshot: &Snapshot<'_>, job: &WaitingJob<'_>) -> bool {
    let lacks_nothing =
        |agent: &AgentSnapshot<'_>| lacks(job.spec, agent.capabilities, job.packages).is_empty();
    snapshot.agents.values().any(|agent| agent.is_connected)
        && !snapshot.agents.values().any(lacks_nothing)
}

fn choose(
    snapshot: &Snapshot<'_>,
    job: &WaitingJob<'_>,
    replicas_at: &BTreeMap<AgentId, usize>,
    siblings_at: &BTreeSet<AgentId>,
    loads: &mut BTreeMap<AgentId, Load>,
) -> Result<AgentId, String> {
    if snapshot.agents.is_empty() {
        return Err("no agent has ever connected; start one with `pgsoak agent`".to_owned());
    }
    let mut able = Vec::new();
    let mut whys = Vec::new();
    for (id, agent) in &snapshot.agents {
        let lacks = lacks(job.spec, agent.capabilities, job.packages);
        if !lacks.is_empty() {
            // Who is away and could not run it either is not worth a word.
            if agent.is_connected {
                whys.push(format!("{} lacks {}", agent.name, listed(&lacks)));
            }
        } else if !agent.is_connected {
            whys.push(format!("{} is not connected", agent.name));
        } else if let Some(why) =
            if job.is_health_check { &agent.closed_to_checks } else { &agent.closed }
        {
            whys.push(why.clone());
        } else {
            able.push((*id, agent));
        }
    }
    if job.not_before > snapshot.now {
        return Err("waits a moment before the next attempt".to_owned());
    }
    // Without replicas nothing evens hosts out: what is compared stays on one, as long as that one is there.
    let is_home = |id: &AgentId| siblings_at.contains(id) && !job.refused_by.contains(id);
    if !job.has_replicas && able.iter().any(|(id, _)| is_home(id)) {
        able.retain(|(id, agent)| {
            let is_there = is_home(id);
            if !is_there {
                whys.push(format!("{} has not the arms that it is compared with", agent.name));
            }
            is_there
        });
    }
    // Replicas go to different agents where there are that many; beyond that, evenly.
    let used = |id: &AgentId| replicas_at.get(id).copied().unwrap_or(0);
    let fewest = able.iter().map(|(id, _)| used(id)).min().unwrap_or(0);
    let mut free = Vec::new();
    let mut reserve = None;
    for (id, agent) in able {
        let Some(load) = loads.get(&id) else { continue };
        let slots = usize::try_from(agent.capabilities.slots).unwrap_or(usize::MAX);
        if used(&id) > fewest {
            whys.push(format!("{} has another replica of it", agent.name));
        } else if job.refused_by.contains(&id) {
            whys.push(format!("{} refused it a moment ago", agent.name));
        } else if load.has_exclusive {
            whys.push(format!("{} runs a job that wants the host alone", agent.name));
        } else if load.is_reserved {
            whys.push(format!("{} is kept free for a job that wants the host alone", agent.name));
        } else if job.spec.exclusive && load.jobs > 0 {
            whys.push(format!(
                "{} runs {} and this one wants the host alone",
                agent.name,
                jobs(load.jobs)
            ));
            if reserve.is_none_or(|(jobs, _)| load.jobs < jobs) {
                reserve = Some((load.jobs, id));
            }
        } else if load.jobs >= slots {
            whys.push(format!("{} runs {} in {slots} slot(s)", agent.name, jobs(load.jobs)));
        } else {
            free.push((load.jobs, slots, id));
        }
    }
    // Beside what it is compared with; then the least loaded share, compared without division.
    free.sort_by(|(a_jobs, a_slots, a), (b_jobs, b_slots, b)| {
        let is_apart = |id: &AgentId| !siblings_at.contains(id);
        is_apart(a)
            .cmp(&is_apart(b))
            .then(a_jobs.saturating_mul(*b_slots).cmp(&b_jobs.saturating_mul(*a_slots)))
            .then(a.cmp(b))
    });
    if let Some((_, _, id)) = free.first() {
        return Ok(*id);
    }
    if let Some(load) = reserve.and_then(|(_, id)| loads.get_mut(&id)) {
        load.is_reserved = true;
    }
    if whys.is_empty() {
        return Err("no agent is connected; start one with `pgsoak agent`".to_owned());
    }
    Err(whys.join("; "))
}

fn jobs(count: usize) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decide::fitness::tests::{capable, spec};
    use pgsoak_proto::job::Tool;
    use proptest::prelude::*;

    pub(crate) fn agent<'a>(name: &'a str, capabilities: &'a Capabilities) -> AgentSnapshot<'a> {
        AgentSnapshot {
            name,
            capabilities,
            is_connected: true,
            jobs: 0,
            has_exclusive: false,
            closed: None,
            closed_to_checks: None,
        }
    }

    pub(crate) fn waiting(spec: &JobSpec) -> WaitingJob<'_> {
        WaitingJob {
            spec,
            not_before: UnixUs(0),
            lost: "",
            replicas_at: BTreeMap::new(),
            refused_by: BTreeSet::new(),
            siblings_at: BTreeSet::new(),
            has_replicas: false,
            priority: 50,
            is_health_check: false,
            packages: &[],
        }
    }

    pub(crate) fn id(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    pub(crate) fn snapshot<'a>(
        agents: Vec<AgentSnapshot<'a>>,
        waiting: Vec<WaitingJob<'a>>,
    ) -> Snapshot<'a> {
        Snapshot {
            now: UnixUs(10),
            agents: (1u8..).map(id).zip(agents).collect(),
            waiting,
            live_jobs: BTreeMap::new(),
            live_canaries: BTreeMap::new(),
        }
    }

    #[test]
    fn a_job_that_fits_nowhere_says_what_each_agent_lacks() {
        let can = capable(1);
        let mut job = spec(RunId::issue());
        job.tool = Tool::Heaptrack;
        let mut away = agent("b", &can);
        away.is_connected = false;
        let answer = place(&snapshot(vec![agent("a", &can), away], vec![waiting(&job)]));
        assert_eq!(answer.assign, []);
        assert_eq!(
            answer.waits[&job.job],
            "a lacks the tool heaptrack (there: `pgsoak doctor` says why)"
        );
        assert!(answer.unplaceable.contains(&job.job));
    }

    #[test]
    fn replicas_go_to_different_agents_while_there_are_some() {
        let can = capable(4);
        let run = RunId::issue();
        let jobs: Vec<JobSpec> =
            (0..3).map(|replica| JobSpec { replica, seed: 7, ..spec(run) }).collect();
        let agents = vec![agent("a", &can), agent("b", &can)];
        let answer = place(&snapshot(agents, jobs.iter().map(waiting).collect()));
        let at: Vec<AgentId> = answer.assign.iter().map(|(_, agent)| *agent).collect();
        assert_eq!(at, [id(1), id(2), id(1)], "two agents: two replicas apart, the third evenly");
    }

    #[test]
    fn a_replica_waits_for_the_agent_that_has_none_of_them() {
        let can = capable(4);
        let run = RunId::issue();
        let job = JobSpec { replica: 1, ..spec(run) };
        let mut second = waiting(&job);
        second.replicas_at = BTreeMap::from([(id(1), 1)]);
        let mut busy = agent("b", &can);
        busy.jobs = 4;
        let answer = place(&snapshot(vec![agent("a", &can), busy], vec![second]));
        assert_eq!(
            answer.waits[&job.job],
            "a has another replica of it; b runs 4 jobs in 4 slot(s)"
        );
    }

    #[test]
    fn a_job_that_wants_the_host_alone_is_not_starved() {
        let can = capable(2);
        let run = RunId::issue();
        let alone = JobSpec { exclusive: true, ..spec(run) };
        let small = spec(run);
        let mut busy = agent("a", &can);
        busy.jobs = 1;
        let answer = place(&snapshot(vec![busy], vec![waiting(&alone), waiting(&small)]));
        assert_eq!(answer.assign, [], "the small one would keep the host busy for ever");
        assert!(answer.waits[&small.job].contains("kept free"));
        let answer =
            place(&snapshot(vec![agent("a", &can)], vec![waiting(&alone), waiting(&small)]));
        assert_eq!(answer.assign, [(alone.job, id(1))]);
        assert!(answer.waits[&small.job].contains("wants the host alone"));
    }

    #[test]
    fn the_run_with_fewer_live_jobs_comes_first() {
        let can = capable(1);
        let (old, new) = (RunId::issue(), RunId::issue());
        let (first, second) = (spec(old), spec(new));
        let mut snapshot =
            snapshot(vec![agent("a", &can)], vec![waiting(&first), waiting(&second)]);
        assert_eq!(place(&snapshot).assign, [(first.job, id(1))]);
        snapshot.live_jobs.insert(old, 3);
        assert_eq!(place(&snapshot).assign, [(second.job, id(1))]);
    }

    #[test]
    fn the_higher_priority_comes_first_and_the_rest_is_fair() {
        let can = capable(1);
        let (low, high) = (spec(RunId::issue()), spec(RunId::issue()));
        let mut urgent = waiting(&high);
        urgent.priority = 80;
        let mut snapshot = snapshot(vec![agent("a", &can)], vec![waiting(&low), urgent]);
        snapshot.live_jobs.insert(high.run, 5);
        assert_eq!(place(&snapshot).assign, [(high.job, id(1))]);
    }

    #[test]
    fn who_is_closed_gets_nothing_but_a_check_of_its_health() {
        let can = capable(2);
        let (job, check) = (spec(RunId::issue()), spec(RunId::issue()));
        let mut quarantined = agent("a", &can);
        quarantined.closed = Some("a is quarantined (it missed the planted leak)".to_owned());
        let mut canary = waiting(&check);
        canary.is_health_check = true;
        let answer = place(&snapshot(vec![quarantined], vec![waiting(&job), canary]));
        assert_eq!(answer.assign, [(check.job, id(1))]);
        assert_eq!(answer.waits[&job.job], "a is quarantined (it missed the planted leak)");
        assert!(answer.unplaceable.is_empty(), "it may be let out again");
    }

    #[test]
    fn one_dead_agent_delays_only_its_own_jobs() {
        let can = capable(1);
        let mut own = spec(RunId::issue());
        own.agents.insert("host".to_owned(), "dead".to_owned());
        let other = spec(own.run);
        let mut dead_can = capable(1);
        dead_can.labels.insert("host".to_owned(), "dead".to_owned());
        let mut dead = agent("d", &dead_can);
        dead.is_connected = false;
        let answer =
            place(&snapshot(vec![dead, agent("a", &can)], vec![waiting(&own), waiting(&other)]));
        assert_eq!(answer.assign, [(other.job, id(2))]);
        assert!(answer.waits[&own.job].contains("d is not connected"), "{:?}", answer.waits);
    }

    #[test]
    fn an_empty_fleet_says_how_to_get_an_agent() {
        let job = spec(RunId::issue());
        let answer = place(&snapshot(vec![], vec![waiting(&job)]));
        assert!(answer.waits[&job.job].contains("pgsoak agent"));
    }

    proptest! {
        /// Whatever comes in: every job is placed or told why, no agent gets more than its slots, and who wants the
        /// host alone has it.
        #[test]
        fn slots_and_solitude_hold(
            fleet in prop::collection::vec((1u32..4, 0usize..4, any::<bool>(), any::<bool>()), 0..5),
            queue in prop::collection::vec((any::<bool>(), 0usize..3, 0u32..3, any::<bool>()), 0..20),
        ) {
            let can: Vec<Capabilities> = fleet.iter().map(|(slots, ..)| capable(*slots)).collect();
            let runs = [RunId::issue(), RunId::issue(), RunId::issue()];
            let specs: Vec<JobSpec> = queue.iter().map(|(exclusive, run, replica, heap)| JobSpec {
                exclusive: *exclusive,
                replica: *replica,
                tool: if *heap { Tool::Heaptrack } else { Tool::Plain },
                ..spec(runs[*run])
            }).collect();
            let agents: Vec<AgentSnapshot<'_>> = fleet.iter().zip(&can).map(|((_, jobs, connected, alone), can)| AgentSnapshot {
                is_connected: *connected,
                jobs: *jobs,
                has_exclusive: *alone && *jobs > 0,
                closed: (*alone && *jobs == 0).then(|| "x is drained".to_owned()),
                ..agent("x", can)
            }).collect();
            let snapshot = snapshot(agents, specs.iter().map(waiting).collect());
            let answer = place(&snapshot);
            prop_assert_eq!(&answer, &place(&snapshot));
            prop_assert_eq!(answer.assign.len() + answer.waits.len(), specs.len());
            for (agent_id, agent) in &snapshot.agents {
                let given: Vec<&JobSpec> = answer.assign.iter().filter(|(_, at)| at == agent_id)
                    .filter_map(|(job, _)| specs.iter().find(|spec| spec.job == *job)).collect();
                if given.is_empty() { continue; }
                prop_assert!(agent.is_connected && !agent.has_exclusive && agent.closed.is_none());
                prop_assert!(agent.jobs + given.len() <= agent.capabilities.slots as usize);
                if given.iter().any(|spec| spec.exclusive) {
                    prop_assert_eq!(agent.jobs + given.len(), 1);
                }
                prop_assert!(given.iter().all(|spec| spec.tool == Tool::Plain));
            }
        }
    }
}
