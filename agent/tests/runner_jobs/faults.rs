//! Planted waste of memory, as the evidence shows it.

use crate::desk::{Evidence, Job, spec};
use pgsoak_analysis::evidence::{AttemptEvidence, JobEvidence};
use pgsoak_analysis::exits::exits;
use pgsoak_analysis::rounds::{PhaseRounds, Shape, Subject, rounds};
use pgsoak_proto::evidence::{AtRest, LeakKind};
use pgsoak_proto::job::{JobSpec, Outcome, Tool};
use pgsoak_workloads::workload::Workload;
use std::collections::BTreeMap;

/// Twelve rounds of calls of one function.
fn wasting(call: &str, operations: u32, major: u32) -> JobSpec {
    let workload = format!(
        r#"
name = "w"
extension = "pgsoak_faults"
[cluster]
settings = {{ shared_buffers = "16MB", jit = "off" }}
[[phase]]
name = "steady"
kind = "loop"
operations = {operations}
rounds = 12
sql = "SELECT {call}"
"#
    );
    let mut spec = spec(&workload, major);
    spec.build = "pgsoak_faults@1.0".parse().unwrap();
    spec
}

fn finished(spec: &JobSpec) -> Evidence {
    let evidence = Job::run(spec);
    assert_eq!(evidence.ended().outcome, Outcome::Finished, "{:?}", evidence.ended());
    evidence
}

/// Growth per operation between rounds 4 and 12.
fn per_operation(evidence: &Evidence, value: impl Fn(&AtRest) -> u64) -> f64 {
    let readings = evidence.at_rest(1);
    let at = |round: u32| readings.iter().find(|rest| rest.round == round).unwrap();
    let (from, to) = (at(4), at(12));
    (value(to) as f64 - value(from) as f64) / (to.operations - from.operations) as f64
}

/// The loop phase as the verdict judges it.
fn judged(spec: &JobSpec, evidence: &Evidence) -> PhaseRounds {
    let job = JobEvidence {
        spec: spec.clone(),
        workload: Workload::parse("w.toml", &spec.workload_toml).unwrap(),
        agent: "a".into(),
        attempts: 1,
        outcome: evidence.ended().outcome,
        reason: String::new(),
        attempt: AttemptEvidence::from_frames(evidence.frames.clone()),
    };
    let mut phases = rounds(&job, &BTreeMap::new());
    assert_eq!(phases.len(), 1, "one loop phase");
    let phase = phases.remove(0);
    assert_eq!((phase.judged, phase.sessions), (1, 1), "{:?}", phase.reasons);
    phase
}

fn used(rest: &AtRest) -> u64 {
    rest.contexts.iter().map(|context| context.used_bytes).sum()
}

#[test]
fn malloc_that_is_kept_grows_outside_contexts() {
    for major in [15, 18] {
        let spec = wasting("faults_malloc_kept(100)", 1500, major);
        let evidence = finished(&spec);
        let phase = judged(&spec, &evidence);
        let growth = phase.pooled[&Subject::Anonymous];
        assert!(growth.shape == Shape::Steady && growth.low > 95.0, "{growth:?}");
        assert_ne!(phase.pooled[&Subject::Used].shape, Shape::Steady);
        let rss = per_operation(&evidence, |rest| rest.rss_anon_bytes);
        assert!((100.0..=150.0).contains(&rss), "{major}: {rss}");
        let contexts = per_operation(&evidence, used);
        assert!(contexts.abs() < 1.0, "{major}: {contexts}");
        let phases: Vec<u32> = evidence.at_rest(0).iter().map(|rest| rest.phase).collect();
        assert_eq!(phases, [0, 0], "the extension is measured before and after");
    }
}

#[test]
fn palloc_in_a_lasting_context_grows_there() {
    let spec = wasting("faults_palloc_top(100)", 1000, 18);
    let evidence = finished(&spec);
    let growth = judged(&spec, &evidence).pooled[&Subject::Context("TopMemoryContext".into())];
    assert!(growth.shape == Shape::Steady && growth.low > 95.0, "{growth:?}");
    let top = per_operation(&evidence, |rest| {
        rest.contexts.iter().filter(|c| c.name == "TopMemoryContext").map(|c| c.used_bytes).sum()
    });
    assert!((100.0..=150.0).contains(&top), "{top}");
}

