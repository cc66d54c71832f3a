//! Series with a known truth: healthy processes of many kinds, and the same with a leak planted in them.
//!
//! Deterministic: the same seed gives the same bytes. Three hosts of six processes, readings with jitter, missed readings, a lost agent now and
//! then, noise of pages and of statements in flight, a load that wanders. Used by the scorer beside this file and by the tests.

#![allow(clippy::redundant_closure_for_method_calls)] // a method's path is not general enough over the slot's lifetime

use pgsoak_analysis::trend::{Covariates, Series, Settings};
use std::f64::consts::TAU;

/// What a family does besides noise.
pub type Level = fn(&mut Slot<'_>) -> Vec<f64>;

/// A kind of behaviour.
#[derive(Clone, Copy)]
pub struct Family {
    /// Its name in tables.
    pub name: &'static str,
    /// Bytes without noise, one per time.
    pub level: Level,
    /// Who leaks.
    pub leaks: Leaks,
    /// Whether processes are replaced.
    pub recycled: bool,
    /// Whether memory follows the rows, as declared.
    pub rows: bool,
}

/// Who leaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leaks {
    /// Nobody: healthy.
    Nobody,
    /// Every process.
    All,
    /// One process of one host.
    One,
}

/// What a level is drawn from.
pub struct Slot<'a> {
    rng: Random,
    t: &'a [f64],
    length: f64,
    load: &'a [f64],
    rows: &'a [f64],
    /// Planted, bytes per second.
    leak: f64,
}

/// One generated run.
pub struct Run {
    /// In order.
    pub hosts: Vec<Host>,
    /// What its tester declares.
    pub settings: Settings,
}

/// One host of a run.
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its clock, operations and rows.
    pub covariates: Covariates,
    /// Name, bytes and process ids of each slot.
    pub slots: Vec<(String, Vec<f64>, Vec<u64>)>,
}

/// How a run is generated.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Of the family.
    pub family: Family,
    /// Draws everything.
    pub seed: u64,
    /// Seconds.
    pub length: f64,
    /// Seconds between readings.
    pub every: f64,
    /// Times the usual noise.
    pub noise: f64,
    /// Bytes per second where the family leaks.
    pub leak: f64,
}

const fn healthy(name: &'static str, level: Level) -> Family {
    Family { name, level, leaks: Leaks::Nobody, recycled: false, rows: false }
}

const fn leaking(name: &'static str, level: Level) -> Family {
    Family { name, level, leaks: Leaks::All, recycled: false, rows: false }
}

/// All families, healthy ones first.
pub const FAMILIES: [Family; 22] = [
    healthy("level", |slot| slot.zeros()),
    healthy("warm-up", |slot| slot.warm_up(0.01, 0.12)),
    healthy("slow warm-up", |slot| slot.warm_up(0.15, 0.35)),
    healthy("cache in steps", |slot| slot.steps()),
    healthy("sawtooth", |slot| slot.sawtooth(1.0)),
    healthy("trimmed now and then", |slot| slot.sawtooth(0.4)),
    healthy("follows the load", |slot| slot.daily()),
    healthy("wanders", |slot| slot.wander(0.01, 0.8e6)),
    healthy("ever slower arena", |slot| slot.arena()),
    healthy("spikes", |slot| slot.spikes()),
    healthy("shrinks", |slot| slot.shrink()),
    Family { rows: true, ..healthy("follows its rows", |slot| slot.rows.to_vec()) },
    Family { recycled: true, ..healthy("recycled", |slot| slot.zeros()) },
    leaking("leak", |slot| slot.line(0.0)),
    leaking("leak with warm-up", |slot| add(slot.line(0.0), &slot.warm_up(0.01, 0.12))),
    leaking("leak from half-time on", |slot| slot.line(0.5)),
    leaking("leak in bursts", |slot| slot.bursts()),
    leaking("leak under a sawtooth", |slot| add(slot.line(0.0), &slot.sawtooth(1.0))),
    leaking("leak while wandering", |slot| add(slot.line(0.0), &slot.wander(0.01, 0.8e6))),
    leaking("leak in doubling blocks", |slot| slot.blocks()),
    Family { leaks: Leaks::One, ..leaking("leak in one process", |slot| slot.line(0.0)) },
    Family { recycled: true, ..leaking("leak, recycled", |slot| slot.zeros()) },
];

