//! Whether an agent could ever run a job, and what it lacks.

use crate::domain::build::PinnedPackage;
use pgsoak_proto::job::{BuildRef, JobSpec, PostgresRef, Tool};
use pgsoak_proto::session::Capabilities;

/// What the agent lacks for the job, as parts of a sentence; empty: it can run it.
///
/// Looks at what the host has, not at what it is doing now. A package folder (`dir:`) and what is installed (`system`)
/// are on the host or not; only the agent can tell, and refuses when not. What is among `packages` it fetches.
pub fn lacks(
    spec: &JobSpec,
    capabilities: &Capabilities,
    packages: &[PinnedPackage],
) -> Vec<String> {
    let mut lacks = Vec::new();
    if spec.tool != Tool::Plain && !capabilities.tools.iter().any(|found| found.tool == spec.tool) {
        lacks.push(format!("the tool {} (there: `pgsoak doctor` says why)", spec.tool));
    }
    let majors: Vec<u32> = match &spec.postgres {
        PostgresRef::Major(major) => {
            let found = capabilities.postgres.iter().filter(|found| found.major == *major);
            let majors: Vec<u32> = found.map(|found| found.major).take(1).collect();
            if majors.is_empty() {
                lacks.push(format!("PostgreSQL {major}"));
            }
            majors
        }
        PostgresRef::PgConfig(path) => {
            let found = capabilities.postgres.iter().filter(|found| found.pg_config == *path);
            let majors: Vec<u32> = found.map(|found| found.major).take(1).collect();
            if majors.is_empty() {
                lacks.push(format!("the PostgreSQL of {}", path.display()));
            }
            majors
        }
    };
    if let (BuildRef::Release { name, release }, Some(major)) = (&spec.build, majors.first()) {
        let is_there = capabilities
            .builds
            .iter()
            .any(|found| found.build == spec.build && found.postgres_major == *major)
            || packages.iter().any(|of| of.build == spec.build && of.postgres == *major);
        if !is_there {
            lacks.push(format!(
                "the build {} for PostgreSQL {major} (there: deploy/build-extension.sh {name} {release}; for every agent: pgsoak build push)",
                spec.build
            ));
        }
    }
    for (key, value) in &spec.agents {
        match capabilities.labels.get(key) {
            Some(found) if found == value => {}
            Some(found) => lacks.push(format!("the label {key}={value} (it has {key}={found})")),
            None => lacks.push(format!("the label {key}={value}")),
        }
    }
    lacks
}

/// "a", "a and b", "a, b and c".
pub(crate) fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pgsoak_proto::id::{JobId, RunId};
    use pgsoak_proto::session::{BuildFound, PostgresFound, ToolFound};
    use std::{collections::BTreeMap, time::Duration};

    pub(crate) fn spec(run: RunId) -> JobSpec {
        JobSpec {
            job: JobId::issue(),
            run,
            workload_name: "w".to_owned(),
            workload_toml: String::new(),
            tool: Tool::Plain,
            arm: pgsoak_proto::job::Arm::Candidate,
            build: BuildRef::Vanilla,
            postgres: PostgresRef::Major(18),
            loop_for: None,
            scale: 1.0,
            sample_every: Duration::from_secs(1),
            hard_end: Duration::from_secs(60),
            seed: 0,
            replica: 0,
            exclusive: false,
            agents: BTreeMap::new(),
            on_lost: pgsoak_proto::job::OnLost::Wait,
            options: Default::default(),
        }
    }

    pub(crate) fn capable(slots: u32) -> Capabilities {
        Capabilities {
            slots,
            cores: 2,
            memory_bytes: 1 << 30,
            kernel: "6.1".to_owned(),
            tools: vec![ToolFound { tool: Tool::Memcheck, version: "3.19".to_owned() }],
            postgres: vec![PostgresFound {
                major: 18,
                version: "PostgreSQL 18.4".to_owned(),
                pg_config: "/pg18/bin/pg_config".into(),
            }],
            builds: vec![BuildFound { build: "x@1".parse().unwrap(), postgres_major: 18 }],
            labels: BTreeMap::from([("zone".to_owned(), "lab".to_owned())]),
            host: "h".to_owned(),
        }
    }

    #[test]
    fn a_host_with_everything_lacks_nothing() {
        let mut spec = spec(RunId::issue());
        spec.tool = Tool::Memcheck;
        spec.build = "x@1".parse().unwrap();
        spec.postgres = "/pg18/bin/pg_config".parse().unwrap();
        spec.agents = BTreeMap::from([("zone".to_owned(), "lab".to_owned())]);
        assert_eq!(lacks(&spec, &capable(1), &[]), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let mut spec = spec(RunId::issue());
        spec.tool = Tool::Heaptrack;
        spec.build = "x@2".parse().unwrap();
        spec.agents = BTreeMap::from([
            ("zone".to_owned(), "attic".to_owned()),
            ("disk".to_owned(), "fast".to_owned()),
        ]);
        assert_eq!(
            listed(&lacks(&spec, &capable(1), &[])),
            "the tool heaptrack (there: `pgsoak doctor` says why), the build x@2 for PostgreSQL 18 (there: deploy/build-extension.sh x 2; for every agent: pgsoak build push), the label disk=fast and the label zone=attic (it has zone=lab)"
        );
        spec.postgres = PostgresRef::Major(15);
        assert!(lacks(&spec, &capable(1), &[]).contains(&"PostgreSQL 15".to_owned()));
    }
}
