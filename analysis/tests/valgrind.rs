//! The parser of memcheck's text on files that valgrind 3.19 wrote, whole, cut short and mangled.
//!
//! `waste.c` beside the files is the program that was checked: 500 calls of each function per round.

#![allow(clippy::panic, reason = "a missing record is the report")]

use pgsoak_analysis::result::Owner;
use pgsoak_analysis::stack::{ExtensionImage, owner};
use pgsoak_analysis::valgrind::{AddressMap, LeakTotal, parse_leak_check, parse_log};
use pgsoak_proto::evidence::{LeakKind, LeakRecord};
use proptest::prelude::*;

const MAPS: &str = include_str!("golden/valgrind/maps.txt");
const CHECKS: [&str; 3] = [
    include_str!("golden/valgrind/leak_check_0.txt"),
    include_str!("golden/valgrind/leak_check_1.txt"),
    include_str!("golden/valgrind/leak_check_2.txt"),
];
const PROCESS: &str = include_str!("golden/valgrind/process.log");
const WITH_LIST: &str = include_str!("golden/valgrind/with_list.log");

fn of<'a>(records: &'a [LeakRecord], function: &str, kind: LeakKind) -> &'a LeakRecord {
    records
        .iter()
        .find(|record| {
            record.kind == kind && record.stack.iter().any(|frame| frame.function == function)
        })
        .unwrap_or_else(|| panic!("{function} {kind:?}"))
}

#[test]
fn a_leak_check_gives_bytes_blocks_and_increases_by_stack() {
    let maps = AddressMap::from_maps(MAPS);
    let first = parse_leak_check(CHECKS[0], &maps);
    assert!(first.complete && first.records.is_empty());
    let second = parse_leak_check(CHECKS[1], &maps);
    assert!(second.complete);
    assert_eq!(second.records.len(), 7);
    let answer = parse_leak_check(CHECKS[2], &maps);
    assert!(answer.complete);
    let lost = of(&answer.records, "lose", LeakKind::Definite);
    assert_eq!(
        (lost.bytes, lost.blocks, lost.bytes_delta, lost.blocks_delta),
        (100_000, 1000, 50_000, 500)
    );
    let frame = &lost.stack[1];
    assert_eq!(
        (frame.function.as_str(), frame.module.as_str(), frame.file.as_str(), frame.line),
        ("lose", "waste", "waste.c", 8)
    );
    assert_eq!(lost.stack[0].module, "vgpreload_memcheck-amd64-linux.so");
    let kept = of(&answer.records, "keep", LeakKind::Reachable);
    assert_eq!((kept.bytes_delta, kept.blocks_delta), (100_000, 500));
    assert_eq!(of(&answer.records, "possibly", LeakKind::Possible).bytes_delta, 150_000);
    // 128,000 (64,000 direct, 64,000 indirect): the record's own bytes; the rest is the indirect record.
    let direct = of(&answer.records, "lose_tree", LeakKind::Definite);
    assert_eq!((direct.bytes, direct.bytes_delta, direct.blocks_delta), (64_000, 32_000, 500));
    assert_eq!(of(&answer.records, "lose_tree", LeakKind::Indirect).bytes, 64_000);
    assert_eq!(
        answer.summary.definite,
        LeakTotal { bytes: 164_000, blocks: 2000, bytes_delta: 82_000, blocks_delta: 1000 }
    );
    assert_eq!(answer.summary.of(LeakKind::Reachable).bytes_delta, 99_936);
}

#[test]
fn the_sum_of_the_records_is_the_summary() {
    let answer = parse_leak_check(CHECKS[1], &AddressMap::default());
    for kind in [LeakKind::Definite, LeakKind::Indirect, LeakKind::Possible, LeakKind::Reachable] {
        let sum: u64 = answer
            .records
            .iter()
            .filter(|record| record.kind == kind)
            .map(|record| record.bytes)
            .sum();
        assert_eq!(sum, answer.summary.of(kind).bytes, "{kind:?}");
    }
}

#[test]
fn frames_find_their_owner_through_the_address_map_only() {
    let image = ExtensionImage::new(["waste"]);
    let maps = AddressMap::from_maps(&MAPS.replace("/tmp/waste/waste", "/tree/lib/waste.so"));
    let known = parse_leak_check(CHECKS[2], &maps);
    assert_eq!(
        owner(&of(&known.records, "lose", LeakKind::Definite).stack, &image),
        Owner::Extension
    );
    let unknown = parse_leak_check(CHECKS[2], &AddressMap::default());
    let stack = &of(&unknown.records, "lose", LeakKind::Definite).stack;
    assert_eq!((stack[1].module.as_str(), owner(stack, &image)), ("", Owner::Unknown));
}

