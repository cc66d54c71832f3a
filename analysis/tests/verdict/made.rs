//! Evidence made up for the tests: a run of jobs whose series are given as functions of the round.

use pgsoak_analysis::evidence::{
    AttemptEvidence, JobEvidence, PhaseSpan, ProcessSeries, RunEvidence,
};
use pgsoak_analysis::result::{Finding, RunResult, Verdict};
use pgsoak_proto::evidence::{
    AtRest, AttemptEnded, AttemptStarted, ContextUse, LeakCheck, LeakKind, LeakRecord, PhaseEnded,
    PhaseKind, PhaseStarted, ProcessAppeared, StackFrame, ToolCoverage,
};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Outcome, PostgresRef, Tool};
use pgsoak_workloads::plan::{Floor, Plan};
use pgsoak_workloads::workload::{Budget, Cluster, Kind, Length, Loop, Phase, Reconnect, Workload};
use std::collections::BTreeMap;
use std::time::Duration;

pub const OPERATIONS: u64 = 1000;
pub const BASE: u64 = 4 << 20;

/// A run id and job ids that are the same in every test run.
pub fn run_id() -> RunId {
    RunId::from_bytes([7; 16])
}

pub fn workload() -> Workload {
    let phase = |name: &str, kind: Kind| Phase {
        name: name.to_owned(),
        sql: "SELECT 1".to_owned(),
        control_sql: None,
        check: None,
        control_check: None,
        rows: None,
        budget: Budget::default(),
        kind,
    };
    Workload {
        name: "dml".to_owned(),
        about: String::new(),
        extension: Some("pg_x".to_owned()),
        cluster: Cluster::default(),
        phases: vec![
            phase("create", Kind::Once),
            phase(
                "steady",
                Kind::Loop(Loop {
                    workers: 1,
                    operations: OPERATIONS,
                    length: Length::Rounds(20),
                    rate: None,
                    reconnect: Reconnect::Never,
                }),
            ),
        ],
        allow_bytes_per_row: 0.0,
        warm_up: None,
    }
}