#[test]
fn a_function_that_does_nothing_does_not_grow() {
    let spec = wasting("faults_nothing()", 1500, 15);
    let evidence = finished(&spec);
    let phase = judged(&spec, &evidence);
    assert!(phase.pooled.values().all(|growth| growth.shape != Shape::Steady), "{phase:?}");
    let last = evidence.at_rest(1).last().unwrap().trimmed_rss_anon_bytes;
    assert!(last > 0, "gdb is there: the last reading is trimmed");
}

#[test]
fn memcheck_counts_lost_bytes_exactly() {
    let mut spec = wasting("faults_malloc_lost(100)", 20, 15);
    spec.tool = Tool::Memcheck;
    spec.scale = 0.5;
    let evidence = finished(&spec);
    let checks: Vec<_> = evidence
        .leak_checks()
        .into_iter()
        .filter(|check| check.session == 1 && !check.at_exit)
        .collect();
    assert_eq!(checks.iter().map(|c| c.round).collect::<Vec<_>>(), (0..=12).collect::<Vec<_>>());
    for check in &checks[1..] {
        let lost: Vec<_> = check
            .records
            .iter()
            .filter(|record| record.kind == LeakKind::Definite && record.bytes_delta > 0)
            .collect();
        assert_eq!(lost.len(), 1, "{check:?}");
        assert_eq!((lost[0].bytes_delta, lost[0].blocks_delta), (1000, 10), "{check:?}");
        let frame = lost[0].stack.iter().find(|f| f.function == "faults_malloc_lost").unwrap();
        assert_eq!(frame.module, "pgsoak_faults.so", "{:?}", lost[0].stack);
    }
    let coverage = evidence.bodies().find_map(|body| match body {
        pgsoak_proto::evidence::Body::Coverage(coverage) => Some(*coverage),
        _ => None,
    });
    let coverage = coverage.unwrap();
    assert_eq!(coverage.processes_seen, coverage.processes_expected, "{coverage:?}");
    assert!(coverage.backend_us > 0 && coverage.backend_us == coverage.backend_us_seen);
    let at_exit = evidence.leak_checks().into_iter().filter(|check| check.at_exit).count();
    assert!(at_exit >= 2, "main session and worker: {at_exit}");
}

/// What processes lose by their end, as the verdict reads it: function, bytes per operation.
fn lost_by_the_end(spec: &JobSpec) -> Vec<(String, f64)> {
    let evidence = finished(spec);
    let job = JobEvidence {
        spec: spec.clone(),
        workload: Workload::parse("w.toml", &spec.workload_toml).unwrap(),
        agent: "a".into(),
        attempts: 1,
        outcome: Outcome::Finished,
        reason: String::new(),
        attempt: AttemptEvidence::from_frames(evidence.frames.clone()),
    };
    exits(&job).into_iter().map(|loss| (loss.function, loss.bytes_per_operation)).collect()
}

/// The last block may still be pointed to when the search begins.
fn loses_100_bytes(lost: &[(String, f64)]) {
    let [(function, bytes)] = lost else { panic!("not one stack: {lost:?}") };
    assert_eq!(function, "lose_block");
    assert!((bytes - 100.0).abs() < 2.0, "{bytes}");
}

/// The background worker serves no session: its memory shows when it ends. Both tools, both servers.
#[test]
fn what_a_background_worker_loses_is_found_with_its_function_and_bytes() {
    for (tool, major) in [(Tool::Memcheck, 15), (Tool::Heaptrack, 18)] {
        let mut spec = wasting("faults_worker_lost(100)", 10, major);
        spec.workload_toml =
            spec.workload_toml.replace("[cluster]\n", "[cluster]\npreload = [\"pgsoak_faults\"]\n");
        spec.tool = tool;
        loses_100_bytes(&lost_by_the_end(&spec));
    }
}

#[test]
fn what_a_backend_loses_on_its_way_out_is_found_by_memcheck() {
    let mut spec = wasting("faults_exit_lost(100)", 1, 18);
    spec.workload_toml =
        spec.workload_toml.replace("rounds = 12\n", "rounds = 4\nreconnect = \"every round\"\n");
    spec.tool = Tool::Memcheck;
    loses_100_bytes(&lost_by_the_end(&spec));
}
