//! Evidence of an attempt as a runner would have made it: processes of a server over time, workers read at rest between rounds.

use pgsoak_proto::evidence::{
    AtRest, AttemptEnded, AttemptStarted, Body, ContextUse, Frame, HostSamples, PhaseEnded,
    PhaseKind, PhaseStarted, ProcessAppeared, ProcessSamples, Samples,
};
use pgsoak_proto::job::Outcome;
use std::time::Duration;

/// Ticks in one frame of samples, as the runner's sampler makes them.
const TICKS: u64 = 60;
/// Operations in a round.
const OPERATIONS: u64 = 1_000;

/// What an attempt is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sessions of the loop.
    pub workers: u32,
    /// The server's other processes.
    pub others: u32,
    /// Readings of all of them.
    pub ticks: u64,
    /// Between two.
    pub tick: Duration,
    /// Of each worker.
    pub rounds: u32,
    /// What each operation of a worker loses, bytes.
    pub leak: f64,
}

/// Noise that is the same for the same seed.
struct Noise(u64);

impl Noise {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

impl Shape {
    /// Processes in all.
    pub fn processes(&self) -> u32 {
        self.workers + self.others
    }

    /// Anonymous memory of a process at a tick, KiB.
    fn kib(&self, process: u32, tick: u64, noise: &mut Noise) -> u64 {
        let base = 4_000 + 700 * u64::from(process % 11);
        let warm = 1_500 * tick.min(120) / 120;
        let done = tick as f64 / self.ticks as f64 * f64::from(self.rounds) * OPERATIONS as f64;
        let lost = if process < self.workers { (self.leak * done / 1024.0) as u64 } else { 0 };
        base + warm + lost + noise.below(5) * 4
    }

    /// The samples of ticks `from .. to` of all processes.
    pub fn samples(&self, from: u64, to: u64, seed: u64) -> Samples {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let us = u64::try_from(self.tick.as_micros()).unwrap();
        let processes = (0..self.processes())
            .map(|process| {
                let each =
                    |of: &mut dyn FnMut(u64) -> u64| (from..to).map(of).collect::<Vec<u64>>();
                ProcessSamples {
                    process,
                    first_row: 0,
                    rss_anon_kib: each(&mut |tick| self.kib(process, tick, &mut noise)),
                    rss_file_kib: each(&mut |_| 9_000),
                    rss_shmem_kib: each(&mut |tick| 20_000 + tick / 7),
                    swap_kib: each(&mut |_| 0),
                    data_kib: each(&mut |tick| 12_000 + tick.min(120) * 10),
                    cpu_us: each(&mut |tick| tick * us / 3),
                    minor_faults: each(&mut |tick| 3_000 + tick * 5),
                    major_faults: each(&mut |_| 1),
                    threads: each(&mut |_| 1),
                    pss_anon_kib: Vec::new(),
                }
            })
            .collect();
        Samples {
            ticks: (from..to).collect(),
            elapsed_us: (from..to).map(|tick| tick * us).collect(),
            processes,
            host: HostSamples {
                available_kib: (from..to).map(|tick| 3_000_000 - tick).collect(),
                pressure_some_us: (from..to).map(|_| 0).collect(),
                load_centi: (from..to).map(|_| 120).collect(),
                cgroup_kib: Vec::new(),
                operations: (from..to).map(|tick| tick * 40).collect(),
                clock_ms: Vec::new(),
            },
            left_out: 0,
        }
    }

