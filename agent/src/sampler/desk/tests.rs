//! Ticks over scripted processes.

use super::*;
use crate::probe::{ProcessSample, Script, ScriptedProbe};
use pgsoak_proto::evidence::{ProcessAppeared, Samples};
use std::sync::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Frames handed on so far.
type Frames = Arc<Mutex<Vec<Body>>>;

fn script(start_time_ticks: u64, kib: &[u64]) -> Script {
    let reading = |&kib: &u64| Ok(ProcessSample { rss_anon_kib: kib, ..ProcessSample::default() });
    Script { start_time_ticks, readings: kib.iter().map(reading).collect(), ..Script::default() }
}

fn open(probe: &ScriptedProbe, pss_share: f64) -> (Desk<ScriptedProbe, impl Append>, Frames) {
    let frames = Frames::default();
    let kept = Arc::clone(&frames);
    let append = move |_, body: &Body| {
        kept.lock().unwrap().push(body.clone());
        Ok(())
    };
    let config =
        SamplerConfig { pss_share, ..SamplerConfig::new(1, std::time::Instant::now(), SECOND) };
    let operations = Arc::new(AtomicU64::new(7));
    (Desk::open(probe.clone(), &config, append, operations).unwrap(), frames)
}

fn tick<A: Append>(desk: &mut Desk<ScriptedProbe, A>, tick: u32) {
    desk.tick(tick.into(), SECOND * tick, SECOND);
}

fn samples(frames: &Frames) -> Vec<Samples> {
    let frames = frames.lock().unwrap();
    frames
        .iter()
        .filter_map(|body| match body {
            Body::Samples(samples) => Some(samples.clone()),
            _ => None,
        })
        .collect()
}

