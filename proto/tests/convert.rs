//! Both directions of every conversion: what is checked survives the wire, and no wire message makes a panic.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use pgsoak_proto::convert::{InvalidMessage, MAX_ANSWER_BYTES, MAX_LOG_TAIL_BYTES};
use pgsoak_proto::evidence::*;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::*;
use pgsoak_proto::session::*;
use pgsoak_proto::wire;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use std::time::Duration;

const MAX: u64 = i64::MAX as u64;

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,20}"
}

fn lease() -> BoxedStrategy<Lease> {
    let strategy = {
        (any::<[u8; 16]>(), 1..=u32::MAX, 1..=u64::MAX).prop_map(|(id, attempt, fence)| Lease {
            job: JobId::from_bytes(id),
            attempt,
            fence,
        })
    };
    strategy.boxed()
}

fn tool() -> BoxedStrategy<Tool> {
    let strategy = {
        prop_oneof![
            Just(Tool::Plain),
            Just(Tool::Memcheck),
            Just(Tool::Massif),
            Just(Tool::Heaptrack)
        ]
    };
    strategy.boxed()
}

fn build() -> BoxedStrategy<BuildRef> {
    let strategy = {
        prop_oneof![
            ("[a-z_]{1,20}", "[0-9][0-9a-z.+-]{0,20}")
                .prop_map(|(name, release)| BuildRef::Release { name, release }),
            "/[a-z/]{1,30}".prop_map(|path| BuildRef::Dir(path.into())),
            Just(BuildRef::System),
            Just(BuildRef::Vanilla),
        ]
    };
    strategy.boxed()
}

fn spec() -> BoxedStrategy<JobSpec> {
    let strategy = {
        let arm = prop_oneof![
            Just(Arm::Candidate),
            Just(Arm::Baseline),
            Just(Arm::Control),
            Just(Arm::Canary)
        ];
        let postgres = prop_oneof![
            (10_u32..=99).prop_map(PostgresRef::Major),
            "/[a-z/]{1,30}".prop_map(|path| PostgresRef::PgConfig(path.into()))
        ];
        let names = ("\\PC{1,40}", "\\PC{0,200}", any::<[u8; 16]>(), any::<[u8; 16]>());
        let times = (option::of(1_u64..1 << 40), 100_u64..=3_600_000, 1_000_u64..=2_592_000_000);
        let rest = (0.001_f64..=1000.0, any::<u64>(), any::<u32>(), any::<bool>(), any::<bool>());
        (names, tool(), arm, build(), postgres, times, rest, btree_map(word(), word(), 0..4))
            .prop_map(|(names, tool, arm, build, postgres, times, rest, agents)| JobSpec {
                job: JobId::from_bytes(names.2),
                run: RunId::from_bytes(names.3),
                workload_name: names.0,
                workload_toml: names.1,
                tool,
                arm,
                build,
                postgres,
                loop_for: times.0.map(Duration::from_millis),
                scale: rest.0,
                sample_every: Duration::from_millis(times.1),
                hard_end: Duration::from_millis(times.2),
                seed: rest.1,
                replica: rest.2,
                exclusive: rest.3,
                agents,
                on_lost: if rest.4 { OnLost::Retry } else { OnLost::Wait },
                options: Box::new(ToolOptions {
                    suppressions: String::new(),
                    pages_as_heap: rest.3,
                }),
            })
    };
    strategy.boxed()
}

fn stack() -> BoxedStrategy<Vec<StackFrame>> {
    let strategy = {
        let frame = ("\\PC{0,12}", "\\PC{0,12}", "\\PC{0,12}", any::<u32>())
            .prop_map(|(function, module, file, line)| StackFrame { function, module, file, line });
        vec(frame, 0..6)
    };
    strategy.boxed()
}

/// A column that is there or not.
fn column(rows: usize) -> BoxedStrategy<Vec<u64>> {
    let strategy =
        { prop_oneof![Just(Vec::new()), vec(0..=MAX, rows..=rows), vec(0_u64..5000, rows..=rows)] };
    strategy.boxed()
}

