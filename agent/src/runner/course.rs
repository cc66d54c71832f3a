//! What a job really runs: the workload as its arm and build leave it.
//!
//! Pure. A control arm runs `control_sql`, without the extension, its preload and its settings; the measured
//! `CREATE EXTENSION` becomes a phase of its own, the first. A build `vanilla` of a workload that wants an extension is
//! treated as a control arm: there is nothing else it could run.

use pgsoak_proto::evidence::PhaseKind;
use pgsoak_proto::job::{Arm, BuildRef, JobSpec};
use pgsoak_workloads::workload::{Kind, Loop, Phase, Workload};
use std::collections::BTreeMap;

/// Name of the phase that creates the extension.
pub const EXTENSION_PHASE: &str = "extension";

/// What a job runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The extension that is created; `None`: none.
    pub extension: Option<String>,
    /// `shared_preload_libraries`.
    pub preload: Vec<String>,
    /// Lines of postgresql.conf.
    pub settings: BTreeMap<String, String>,
    /// In the order they run.
    pub steps: Vec<Step>,
}

/// One phase that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its place among the phases that run, from 0.
    pub phase: u32,
    /// Its name.
    pub name: String,
    /// As the workload writes it; empty: nothing runs.
    pub sql: String,
    /// Must be true afterwards.
    pub check: Option<String>,
    /// Answers with a number of rows.
    pub rows: Option<String>,
    /// `None`: a once phase.
    pub looped: Option<Loop>,
    /// Whether a budget says how much may be left after it.
    pub has_residual: bool,
}

impl Step {
    /// Its kind as the evidence has it.
    pub const fn kind(&self) -> PhaseKind {
        if self.looped.is_some() { PhaseKind::Loop } else { PhaseKind::Once }
    }
}

