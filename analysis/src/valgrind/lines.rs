//! The blocks of memcheck's text: leak records, errors, summaries.
//!
//! A block is a heading at the margin, indented frames, and an empty line. Notes between them (" Address 0x… is 2 bytes after a block of
//! size 10 alloc'd") are indented by one; the frames after a note belong to the note.

use crate::stack::demangle;
use crate::valgrind::{AddressMap, LeakSummary, LeakTotal, MOST_FRAMES};
use pgsoak_proto::evidence::{LeakKind, LeakRecord, StackFrame};

/// One block of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// A loss record.
    Leak(LeakRecord),
    /// An error with its stack; how often, where the text says so (the list at exit).
    Error {
        /// The heading.
        what: String,
        /// Innermost first.
        stack: Vec<StackFrame>,
        /// Of the list at exit; `None`: printed when it happened first.
        count: Option<u64>,
    },
    /// The five lines after `LEAK SUMMARY:`.
    Summary(LeakSummary),
    /// "All heap blocks were freed -- no leaks are possible".
    NoLeaks,
    /// A line at the margin that heads no frames.
    Line(String),
}

/// Splits the text into blocks; what is cut off at its end counts as far as it goes.
pub(crate) fn blocks(text: &str, modules: &AddressMap) -> Vec<Block> {
    let mut reader = Reader::new(modules);
    for line in text.lines() {
        if let Some(rest) = without_pid(line) {
            reader.take(rest);
        }
    }
    reader.close();
    reader.done
}

/// The process number of a line that carries one.
pub(crate) fn pid_of(line: &str) -> Option<u32> {
    let (pid, _) = line.strip_prefix("==")?.split_once("==")?;
    pid.parse().ok()
}

/// `==123== text` without its mark. Verbose lines (`--123--`) and vgdb's own words are none.
fn without_pid(line: &str) -> Option<&str> {
    let (pid, rest) = line.strip_prefix("==")?.split_once("==")?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// What a descriptor that is open at exit is called, whatever its number.
pub const OPEN_DESCRIPTOR: &str = "File descriptor left open";

/// `Open file descriptor 4: /dev/null`, `Open AF_INET socket 7: …`
fn is_descriptor(text: &str) -> bool {
    text.starts_with("Open file descriptor ")
        || (text.starts_with("Open AF_") && text.contains(" socket "))
}

enum Heading {
    None,
    Leak(LeakRecord),
    Text(String),
}

struct Reader<'a> {
    modules: &'a AddressMap,
    heading: Heading,
    stack: Vec<StackFrame>,
    /// Frames now belong to a note.
    in_note: bool,
    /// Of the list at exit, for the next error.
    count: Option<u64>,
    summary: Option<LeakSummary>,
    done: Vec<Block>,
}

impl<'a> Reader<'a> {
    fn new(modules: &'a AddressMap) -> Self {
        Self {
            modules,
            heading: Heading::None,
            stack: Vec::new(),
            in_note: false,
            count: None,
            summary: None,
            done: Vec::new(),
        }
    }

    fn take(&mut self, line: &str) {
        let text = line.trim();
        if text.is_empty() {
            self.close();
        } else if text.starts_with("at 0x") || text.starts_with("by 0x") {
            if !self.in_note && self.stack.len() < MOST_FRAMES {
                self.stack.extend(frame(text, self.modules));
            }
        } else if let Some(summary) = &mut self.summary {
            summary_line(text, summary);
        } else if line.starts_with(' ') {
            self.in_note = !self.stack.is_empty();
        } else {
            self.close();
            self.head(text);
        }
    }

    fn head(&mut self, text: &str) {
        if text == "LEAK SUMMARY:" {
            self.summary = Some(LeakSummary::default());
        } else if text.starts_with("All heap blocks were freed") {
            self.done.push(Block::NoLeaks);
        } else if let Some(record) = leak_heading(text) {
            self.heading = Heading::Leak(record);
        } else if let Some(count) = errors_in_context(text) {
            self.count = Some(count);
        } else if is_descriptor(text) {
            // Of one stack, whatever its number and file: they are counted.
            self.heading = Heading::Text(OPEN_DESCRIPTOR.to_owned());
        } else {
            self.heading = Heading::Text(text.to_owned());
        }
    }

    fn close(&mut self) {
        self.in_note = false;
        let stack = std::mem::take(&mut self.stack);
        if let Some(summary) = self.summary.take() {
            self.done.push(Block::Summary(summary));
        }
        match std::mem::replace(&mut self.heading, Heading::None) {
            Heading::None => {}
            // In the list at exit a loss is repeated as an error; it was read before.
            Heading::Leak(_) if self.count.take().is_some() => {}
            Heading::Leak(record) => self.done.push(Block::Leak(LeakRecord { stack, ..record })),
            Heading::Text(text) if stack.is_empty() => self.done.push(Block::Line(text)),
            Heading::Text(what) => {
                self.done.push(Block::Error { what, stack, count: self.count.take() });
            }
        }
    }
}