fn process_samples(number: u32, rows: usize) -> BoxedStrategy<ProcessSamples> {
    let strategy = {
        (0..rows).prop_flat_map(move |first| {
            let n = rows - first;
            let left = (column(n), column(n), column(n), column(n), column(n));
            let right = (column(n), column(n), column(n), column(n), column(n));
            (left, right).prop_map(move |(l, r)| ProcessSamples {
                process: number,
                first_row: u32::try_from(first).unwrap(),
                rss_anon_kib: l.0,
                rss_file_kib: l.1,
                rss_shmem_kib: l.2,
                swap_kib: l.3,
                data_kib: l.4,
                cpu_us: r.0,
                minor_faults: r.1,
                major_faults: r.2,
                threads: r.3,
                pss_anon_kib: r.4,
            })
        })
    };
    strategy.boxed()
}

fn samples() -> BoxedStrategy<Samples> {
    let strategy = {
        (1_usize..12).prop_flat_map(|rows| {
            let host = (
                column(rows),
                column(rows),
                column(rows),
                column(rows),
                column(rows),
                column(rows),
            )
                .prop_map(
                    |(
                        available_kib,
                        pressure_some_us,
                        load_centi,
                        cgroup_kib,
                        operations,
                        clock_ms,
                    )| {
                        HostSamples {
                            available_kib,
                            pressure_some_us,
                            load_centi,
                            cgroup_kib,
                            operations,
                            clock_ms,
                        }
                    },
                );
            let ticks = (0..1_u64 << 60, vec(1_u64..4, rows..=rows)).prop_map(|(first, steps)| {
                steps
                    .iter()
                    .scan(first, |tick, step| {
                        let now = *tick;
                        *tick += step;
                        Some(now)
                    })
                    .collect()
            });
            let elapsed = vec(0..MAX, rows..=rows).prop_map(|mut values| {
                values.sort_unstable();
                values
            });
            let processes = (process_samples(0, rows), process_samples(7, rows));
            (ticks, elapsed, processes, host).prop_map(
                |(ticks, elapsed_us, processes, host): (Vec<u64>, _, _, _)| {
                    let left_out = ticks.len() as u64 % 3;
                    let processes = vec![processes.0, processes.1];
                    Samples { ticks, elapsed_us, processes, host, left_out }
                },
            )
        })
    };
    strategy.boxed()
}

fn started() -> BoxedStrategy<AttemptStarted> {
    let strategy = {
        (
            (any::<u64>(), 1..=u32::MAX, any::<u64>(), 1..=u64::MAX),
            ("\\PC{0,9}", "\\PC{0,9}", "\\PC{0,9}", "\\PC{0,9}", "\\PC{0,9}", "\\PC{0,9}"),
            prop_oneof![Just(String::new()), "[0-9a-f]{64}"],
            btree_map(word(), word(), 0..5),
            option::of((any::<i64>(), any::<u64>())),
        )
            .prop_map(|(numbers, texts, build_digest, settings, clock)| AttemptStarted {
                started_at_unix_us: numbers.0,
                host: texts.0,
                kernel: texts.1,
                cpu_model: texts.2,
                cores: numbers.1,
                memory_bytes: numbers.2,
                postgres_version: texts.3,
                tool_version: texts.4,
                build_digest,
                extension_version: texts.5,
                settings,
                sample_every_ms: numbers.3,
                clock: clock.map(|(ahead_us, within_us)| ClockOffset { ahead_us, within_us }),
            })
    };
    strategy.boxed()
}

fn at_rest() -> BoxedStrategy<AtRest> {
    let strategy = {
        let contexts = btree_map(word(), (any::<u64>(), any::<u64>(), 1..=u32::MAX), 0..6);
        let allocator = option::of(any::<[u64; 3]>());
        (any::<[u32; 4]>(), any::<[u64; 5]>(), contexts, allocator).prop_map(
            |(small, large, contexts, allocator)| AtRest {
                session: small[0],
                process: small[1],
                phase: small[2],
                round: small[3],
                operations: large[0],
                rss_anon_bytes: large[1],
                contexts: contexts
                    .into_iter()
                    .map(|(name, (used_bytes, total_bytes, count))| ContextUse {
                        name,
                        used_bytes,
                        total_bytes,
                        count,
                    })
                    .collect(),
                pss_anon_bytes: large[2],
                rows: large[3],
                trimmed_rss_anon_bytes: large[4],
                allocator: allocator.map(|[in_use_bytes, free_bytes, took_us]| AllocatorUse {
                    in_use_bytes,
                    free_bytes,
                    took_us,
                }),
            },
        )
    };
    strategy.boxed()
}