impl Course {
    /// What the job `spec` runs of `workload`.
    pub fn of(workload: &Workload, spec: &JobSpec) -> Self {
        let is_control = spec.arm == Arm::Control
            || (spec.build == BuildRef::Vanilla && workload.extension.is_some());
        let extension =
            workload.extension.clone().filter(|_| !is_control && spec.build != BuildRef::Vanilla);
        let preload = &workload.cluster.preload;
        let of_the_extension = |setting: &str| {
            setting.split_once('.').is_some_and(|(prefix, _)| preload.iter().any(|p| p == prefix))
        };
        let settings = workload
            .cluster
            .settings
            .iter()
            .filter(|(name, _)| !(is_control && of_the_extension(name)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let first = extension.as_ref().map(|name| Step {
            phase: 0,
            name: EXTENSION_PHASE.to_owned(),
            sql: format!("CREATE EXTENSION {} CASCADE", quoted(name)),
            check: None,
            rows: None,
            looped: None,
            has_residual: false,
        });
        let steps = first
            .into_iter()
            .chain(workload.phases.iter().map(|phase| step(phase, is_control)))
            .zip(0_u32..)
            .map(|(step, phase)| Step { phase, ..step })
            .collect();
        Self {
            extension,
            preload: if is_control { Vec::new() } else { preload.clone() },
            settings,
            steps,
        }
    }

    /// Most sessions at once, the main one included.
    pub fn sessions(&self) -> u32 {
        let workers = self.steps.iter().filter_map(|step| step.looped.as_ref());
        workers.map(|phase| phase.workers).max().unwrap_or(0).saturating_add(1)
    }
}

fn step(phase: &Phase, is_control: bool) -> Step {
    let (sql, check) = if is_control {
        (phase.control_sql.as_ref().unwrap_or(&phase.sql), &phase.control_check)
    } else {
        (&phase.sql, &phase.check)
    };
    Step {
        phase: 0,
        name: phase.name.clone(),
        sql: if sql.trim().is_empty() { String::new() } else { sql.clone() },
        check: check.clone(),
        // The query names the extension's objects; a control arm has them only where it runs the same SQL.
        rows: phase.rows.clone().filter(|_| !is_control || phase.control_sql.is_none()),
        looped: match &phase.kind {
            Kind::Once => None,
            Kind::Loop(shape) => Some(shape.clone()),
        },
        has_residual: phase.budget.residual.is_some(),
    }
}

/// An identifier in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::id::{JobId, RunId};
    use pgsoak_proto::job::{PostgresRef, Tool};
    use pgsoak_workloads::workload::{Budget, Cluster};
    use std::time::Duration;

    fn spec(arm: Arm, build: &str) -> JobSpec {
        JobSpec {
            job: JobId::issue(),
            run: RunId::issue(),
            workload_name: "w".into(),
            workload_toml: String::new(),
            tool: Tool::Plain,
            arm,
            build: build.parse().unwrap(),
            postgres: PostgresRef::Major(18),
            loop_for: None,
            scale: 1.0,
            sample_every: Duration::from_secs(1),
            hard_end: Duration::from_secs(60),
            seed: 1,
            replica: 0,
            exclusive: false,
            agents: BTreeMap::new(),
            on_lost: pgsoak_proto::job::OnLost::Wait,
            options: Default::default(),
        }
    }

    fn phase(name: &str, sql: &str, control_sql: Option<&str>) -> Phase {
        Phase {
            name: name.into(),
            sql: sql.into(),
            control_sql: control_sql.map(Into::into),
            check: Some("SELECT true".into()),
            control_check: None,
            rows: Some("SELECT 1".into()),
            budget: Budget::default(),
            kind: Kind::Once,
        }
    }

    fn workload(extension: Option<&str>) -> Workload {
        let settings = [("jit", "off"), ("pg_tviews.size", "1"), ("other.size", "1")];
        Workload {
            name: "w".into(),
            about: String::new(),
            extension: extension.map(Into::into),
            cluster: Cluster {
                preload: vec!["pg_tviews".into()],
                settings: settings.map(|(k, v)| (k.into(), v.into())).into(),
            },
            phases: vec![
                phase("create", "CREATE tv", Some("CREATE tb")),
                phase("refresh", "SELECT refresh()", Some(" ")),
                phase("read", "SELECT 2", None),
            ],
            allow_bytes_per_row: 0.0,
            warm_up: None,
        }
    }

    #[test]
    fn a_candidate_creates_its_extension_as_the_first_phase() {
        let course =
            Course::of(&workload(Some("pg_tviews")), &spec(Arm::Candidate, "pg_tviews@1.0"));
        let names: Vec<_> = course.steps.iter().map(|s| (s.phase, s.name.as_str())).collect();
        assert_eq!(names, [(0, "extension"), (1, "create"), (2, "refresh"), (3, "read")]);
        assert_eq!(course.steps[0].sql, "CREATE EXTENSION \"pg_tviews\" CASCADE");
        assert_eq!(course.steps[1].sql, "CREATE tv");
        assert_eq!(course.steps[1].check.as_deref(), Some("SELECT true"));
        assert_eq!(course.preload, ["pg_tviews"]);
        assert_eq!(course.settings.len(), 3);
    }

    #[test]
    fn a_control_runs_its_own_sql_without_the_extension() {
        for (arm, build) in [(Arm::Control, "vanilla"), (Arm::Candidate, "vanilla")] {
            let course = Course::of(&workload(Some("pg_tviews")), &spec(arm, build));
            let sql: Vec<_> = course.steps.iter().map(|s| s.sql.as_str()).collect();
            assert_eq!(sql, ["CREATE tb", "", "SELECT 2"]);
            assert!(course.steps.iter().all(|s| s.check.is_none()));
            assert!(course.extension.is_none() && course.preload.is_empty());
            let settings: Vec<_> = course.settings.keys().map(String::as_str).collect();
            assert_eq!(settings, ["jit", "other.size"]);
        }
    }

    #[test]
    fn a_workload_without_an_extension_runs_as_it_stands_on_vanilla() {
        let course = Course::of(&workload(None), &spec(Arm::Candidate, "vanilla"));
        assert_eq!(course.steps[0].sql, "CREATE tv");
        assert_eq!(course.steps.len(), 3);
        assert_eq!(course.steps[0].check.as_deref(), Some("SELECT true"));
    }

    #[test]
    fn a_name_with_quotes_stays_one_identifier() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