/// A session's memory at a round: RssAnon and contexts by name (used, total).
pub type Memory = (u64, Vec<(&'static str, u64, u64)>);

/// A finished job of `rounds` rounds whose workers' memory is given by worker and round.
pub fn job(
    tool: Tool,
    arm: Arm,
    workers: u32,
    rounds: u32,
    memory: impl Fn(u32, u32) -> Memory,
) -> JobEvidence {
    let mut number = [0; 16];
    number[15] = tool as u8;
    number[14] = arm as u8;
    let build = match arm {
        Arm::Candidate => "pg_x@2.0",
        Arm::Baseline => "pg_x@1.0",
        Arm::Control => "vanilla",
        Arm::Canary => "pgsoak_faults@1.0",
    };
    let spec = JobSpec {
        job: JobId::from_bytes(number),
        run: run_id(),
        workload_name: "dml".to_owned(),
        workload_toml: String::new(),
        tool,
        arm,
        build: build.parse::<BuildRef>().unwrap(),
        postgres: PostgresRef::Major(18),
        loop_for: None,
        scale: 1.0,
        sample_every: Duration::from_secs(1),
        hard_end: Duration::from_secs(3600),
        seed: 1,
        replica: 0,
        exclusive: false,
        agents: BTreeMap::new(),
        on_lost: pgsoak_proto::job::OnLost::Wait,
        options: Default::default(),
    };
    JobEvidence {
        spec,
        workload: workload(),
        agent: "a".to_owned(),
        attempts: 1,
        outcome: Outcome::Finished,
        reason: String::new(),
        attempt: attempt(tool, workers, rounds, memory),
    }
}

fn attempt(
    tool: Tool,
    workers: u32,
    rounds: u32,
    memory: impl Fn(u32, u32) -> Memory,
) -> AttemptEvidence {
    let second = 1_000_000_u64;
    let mut made = AttemptEvidence {
        started: Some(AttemptStarted {
            started_at_unix_us: 1_795_301_643_000_000,
            host: "host-a".to_owned(),
            kernel: "6.1".to_owned(),
            cores: 2,
            memory_bytes: 24 << 30,
            postgres_version: "PostgreSQL 18.4".to_owned(),
            sample_every_ms: 1000,
            ..AttemptStarted::default()
        }),
        coverage: (tool != Tool::Plain).then_some(ToolCoverage {
            processes_expected: 3,
            processes_seen: 3,
            backend_us: 1000,
            backend_us_seen: 1000,
            proof: None,
        }),
        last_sequence: 100,
        ..AttemptEvidence::default()
    };
    let rest = |session: u32, phase: u32, round: u32, (rss, contexts): Memory| AtRest {
        session,
        process: session,
        phase,
        round,
        operations: u64::from(round) * OPERATIONS,
        rss_anon_bytes: rss,
        contexts: contexts
            .into_iter()
            .map(|(name, used, total)| ContextUse {
                name: name.to_owned(),
                used_bytes: used,
                total_bytes: total,
                count: 1,
            })
            .collect(),
        ..AtRest::default()
    };
    let flat = || (BASE, vec![("TopMemoryContext", 100_000, 131_072)]);
    for round in 0..=1 {
        made.at_rest.push(rest(0, 0, round, flat()));
        made.at_rest_elapsed_us.push(u64::from(round) * second);
    }
    for round in 0..=rounds {
        for worker in 1..=workers {
            made.at_rest.push(rest(worker, 1, round, memory(worker, round)));
            made.at_rest_elapsed_us.push((2 + u64::from(round)) * second);
        }
    }
    let end = u64::from(rounds) + 3;
    made.ticks_elapsed_us = (0..end).map(|tick| tick * second).collect();
    made.operations = (0..end).map(|tick| tick.saturating_sub(2) * OPERATIONS).collect();
    for session in 0..=workers {
        made.processes.insert(
            session,
            ProcessSeries {
                who: ProcessAppeared {
                    process: session,
                    pid: 100 + session,
                    start_time_ticks: 1,
                    backend_type: "client backend".to_owned(),
                    session: Some(session),
                },
                elapsed_us: made.ticks_elapsed_us.clone(),
                rss_anon_bytes: made
                    .ticks_elapsed_us
                    .iter()
                    .map(|at| {
                        let round = u32::try_from((at / second).saturating_sub(2)).unwrap();
                        if session == 0 { BASE } else { memory(session, round.min(rounds)).0 }
                    })
                    .collect(),
                cpu_us: made.ticks_elapsed_us.clone(),
                ended_elapsed_us: None,
            },
        );
    }
    let span = |phase: u32, name: &str, kind, workers, from: u64, to: u64| PhaseSpan {
        started: PhaseStarted { phase, name: name.to_owned(), kind, workers },
        started_elapsed_us: from * second,
        ended: Some(PhaseEnded {
            phase,
            operations: 0,
            late_operations: 0,
            max_lateness_us: 0,
            concluded: false,
        }),
        ended_elapsed_us: Some(to * second),
    };
    made.phases = vec![
        span(0, "create", PhaseKind::Once, 0, 0, 1),
        span(1, "steady", PhaseKind::Loop, workers, 2, end),
    ];
    made.ended = Some(AttemptEnded {
        outcome: Outcome::Finished,
        reason: String::new(),
        server_log_tail: String::new(),
        ticks: end,
        ticks_sampled: end,
        sampler_cpu_us: 40 * end,
        process_samples: 2 * end,
        runner_cpu_us: 10_000,
        runner_peak_rss_bytes: 20 << 20,
        statement: String::new(),
        sqlstate: String::new(),
    });
    made
}

/// Memory that does not move.
pub fn flat(_worker: u32, _round: u32) -> Memory {
    (BASE, vec![("CacheMemoryContext", 500_000, 524_288), ("TopMemoryContext", 100_000, 131_072)])
}

/// Rounded up to pages.
pub fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(4096) * 4096
}

/// RssAnon grows by so many bytes per operation, contexts do not.
pub fn outside(per_operation: u64) -> impl Fn(u32, u32) -> Memory {
    move |worker, round| {
        let (rss, contexts) = flat(worker, round);
        (pages(rss + u64::from(round) * OPERATIONS * per_operation), contexts)
    }
}

/// A plan of these jobs, as one run.
pub fn run(jobs: Vec<JobEvidence>) -> RunEvidence {
    RunEvidence {
        run: run_id(),
        plan: Plan {
            name: "test".to_owned(),
            about: String::new(),
            jobs: Vec::new(),
            floor: Floor::default(),
            stop_when_proven: false,
            canary: false,
            priority: 50,
        },
        jobs,
    }
}

pub fn judged(jobs: Vec<JobEvidence>) -> RunResult {
    pgsoak_analysis::verdict::judge(&run(jobs))
}

pub fn failing(result: &RunResult) -> Vec<&Finding> {
    result.findings.iter().filter(|finding| finding.verdict == Verdict::Fail).collect()
}

/// A stack: the extension's function under malloc, called by the server.
pub fn stack(function: &str, module: &str) -> Vec<StackFrame> {
    let frame = |function: &str, module: &str, file: &str| StackFrame {
        function: function.to_owned(),
        module: module.to_owned(),
        file: file.to_owned(),
        line: if file.is_empty() { 0 } else { 17 },
    };
    vec![
        frame("malloc", "vgpreload_memcheck-amd64-linux.so", ""),
        frame(function, module, "hx.c"),
        frame("ExecInterpExpr", "postgres", ""),
        frame("PostmasterMain", "postgres", ""),
    ]
}

/// A record whose size at each check is given by `bytes`; 100 bytes a block.
pub fn record(kind: LeakKind, stack: &[StackFrame], before: u64, bytes: u64) -> LeakRecord {
    let signed = |n: u64| i64::try_from(n).unwrap();
    LeakRecord {
        kind,
        bytes,
        blocks: bytes / 100,
        bytes_delta: signed(bytes) - signed(before),
        blocks_delta: signed(bytes / 100) - signed(before / 100),
        stack: stack.to_vec(),
    }
}

/// How memcheck counts a stack, the stack, and the bytes it holds at each check.
pub type Held = (LeakKind, Vec<StackFrame>, fn(u32) -> u64);

/// Adds a leak check after each round in which `size` (bytes by check) says what the stack holds.
pub fn with_leaks(mut job: JobEvidence, checks: u32, records: &[Held]) -> JobEvidence {
    for check in 0..checks {
        let listed = records
            .iter()
            .filter_map(|(kind, stack, size)| {
                let before = if check == 0 { 0 } else { size(check - 1) };
                (size(check) > before).then(|| record(*kind, stack, before, size(check)))
            })
            .collect();
        job.attempt.leak_checks.push(LeakCheck {
            session: 1,
            process: 1,
            phase: 1,
            round: check,
            operations: u64::from(check) * OPERATIONS,
            records: listed,
            at_exit: false,
            took_us: 1,
        });
    }
    job
}
