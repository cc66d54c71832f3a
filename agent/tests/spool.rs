//! The spool from both ends: torn and damaged files, a reader that tails, release, recovery, full disks.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; a failure here is the report"
)]

use pgsoak_agent::spool::{
    AppendError, Batch, ReadSpoolError, SpoolLimits, SpoolReader, SpoolWriter, last_sequence,
};
use pgsoak_proto::evidence::{Body, CheckResult, Gap, Samples};
use pgsoak_proto::wire;
use pgsoak_proto::wire::frame;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn check(answer: &str) -> Body {
    Body::Check(CheckResult {
        phase: 0,
        round: 0,
        holds: true,
        sql: "SELECT true".into(),
        answer: answer.to_owned(),
    })
}

fn samples(ticks: &[u64]) -> Body {
    Body::Samples(Samples {
        ticks: ticks.to_vec(),
        elapsed_us: ticks.iter().map(|t| t * 1_000_000).collect(),
        processes: Vec::new(),
        ..Samples::default()
    })
}

fn answer(frame: &wire::Frame) -> &str {
    match &frame.body {
        Some(frame::Body::Check(check)) => &check.answer,
        other => panic!("not a check: {other:?}"),
    }
}

fn small_segments() -> SpoolLimits {
    SpoolLimits { segment_bytes: 400, ..SpoolLimits::default() }
}

/// A spool of `count` checks, closed.
fn filled(dir: &Path, count: usize, limits: SpoolLimits) {
    let writer = SpoolWriter::create(dir, limits).unwrap();
    for n in 1..=count {
        assert_eq!(writer.append(SECOND, check(&n.to_string())).unwrap(), n as u64);
    }
    writer.close().unwrap();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn sequences(batch: &Batch) -> Vec<u64> {
    batch.frames.iter().map(|frame| frame.sequence).collect()
}

fn read_all(reader: &mut SpoolReader) -> Vec<wire::Frame> {
    let mut frames = Vec::new();
    loop {
        let batch = reader.next_batch(1000).unwrap();
        if batch.frames.is_empty() {
            return frames;
        }
        frames.extend(batch.frames);
    }
}

#[test]
fn frames_come_back_in_order_from_any_place() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100, small_segments());
    assert!(segments(dir.path()).len() > 5);
    assert_eq!(last_sequence(dir.path()).unwrap(), 100);
    for after in [0, 1, 7, 50, 99, 100, 101, 500] {
        let frames = read_all(&mut SpoolReader::open(dir.path(), after));
        let expected: Vec<u64> = (after + 1..=100).collect();
        assert_eq!(frames.iter().map(|f| f.sequence).collect::<Vec<_>>(), expected);
        assert!(frames.iter().all(|f| answer(f) == f.sequence.to_string()));
    }
}

#[test]
fn a_batch_keeps_to_its_bytes_but_takes_one_frame_at_least() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20, SpoolLimits::default());
    let mut reader = SpoolReader::open(dir.path(), 0);
    assert_eq!(sequences(&reader.next_batch(1).unwrap()), [1]);
    let batch = reader.next_batch(150).unwrap();
    assert!(batch.bytes <= 150 && batch.frames.len() > 1, "{batch:?}");
    reader.seek(3);
    assert_eq!(reader.next_batch(1).unwrap().frames[0].sequence, 4);
}

