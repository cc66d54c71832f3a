//! What the tools' reports come to, once the server is gone: leak checks at exit, errors, allocation sites, coverage.
//!
//! Pure but for reading the reports. A report that cannot be read is missing from the coverage and fails nothing here:
//! the verdict judges by what was seen.

use crate::runner::instruments::Instruments;
use crate::runner::profiles::{MOST_OTHERS, profiles};
use crate::runner::record::Life;
use crate::sampler::{POSTMASTER, UNKNOWN};
use crate::tools::Tooling;
use pgsoak_analysis::valgrind::{DefinedFunctions, parse_log};
use pgsoak_proto::evidence::{
    Body, LeakCheck, LeakKind, LeakRecord, MemcheckErrors, MemcheckExit, ProcessAppeared,
    ProofOfLife, ToolCoverage,
};
use pgsoak_proto::job::Tool;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

/// Loss records of one process that serves no session: a handful is usual.
const MOST_EXIT_RECORDS: usize = 100;

/// The frames that end an attempt under `tooling`, all but the last. `now`: since the attempt started.
pub fn digests(
    tooling: &Tooling,
    instruments: Option<&Instruments>,
    lives: &BTreeMap<u32, Life>,
    now: Duration,
) -> Vec<Body> {
    let seen: BTreeSet<u32> = match tooling.seen() {
        Ok(pids) => pids.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the tool's reports");
            BTreeSet::new()
        }
    };
    let (fleeting, left_out) = fleeting(&seen, lives, now);
    let mut frames = Vec::new();
    for life in &fleeting {
        frames.push(Body::ProcessAppeared(life.who.clone()));
        frames.push(Body::ProcessEnded(life.who.process));
    }
    let lives: Vec<&Life> = lives.values().chain(&fleeting).collect();
    let mut reports_of_exit: BTreeSet<u32> = BTreeSet::new();
    if let (Some(memcheck), Some(instruments)) = (tooling.memcheck(), instruments) {
        let libraries = own_libraries(tooling);
        let defined = DefinedFunctions::of(libraries.iter().map(PathBuf::as_path));
        for life in lives.iter().filter(|life| seen.contains(&life.who.pid)) {
            match memcheck.log(life.who.pid) {
                Ok(text) => {
                    let (found, has_summary) = of_memcheck(&text, life, instruments, &defined);
                    frames.extend(found);
                    if has_summary {
                        reports_of_exit.insert(life.who.pid);
                    }
                }
                Err(error) => {
                    tracing::warn!(pid = life.who.pid, %error, "cannot read memcheck's log");
                }
            }
        }
    }
    let profiles = profiles(tooling, instruments, &lives);
    frames.extend(profiles.digests.into_iter().map(Body::SiteDigest));
    let is_seen = |life: &Life| match tooling.tool {
        Tool::Plain => true,
        Tool::Memcheck => seen.contains(&life.who.pid),
        Tool::Heaptrack | Tool::Massif => profiles.seen.contains(&life.who.pid),
    };
    // The postmaster is not profiled by heaptrack, on purpose: it starts in what it forks.
    let is_expected =
        |life: &Life| tooling.tool != Tool::Heaptrack || life.who.backend_type != POSTMASTER;
    let expected: Vec<&Life> = lives.iter().copied().filter(|life| is_expected(life)).collect();
    let mut coverage = coverage(&expected, is_seen, now);
    coverage.proof = (tooling.tool != Tool::Plain).then(|| {
        proof(&expected, |life| match tooling.tool {
            Tool::Plain => true,
            Tool::Memcheck => {
                instruments.is_some_and(|known| known.is_alive(life.who.pid))
                    || reports_of_exit.contains(&life.who.pid)
            }
            Tool::Heaptrack | Tool::Massif => profiles.alive.contains(&life.who.pid),
        })
    });
    coverage.processes_expected = coverage.processes_expected.saturating_add(left_out);
    frames.push(Body::Coverage(coverage));
    frames
}

/// Processes that came and went between two looks of the sampler and are known by the tool's reports alone: a short query's parallel workers.
/// And how many there are beyond [`MOST_OTHERS`].
fn fleeting(seen: &BTreeSet<u32>, lives: &BTreeMap<u32, Life>, now: Duration) -> (Vec<Life>, u32) {
    let known: BTreeSet<u32> = lives.values().map(|life| life.who.pid).collect();
    let first = lives.keys().last().map_or(0, |last| last.saturating_add(1));
    let mut pids = seen.difference(&known);
    let fleeting = pids.by_ref().take(MOST_OTHERS).zip(first..).map(|(&pid, process)| Life {
        who: ProcessAppeared {
            process,
            pid,
            start_time_ticks: 0,
            backend_type: UNKNOWN.to_owned(),
            session: None,
        },
        appeared_at: now,
        ended_at: Some(now),
    });
    let fleeting = fleeting.collect();
    (fleeting, u32::try_from(pids.count()).unwrap_or(u32::MAX))
}

/// The extension's libraries: what was copied into the private tree. What is installed is linked there.
fn own_libraries(tooling: &Tooling) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        tooling.folder.parent().map(|job| job.join("tree")).into_iter().collect();
    let mut libraries = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // Not followed: a link to a folder of the installation is no folder here.
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "so") {
                libraries.push(path);
            }
        }
    }
    libraries
}