impl Family {
    /// A word of the name (FNV-1a).
    pub fn key(&self) -> u64 {
        self.name.bytes().fold(0xcbf2_9ce4_8422_2325, |key, byte| {
            (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Run {
    /// Draws a run.
    pub fn draw(shape: &Shape) -> Self {
        let mut run = Random::of(&[shape.seed, shape.family.key(), shape.length as u64]);
        let base = run.between(8e6, 50e6);
        let noise = run.between(1e4, 1.5e5) * shape.noise;
        let scratch = run.between(2e4, 4e5) * shape.noise * f64::from(u8::from(run.unit() < 0.6));
        let bytes_per_row = run.between(10.0, 150.0);
        let one = (run.below(3), run.below(6));
        let life = shape.length * run.between(0.12, 0.3);
        let n = (shape.length / shape.every) as usize + 1;
        let hosts = (0..3)
            .map(|number| {
                let mut rng = run.fork();
                let jitter = |k| k as f64 * shape.every;
                let mut t: Vec<f64> =
                    (0..n).map(|k| jitter(k) + (0.02 * shape.every * rng.normal()).abs()).collect();
                t[0] = 0.0;
                let swing = if shape.family.name == "follows the load" { 0.6 } else { 0.1 };
                let phase = rng.between(0.0, TAU);
                let drift = rng.fork().wander(&t, 0.01 * shape.length, 0.05);
                let load: Vec<f64> = t
                    .iter()
                    .zip(&drift)
                    .map(|(t, drift)| {
                        120.0 * (1.0 + swing * (TAU * t / shape.length * 2.0 + phase).sin() + drift)
                    })
                    .collect();
                let mut done = 0.0;
                let ops: Vec<f64> = load
                    .iter()
                    .zip(std::iter::once(0.0).chain(t.windows(2).map(|pair| pair[1] - pair[0])))
                    .map(|(load, dt)| {
                        done += load.max(0.0) * dt;
                        done
                    })
                    .collect();
                let rate = if shape.family.rows { rng.between(20.0, 200.0) } else { 0.0 };
                let rows: Vec<f64> = ops.iter().map(|ops| 1e4 + ops / 120.0 * rate).collect();
                let held: Vec<f64> =
                    rows.iter().map(|rows| bytes_per_row * (rows - rows.min(1e4))).collect();
                let gap = (rng.below(4) == 0).then(|| (rng.below(n as u64) as usize, n / 30));
                let lost: Vec<bool> = (0..n)
                    .map(|k| {
                        let in_gap =
                            gap.is_some_and(|(from, length)| k >= from && k < from + length);
                        k > 0 && k + 1 < n && (in_gap || rng.unit() < 0.01)
                    })
                    .collect();
                let slots = (0..6)
                    .map(|number_of| {
                        let rng = rng.fork();
                        let acts = shape.family.leaks == Leaks::All
                            || (shape.family.leaks == Leaks::One && one == (number, number_of));
                        let mut slot = Slot {
                            rng,
                            t: &t,
                            length: shape.length,
                            load: &load,
                            rows: &held,
                            leak: if acts { shape.leak } else { 0.0 },
                        };
                        let (level, pid) = if shape.family.recycled {
                            slot.lives(life, 1_000 + number * 100 + number_of)
                        } else {
                            (
                                (shape.family.level)(&mut slot),
                                vec![1_000 + number * 100 + number_of; n],
                            )
                        };
                        let slow = slot.rng.wander(&t, 0.006 * shape.length, 0.5 * noise);
                        let bytes = (0..n)
                            .map(|k| {
                                let in_flight = scratch * -(1.0 - slot.rng.unit()).ln();
                                let raw = base
                                    + level[k]
                                    + slow[k]
                                    + noise * slot.rng.normal()
                                    + in_flight;
                                let missed = lost[k] || slot.rng.unit() < 0.002;
                                if missed {
                                    f64::NAN
                                } else {
                                    (raw / 4096.0).round().max(200.0) * 4096.0
                                }
                            })
                            .collect();
                        (format!("b{number_of:02}"), bytes, pid)
                    })
                    .collect();
                Host {
                    name: format!("host{number}"),
                    covariates: Covariates { t_s: t, ops, rows },
                    slots,
                }
            })
            .collect();
        let allow = if shape.family.rows { bytes_per_row * 1.1 } else { 0.0 };
        Self { hosts, settings: Settings { allow_bytes_per_row: allow, ..Settings::default() } }
    }

    /// As the judge takes it.
    pub fn series(&self) -> Vec<Series<'_>> {
        self.hosts
            .iter()
            .flat_map(|host| {
                host.slots.iter().map(|(slot, bytes, pid)| Series {
                    host: &host.name,
                    slot,
                    t_s: &host.covariates.t_s,
                    bytes,
                    pid,
                    covariates: Some(&host.covariates),
                })
            })
            .collect()
    }
}

impl Slot<'_> {
    fn zeros(&self) -> Vec<f64> {
        vec![0.0; self.t.len()]
    }

    fn line(&self, from: f64) -> Vec<f64> {
        self.t.iter().map(|t| self.leak * (t - from * self.length).max(0.0)).collect()
    }

    fn warm_up(&mut self, low: f64, high: f64) -> Vec<f64> {
        let (top, tau) = (self.rng.between(2e6, 3e7), self.length * self.rng.between(low, high));
        self.t.iter().map(|t| top * (1.0 - (-t / tau).exp())).collect()
    }

    fn steps(&mut self) -> Vec<f64> {
        let steps: Vec<(f64, f64)> = (0..3 + self.rng.below(5))
            .map(|_| {
                (-0.12 * self.length * (1.0 - self.rng.unit()).ln(), self.rng.between(6e4, 3e6))
            })
            .collect();
        let at = |t: f64| steps.iter().filter(|step| step.0 <= t).map(|step| step.1).sum();
        self.t.iter().map(|t| at(*t)).collect()
    }

    fn sawtooth(&mut self, least_drop: f64) -> Vec<f64> {
        let period = self.length * self.rng.between(0.01, 0.12);
        let height = self.rng.between(5e5, 9e6);
        let (mut level, mut last) = (height * self.rng.unit(), 0.0);
        let mut next = period * self.rng.unit();
        let t = self.t;
        t.iter()
            .map(|t| {
                level += height / period * (t - last);
                last = *t;
                if *t >= next {
                    level *= 1.0 - self.rng.between(least_drop, 1.0);
                    next = t + period * (1.0 + 0.25 * self.rng.normal()).max(0.2);
                }
                level
            })
            .collect()
    }

    fn daily(&mut self) -> Vec<f64> {
        let height = self.rng.between(1e6, 1e7);
        self.load.iter().map(|load| height * load / 200.0).collect()
    }

    fn wander(&mut self, tau: f64, deviation: f64) -> Vec<f64> {
        self.rng.wander(self.t, tau * self.length, deviation)
    }

    fn arena(&mut self) -> Vec<f64> {
        let (height, tau) =
            (self.rng.between(3e5, 2.5e6), self.length * self.rng.between(5e-4, 1e-2));
        self.t.iter().map(|t| height * (t / tau).ln_1p()).collect()
    }

    fn spikes(&mut self) -> Vec<f64> {
        let mut level = self.zeros();
        let n = level.len();
        for _ in 0..5 + self.rng.below(30) {
            let (from, height) = (self.rng.below(n as u64) as usize, self.rng.between(1e6, 5e7));
            let length = 1 + self.rng.below(n as u64 / 100 + 1) as usize;
            level.iter_mut().skip(from).take(length).for_each(|level| *level += height);
        }
        level
    }

    fn shrink(&mut self) -> Vec<f64> {
        let (height, tau) = (self.rng.between(1e6, 1e7), self.length * self.rng.between(0.1, 1.0));
        self.t.iter().map(|t| height * (-t / tau).exp()).collect()
    }

    fn bursts(&mut self) -> Vec<f64> {
        let n = 12 + self.rng.below(40);
        let weights: Vec<(f64, f64)> = (0..n)
            .map(|_| (self.length * self.rng.unit(), -(1.0 - self.rng.unit()).ln()))
            .collect();
        let all: f64 = weights.iter().map(|weight| weight.1).sum();
        let at = |t: f64| {
            weights.iter().filter(|weight| weight.0 <= t).map(|weight| weight.1).sum::<f64>()
        };
        self.t.iter().map(|t| self.leak * self.length * at(*t) / all).collect()
    }

    /// What an allocation set takes for it: blocks that double up to 1 MiB.
    fn blocks(&mut self) -> Vec<f64> {
        let needed = self.line(0.0);
        let (mut held, mut block) = (0.0, 8_192.0);
        needed
            .iter()
            .map(|needed| {
                while held < *needed {
                    held += block;
                    block = f64::min(2.0 * block, 1_048_576.0);
                }
                held
            })
            .collect()
    }

    /// Processes one after the other, each with a warm-up and its own leak.
    fn lives(&mut self, life: f64, pid: u64) -> (Vec<f64>, Vec<u64>) {
        let (top, tau) = (self.rng.between(1e6, 8e6), life * self.rng.between(0.02, 0.06));
        let (mut born, mut generation) = (0.0, 0);
        let mut dies = life * self.rng.between(0.2, 1.0);
        let t = self.t;
        t.iter()
            .map(|t| {
                while *t >= dies {
                    (born, dies) = (dies, dies + life * self.rng.between(0.8, 1.2));
                    generation += 1;
                }
                let age = t - born;
                (top * (1.0 - (-age / tau).exp()) + self.leak * age, pid + 1_000 * generation)
            })
            .unzip()
    }
}

fn add(mut a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// From all of the words.
    pub fn of(words: &[u64]) -> Self {
        let mut random = Self { state: 0x9e37_79b9_7f4a_7c15 };
        for word in words {
            random.state = random.next() ^ word;
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fork(&mut self) -> Self {
        Self { state: self.next() }
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In [0, n).
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// Even on a log scale where both are above 0, else even.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        let share = self.unit();
        if low > 0.0 { low * (high / low).powf(share) } else { low + share * (high - low) }
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Noise that remembers itself for about `tau` seconds.
    fn wander(&mut self, t: &[f64], tau: f64, deviation: f64) -> Vec<f64> {
        let mut level = deviation * self.normal();
        let mut last = 0.0;
        t.iter()
            .map(|t| {
                let keep = (-(t - last) / tau).exp();
                last = *t;
                level = keep * level + deviation * (1.0 - keep * keep).sqrt() * self.normal();
                level
            })
            .collect()
    }
}
