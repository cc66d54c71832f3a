//! The figures of a job as numbers with a name, for trends over releases: one value a phase, figure and subject.

use crate::compare::figures::JobFigures;
use crate::over_time::Whose;
use crate::stats::count;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Tool};
use serde::{Deserialize, Serialize};

/// What a value is of.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct MetricName {
    /// The phase; empty: the whole workload.
    pub phase: String,
    /// As in [`super::SetRow::what`].
    pub what: String,
    /// Of what: slots, a context, a function; may be empty.
    pub subject: String,
}

/// One job in the history of its workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPoint {
    /// The workload's name in its own file.
    pub workload: String,
    /// The tool.
    pub tool: Tool,
    /// The build.
    pub build: String,
    /// The part it played.
    pub arm: Arm,
    /// Name of the agent.
    pub agent: String,
    /// As in `pg_config --version`.
    pub postgres_version: String,
    /// How long and how much: values of other lengths are another series.
    pub length: String,
    /// Bytes, per operation or second as the name says.
    pub values: Vec<(MetricName, f64)>,
}

impl JobFigures {
    /// What a trend needs of it; `None`: its memory means nothing.
    pub fn point(&self) -> Option<JobPoint> {
        self.unsound.is_none().then(|| JobPoint {
            workload: self.workload.clone(),
            tool: self.tool,
            build: self.build.clone(),
            arm: self.arm,
            agent: self.agent.clone(),
            postgres_version: self.postgres_version.clone(),
            length: self.length.clone(),
            values: self.values(),
        })
    }

    fn values(&self) -> Vec<(MetricName, f64)> {
        let mut values = Vec::new();
        let mut add = |phase: &str, what: &str, subject: &str, value: f64| {
            let name = MetricName {
                phase: phase.to_owned(),
                what: what.to_owned(),
                subject: subject.to_owned(),
            };
            // JSON has no word for others.
            if value.is_finite() {
                values.push((name, value));
            }
        };
        for ((phase, what), (bytes, _)) in &self.amounts {
            add(phase, what.label(), "", *bytes);
        }
        let mut phases: Vec<&str> = self.phases.iter().map(String::as_str).collect();
        phases.push("");
        for phase in phases {
            let slots: Vec<f64> = self
                .levels
                .iter()
                .filter(|((of, _), _)| of == phase)
                .map(|(_, bytes)| *bytes)
                .collect();
            if !slots.is_empty() {
                let subject = if phase.is_empty() { "server processes" } else { "worker backends" };
                add(phase, "level", subject, slots.iter().sum::<f64>() / count(slots.len()));
            }
        }
        for ((phase, whose), (slope, _)) in &self.drifts {
            let subject = match whose {
                Whose::Workers => "worker backends",
                Whose::Server => "server processes",
            };
            add(phase, "bytes_per_second", subject, *slope);
        }
        for ((phase, subject), rate) in &self.rates {
            add(phase, "bytes_per_operation", subject, rate.slope);
        }
        for ((phase, kind, fingerprint), stack) in &self.stacks {
            let what = match kind {
                LeakKind::Reachable => "kept_bytes_per_operation",
                _ => "lost_bytes_per_operation",
            };
            let subject = format!("{} [{fingerprint}]", stack.function);
            add(phase, what, &subject, stack.bytes_per_operation);
        }
        values
    }
}