#[test]
fn a_tail_torn_at_any_byte_is_waited_for_and_cut_by_recovery() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path(), 3, SpoolLimits::default());
    let path = segments(whole.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    // Where each entry ends.
    let mut ends = vec![0_usize];
    while *ends.last().unwrap() < bytes.len() {
        let at = *ends.last().unwrap();
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        ends.push(at + 8 + length as usize);
    }
    for cut in 0..=bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        let torn = dir.path().join(path.file_name().unwrap());
        fs::write(&torn, &bytes[..cut]).unwrap();
        let there = ends.iter().filter(|end| **end > 0 && **end <= cut).count() as u64;

        let mut reader = SpoolReader::open(dir.path(), 0);
        let batch = reader.next_batch(1 << 20).unwrap();
        assert_eq!(sequences(&batch), (1..=there).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(batch.is_torn, !ends.contains(&cut), "cut at {cut}");
        assert_eq!(last_sequence(dir.path()).unwrap(), there);

        let recovered = SpoolWriter::recover(dir.path(), SpoolLimits::default()).unwrap();
        assert_eq!(recovered.last.map_or(0, |frame| frame.sequence), there);
        assert_eq!(recovered.cut_bytes as usize, cut - ends[there as usize]);
        let next = recovered.writer.append(SECOND, check("after")).unwrap();
        recovered.writer.close().unwrap();
        assert_eq!(next, there + 1);
        // The reader that stood before the torn entry reads what is there now.
        let batch = reader.next_batch(1 << 20).unwrap();
        assert_eq!(sequences(&batch), [next], "cut at {cut}");
        assert_eq!(answer(&batch.frames[0]), "after");
    }
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path(), 3, SpoolLimits::default());
    let path = segments(whole.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        fs::write(dir.path().join(path.file_name().unwrap()), changed).unwrap();
        let mut reader = SpoolReader::open(dir.path(), 0);
        let mut read = Vec::new();
        let end = loop {
            match reader.next_batch(1) {
                Ok(batch) if batch.frames.is_empty() => break Ok(batch.is_torn),
                Ok(batch) => read.extend(batch.frames),
                Err(error) => break Err(error),
            }
        };
        assert!(read.len() < 3, "byte {at}: all three were read");
        for frame in &read {
            assert_eq!(answer(frame), frame.sequence.to_string(), "byte {at}");
        }
        match end {
            Ok(is_torn) => assert!(is_torn, "byte {at}: the end without a word"),
            Err(error @ ReadSpoolError::Damaged { .. }) => {
                let said = error.to_string();
                assert!(said.contains("00000000000000000001.seg is damaged at byte"), "{said}");
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn damage_in_an_old_segment_is_skipped_and_the_loss_is_known() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60, small_segments());
    let paths = segments(dir.path());
    let first_of =
        |path: &PathBuf| -> u64 { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let (second, third) = (first_of(&paths[1]), first_of(&paths[2]));
    let mut bytes = fs::read(&paths[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&paths[1], bytes).unwrap();

    let mut reader = SpoolReader::open(dir.path(), 0);
    let mut read = Vec::new();
    let error = loop {
        match reader.next_batch(200) {
            Ok(batch) => read.extend(sequences(&batch)),
            Err(error) => break error,
        }
    };
    let ReadSpoolError::Damaged { sequence, .. } = error else { panic!("{error}") };
    assert!(sequence > second && sequence < third);
    assert_eq!(read, (1..sequence).collect::<Vec<_>>());
    assert!(reader.skip_damage().unwrap());
    assert_eq!(reader.lost_up_to(), third - 1);
    let rest: Vec<u64> = read_all(&mut reader).iter().map(|f| f.sequence).collect();
    assert_eq!(rest, (third..=60).collect::<Vec<_>>());
    assert!(!reader.skip_damage().unwrap(), "nothing behind the end");
}

#[test]
fn a_missing_segment_is_damage_inside_and_a_known_loss_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60, small_segments());
    let paths = segments(dir.path());
    fs::remove_file(&paths[2]).unwrap();
    let mut reader = SpoolReader::open(dir.path(), 0);
    let error = loop {
        if let Err(error) = reader.next_batch(100) {
            break error;
        }
    };
    assert!(matches!(error, ReadSpoolError::Damaged { .. }));
    assert!(reader.skip_damage().unwrap());
    assert_eq!(read_all(&mut reader).last().unwrap().sequence, 60);

    fs::remove_file(&paths[0]).unwrap();
    let mut reader = SpoolReader::open(dir.path(), 0);
    let first = reader.next_batch(1).unwrap().frames[0].sequence;
    assert!(first > 1);
    assert_eq!(reader.lost_up_to(), first - 1);
}

#[test]
fn a_reader_follows_a_writer_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { segment_bytes: 2000, ..SpoolLimits::default() };
    let mut reader = SpoolReader::open(dir.path(), 0);
    assert!(reader.next_batch(1000).unwrap().frames.is_empty(), "nothing there yet");
    let writer = SpoolWriter::create(dir.path(), limits).unwrap();
    let appending: Vec<_> = (0..3)
        .map(|thread| {
            let writer = writer.clone();
            thread::spawn(move || {
                for n in 0..300 {
                    writer.append(SECOND, check(&format!("{thread} {n}"))).unwrap();
                    if n % 50 == 0 {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        })
        .collect();
    let started = Instant::now();
    let mut read: Vec<wire::Frame> = Vec::new();
    let mut removed = 0;
    while read.len() < 900 {
        assert!(started.elapsed() < Duration::from_secs(60), "only {} came", read.len());
        let batch = reader.next_batch(700).unwrap();
        read.extend(batch.frames);
        removed += reader.release(read.len() as u64, Duration::ZERO, Instant::now()).unwrap();
    }
    for handle in appending {
        handle.join().unwrap();
    }
    writer.close().unwrap();
    assert!(read.iter().zip(1..).all(|(frame, expected)| frame.sequence == expected));
    for thread in 0..3 {
        let prefix = format!("{thread} ");
        let own: Vec<&str> =
            read.iter().map(answer).filter(|answer| answer.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..300).map(|n| format!("{thread} {n}")).collect();
        assert_eq!(own, expected);
    }
    assert!(removed > 3);
    assert_eq!(last_sequence(dir.path()).unwrap(), 900);
}

#[test]
fn acknowledged_segments_go_after_their_grace_and_the_last_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40, small_segments());
    let all = segments(dir.path());
    let second: u64 = all[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut reader = SpoolReader::open(dir.path(), 0);
    let start = Instant::now();
    let grace = Duration::from_secs(600);
    assert_eq!(reader.release(second - 2, grace, start).unwrap(), 0);
    assert_eq!(reader.release(second - 2, grace, start + grace).unwrap(), 0, "one frame is not");
    assert_eq!(reader.release(second - 1, grace, start + grace).unwrap(), 0, "the grace begins");
    assert_eq!(reader.release(second - 1, grace, start + grace * 2).unwrap(), 1);
    assert_eq!(segments(dir.path()), all[1..]);
    reader.release(40, Duration::ZERO, start).unwrap();
    assert_eq!(segments(dir.path()), all[all.len() - 1..]);
    assert_eq!(last_sequence(dir.path()).unwrap(), 40, "the place in the stream is kept");
    let recovered = SpoolWriter::recover(dir.path(), small_segments()).unwrap();
    assert_eq!(recovered.writer.append(SECOND, check("")).unwrap(), 41);
}

#[test]
fn a_sync_that_is_asked_for_is_there_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { sync_every: Duration::from_secs(3600), ..SpoolLimits::default() };
    let writer = SpoolWriter::create(dir.path(), limits).unwrap();
    for n in 1..=5_u64 {
        writer.append(SECOND, check("x")).unwrap();
        writer.sync().unwrap();
        assert_eq!(last_sequence(dir.path()).unwrap(), n);
    }
    writer.close().unwrap();
    assert!(matches!(writer.append(SECOND, check("late")), Err(AppendError::Closed)));
}

#[test]
fn a_spool_is_not_started_over_another() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1, SpoolLimits::default());
    let error = SpoolWriter::create(dir.path(), SpoolLimits::default()).unwrap_err();
    assert!(error.to_string().starts_with("start a spool where there is one"), "{error}");
}

