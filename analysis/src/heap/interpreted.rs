//! The records of heaptrack's files, interpreted (versions 1 to 3) and raw, to a digest.
//!
//! One record a line, numbers in lower-case hexadecimal, indexes from 1 with 0 for none (allocation indexes from 0):
//! `v VERSION FILEVERSION` · `x LEN EXE` · `X command` · `I pagesize pages` · `s LEN STRING` (version 3; before: `s STRING`) ·
//! `i IP MODULE [FUNC [FILE LINE (FUNC FILE LINE)*]]` · `m …` (raw) · `t IP PARENT` · `a SIZE TRACE` · `+ A`, `- A` (interpreted) ·
//! `+ SIZE TRACE PTR`, `- PTR` (raw) · `c MS` · `R PAGES` · `A` (attached: totals start again) · `S pattern` · `#` comment.

use crate::heap::digest::HeapDigest;
use crate::heap::gathered;
use crate::heap::lines::{Lines, Problem, Words};
use crate::heap::raw::{Blocks, Modules};
use crate::heap::series::Series;
use crate::heap::symbols::SymbolCache;
use crate::heap::tally::Tally;
use std::{collections::HashMap, io::Read};

/// Newest file version that is understood.
const NEWEST: u64 = 3;

/// Where an instruction lies, by indexes into strings; the innermost place first.
#[derive(Debug, Default)]
pub struct Instruction {
    pub address: u64,
    pub module: u32,
    pub places: Vec<(u32, u32, u32)>,
}

/// Everything but the counters.
#[derive(Debug, Default)]
pub struct Names {
    strings: Vec<String>,
    instructions: Vec<Instruction>,
    /// Instruction and parent, by trace from 1.
    traces: Vec<(u32, u32)>,
    modules: Modules,
    /// Raw files: instruction by module and offset.
    by_place: HashMap<(u32, u64), u32>,
    pub is_raw: bool,
}

/// What a reader wants beside the totals.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Offsets into the uncompressed text, rising: what is live when so many bytes were read is noted.
    pub marks: &'a [u64],
    /// Sites with their stacks; without them no symbol is looked up.
    pub sites: bool,
}

/// Reads all records.
pub fn digest<R: Read>(
    lines: &mut Lines<R>,
    wanted: Wanted<'_>,
    symbols: &mut SymbolCache,
) -> Result<HeapDigest, Problem> {
    let version = first_line(lines)?;
    let (mut tally, mut names, mut series) =
        (Tally::default(), Names::default(), Series::default());
    let mut blocks = Blocks::default();
    let mut digest = HeapDigest::default();
    let mut page_bytes = 4096;
    let mut problem = None;
    let mut marks = wanted.marks.iter().copied().peekable();
    loop {
        while marks.next_if(|mark| *mark <= lines.offset()).is_some() {
            digest.marked_bytes.push(u64::try_from(tally.total.live).unwrap_or(0));
            tally.mark();
        }
        if !names.is_raw {
            let until = marks.peek().copied().unwrap_or(u64::MAX);
            events(lines, &mut tally, &mut series, until);
        }
        let Some(line) = lines.next()? else { break };
        let (Some(kind), words) = (line.first(), Words::new(line.get(2..).unwrap_or_default()))
        else {
            continue;
        };
        let good = match kind {
            b'+' => allocated(&mut tally, &mut blocks, &mut names, words),
            b'-' if names.is_raw => freed_raw(&mut tally, &mut blocks, words),
            b'-' => freed(&mut tally, words),
            b'a' => info(&mut tally, &names, words),
            b't' => names.trace(words),
            b'i' => names.instruction(words),
            b's' => names.string(words, version),
            b'm' => {
                names.is_raw = true;
                names.modules.line(words)
            }
            b'x' => {
                names.is_raw = true;
                exe(&mut names.modules, words)
            }
            b'X' => {
                digest.command = String::from_utf8_lossy(words.rest()).into_owned();
                Some(())
            }
            b'I' => page_size(words).map(|bytes| page_bytes = bytes),
            b'c' => stamp(&mut tally, &mut series, words),
            b'R' => rss(words, page_bytes, &mut digest),
            b'A' => {
                tally.restart();
                series.clear();
                Some(())
            }
            // Suppressions, comments, and kinds that later versions may bring.
            _ => Some(()),
        };
        if good.is_none() {
            let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
            problem = Some(shown);
            break;
        }
        if matches!(kind, b'+' | b'-') {
            series.see(u64::try_from(tally.total.live).unwrap_or(0));
        }
    }
    if let Some(shown) = problem {
        // A damaged end is what a killed process leaves; damage in the middle is an error.
        if lines.next()?.is_some() {
            return Err(lines.malformed(format!("'{shown}' cannot be")));
        }
        lines.truncated = true;
    }
    let live = u64::try_from(tally.total.live).unwrap_or(0);
    for _ in marks {
        digest.marked_bytes.push(live);
        tally.mark();
    }
    series.stamp(tally.now_ms, live);
    digest.allocations = tally.total.allocations;
    digest.temporary = tally.total.temporary;
    digest.peak_bytes = u64::try_from(tally.peak).unwrap_or(0);
    digest.peak_ms = tally.peak_ms;
    digest.leaked_bytes = live;
    digest.duration_ms = tally.now_ms;
    digest.truncated = lines.truncated;
    digest.series = series.into_points();
    if wanted.sites {
        gathered::sites(&names, &tally.finish(), symbols, &mut digest);
    }
    Ok(digest)
}

