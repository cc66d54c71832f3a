//! The fingerprint of a stack: the same for the same call path in every build, release, run and host, and under memcheck as under heaptrack.
//!
//! What counts is, frame by frame from the innermost, the module's name without its version and the demangled function. What does not: addresses,
//! lines, hashes, the numbers of closures, recursion into the same function, allocation functions at the innermost end (every tool
//! puts its own there), and what lies outside the server's main loop at the outermost (every major of PostgreSQL calls that differently).

use super::{is_allocator, normal_function};
use pgsoak_proto::evidence::StackFrame;
use std::borrow::Cow;

/// Frames that count, the innermost allocation functions apart; deeper ones are the statement's own way through the server.
pub const FINGERPRINT_DEPTH: usize = 32;

/// Functions in which a process of the server begins its work: the last that count.
const ENTRIES: [&str; 8] = [
    "PostgresMain",
    "StartBackgroundWorker",
    "BackgroundWorkerMain",
    "AutoVacWorkerMain",
    "AutoVacLauncherMain",
    "AuxiliaryProcessMain",
    "PostmasterMain",
    "main",
];

/// What of one frame counts. Made once for a frame that many stacks share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    line: String,
    is_allocator: bool,
    is_entry: bool,
}

// === impl Identity ===

impl Identity {
    /// Of one frame.
    pub fn of(frame: &StackFrame) -> Self {
        let function = match frame.function.as_str() {
            "" => "???".to_owned(),
            address if is_address(address) => "???".to_owned(),
            name => without_closure_numbers(&normal_function(name)).into_owned(),
        };
        Self {
            is_allocator: is_allocator(frame),
            is_entry: ENTRIES.contains(&function.as_str()),
            line: format!("{function} ({})\n", without_version(&frame.module)),
        }
    }
}

/// 16 hex digits that name a stack, innermost frame first (FNV-1a, 64 bit: stable over versions of the compiler, unlike `std`'s hasher).
pub fn fingerprint(stack: &[StackFrame]) -> String {
    let known: Vec<Identity> = stack.iter().take(4 * FINGERPRINT_DEPTH).map(Identity::of).collect();
    fingerprint_of(known.iter())
}

/// As [`fingerprint`], of frames whose identity is known.
pub fn fingerprint_of<'a>(stack: impl Iterator<Item = &'a Identity> + Clone) -> String {
    let allocators = stack.clone().take_while(|frame| frame.is_allocator).count();
    let is_nothing_else = stack.clone().nth(allocators).is_none();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut before = None;
    let mut counted = 0;
    for frame in stack.skip(if is_nothing_else { 0 } else { allocators }) {
        if before == Some(&frame.line) {
            continue;
        }
        before = Some(&frame.line);
        for byte in frame.line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        counted += 1;
        if frame.is_entry || counted == FINGERPRINT_DEPTH {
            break;
        }
    }
    format!("{hash:016x}")
}

fn is_address(function: &str) -> bool {
    function
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `libc-2.36.so`, `libc.so.6` and `libc.so` are one library, as are `my_ext-1.2.so` and `my_ext.so`.
fn without_version(module: &str) -> String {
    let Some((name, _)) = module.split_once(".so") else { return module.to_owned() };
    let name = match name.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => name,
        _ => name,
    };
    format!("{name}.so")
}

/// `f::{closure#2}` (v0) and `f::{{closure}}` (legacy) are the same path; a closure's number moves with any other beside it.
fn without_closure_numbers(name: &str) -> Cow<'_, str> {
    if !name.contains("{closure#") && !name.contains("{{closure}}") {
        return Cow::Borrowed(name);
    }
    let mut short = String::with_capacity(name.len());
    let legacy = name.replace("{{closure}}", "{closure#}");
    let mut rest = legacy.as_str();
    while let Some((before, after)) = rest.split_once("{closure#") {
        short.push_str(before);
        short.push_str("{closure}");
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    short.push_str(rest);
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> StackFrame {
        StackFrame { function: function.into(), module: module.into(), ..StackFrame::default() }
    }

    /// As memcheck tells it of one build, and as heaptrack does of another build, release, server and host.
    #[test]
    fn a_rebuild_another_tool_and_another_major_change_nothing() {
        let mut first = vec![
            frame("malloc", "vgpreload_memcheck-amd64-linux.so"),
            frame("_ZN5alloc5alloc12alloc_helper17h0123456789abcdefE", "e-1.2.so"),
            frame("e::cache::insert::{{closure}}", "e-1.2.so"),
            frame("", "postgres"),
            frame("ExecProcNode.constprop.0", "postgres"),
            frame("PostgresMain", "postgres"),
            frame("BackendRun", "postgres"),
        ];
        first[1].line = 17;
        let second = [
            frame("alloc::alloc::alloc_helper::hfedcba9876543210", "e-1.3.so"),
            frame("e::cache::insert::{closure#3}", "e-1.3.so"),
            frame("e::cache::insert::{closure#4}", "e-1.3.so"),
            frame("0x55d0c0ffee", "postgres"),
            frame("0x55d0c0ff00", "postgres"),
            frame("ExecProcNode", "postgres"),
            frame("PostgresMain", "postgres"),
            frame("BackendMain", "postgres"),
            frame("__libc_start_main@@GLIBC_2.34", "libc.so.6"),
        ];
        assert_eq!(fingerprint(&first), fingerprint(&second));
    }

    #[test]
    fn another_function_or_module_is_another_stack() {
        let stack = |function: &str, module: &str| {
            fingerprint(&[frame("malloc", ""), frame(function, module), frame("main", "postgres")])
        };
        let one = stack("keep_block", "e.so");
        assert_eq!(one.len(), 16);
        assert_ne!(one, stack("lose_block", "e.so"));
        assert_ne!(one, stack("keep_block", "f.so"));
        assert_ne!(fingerprint(&[]), fingerprint(&[frame("malloc", "")]));
    }

    /// Fingerprints are stored and asked for over releases: they must never change by accident.
    #[test]
    fn a_fingerprint_is_for_ever() {
        let stack = [
            frame("malloc", "vgpreload_memcheck-amd64-linux.so"),
            frame("lose_block", "pgsoak_faults.so"),
            frame("faults_malloc_lost", "pgsoak_faults.so"),
            frame("ExecInterpExpr", "postgres"),
            frame("PostgresMain", "postgres"),
        ];
        assert_eq!(fingerprint(&stack), "c134ea668a244331");
    }

    #[test]
    fn versions_leave_the_names_of_libraries() {
        for (module, name) in [
            ("libc-2.36.so", "libc.so"),
            ("libc.so.6", "libc.so"),
            ("libstdc++.so.6.0.30", "libstdc++.so"),
            ("pg_tviews.so", "pg_tviews.so"),
            ("vgpreload_core-amd64-linux.so", "vgpreload_core-amd64-linux.so"),
            ("postgres", "postgres"),
            ("", ""),
        ] {
            assert_eq!(without_version(module), name);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_frame_breaks_it(names in proptest::collection::vec((".{0,60}", ".{0,30}"), 0..80)) {
            let stack: Vec<StackFrame> = names.iter().map(|(f, m)| frame(f, m)).collect();
            proptest::prop_assert_eq!(fingerprint(&stack).len(), 16);
        }
    }
}