/// All that is told of processes, in order: number and pid of who appeared, number of who ended.
fn told(frames: &Frames) -> Vec<String> {
    let frames = frames.lock().unwrap();
    frames
        .iter()
        .filter_map(|body| match body {
            Body::ProcessAppeared(ProcessAppeared {
                process, pid, backend_type, session, ..
            }) => {
                let session =
                    session.map_or(String::new(), |session| format!(" session {session}"));
                Some(format!("{process} is {pid} {backend_type}{session}"))
            }
            Body::ProcessEnded(process) => Some(format!("{process} ended")),
            Body::Samples(samples) => {
                let numbers: Vec<_> =
                    samples.processes.iter().map(|columns| columns.process).collect();
                Some(format!("samples of {numbers:?}"))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_child_is_sampled_in_the_tick_that_finds_it_and_told_gone_after_its_last_samples() {
    let probe = ScriptedProbe::default();
    probe.set(1, Script { children: vec![20], ..script(5, &[100; 9]) });
    probe.set(20, script(9, &[10, 11]));
    let (mut desk, frames) = open(&probe, 0.0);
    for number in 0..3 {
        tick(&mut desk, number);
    }
    let expected = [
        "0 is 1 postmaster",
        "1 is 20 unknown",
        "samples of [0, 1]",
        "samples of [0, 1]",
        "samples of [0]",
        "1 ended",
    ];
    assert_eq!(told(&frames), expected);
    assert_eq!(samples(&frames)[1].processes[1].rss_anon_kib, [11]);
    assert_eq!(samples(&frames)[0].host.operations, [7]);
    assert_eq!(desk.stats(3).process_samples, 5);
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let probe = ScriptedProbe::default();
    probe.set(1, Script { children: vec![20], ..script(5, &[100; 9]) });
    probe.set(20, script(9, &[10]));
    let (mut desk, frames) = open(&probe, 0.0);
    tick(&mut desk, 0);
    probe.set(20, script(77, &[500, 501]));
    tick(&mut desk, 1);
    let told = told(&frames);
    assert_eq!(told[3..], ["2 is 20 unknown", "samples of [0, 2]", "1 ended"], "{told:?}");
    // The second life starts with its own number and peak.
    let use_of = desk.use_of(20).unwrap();
    assert_eq!((use_of.process, use_of.peak_anonymous_bytes), (2, 500 << 10));
}

#[test]
fn a_process_that_has_ended_and_is_still_listed_is_not_another_one() {
    let probe = ScriptedProbe::default();
    probe.set(1, Script { children: vec![20], ..script(5, &[100; 9]) });
    probe.set(20, Script { lingers: true, ..script(9, &[10]) });
    let (mut desk, frames) = open(&probe, 0.0);
    for number in 0..4 {
        tick(&mut desk, number);
    }
    let told = told(&frames);
    let of_it: Vec<&String> = told.iter().filter(|text| !text.starts_with("samples")).collect();
    assert_eq!(of_it, ["0 is 1 postmaster", "1 is 20 unknown", "1 ended"], "{told:?}");
    assert_eq!(desk.use_of(20).unwrap().peak_anonymous_bytes, 10 << 10);
}

#[test]
fn grandchildren_are_found_in_turn() {
    let probe = ScriptedProbe::default();
    probe.set(1, Script { children: vec![20, 21], ..script(5, &[100; 9]) });
    probe.set(20, script(6, &[1; 9]));
    probe.set(21, Script { children: vec![30], ..script(7, &[1; 9]) });
    probe.set(30, script(8, &[1; 9]));
    let (mut desk, frames) = open(&probe, 0.0);
    for number in 0..4 {
        tick(&mut desk, number);
    }
    assert!(told(&frames).contains(&"3 is 30 unknown".to_owned()), "{:?}", told(&frames));
}

#[test]
fn a_number_is_there_before_the_next_tick_and_its_appearance_was_handed_on() {
    let probe = ScriptedProbe::default();
    probe.set(1, Script { children: vec![20], ..script(5, &[100; 9]) });
    probe.set(20, script(9, &[10; 9]));
    let (mut desk, frames) = open(&probe, 0.0);
    assert_eq!(desk.number_of(20, SECOND), Some(1));
    assert_eq!(told(&frames), ["0 is 1 postmaster", "1 is 20 unknown"]);
    assert_eq!(desk.number_of(20, SECOND), Some(1));
    assert_eq!(desk.number_of(999, SECOND), None);
    // The same pid in another life is asked for before any tick saw the first one end.
    probe.set(20, script(50, &[10; 9]));
    assert_eq!(desk.number_of(20, SECOND), Some(2));
}

#[test]
fn what_a_process_is_is_told_once() {
    let probe = ScriptedProbe::default();
    probe.set(1, script(5, &[100; 9]));
    probe.set(20, script(9, &[10; 9]));
    let (mut desk, frames) = open(&probe, 0.0);
    desk.identify(20, "client backend", Some(2), SECOND);
    desk.identify(20, "client backend", Some(2), SECOND);
    desk.identify(20, "client backend", Some(3), SECOND);
    desk.identify(404, "walwriter", None, SECOND);
    let expected = [
        "0 is 1 postmaster",
        "1 is 20 client backend session 2",
        "1 is 20 client backend session 3",
    ];
    assert_eq!(told(&frames), expected);
}

#[test]
fn a_reading_that_fails_leaves_a_hole_and_the_process_in() {
    let probe = ScriptedProbe::default();
    probe.set(1, script(5, &[100, 101, 102, 103]));
    probe.change(1, |script| script.readings[1] = Err(io::ErrorKind::PermissionDenied));
    let (mut desk, frames) = open(&probe, 0.0);
    // All in one batch.
    for number in 0..3 {
        desk.tick(number, Duration::from_millis(number * 10), Duration::from_millis(10));
    }
    desk.seal(SECOND);
    let samples = samples(&frames);
    let columns: Vec<_> = samples[0]
        .processes
        .iter()
        .map(|p| (p.process, p.first_row, p.rss_anon_kib.clone()))
        .collect();
    assert_eq!(columns, [(0, 0, vec![100]), (0, 2, vec![102])]);
    let stats = desk.stats(3);
    assert_eq!((stats.ticks_sampled, stats.process_samples, stats.failed_readings), (3, 2, 1));
}

#[test]
fn rows_wait_for_their_batch_a_second_at_most() {
    let probe = ScriptedProbe::default();
    probe.set(1, script(5, &[100; 100]));
    let (mut desk, frames) = open(&probe, 0.0);
    let every = Duration::from_millis(100);
    for number in 0..25_u32 {
        desk.tick(number.into(), every * number, every);
    }
    let rows: Vec<_> = samples(&frames).iter().map(|samples| samples.ticks.len()).collect();
    assert_eq!(rows, [10, 10]);
}

#[test]
fn peaks_are_of_ticks_and_can_be_forgotten() {
    let probe = ScriptedProbe::default();
    probe.set(1, script(5, &[100, 900, 300, 400]));
    let (mut desk, _) = open(&probe, 0.0);
    let peak = |desk: &Desk<ScriptedProbe, _>| desk.use_of(1).unwrap().peak_anonymous_bytes >> 10;
    for number in 0..3 {
        tick(&mut desk, number);
    }
    assert_eq!(peak(&desk), 900);
    desk.reset_peaks();
    assert_eq!(peak(&desk), 300);
    tick(&mut desk, 3);
    assert_eq!(peak(&desk), 400);
}

#[test]
fn pss_is_read_at_birth_one_process_a_tick() {
    let mut probe = ScriptedProbe::default();
    probe.host.available_kib = Some(9);
    probe.set(1, Script { children: vec![20], pss_anon_kib: Some(70), ..script(5, &[100; 99]) });
    probe.set(20, Script { pss_anon_kib: Some(8), ..script(6, &[10; 99]) });
    let (mut desk, frames) = open(&probe, 0.01);
    for number in 0..64 {
        tick(&mut desk, number);
    }
    let read: Vec<_> = samples(&frames)
        .iter()
        .enumerate()
        .flat_map(|(at, samples)| {
            samples
                .processes
                .iter()
                .filter(|p| !p.pss_anon_kib.is_empty())
                .map(move |p| (at, p.pss_anon_kib.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(read, [(0, vec![70]), (1, vec![8]), (60, vec![70]), (61, vec![8])]);
    assert_eq!(desk.stats(64).pss_readings, 4);
    assert_eq!(samples(&frames)[0].host.available_kib, [9]);
}

#[test]
fn a_server_that_has_gone_before_the_start_is_said_to_have() {
    let config = SamplerConfig::new(1, std::time::Instant::now(), SECOND);
    let append = |_: Duration, _: &Body| Ok(());
    let refused = Desk::open(ScriptedProbe::default(), &config, append, Arc::default());
    assert!(matches!(refused, Err(StartSamplerError::PostmasterGone(1))));
}