/// `at 0x48417B4: malloc (in /usr/…/lib.so)`, `by 0x1091BA: lose (waste.c:8)`, `by 0x1: ???`
fn frame(text: &str, modules: &AddressMap) -> Option<StackFrame> {
    let (address, rest) = text.get(5..)?.split_once(": ")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    Some(frame_at(address, rest, modules))
}

/// A frame from its address and valgrind's words for it, `lose (waste.c:8)` or `malloc (in /usr/…/lib.so)`.
pub(crate) fn frame_at(address: u64, rest: &str, modules: &AddressMap) -> StackFrame {
    let (name, place) = match rest.rsplit_once(" (") {
        Some((name, place)) if place.ends_with(')') => (name, place.strip_suffix(')')),
        _ => (rest, None),
    };
    let function = match name.trim() {
        "???" => String::new(),
        name => demangle(name),
    };
    let mut read = StackFrame { function, ..StackFrame::default() };
    match place {
        Some(place) if place.starts_with("in ") => {
            read.module =
                place.rsplit('/').next().unwrap_or(place).trim_start_matches("in ").to_owned();
        }
        Some(place) => {
            if let Some((file, line)) = place.rsplit_once(':')
                && let Ok(line) = line.parse()
            {
                read.file = file.to_owned();
                read.line = line;
            } else {
                // `below main`, `(anonymous)`: a part of the name.
                read.function =
                    if name.trim().is_empty() { place.to_owned() } else { demangle(rest.trim()) };
            }
        }
        None => {}
    }
    if read.module.is_empty() {
        read.module = modules.module_of(address).unwrap_or_default().to_owned();
    }
    if let Some(file) = modules.source_of(address, &read) {
        read.file = file;
    }
    read
}

/// `1,515 (+15) bytes in 2 (+1) blocks are definitely lost in loss record 1 of 7`, with `(A direct, B indirect)` after the bytes where blocks
/// are lost through these.
fn leak_heading(text: &str) -> Option<LeakRecord> {
    let (bytes, rest) = text.split_once(" bytes in ")?;
    let (blocks, rest) = rest.split_once(" blocks are ")?;
    let (kind, _) = rest.split_once(" in loss record ")?;
    let kind = match kind {
        "definitely lost" => LeakKind::Definite,
        "indirectly lost" => LeakKind::Indirect,
        "possibly lost" => LeakKind::Possible,
        "still reachable" => LeakKind::Reachable,
        _ => return None,
    };
    // The record's own bytes; those lost through it are records of their own.
    let own = match bytes.split_once(" direct,") {
        Some((before, _)) => match before.split_once(") (") {
            Some((_, direct)) => direct,
            None => before.split_once(" (")?.1,
        },
        None => bytes,
    };
    let (bytes, bytes_delta) = with_delta(own)?;
    let (blocks, blocks_delta) = with_delta(blocks)?;
    Some(LeakRecord { kind, bytes, blocks, bytes_delta, blocks_delta, stack: Vec::new() })
}

/// `N`, `N (+D)`, `N (-D)`.
fn with_delta(text: &str) -> Option<(u64, i64)> {
    match text.trim().split_once(" (") {
        Some((whole, delta)) => {
            let delta = delta.strip_suffix(')').unwrap_or(delta);
            let delta = match delta.strip_prefix('-') {
                Some(less) => -i64::try_from(number(less)?).ok()?,
                None => i64::try_from(number(delta.strip_prefix('+').unwrap_or(delta))?).ok()?,
            };
            Some((number(whole)?, delta))
        }
        None => Some((number(text)?, 0)),
    }
}

/// With thousands separators.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits: String = text.trim().chars().filter(|letter| *letter != ',').collect();
    digits.parse().ok()
}

/// `12 errors in context 3 of 5:`
fn errors_in_context(text: &str) -> Option<u64> {
    let (count, rest) = text.split_once(" errors in context ")?;
    rest.ends_with(':').then(|| number(count)).flatten()
}

/// `definitely lost: 82,000 (+82,000) bytes in 1,000 (+1,000) blocks`
fn summary_line(text: &str, summary: &mut LeakSummary) {
    let Some((kind, rest)) = text.split_once(": ") else { return };
    let Some((bytes, blocks)) = rest.split_once(" bytes in ") else { return };
    let Some(blocks) = blocks.strip_suffix(" blocks") else { return };
    let (Some((bytes, bytes_delta)), Some((blocks, blocks_delta))) =
        (with_delta(bytes), with_delta(blocks))
    else {
        return;
    };
    let total = LeakTotal { bytes, blocks, bytes_delta, blocks_delta };
    match kind {
        "definitely lost" => summary.definite = total,
        "indirectly lost" => summary.indirect = total,
        "possibly lost" => summary.possible = total,
        "still reachable" => summary.reachable = total,
        "suppressed" => summary.suppressed = total,
        _ => {}
    }
}