fn capture() -> BoxedStrategy<Capture> {
    let contexts = btree_map(word(), (any::<u64>(), any::<u64>(), 1..=u32::MAX), 0..6);
    let cause = select(vec![CaptureCause::Periodic, CaptureCause::Suspect, CaptureCause::Later]);
    let words = ("\\PC{0,50}", vec("\\PC{0,50}", 0..8), "\\PC{0,50}");
    let strategy =
        (any::<u32>(), option::of(any::<u32>()), cause, contexts, words, any::<[u64; 3]>())
            .prop_map(|(process, session, cause, contexts, (reason, statements, missing), n)| {
                Capture {
                    process,
                    session,
                    cause,
                    reason,
                    operations: n[0],
                    rss_anon_bytes: n[1],
                    contexts: contexts
                        .into_iter()
                        .map(|(name, (used_bytes, total_bytes, count))| ContextUse {
                            name,
                            used_bytes,
                            total_bytes,
                            count,
                        })
                        .collect(),
                    statements,
                    missing,
                    took_us: n[2],
                }
            });
    strategy.boxed()
}

fn leak_check() -> BoxedStrategy<LeakCheck> {
    let strategy = {
        let kind = prop_oneof![
            Just(LeakKind::Definite),
            Just(LeakKind::Indirect),
            Just(LeakKind::Possible),
            Just(LeakKind::Reachable)
        ];
        let record = (kind, any::<[u64; 2]>(), any::<[i64; 2]>(), stack()).prop_map(
            |(kind, sizes, deltas, stack)| LeakRecord {
                kind,
                bytes: sizes[0],
                blocks: sizes[1],
                bytes_delta: deltas[0],
                blocks_delta: deltas[1],
                stack,
            },
        );
        (any::<[u32; 4]>(), any::<[u64; 2]>(), vec(record, 0..5), any::<bool>()).prop_map(
            |(small, large, records, at_exit)| LeakCheck {
                session: small[0],
                process: small[1],
                phase: small[2],
                round: small[3],
                operations: large[0],
                records,
                at_exit,
                took_us: large[1],
            },
        )
    };
    strategy.boxed()
}

fn site_digest() -> BoxedStrategy<SiteDigest> {
    let strategy = {
        (0_usize..4).prop_flat_map(|marks| {
            let mark = (any::<[u32; 2]>(), any::<[u64; 2]>()).prop_map(|(small, large)| SiteMark {
                phase: small[0],
                round: small[1],
                operations: large[0],
                live_bytes: large[1],
            });
            let site = (stack(), any::<[u64; 4]>(), vec(any::<u64>(), marks..=marks)).prop_map(
                |(stack, n, marked_bytes)| AllocationSite {
                    stack,
                    allocations: n[0],
                    temporary: n[1],
                    peak_bytes: n[2],
                    end_bytes: n[3],
                    marked_bytes,
                },
            );
            let points =
                vec(any::<[u64; 2]>().prop_map(|[at, bytes]| SitePoint { at, bytes }), 0..5);
            let who =
                (any::<[u32; 2]>(), option::of(any::<u32>()), any::<[bool; 2]>(), "[a-z]{0,3}");
            (who, any::<[u64; 6]>(), vec(mark, marks..=marks), vec(site, 0..5), points).prop_map(
                |((small, session, [is_massif, truncated], time_unit), n, marks, sites, series)| {
                    SiteDigest {
                        process: small[0],
                        session,
                        tool: if is_massif { Tool::Massif } else { Tool::Heaptrack },
                        allocations: n[0],
                        temporary: n[1],
                        peak_bytes: n[2],
                        peak_at: n[3],
                        end_bytes: n[4],
                        duration: n[5],
                        time_unit,
                        truncated,
                        sites_in_all: small[1],
                        marks,
                        sites,
                        series,
                    }
                },
            )
        })
    };
    strategy.boxed()
}

fn ended() -> BoxedStrategy<AttemptEnded> {
    let strategy = {
        let outcome = prop_oneof![
            Just(Outcome::Finished),
            Just(Outcome::Failed),
            Just(Outcome::Infrastructure),
            Just(Outcome::Cancelled),
            Just(Outcome::TimedOut)
        ];
        (outcome, any::<[u64; 6]>(), "\\PC{0,40}", "\\PC{0,400}", "\\PC{0,40}", "[0-9A-Z]{0,5}")
            .prop_map(|(outcome, n, reason, server_log_tail, statement, sqlstate)| AttemptEnded {
                outcome,
                reason,
                server_log_tail,
                ticks: n[0],
                ticks_sampled: n[1],
                sampler_cpu_us: n[2],
                process_samples: n[3],
                runner_cpu_us: n[4],
                runner_peak_rss_bytes: n[5],
                statement,
                sqlstate,
            })
    };
    strategy.boxed()
}