/// Takes events as long as they come one after the other and are right; anything else is left to the way that takes any line.
fn events<R: Read>(lines: &mut Lines<R>, tally: &mut Tally, series: &mut Series, until: u64) {
    while lines.offset() < until {
        let Some((kind, index, length)) = lines.event() else { break };
        let good = if kind == b'+' { tally.allocated(index) } else { tally.freed(index) };
        if good.is_none() {
            break;
        }
        lines.take(length);
        series.see(u64::try_from(tally.total.live).unwrap_or(0));
    }
}

fn first_line<R: Read>(lines: &mut Lines<R>) -> Result<u64, Problem> {
    let line = lines.next()?.unwrap_or_default();
    let shown: String = String::from_utf8_lossy(line).chars().take(40).collect();
    let mut words = Words::new(line.strip_prefix(b"v ").ok_or_else(|| {
        Problem::NotHeaptrack(format!("it begins with '{shown}', not with 'v VERSION'"))
    })?);
    let version = words.hex().and_then(|_| words.hex());
    match version {
        Some(version @ 1..=NEWEST) => Ok(version),
        _ => Err(Problem::NotHeaptrack(format!(
            "'{shown}' names a file version that is not understood (1 to {NEWEST} are)"
        ))),
    }
}

#[inline]
fn allocated(
    tally: &mut Tally,
    blocks: &mut Blocks,
    names: &mut Names,
    mut words: Words<'_>,
) -> Option<()> {
    let first = words.hex()?;
    if words.is_empty() {
        return tally.allocated(u32::try_from(first).ok()?);
    }
    names.is_raw = true;
    let trace = names.known(words.index()?)?;
    let pointer = words.hex()?;
    let index = blocks.index(first, trace, || tally.info(first, trace));
    blocks.allocated(pointer, index);
    tally.allocated(index)
}

#[inline]
fn freed(tally: &mut Tally, mut words: Words<'_>) -> Option<()> {
    tally.freed(words.index()?)
}

#[inline]
fn freed_raw(tally: &mut Tally, blocks: &mut Blocks, mut words: Words<'_>) -> Option<()> {
    match blocks.freed(words.hex()?) {
        Some(index) => tally.freed(index),
        // Allocated before heaptrack saw the process.
        None => Some(()),
    }
}