fn gaps(frames: &[wire::Frame]) -> Vec<Gap> {
    let of = |frame: &wire::Frame| match &frame.body {
        Some(frame::Body::Gap(gap)) => Some(Gap::try_from(gap.clone()).unwrap()),
        _ => None,
    };
    frames.iter().filter_map(of).collect()
}

#[test]
fn a_full_spool_leaves_samples_out_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        disk_bytes: 1000,
        segment_bytes: 400,
        sync_every: Duration::from_millis(10),
        ..SpoolLimits::default()
    };
    let writer = SpoolWriter::create(dir.path(), limits).unwrap();
    for n in 0..40 {
        writer.append(SECOND, check(&n.to_string())).unwrap();
    }
    writer.sync().unwrap();
    for tick in 0..10 {
        assert_eq!(writer.append(SECOND, samples(&[tick])).unwrap(), 40, "not numbered");
    }
    writer.append(SECOND, samples(&[20, 21])).unwrap();
    // Other frames have a reserve, and carry the gap in front of them.
    assert_eq!(writer.append(SECOND, check("still")).unwrap(), 43);
    // The daemon makes room.
    let mut reader = SpoolReader::open(dir.path(), 0);
    writer.sync().unwrap();
    let frames = read_all(&mut reader);
    reader.release(43, Duration::ZERO, Instant::now()).unwrap();
    writer.append(SECOND, check("counts again")).unwrap();
    writer.sync().unwrap();
    assert_eq!(writer.append(SECOND, samples(&[30])).unwrap(), 45);
    writer.close().unwrap();
    let cause = "spool full".to_owned();
    assert_eq!(
        gaps(&frames),
        [
            Gap { first_tick: 0, ticks: 10, cause: cause.clone() },
            Gap { first_tick: 20, ticks: 2, cause },
        ]
    );
    assert_eq!(read_all(&mut reader).len(), 2);
}