fn body() -> BoxedStrategy<Body> {
    let strategy = {
        let appeared =
            (any::<u32>(), 1..=u32::MAX, any::<u64>(), "\\PC{0,20}", option::of(any::<u32>()))
                .prop_map(|(process, pid, start_time_ticks, backend_type, session)| {
                    ProcessAppeared { process, pid, start_time_ticks, backend_type, session }
                });
        let phase = (any::<u32>(), "\\PC{0,20}", 0_u32..5).prop_map(|(phase, name, workers)| {
            let kind = if workers == 0 { PhaseKind::Once } else { PhaseKind::Loop };
            PhaseStarted { phase, name, kind, workers }
        });
        let phase_ended =
            (any::<u32>(), any::<[u64; 3]>(), any::<bool>()).prop_map(|(phase, n, concluded)| {
                PhaseEnded {
                    phase,
                    operations: n[0],
                    late_operations: n[1],
                    max_lateness_us: n[2],
                    concluded,
                }
            });
        let check = (any::<[u32; 2]>(), any::<bool>(), "\\PC{0,50}", "\\PC{0,50}").prop_map(
            |(n, holds, sql, answer)| CheckResult { phase: n[0], round: n[1], holds, sql, answer },
        );
        let error = ("\\PC{0,30}", 1..=u64::MAX, stack())
            .prop_map(|(what, count, stack)| MemcheckError { what, count, stack });
        let errors = (any::<u32>(), vec(error, 0..5))
            .prop_map(|(process, errors)| MemcheckErrors { process, errors });
        let proof = option::of((any::<u32>(), any::<u32>())).prop_map(|proof| {
            proof.map(|(a, b)| ProofOfLife { sessions: a.max(b), shown: a.min(b) })
        });
        let coverage =
            (any::<[u32; 2]>(), any::<[u64; 2]>(), proof).prop_map(|(p, us, proof)| ToolCoverage {
                processes_expected: p[0],
                processes_seen: p[1],
                backend_us: us[0],
                backend_us_seen: us[1],
                proof,
            });
        let gap = (0..MAX, 1..MAX, "\\PC{0,20}").prop_map(|(first_tick, ticks, cause)| Gap {
            first_tick,
            ticks,
            cause,
        });
        prop_oneof![
            appeared.prop_map(Body::ProcessAppeared).boxed(),
            any::<u32>().prop_map(Body::ProcessEnded).boxed(),
            samples().prop_map(Body::Samples).boxed(),
            phase.prop_map(Body::PhaseStarted).boxed(),
            phase_ended.prop_map(Body::PhaseEnded).boxed(),
            at_rest().prop_map(Body::AtRest).boxed(),
            check.prop_map(Body::Check).boxed(),
            leak_check().prop_map(Body::LeakCheck).boxed(),
            errors.prop_map(Body::MemcheckErrors).boxed(),
            site_digest().prop_map(Body::SiteDigest).boxed(),
            coverage.prop_map(Body::Coverage).boxed(),
            gap.prop_map(Body::Gap).boxed(),
            ended().prop_map(Body::Ended).boxed(),
            capture().prop_map(Body::Capture).boxed(),
        ]
    };
    strategy.boxed()
}

fn frame() -> BoxedStrategy<Frame> {
    let strategy = {
        let elapsed = any::<u64>().prop_map(Duration::from_micros);
        prop_oneof![
            (elapsed.clone(), started()).prop_map(|(elapsed, started)| Frame {
                sequence: 1,
                elapsed,
                body: Body::Started(started)
            }),
            (1..=u64::MAX, elapsed, body()).prop_map(|(sequence, elapsed, body)| Frame {
                sequence,
                elapsed,
                body
            }),
        ]
    };
    strategy.boxed()
}