/// The frames of a process's log, and whether it tells at its exit of blocks that were still reachable: every backend has some.
fn of_memcheck(
    text: &str,
    life: &Life,
    instruments: &Instruments,
    defined: &DefinedFunctions,
) -> (Vec<Body>, bool) {
    let mut log = parse_log(text, &instruments.map_of(life.who.pid));
    let leaks = log.leaks.iter_mut().map(|record| &mut record.stack);
    for stack in leaks.chain(log.errors.iter_mut().map(|error| &mut error.stack)) {
        defined.complete(stack);
    }
    let process = life.who.process;
    let mut frames = Vec::new();
    let lost = |record: &&LeakRecord| {
        life.who.session.is_none() && matches!(record.kind, LeakKind::Definite | LeakKind::Indirect)
    };
    // valgrind lists the largest last.
    let exit = MemcheckExit {
        process,
        records: log.leaks.iter().rev().filter(lost).take(MOST_EXIT_RECORDS).cloned().collect(),
        suppressions: log.suppressions,
    };
    if !exit.records.is_empty() || !exit.suppressions.is_empty() {
        frames.push(Body::MemcheckExit(exit));
    }
    let has_summary = log.summary.is_some_and(|summary| summary.reachable.bytes > 0);
    if let Some(session) = life.who.session
        && log.summary.is_some()
    {
        let place = instruments.last_place(life.who.pid);
        frames.push(Body::LeakCheck(LeakCheck {
            session,
            process,
            phase: place.map_or(0, |place| place.phase),
            round: place.map_or(0, |place| place.round),
            operations: place.map_or(0, |place| place.operations),
            records: log.leaks,
            at_exit: true,
            took_us: 0,
        }));
    }
    if !log.errors.is_empty() {
        frames.push(Body::MemcheckErrors(MemcheckErrors { process, errors: log.errors }));
    }
    (frames, has_summary)
}

/// Of how many sessions the tool shows something that must be there.
fn proof(lives: &[&Life], is_alive: impl Fn(&Life) -> bool) -> ProofOfLife {
    let mut proof = ProofOfLife::default();
    for life in lives.iter().filter(|life| life.who.session.is_some()) {
        proof.sessions = proof.sessions.saturating_add(1);
        proof.shown = proof.shown.saturating_add(u32::from(is_alive(life)));
    }
    proof
}

/// Under plain the sampler is all there is, and it saw every process that it speaks of.
fn coverage(lives: &[&Life], is_seen: impl Fn(&Life) -> bool, now: Duration) -> ToolCoverage {
    let mut coverage = ToolCoverage {
        processes_expected: u32::try_from(lives.len()).unwrap_or(u32::MAX),
        processes_seen: 0,
        backend_us: 0,
        backend_us_seen: 0,
        proof: None,
    };
    for life in lives {
        let lived = life.ended_at.unwrap_or(now).saturating_sub(life.appeared_at);
        let lived_us = match life.who.session {
            Some(_) => u64::try_from(lived.as_micros()).unwrap_or(u64::MAX),
            None => 0,
        };
        coverage.backend_us = coverage.backend_us.saturating_add(lived_us);
        if is_seen(life) {
            coverage.processes_seen = coverage.processes_seen.saturating_add(1);
            coverage.backend_us_seen = coverage.backend_us_seen.saturating_add(lived_us);
        }
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_known_by_a_report_alone_gets_a_number_of_its_own() {
        let lives = BTreeMap::from([life(0, None, 0, None), life(1, Some(0), 10, Some(40))]);
        let now = Duration::from_secs(1);
        let (found, left_out) = fleeting(&BTreeSet::from([7, 100, 101, 900]), &lives, now);
        let told: Vec<(u32, u32)> =
            found.iter().map(|life| (life.who.process, life.who.pid)).collect();
        assert_eq!(told, [(2, 7), (3, 900)]);
        assert!(found.iter().all(|life| life.who.session.is_none()));
        assert_eq!(left_out, 0);
        let many: BTreeSet<u32> = (1_000..2_000).collect();
        let (found, left_out) = fleeting(&many, &lives, now);
        assert_eq!((found.len(), left_out), (MOST_OTHERS, 500));
    }

    fn life(process: u32, session: Option<u32>, from: u64, to: Option<u64>) -> (u32, Life) {
        let who = ProcessAppeared {
            process,
            pid: 100 + process,
            start_time_ticks: 1,
            backend_type: "client backend".into(),
            session,
        };
        let at = Duration::from_micros;
        (process, Life { who, appeared_at: at(from), ended_at: to.map(at) })
    }

    #[test]
    fn proof_of_life_is_asked_of_sessions_alone() {
        let lives =
            [life(0, None, 0, None), life(1, Some(0), 10, Some(40)), life(2, Some(1), 20, None)];
        let lives: Vec<&Life> = lives.iter().map(|(_, life)| life).collect();
        let proof = proof(&lives, |life| life.who.process == 2);
        assert_eq!(proof, ProofOfLife { sessions: 2, shown: 1 });
    }

    #[test]
    fn coverage_counts_the_time_of_sessions_alone() {
        let lives =
            [life(0, None, 0, None), life(1, Some(0), 10, Some(40)), life(2, Some(1), 20, None)];
        let unseen = |life: &Life| life.who.process != 1;
        let lives: Vec<&Life> = lives.iter().map(|(_, life)| life).collect();
        let coverage = coverage(&lives, unseen, Duration::from_micros(100));
        assert_eq!(
            coverage,
            ToolCoverage {
                processes_expected: 3,
                processes_seen: 2,
                backend_us: 110,
                backend_us_seen: 80,
                proof: None,
            }
        );
    }
}