fn info(tally: &mut Tally, names: &Names, mut words: Words<'_>) -> Option<()> {
    let bytes = words.hex()?;
    tally.info(bytes, names.known(words.index()?)?);
    Some(())
}

fn exe(modules: &mut Modules, mut words: Words<'_>) -> Option<()> {
    let length = words.hex()?;
    modules.exe = String::from_utf8_lossy(words.text(length)?).into_owned();
    Some(())
}

fn page_size(mut words: Words<'_>) -> Option<u64> {
    words.hex()
}

fn stamp(tally: &mut Tally, series: &mut Series, mut words: Words<'_>) -> Option<()> {
    tally.now_ms = words.hex()?;
    series.stamp(tally.now_ms, u64::try_from(tally.total.live).unwrap_or(0));
    Some(())
}

fn rss(mut words: Words<'_>, page_bytes: u64, digest: &mut HeapDigest) -> Option<()> {
    let bytes = words.hex()?.saturating_mul(page_bytes);
    digest.peak_rss_bytes = digest.peak_rss_bytes.max(bytes);
    Some(())
}

impl Names {
    fn string(&mut self, mut words: Words<'_>, version: u64) -> Option<()> {
        let text = if version >= 3 {
            let length = words.hex()?;
            words.text(length)?
        } else {
            words.rest()
        };
        self.strings.push(String::from_utf8_lossy(text).into_owned());
        Some(())
    }

    fn instruction(&mut self, mut words: Words<'_>) -> Option<()> {
        let mut instruction =
            Instruction { address: words.hex()?, module: words.index()?, places: Vec::new() };
        while let Some(function) = words.index() {
            let file = words.index().unwrap_or(0);
            let line = words.index().unwrap_or(0);
            instruction.places.push((function, file, line));
        }
        self.instructions.push(instruction);
        Some(())
    }

    fn trace(&mut self, mut words: Words<'_>) -> Option<()> {
        let at = words.hex()?;
        let parent = words.index()?;
        if usize::try_from(parent).ok()? > self.traces.len() {
            return None;
        }
        let instruction =
            if self.is_raw { self.instruction_at(at)? } else { u32::try_from(at).ok()? };
        self.traces.push((instruction, parent));
        Some(())
    }

    /// Raw files: the instruction at an address, as the modules lie now. Later modules may lie elsewhere.
    fn instruction_at(&mut self, address: u64) -> Option<u32> {
        let (module, offset) = self.modules.find(address);
        if let Some(known) = self.by_place.get(&(module, offset)) {
            return Some(*known);
        }
        self.instructions.push(Instruction { address: offset, module, places: Vec::new() });
        let number = u32::try_from(self.instructions.len()).ok()?;
        self.by_place.insert((module, offset), number);
        Some(number)
    }

    /// A string; empty: there is none of this number.
    pub fn text(&self, index: u32) -> &str {
        numbered(&self.strings, index).map_or("", String::as_str)
    }

    /// Path of a module; empty: not known.
    pub fn module(&self, index: u32) -> &str {
        if self.is_raw {
            numbered(&self.modules.paths, index).map_or("", String::as_str)
        } else {
            self.text(index)
        }
    }
}

impl Names {
    /// A trace that was told before; counters are kept for no other, so that a damaged number takes no memory. 0 is none and always known.
    #[inline]
    fn known(&self, trace: u32) -> Option<u32> {
        usize::try_from(trace).is_ok_and(|trace| trace <= self.traces.len()).then_some(trace)
    }

    /// Instruction and parent of a trace.
    pub fn trace_at(&self, trace: u32) -> Option<(u32, u32)> {
        numbered(&self.traces, trace).copied()
    }

    /// An instruction by its number.
    pub fn instruction_of(&self, number: u32) -> Option<&Instruction> {
        numbered(&self.instructions, number)
    }
}

/// The entry of a table whose indexes start at 1.
fn numbered<T>(table: &[T], index: u32) -> Option<&T> {
    table.get(usize::try_from(index).ok()?.checked_sub(1)?)
}