fn hello() -> BoxedStrategy<Hello> {
    let strategy = {
        let found = (tool(), word()).prop_map(|(tool, version)| ToolFound { tool, version });
        let postgres = (10_u32..=99, word(), "/[a-z/]{1,20}").prop_map(|(major, version, path)| {
            PostgresFound { major, version, pg_config: path.into() }
        });
        let built = ("[a-z_]{1,9}", "[0-9.]{0,5}[0-9]", 10_u32..=99).prop_filter_map(
            "a release",
            |(name, release, postgres_major)| {
                let build: BuildRef = format!("{name}@{release}").parse().ok()?;
                Some(BuildFound { build, postgres_major })
            },
        );
        let held = (lease(), any::<u64>(), any::<bool>()).prop_map(
            |(lease, last_sequence, is_running)| HeldJob { lease, last_sequence, is_running },
        );
        let capabilities = (
            (1..=u32::MAX, 1..=u32::MAX, any::<u64>(), word(), word()),
            vec(found, 0..4),
            vec(postgres, 0..4),
            vec(built, 0..4),
            btree_map(word(), word(), 0..4),
        )
            .prop_map(|(n, tools, postgres, builds, labels)| Capabilities {
                slots: n.0,
                cores: n.1,
                memory_bytes: n.2,
                kernel: n.3,
                tools,
                postgres,
                builds,
                labels,
                host: n.4,
            });
        (any::<[u8; 16]>(), word(), any::<u32>(), word(), capabilities, vec(held, 0..4)).prop_map(
            |(id, name, protocol, version, capabilities, held)| Hello {
                agent: AgentId::from_bytes(id),
                name,
                protocol,
                version,
                capabilities,
                held,
            },
        )
    };
    strategy.boxed()
}

fn agent_message() -> BoxedStrategy<AgentMessage> {
    let strategy = {
        let stage = prop_oneof![
            Just(JobStage::Preparing),
            Just(JobStage::Running),
            Just(JobStage::Finishing),
            Just(JobStage::Ended)
        ];
        let progress =
            (lease(), stage, "\\PC{0,9}", any::<[u32; 2]>(), any::<[u64; 3]>(), 0.0_f64..=1.0)
                .prop_map(|(lease, stage, phase, rounds, n, done)| JobProgress {
                    lease,
                    stage,
                    phase,
                    round: rounds[0],
                    rounds: rounds[1],
                    operations: n[0],
                    done,
                    left_ms: n[1],
                    rss_anon_bytes: n[2],
                });
        let evidence =
            (lease(), 1_u64..1 << 60, vec(body(), 1..4)).prop_map(|(lease, first, bodies)| {
                let frames = (first..)
                    .zip(bodies)
                    .map(|(sequence, body)| Frame {
                        sequence,
                        elapsed: Duration::from_secs(1),
                        body,
                    })
                    .collect();
                EvidenceBatch { lease, frames, lost_up_to: first - 1 }
            });
        let chunk = (lease(), word(), 0_u64..1 << 40, vec(any::<u8>(), 0..50), 0_u64..99).prop_map(
            |(lease, name, offset, data, more)| {
                let total_bytes = offset + data.len() as u64 + more;
                ArtifactChunk {
                    lease,
                    name: format!("a{name}"),
                    offset,
                    data,
                    total_bytes,
                    sha256: "ab".repeat(32),
                }
            },
        );
        prop_oneof![
            hello().prop_map(AgentMessage::Hello),
            (any::<u64>(), vec(progress, 0..4)).prop_map(|(sent_at_unix_us, jobs)| {
                AgentMessage::Heartbeat(Heartbeat { sent_at_unix_us, jobs, busy: String::new() })
            }),
            evidence.prop_map(AgentMessage::Evidence),
            chunk.prop_map(AgentMessage::Artifact),
            lease().prop_map(AgentMessage::CancelAcknowledged),
            lease().prop_map(AgentMessage::Delivered),
            (lease(), "\\PC{0,30}").prop_map(|(lease, reason)| AgentMessage::AssignmentRefused(
                Refusal { lease, reason }
            )),
        ]
    };
    strategy.boxed()
}

