//! What the history knows of a run beside its record: what it was about, what people wrote to it, what it is compared with.

use crate::domain::record::RunRecord;
use crate::domain::time::UnixUs;
use pgsoak_analysis::compare::SetComparison;
use pgsoak_analysis::result::{EvidenceKind, Finding, Owner, RunResult, Verdict};
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Tool};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// Most notes that people write to one run.
pub const MAX_NOTES: usize = 200;
/// Most labels of one run.
pub const MAX_LABELS: usize = 32;
/// Longest text of a note or a reason, in characters.
pub const MAX_TEXT: usize = 2_000;

/// What a run was about, for filters and lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Names of workloads, as the plan writes them.
    pub workloads: BTreeSet<String>,
    /// Tools.
    pub tools: BTreeSet<Tool>,
    /// Builds, each with the parts it played.
    pub builds: BTreeSet<(Arm, String)>,
    /// Names of the agents that ran its jobs.
    pub agents: BTreeSet<String>,
}

/// Something that somebody wrote.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Remark {
    /// When.
    pub at: UnixUs,
    /// What.
    pub text: String,
}

/// What people added to a run after it was submitted.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    /// In the order they were written.
    pub notes: Vec<Remark>,
    /// Kept by retention, and why; `None`: not pinned.
    pub pin: Option<Remark>,
}

/// A run as the history has it in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct RunLine {
    /// Where it stands.
    pub record: RunRecord,
    /// What it was about.
    pub facts: RunFacts,
    /// What people wrote.
    pub annotations: Annotations,
}

/// What runs are compared with, because somebody said so.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The plan it is for; empty: every plan without one of its own.
    pub plan: String,
    /// The run or the release.
    pub of: BaselineOf,
    /// Why this one.
    pub reason: String,
    /// When it was said.
    pub set_at: UnixUs,
}

/// The evidence that a baseline stands for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineOf {
    /// The candidate's jobs of one run.
    Run(RunId),
    /// The jobs of every run that ran this build as candidate or baseline.
    Build(BuildRef),
}

/// What a run was compared with when it was judged, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// Why this baseline.
    pub why: String,
    /// The baseline before, the run after.
    pub comparison: SetComparison,
}

/// A leak signature: a stack that was found to lose memory, wherever it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    /// 16 hex digits; survives rebuilds.
    pub fingerprint: String,
    /// The function to look at.
    pub function: String,
    /// Who made the memory.
    pub owner: Owner,
    /// Normalised, innermost first.
    pub stack: Vec<String>,
    /// By build, as candidate or baseline.
    pub builds: BTreeMap<String, Sighted>,
}

/// Where and when a signature was seen in one build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighted {
    /// The earliest run.
    pub first: (UnixUs, RunId),
    /// The latest run.
    pub last: (UnixUs, RunId),
    /// Runs in which it was seen.
    pub runs: u64,
    /// Names of agents.
    pub hosts: BTreeSet<String>,
    /// Workloads.
    pub workloads: BTreeSet<String>,
    /// The worst verdict of its findings.
    pub worst: Verdict,
}

// === impl RunFacts ===

impl RunFacts {
    /// Adds what a job was asked.
    pub fn add(&mut self, spec: &JobSpec) {
        self.workloads.insert(spec.workload_name.clone());
        self.tools.insert(spec.tool);
        self.builds.insert((spec.arm, spec.build.to_string()));
    }

    /// Of jobs and the names of their agents (empty: none).
    pub fn of<'a>(jobs: impl IntoIterator<Item = (&'a JobSpec, &'a str)>) -> Self {
        let mut facts = Self::default();
        for (spec, agent) in jobs {
            facts.add(spec);
            if !agent.is_empty() {
                facts.agents.insert(agent.to_owned());
            }
        }
        facts
    }
}

// === impl RunLine ===

impl RunLine {
    /// Of a run that nothing else is known of.
    pub fn new(record: RunRecord) -> Self {
        Self { record, facts: RunFacts::default(), annotations: Annotations::default() }
    }
}

// === impl Signature ===

impl Signature {
    /// Those of a run that was judged: findings of candidates and baselines with a stack.
    pub fn of(result: &RunResult, submitted_at: UnixUs) -> Vec<Self> {
        let is_one = |finding: &&Finding| {
            !finding.fingerprint.is_empty()
                && finding.arm != Arm::Control
                && finding.verdict > Verdict::Pass
                && matches!(finding.evidence, EvidenceKind::LeakRecord | EvidenceKind::Site)
        };
        let mut found: BTreeMap<(&str, &str), Self> = BTreeMap::new();
        for finding in result.findings.iter().filter(is_one) {
            let at = (submitted_at, result.run);
            let seen = Sighted {
                first: at,
                last: at,
                runs: 1,
                hosts: finding.hosts.iter().cloned().collect(),
                workloads: [finding.workload.clone()].into(),
                worst: finding.verdict,
            };
            let signature = Self {
                fingerprint: finding.fingerprint.clone(),
                function: finding.subject.clone(),
                owner: finding.owner,
                stack: finding.stack.clone(),
                builds: [(finding.build.clone(), seen)].into(),
            };
            match found.entry((&finding.fingerprint, &finding.build)) {
                Entry::Vacant(entry) => drop(entry.insert(signature)),
                // Two findings of one run: one sighting.
                Entry::Occupied(mut entry) => entry.get_mut().add(signature),
            }
        }
        found.into_values().collect()
    }

    /// Adds what another record of the same signature says. The same sighting twice counts once only if it is of the run
    /// that was last or first there.
    pub fn add(&mut self, other: Self) {
        for (build, seen) in other.builds {
            match self.builds.entry(build) {
                Entry::Vacant(entry) => drop(entry.insert(seen)),
                Entry::Occupied(mut entry) => entry.get_mut().add(seen),
            }
        }
    }

    /// The build and run that had it first, by time.
    pub fn first(&self) -> Option<(&str, &(UnixUs, RunId))> {
        self.builds
            .iter()
            .map(|(build, seen)| (build.as_str(), &seen.first))
            .min_by_key(|(_, at)| **at)
    }

    /// The build and run that had it last, by time.
    pub fn last(&self) -> Option<(&str, &(UnixUs, RunId))> {
        self.builds
            .iter()
            .map(|(build, seen)| (build.as_str(), &seen.last))
            .max_by_key(|(_, at)| **at)
    }
}

impl Sighted {
    fn add(&mut self, other: Self) {
        let is_known =
            other.first == other.last && (other.first == self.first || other.first == self.last);
        if !is_known {
            self.runs = self.runs.saturating_add(other.runs);
        }
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.hosts.extend(other.hosts);
        self.workloads.extend(other.workloads);
        self.worst = self.worst.max(other.worst);
    }
}