#[test]
fn a_process_log_gives_errors_leaks_and_its_end() {
    let log = parse_log(PROCESS, &AddressMap::from_maps(MAPS));
    assert_eq!((log.pid, log.parent_pid, log.command.as_str()), (28953, 28951, "./waste"));
    assert!(log.complete && log.signal.is_empty());
    let what: Vec<&str> = log.errors.iter().map(|error| error.what.as_str()).collect();
    assert_eq!(
        what,
        ["Invalid read of size 1", "Conditional jump or move depends on uninitialised value(s)"]
    );
    // The frames of "Address … is 2 bytes after a block … alloc'd" are not of the error.
    assert_eq!(log.errors[0].stack.len(), 2);
    assert_eq!(log.errors[0].stack[0].function, "bad_read");
    assert_eq!(log.leaks.len(), 5);
    assert_eq!(of(&log.leaks, "lose_tree", LeakKind::Definite).bytes, 64_000);
    assert_eq!(log.summary.map(|summary| summary.definite.bytes), Some(164_000));
}

#[test]
fn the_list_at_exit_counts_errors_and_does_not_double_them() {
    let log = parse_log(
        &WITH_LIST.replace("1 errors in context 2 of 5", "1,500 errors in context 2 of 5"),
        &AddressMap::default(),
    );
    let counts: Vec<(&str, u64)> =
        log.errors.iter().map(|error| (error.what.as_str(), error.count)).collect();
    assert_eq!(
        counts,
        [
            ("Invalid read of size 1", 1500),
            ("Conditional jump or move depends on uninitialised value(s)", 1)
        ]
    );
}

#[test]
fn a_killed_process_and_a_crash_are_told() {
    let until = PROCESS.find("HEAP SUMMARY").unwrap();
    let killed = parse_log(&PROCESS[..until], &AddressMap::default());
    assert!(!killed.complete && killed.summary.is_none() && killed.errors.len() == 2);
    let crash = "\
==9== Command: postgres -D data
==9== Parent PID: 8
==9== 
==9== Process terminating with default action of signal 11 (SIGSEGV)
==9==  Access not within mapped region at address 0x0
==9==    at 0x5000100: crash_here (hx.c:9)
==9==    by 0x3E8A: ExecInterpExpr (in /usr/lib/postgresql/15/bin/postgres)
==9==  If you believe this happened as a result of a stack
==9==  overflow in your program's main thread (unlikely but
==9==    by 0x0: of a note (x.c:1)
";
    let log = parse_log(crash, &AddressMap::default());
    assert_eq!(log.signal, "signal 11 (SIGSEGV)");
    assert_eq!(log.errors[0].stack.len(), 2);
    assert_eq!(log.errors[0].stack[1].module, "postgres");
}

#[test]
fn rust_names_are_demangled_and_names_with_brackets_keep_them() {
    let text = "\
==9== 100 (+100) bytes in 1 (+1) blocks are definitely lost in loss record 1 of 1
==9==    at 0x1: alloc::alloc::alloc (alloc.rs:95)
==9==    by 0x2: <pg_x::Queue as core::ops::drop::Drop>::drop (queue.rs:12)
==9==    by 0x3: _RNvCs6DXkGYLi8lr_9pg_tviews7refresh (in /x/pg_tviews.so)
==9==    by 0x4: operator new(unsigned long) (new_op.cc:50)
==9==    by 0x5: ???
==9==    by 0x6: (below main) (libc_start_call_main.h:58)
";
    let answer = parse_leak_check(text, &AddressMap::default());
    assert!(!answer.complete);
    let functions: Vec<&str> =
        answer.records[0].stack.iter().map(|frame| frame.function.as_str()).collect();
    assert_eq!(
        functions,
        [
            "alloc::alloc::alloc",
            "<pg_x::Queue as core::ops::drop::Drop>::drop",
            "pg_tviews::refresh",
            "operator new(unsigned long)",
            "",
            "(below main)"
        ]
    );
}

proptest! {
    #[test]
    fn any_cut_gives_what_is_there(cut in 0..CHECKS[2].len()) {
        let whole = parse_leak_check(CHECKS[2], &AddressMap::default());
        let Some(text) = CHECKS[2].get(..cut) else { return Ok(()) };
        let part = parse_leak_check(text, &AddressMap::default());
        prop_assert!(part.records.len() <= whole.records.len());
        for (a, b) in part.records.iter().zip(&whole.records) {
            prop_assert!(a.stack.len() <= b.stack.len());
        }
    }

    #[test]
    fn no_text_breaks_it(text in "(==[0-9]{0,3}==|[ -~]|\n){0,400}", from in 0..4000_usize, byte: char) {
        let maps = AddressMap::from_maps(MAPS);
        let _ = (parse_leak_check(&text, &maps), parse_log(&text, &maps));
        let mut mangled: Vec<char> = PROCESS.chars().collect();
        let at = from % mangled.len();
        mangled[at] = byte;
        let mangled: String = mangled.into_iter().collect();
        let _ = parse_log(&mangled, &maps);
    }
}