fn coordinator_message() -> BoxedStrategy<CoordinatorMessage> {
    let strategy = {
        let high =
            || (lease(), any::<u64>()).prop_map(|(lease, sequence)| HighWater { lease, sequence });
        let refusal =
            || (lease(), "\\PC{0,30}").prop_map(|(lease, reason)| Refusal { lease, reason });
        let welcome = (word(), 100_u64..=60_000, any::<u32>(), vec(high(), 0..4)).prop_map(
            |(coordinator_version, every, ttl, high_water)| Welcome {
                coordinator_version,
                heartbeat_every: Duration::from_millis(every),
                lease_ttl: Duration::from_millis(ttl.into()),
                high_water,
            },
        );
        prop_oneof![
            welcome.prop_map(CoordinatorMessage::Welcome),
            any::<[u64; 2]>().prop_map(|n| CoordinatorMessage::HeartbeatAnswer(HeartbeatAnswer {
                sent_at_unix_us: n[0],
                answered_at_unix_us: n[1]
            })),
            (lease(), spec()).prop_map(|(mut lease, spec)| {
                lease.job = spec.job;
                CoordinatorMessage::Assignment(Assignment { lease, spec })
            }),
            high().prop_map(CoordinatorMessage::EvidenceAcknowledged),
            (lease(), word(), any::<u64>()).prop_map(|(lease, name, received_bytes)| {
                let name = format!("a{name}");
                CoordinatorMessage::ArtifactAcknowledged(ArtifactReceived {
                    lease,
                    name,
                    received_bytes,
                })
            }),
            refusal().prop_map(CoordinatorMessage::Cancel),
            refusal().prop_map(CoordinatorMessage::Conclude),
            lease().prop_map(CoordinatorMessage::Release),
            refusal().prop_map(CoordinatorMessage::LeaseRefused),
        ]
    };
    strategy.boxed()
}

/// Every conversion that reads, on the same bytes.
fn read_everything(bytes: &[u8]) {
    let _ = wire::AgentMessage::decode(bytes).map(AgentMessage::try_from);
    let _ = wire::CoordinatorMessage::decode(bytes).map(CoordinatorMessage::try_from);
    let _ = wire::Frame::decode(bytes).map(Frame::try_from);
    let _ = wire::JobSpec::decode(bytes).map(JobSpec::try_from);
    let _ = wire::SampleBatch::decode(bytes).map(Samples::try_from);
}

