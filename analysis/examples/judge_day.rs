//! How long a day of readings takes to judge: 18 processes at 1 Hz for 24 h, made up, through the whole verdict.
//!
//! `cargo run --release -p pgsoak-analysis --example judge_day`

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a measurement by hand")]

use pgsoak_analysis::evidence::{
    AttemptEvidence, JobEvidence, PhaseSpan, ProcessSeries, RunEvidence,
};
use pgsoak_proto::evidence::{
    AtRest, AttemptEnded, AttemptStarted, PhaseEnded, PhaseKind, PhaseStarted, ProcessAppeared,
};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, Outcome, PostgresRef, Tool};
use pgsoak_workloads::{plan::Plan, workload::Workload};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DAY: u64 = 86_400;
const WORKERS: u32 = 12;
const PROCESSES: u32 = 18;
const WORKLOAD: &str = "[[phase]]\nname = \"steady\"\nkind = \"loop\"\nworkers = 12\nfor = \"24h\"\nsql = \"SELECT 1\"\n";

fn series(process: u32) -> ProcessSeries {
    let mut state = u64::from(process) + 1;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 60
    };
    let warm = |at: u64| 768 * at / (at + 900);
    ProcessSeries {
        who: ProcessAppeared {
            process,
            pid: 1000 + process,
            start_time_ticks: 1,
            backend_type: if process <= WORKERS { "client backend" } else { "io worker" }
                .to_owned(),
            session: (process <= WORKERS).then_some(process),
        },
        elapsed_us: (0..=DAY).map(|at| at * 1_000_000).collect(),
        rss_anon_bytes: (0..=DAY).map(|at| 4096 * (1024 + noise() + warm(at))).collect(),
        cpu_us: (0..=DAY).collect(),
        ended_elapsed_us: None,
    }
}

fn main() {
    let rest = |round: u32, session: u32| AtRest {
        session,
        process: session,
        round,
        operations: u64::from(round) * 1000,
        rss_anon_bytes: 5 << 20,
        ..AtRest::default()
    };
    let rounds: u32 = 2_000;
    let mut attempt = AttemptEvidence {
        started: Some(AttemptStarted { memory_bytes: 1 << 35, ..AttemptStarted::default() }),
        processes: (1..=PROCESSES).map(|process| (process, series(process))).collect(),
        ticks_elapsed_us: (0..=DAY).map(|at| at * 1_000_000).collect(),
        operations: (0..=DAY).map(|at| at * 200).collect(),
        phases: vec![PhaseSpan {
            started: PhaseStarted {
                phase: 0,
                name: "steady".to_owned(),
                kind: PhaseKind::Loop,
                workers: WORKERS,
            },
            started_elapsed_us: 0,
            ended: Some(PhaseEnded {
                phase: 0,
                operations: 0,
                late_operations: 0,
                max_lateness_us: 0,
                concluded: false,
            }),
            ended_elapsed_us: Some(DAY * 1_000_000),
        }],
        last_sequence: 1,
        ended: Some(AttemptEnded {
            outcome: Outcome::Finished,
            reason: String::new(),
            server_log_tail: String::new(),
            ticks: DAY + 1,
            ticks_sampled: DAY + 1,
            sampler_cpu_us: 1,
            process_samples: 1,
            runner_cpu_us: 1,
            runner_peak_rss_bytes: 1,
            statement: String::new(),
            sqlstate: String::new(),
        }),
        ..AttemptEvidence::default()
    };
    for round in 0..=rounds {
        for session in 1..=WORKERS {
            attempt.at_rest.push(rest(round, session));
            attempt.at_rest_elapsed_us.push(u64::from(round) * DAY * 1_000_000 / u64::from(rounds));
        }
    }
    let run = RunId::from_bytes([1; 16]);
    let spec = JobSpec {
        job: JobId::from_bytes([2; 16]),
        run,
        workload_name: "day".to_owned(),
        workload_toml: WORKLOAD.to_owned(),
        tool: Tool::Plain,
        arm: Arm::Candidate,
        build: BuildRef::System,
        postgres: PostgresRef::Major(18),
        loop_for: None,
        scale: 1.0,
        sample_every: Duration::from_secs(1),
        hard_end: Duration::from_secs(2 * DAY),
        seed: 1,
        replica: 0,
        exclusive: false,
        agents: BTreeMap::new(),
        on_lost: pgsoak_proto::job::OnLost::Wait,
        options: Default::default(),
    };
    let workload = Workload::parse("day", WORKLOAD).expect("the workload parses");
    let plan = Plan::parse(
        "day.toml",
        "name = \"day\"\n[[job]]\nworkload = \"day\"\nbuild = \"system\"\n",
    )
    .expect("the plan parses");
    let job = JobEvidence {
        spec,
        workload,
        agent: "a".to_owned(),
        attempts: 1,
        outcome: Outcome::Finished,
        reason: String::new(),
        attempt,
    };
    let evidence = RunEvidence { run, plan, jobs: vec![job] };
    for _ in 0..3 {
        let begun = Instant::now();
        let result = pgsoak_analysis::verdict::judge(&evidence);
        println!("{:.3} s: {}", begun.elapsed().as_secs_f64(), result.sentence);
    }
}