#[test]
fn a_spool_of_samples_that_is_full_thins_the_oldest_and_counts_what_it_takes_out() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        disk_bytes: 20_000,
        segment_bytes: 2_000,
        sync_every: Duration::from_millis(10),
        ..SpoolLimits::default()
    };
    let writer = SpoolWriter::create(dir.path(), limits).unwrap();
    let batch = |n: u64| -> Vec<u64> { (n * 20..(n + 1) * 20).collect() };
    writer.append(SECOND, samples(&batch(0))).unwrap();
    writer.sync().unwrap();
    // Has the first segment open while it is thinned.
    let mut early = SpoolReader::open(dir.path(), 0);
    assert_eq!(early.next_batch(1).unwrap().frames.len(), 1);
    let batches = 400;
    for n in 1..batches {
        assert_eq!(writer.append(SECOND, samples(&batch(n))).unwrap(), n + 1, "all are taken");
        writer.sync().unwrap();
    }
    writer.close().unwrap();
    let size: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < limits.disk_bytes + 2 * limits.segment_bytes, "{size} bytes");

    let frames = read_all(&mut SpoolReader::open(dir.path(), 0));
    let (mut ticks, mut left_out, mut thin) = (0, 0, Vec::new());
    for (frame, sequence) in frames.iter().zip(1..) {
        assert_eq!(frame.sequence, sequence);
        let Some(frame::Body::Samples(batch)) = &frame.body else { panic!("{frame:?}") };
        ticks += batch.tick_deltas.len() as u64;
        left_out += batch.left_out;
        thin.push(batch.left_out > 0);
    }
    assert_eq!(frames.len() as u64, batches, "no frame disappears");
    assert_eq!(ticks + left_out, batches * 20, "each tick is there or counted");
    assert!(thin[0] && !thin[thin.len() - 1], "the oldest are thin, the newest whole");
    assert!(thin.is_sorted_by(|a, b| a >= b), "oldest first");
    // What it had open it read to its end; then it goes on with what is there.
    let rest = read_all(&mut early);
    assert_eq!(rest.last().unwrap().sequence, batches);
    assert_eq!(rest.len() as u64 + 1, batches);
}

/// A file system of 1 MiB; `None` where the test may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_holds_frames_in_memory_until_there_is_room() {
    // Needs the right to mount; where it is missing, the limits are tested by the spool's own above.
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path().join("spool");
    let ballast = disk.0.path().join("ballast");
    let limits = SpoolLimits {
        segment_bytes: 64 << 10,
        memory_bytes: 200 << 10,
        reserve_bytes: 600 << 10,
        ..SpoolLimits::default()
    };
    let writer = SpoolWriter::create(&dir, limits).unwrap();
    writer.append(SECOND, check("first")).unwrap();
    writer.sync().unwrap();
    let filled = fs::write(&ballast, vec![1_u8; 2 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let long = "x".repeat(4000);
    for _ in 0..100 {
        writer.append(SECOND, check(&long)).unwrap();
    }
    assert!(writer.sync().is_err());
    assert!(writer.trouble().unwrap().contains("No space left"), "{:?}", writer.trouble());
    // Above the bound samples are left out, other frames are still taken, until the reserve is used up.
    assert_eq!(writer.append(SECOND, samples(&[5])).unwrap(), 101);
    let mut taken = 101;
    let error = loop {
        match writer.append(SECOND, check(&long)) {
            Ok(sequence) => taken = sequence,
            Err(error) => break error,
        }
        assert!(taken < 1000, "no bound");
    };
    assert!(matches!(error, AppendError::Full(_)), "{error}");
    // There is room again: everything that was taken comes to the disk, in order.
    fs::remove_file(&ballast).unwrap();
    writer.sync().unwrap();
    assert!(writer.trouble().is_none());
    writer.close().unwrap();
    let frames = read_all(&mut SpoolReader::open(&dir, 0));
    assert_eq!(frames.len() as u64, taken);
    assert!(frames.iter().zip(1..).all(|(frame, expected)| frame.sequence == expected));
    let missing = Gap { first_tick: 5, ticks: 1, cause: "spool cannot be written".into() };
    assert_eq!(gaps(&frames), [missing]);
}

#[test]
fn an_empty_segment_before_another_is_damage_and_no_endless_loop() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000000000000000001.seg"), b"").unwrap();
    fs::write(dir.path().join("00000000000000000009.seg"), b"").unwrap();
    let mut reader = SpoolReader::open(dir.path(), 0);
    assert!(reader.next_batch(1000).is_err());
    assert!(reader.skip_damage().unwrap());
    assert_eq!((reader.next_sequence(), reader.lost_up_to()), (9, 8));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        more in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000000000000000001.seg"), &bytes).unwrap();
        fs::write(dir.path().join("00000000000000000009.seg"), &more).unwrap();
        fs::write(dir.path().join("not a segment"), &more).unwrap();
        let mut reader = SpoolReader::open(dir.path(), 0);
        let _ = reader.next_batch(1000);
        let _ = reader.skip_damage();
        let _ = reader.next_batch(1000);
        let _ = last_sequence(dir.path());
        let recovered = SpoolWriter::recover(dir.path(), SpoolLimits::default()).unwrap();
        recovered.writer.append(SECOND, check("on")).unwrap();
        recovered.writer.close().unwrap();
    }
}