proptest! {
    #[test]
    fn a_frame_survives_the_wire(frame in frame()) {
        let bytes = wire::Frame::from(&frame).encode_to_vec();
        let back = wire::Frame::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(&back.encode_to_vec(), &bytes, "a repeat has the same bytes");
        prop_assert_eq!(Frame::try_from(back).unwrap(), frame);
    }

    #[test]
    fn what_an_agent_says_survives_the_wire(message in agent_message()) {
        let bytes = wire::AgentMessage::from(message.clone()).encode_to_vec();
        let back = wire::AgentMessage::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(AgentMessage::try_from(back).unwrap(), message);
    }

    #[test]
    fn what_a_coordinator_says_survives_the_wire(message in coordinator_message()) {
        let bytes = wire::CoordinatorMessage::from(message.clone()).encode_to_vec();
        let back = wire::CoordinatorMessage::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(CoordinatorMessage::try_from(back).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_a_panic(
        frame in frame(),
        message in agent_message(),
        answer in coordinator_message(),
        hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let messages = [
            wire::Frame::from(&frame).encode_to_vec(),
            wire::AgentMessage::from(message).encode_to_vec(),
            wire::CoordinatorMessage::from(answer).encode_to_vec(),
        ];
        for mut bytes in messages {
            for (at, byte) in &hits {
                let at = at.index(bytes.len().max(1));
                if let Some(hit) = bytes.get_mut(at) {
                    *hit = *byte;
                }
            }
            read_everything(&bytes);
        }
    }

    #[test]
    fn no_columns_make_a_panic(
        first_tick: u64,
        tick_deltas in vec(any::<i64>(), 0..4),
        elapsed_us in vec(any::<i64>(), 0..4),
        rss_anon_kib in vec(any::<i64>(), 0..4),
        threads in vec(any::<i64>(), 0..4),
        first_row: u32,
    ) {
        let process = wire::ProcessColumns { first_row, rss_anon_kib, threads, ..Default::default() };
        let host = wire::HostColumns { load_centi: elapsed_us.clone(), ..Default::default() };
        let batch = wire::SampleBatch {
            first_tick, tick_deltas, elapsed_us, processes: vec![process], host: Some(host),
        left_out: 0, };
        let _ = Samples::try_from(batch);
    }
}

fn problem<T: std::fmt::Debug>(result: Result<T, InvalidMessage>) -> String {
    result.unwrap_err().to_string()
}

fn a_batch() -> wire::SampleBatch {
    let process = wire::ProcessColumns {
        rss_anon_kib: vec![100, 4, -8],
        threads: vec![1, 0, 0],
        ..Default::default()
    };
    wire::SampleBatch {
        first_tick: 7,
        tick_deltas: vec![0, 1, 2],
        elapsed_us: vec![5_000_000, 1_000_000, 2_000_000],
        processes: vec![process],
        host: None,
        left_out: 0,
    }
}

#[test]
fn columns_are_sums_of_their_differences() {
    let samples = Samples::try_from(a_batch()).unwrap();
    assert_eq!(samples.ticks, [7, 8, 10]);
    assert_eq!(samples.elapsed_us, [5_000_000, 6_000_000, 8_000_000]);
    assert_eq!(samples.processes[0].rss_anon_kib, [100, 104, 96]);
    assert_eq!(samples.processes[0].swap_kib, []);
}

#[test]
fn a_column_of_another_length_is_refused() {
    let mut batch = a_batch();
    batch.processes[0].threads.pop();
    let said = problem(Samples::try_from(batch));
    assert_eq!(said, "processes[0].threads: has 2 values where 3 are due");
    let mut batch = a_batch();
    batch.host = Some(wire::HostColumns { operations: vec![1], ..Default::default() });
    let said = problem(Samples::try_from(batch));
    assert_eq!(said, "host.operations: has 1 values where 3 are due");
    let mut batch = a_batch();
    batch.elapsed_us.pop();
    assert!(problem(Samples::try_from(batch)).starts_with("elapsed_us: "));
}

#[test]
fn a_row_outside_the_batch_is_refused() {
    let mut batch = a_batch();
    batch.processes[0].first_row = 1;
    assert!(
        problem(Samples::try_from(batch)).starts_with("processes[0].first_row: 1 and 3 values")
    );
    let mut batch = a_batch();
    batch.processes[0].first_row = u32::MAX;
    assert!(Samples::try_from(batch).is_err());
}

#[test]
fn a_process_is_not_read_twice_in_a_row() {
    let mut batch = a_batch();
    batch.processes.push(batch.processes[0].clone());
    let said = problem(Samples::try_from(batch));
    assert_eq!(said, "processes[1].first_row: 0 was read before");
}

#[test]
fn values_out_of_range_are_refused() {
    for (deltas, at) in [(vec![-1, 0, 0], 0), (vec![i64::MAX, 1, 0], 1), (vec![5, i64::MIN, 0], 1)]
    {
        let mut batch = a_batch();
        batch.processes[0].rss_anon_kib = deltas;
        let said = problem(Samples::try_from(batch));
        assert_eq!(
            said,
            format!("processes[0].rss_anon_kib[{at}]: leaves the range of its values")
        );
    }
    let mut batch = a_batch();
    batch.first_tick = u64::MAX;
    assert_eq!(problem(Samples::try_from(batch)), "first_tick: is too large");
    let mut batch = a_batch();
    batch.tick_deltas = vec![0, 1, 0];
    assert_eq!(problem(Samples::try_from(batch)), "tick_deltas: does not rise");
}

#[test]
fn errors_name_the_path_of_the_field() {
    let spec = wire::JobSpec { job_id: "x".into(), scale: 1.0, ..Default::default() };
    let assignment = wire::Assignment {
        lease: Some(wire::Lease { job_id: JobId::issue().to_string(), attempt: 1, fence: 1 }),
        spec: Some(spec),
    };
    let message = wire::CoordinatorMessage {
        body: Some(wire::coordinator_message::Body::Assignment(assignment)),
    };
    let said = problem(CoordinatorMessage::try_from(message));
    assert_eq!(said, "assignment.spec.job_id: 'x' is not a job id");
    let said = problem(CoordinatorMessage::try_from(wire::CoordinatorMessage { body: None }));
    assert_eq!(said, "body: is missing");
}

#[test]
fn a_hole_in_a_batch_is_refused() {
    let frame = |sequence| wire::Frame {
        sequence,
        elapsed_us: 0,
        body: Some(wire::frame::Body::ProcessEnded(wire::ProcessEnded { process: 1 })),
    };
    let lease = Some(wire::Lease { job_id: JobId::issue().to_string(), attempt: 1, fence: 1 });
    for sequences in [vec![], vec![1, 3], vec![2, 2], vec![3, 2]] {
        let frames = sequences.iter().copied().map(frame).collect();
        let batch = wire::EvidenceBatch { lease: lease.clone(), frames, lost_up_to: 0 };
        assert!(problem(EvidenceBatch::try_from(batch)).starts_with("frames: "), "{sequences:?}");
    }
    let batch = wire::EvidenceBatch { lease, frames: vec![frame(2), frame(3)], lost_up_to: 1 };
    assert!(EvidenceBatch::try_from(batch).is_ok());
}

#[test]
fn an_artifact_cannot_leave_its_folder() {
    for name in ["", "..", ".", "a/b", "/etc/passwd", "a\0", &"x".repeat(201)] {
        let chunk = wire::ArtifactChunk {
            lease: Some(wire::Lease { job_id: JobId::issue().to_string(), attempt: 1, fence: 1 }),
            name: name.to_owned(),
            offset: 0,
            data: Vec::new(),
            total_bytes: 0,
            sha256: "0".repeat(64),
        };
        assert!(problem(ArtifactChunk::try_from(chunk)).starts_with("name: "), "{name:?}");
    }
}

#[test]
fn what_is_too_long_is_cut_where_it_is_written() {
    let check = CheckResult {
        phase: 0,
        round: 0,
        holds: false,
        sql: "SELECT".into(),
        answer: "é".repeat(MAX_ANSWER_BYTES),
    };
    let back = CheckResult::try_from(wire::CheckResult::from(&check)).unwrap();
    assert_eq!(back.answer.len(), MAX_ANSWER_BYTES);
    let ended = AttemptEnded {
        outcome: Outcome::Failed,
        reason: String::new(),
        server_log_tail: format!("{}PANIC: the end", "é".repeat(MAX_LOG_TAIL_BYTES)),
        ticks: 0,
        ticks_sampled: 0,
        sampler_cpu_us: 0,
        process_samples: 0,
        runner_cpu_us: 0,
        runner_peak_rss_bytes: 0,
        statement: String::new(),
        sqlstate: String::new(),
    };
    let back = AttemptEnded::try_from(wire::AttemptEnded::from(&ended)).unwrap();
    assert!(back.server_log_tail.len() <= MAX_LOG_TAIL_BYTES);
    assert!(back.server_log_tail.ends_with("PANIC: the end"), "the last bytes are kept");
}

#[test]
fn a_digest_of_sites_names_only_frames_and_marks_that_are_there() {
    let site = |stack: Vec<u32>, marked_bytes: Vec<u64>| wire::SiteDigest {
        tool: wire::Tool::Heaptrack.into(),
        frames: vec![wire::StackFrame::default()],
        marks: vec![wire::SiteMark::default()],
        sites: vec![wire::AllocationSite { stack, marked_bytes, ..Default::default() }],
        ..Default::default()
    };
    SiteDigest::try_from(site(vec![0, 0], vec![7])).unwrap();
    assert_eq!(
        problem(SiteDigest::try_from(site(vec![1], vec![7]))),
        "sites[0].stack: 1 is none of 1 frames"
    );
    assert_eq!(
        problem(SiteDigest::try_from(site(vec![0], vec![]))),
        "sites[0].marked_bytes: has 0 entries, not 1"
    );
    let plain = wire::SiteDigest { tool: wire::Tool::Plain.into(), ..Default::default() };
    assert_eq!(problem(SiteDigest::try_from(plain)), "tool: plain has no sites");
    let series = wire::SiteDigest { series_at: vec![1], ..site(vec![], vec![7]) };
    assert_eq!(problem(SiteDigest::try_from(series)), "series_bytes: has 0 entries, not 1");
    let many = wire::SiteDigest {
        sites: vec![wire::AllocationSite::default(); MAX_SITES + 1],
        ..Default::default()
    };
    assert!(SiteDigest::try_from(wire::SiteDigest { tool: 4, ..many }).is_err());
}

#[test]
fn frames_that_stacks_share_are_written_once() {
    let frame = StackFrame { function: "f".into(), ..StackFrame::default() };
    let site = AllocationSite { stack: vec![frame; 40], ..AllocationSite::default() };
    let digest = SiteDigest {
        process: 1,
        session: Some(0),
        tool: Tool::Heaptrack,
        allocations: 1,
        temporary: 0,
        peak_bytes: 1,
        peak_at: 0,
        end_bytes: 0,
        duration: 0,
        time_unit: "ms".into(),
        truncated: false,
        sites_in_all: 300,
        marks: Vec::new(),
        sites: vec![site; 300],
        series: Vec::new(),
    };
    let wire = wire::SiteDigest::from(&digest);
    assert_eq!((wire.frames.len(), wire.sites.len()), (1, MAX_SITES));
    assert_eq!(SiteDigest::try_from(wire).unwrap().sites, digest.sites[..MAX_SITES]);
}