    /// Bodies before the first sample.
    pub fn opening(&self) -> Vec<Body> {
        let mut bodies = vec![Body::Started(AttemptStarted {
            started_at_unix_us: 1_795_301_643_000_000,
            host: "made".to_owned(),
            kernel: "6.1".to_owned(),
            cores: 2,
            memory_bytes: 4 << 30,
            postgres_version: "PostgreSQL 18.4".to_owned(),
            sample_every_ms: u64::try_from(self.tick.as_millis()).unwrap(),
            ..AttemptStarted::default()
        })];
        bodies.extend((0..self.processes()).map(|process| {
            let is_worker = process < self.workers;
            Body::ProcessAppeared(ProcessAppeared {
                process,
                pid: 1_000 + process,
                start_time_ticks: 5,
                backend_type: if is_worker { "client backend" } else { "background worker" }
                    .to_owned(),
                session: is_worker.then_some(process + 1),
            })
        }));
        bodies.push(Body::PhaseStarted(PhaseStarted {
            phase: 0,
            name: "steady".to_owned(),
            kind: PhaseKind::Loop,
            workers: self.workers,
        }));
        bodies
    }

    /// A whole attempt.
    pub fn attempt(&self, seed: u64) -> Vec<Frame> {
        let mut bodies: Vec<(u64, Body)> =
            self.opening().into_iter().map(|body| (0, body)).collect();
        let mut noise = Noise(seed | 1);
        for from in (0..self.ticks).step_by(usize::try_from(TICKS).unwrap()) {
            let to = (from + TICKS).min(self.ticks);
            bodies.push((to, Body::Samples(self.samples(from, to, seed ^ from))));
        }
        for round in 0..=self.rounds {
            let at = self.ticks * u64::from(round) / u64::from(self.rounds.max(1));
            for worker in 0..self.workers {
                let operations = u64::from(round) * OPERATIONS;
                let lost = (self.leak * operations as f64) as u64;
                let used = 400_000 + lost + noise.below(64) * 8;
                bodies.push((
                    at,
                    Body::AtRest(AtRest {
                        session: worker + 1,
                        process: worker,
                        phase: 0,
                        round,
                        operations,
                        rss_anon_bytes: 5_000_000 + lost + noise.below(3) * 4096,
                        contexts: vec![
                            ContextUse {
                                name: "CacheMemoryContext".to_owned(),
                                used_bytes: used,
                                total_bytes: 524_288 + lost,
                                count: 1,
                            },
                            ContextUse {
                                name: "TopMemoryContext".to_owned(),
                                used_bytes: 90_000,
                                total_bytes: 98_304,
                                count: 1,
                            },
                        ],
                        ..AtRest::default()
                    }),
                ));
            }
        }
        bodies.sort_by_key(|(at, _)| *at);
        let operations = u64::from(self.rounds * self.workers) * OPERATIONS;
        bodies.push((
            self.ticks,
            Body::PhaseEnded(PhaseEnded {
                phase: 0,
                operations,
                late_operations: 0,
                max_lateness_us: 0,
                concluded: false,
            }),
        ));
        bodies.push((self.ticks, Body::Ended(self.ending())));
        bodies
            .into_iter()
            .zip(1..)
            .map(|((tick, body), sequence)| Frame {
                sequence,
                elapsed: self.tick * u32::try_from(tick).unwrap(),
                body,
            })
            .collect()
    }

    /// The last word.
    pub fn ending(&self) -> AttemptEnded {
        AttemptEnded {
            outcome: Outcome::Finished,
            reason: String::new(),
            server_log_tail: String::new(),
            ticks: self.ticks,
            ticks_sampled: self.ticks,
            sampler_cpu_us: 50 * self.ticks,
            process_samples: self.ticks * u64::from(self.processes()),
            runner_cpu_us: 1_000,
            runner_peak_rss_bytes: 20 << 20,
            statement: String::new(),
            sqlstate: String::new(),
        }
    }
}

/// The workload of all of them.
pub fn workload(name: &str, workers: u32, rounds: u32) -> String {
    format!(
        "name = \"{name}\"\nabout = \"made up\"\n[[phase]]\nname = \"steady\"\nkind = \"loop\"\nworkers = {workers}\noperations = {OPERATIONS}\nrounds = {rounds}\nsql = \"SELECT 1\"\n"
    )
}
