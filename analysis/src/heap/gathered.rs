//! Counters by trace become sites by stack: names are looked up, and traces that read the same become one.
//!
//! Frames are made once and named by number; two that read the same are one, so that a rebuild which moves addresses changes nothing.

use crate::heap::digest::{HeapDigest, HeapSite};
use crate::heap::interpreted::Names;
use crate::heap::symbols::{Place, SymbolCache, demangled};
use crate::heap::tally::Tallied;
use crate::stack::{self, Identity, fingerprint_of};
use pgsoak_proto::evidence::StackFrame;
use std::collections::HashMap;

/// Frames of a stack that are kept; deeper recursion is cut.
const DEEPEST: usize = 256;

/// One frame, as it is told and as it is shown.
struct Known {
    shown: String,
    place: Place,
    module: u32,
}

/// What one stack did.
struct Sum {
    stack: Vec<u32>,
    allocations: u64,
    temporary: u64,
    peak: i64,
    live: i64,
    marks: Vec<i64>,
}

#[derive(Default)]
struct Frames {
    all: Vec<Known>,
    by_text: HashMap<String, u32>,
    /// By instruction.
    of_instruction: HashMap<u32, Vec<u32>>,
}

/// Puts sites and frames into the digest.
pub fn sites(names: &Names, tallied: &Tallied, symbols: &mut SymbolCache, digest: &mut HeapDigest) {
    let mut frames = Frames::default();
    let mut sums: Vec<Sum> = Vec::new();
    let mut by_stack: HashMap<Vec<u32>, usize> = HashMap::new();
    let marks = tallied.marks.len();
    let mut stack = Vec::new();
    for (trace, (cost, peak)) in tallied.costs.iter().enumerate() {
        if cost.allocations == 0 && cost.live == 0 {
            continue;
        }
        frames.stack(names, symbols, u32::try_from(trace).unwrap_or(0), &mut stack);
        let at = match by_stack.get(stack.as_slice()) {
            Some(at) => *at,
            None => {
                by_stack.insert(stack.clone(), sums.len());
                sums.push(Sum {
                    stack: stack.clone(),
                    allocations: 0,
                    temporary: 0,
                    peak: 0,
                    live: 0,
                    marks: vec![0; marks],
                });
                sums.len() - 1
            }
        };
        let Some(sum) = sums.get_mut(at) else { continue };
        sum.allocations += cost.allocations;
        sum.temporary += cost.temporary;
        sum.peak = sum.peak.wrapping_add(*peak);
        sum.live = sum.live.wrapping_add(cost.live);
        for (marked, mark) in sum.marks.iter_mut().zip(&tallied.marks) {
            *marked = marked.wrapping_add(mark.get(trace).copied().unwrap_or(0));
        }
    }
    digest.frames = frames.all.iter().map(|frame| frame.told(names)).collect();
    let identities: Vec<Identity> = digest.frames.iter().map(Identity::of).collect();
    let identity = |number: &u32| identities.get(usize::try_from(*number).ok()?);
    let count = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let mut sites: Vec<HeapSite> = sums
        .into_iter()
        .map(|sum| {
            let known = |number: &u32| frames.all.get(usize::try_from(*number).ok()?);
            let first = sum.stack.first().and_then(known);
            HeapSite {
                function: first.map(|frame| frame.place.function.clone()).unwrap_or_default(),
                module: first
                    .map(|frame| names.module(frame.module).to_owned())
                    .unwrap_or_default(),
                file: first.map(|frame| frame.place.file.clone()).unwrap_or_default(),
                line: first.map_or(0, |frame| frame.place.line),
                allocations: sum.allocations,
                peak_bytes: count(sum.peak),
                leaked_bytes: count(sum.live),
                temporary: sum.temporary,
                stack: sum.stack.iter().filter_map(known).map(|f| f.shown.clone()).collect(),
                marked_bytes: sum.marks.iter().copied().map(count).collect(),
                fingerprint: fingerprint_of(sum.stack.iter().filter_map(identity)),
                frames: sum.stack,
            }
        })
        .collect();
    sites.sort_by(|a, b| {
        (b.peak_bytes, b.allocations, &a.stack).cmp(&(a.peak_bytes, a.allocations, &b.stack))
    });
    digest.sites = sites;
}

impl Known {
    fn told(&self, names: &Names) -> StackFrame {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        StackFrame {
            function: self.place.function.clone(),
            module: base(names.module(self.module)),
            file: stack::short_file(&self.place.file),
            line: self.place.line,
        }
    }
}

impl Frames {
    /// The stack of a trace, innermost first, into `stack`.
    fn stack(
        &mut self,
        names: &Names,
        symbols: &mut SymbolCache,
        trace: u32,
        stack: &mut Vec<u32>,
    ) {
        stack.clear();
        let mut at = trace;
        while let Some((number, parent)) = names.trace_at(at) {
            if !self.of_instruction.contains_key(&number) {
                let found = self.of(names, symbols, number);
                self.of_instruction.insert(number, found);
            }
            stack.extend(self.of_instruction.get(&number).into_iter().flatten());
            // A parent always comes before its child, so this ends; recursion that is deeper than this is cut.
            if parent >= at || stack.len() >= DEEPEST {
                break;
            }
            at = parent;
        }
    }

    /// Frames of one instruction, innermost first.
    fn of(&mut self, names: &Names, symbols: &mut SymbolCache, number: u32) -> Vec<u32> {
        let Some(instruction) = names.instruction_of(number) else { return Vec::new() };
        let mut places: Vec<Place> = if names.is_raw && instruction.module > 0 {
            symbols.places(names.module(instruction.module), instruction.address)
        } else {
            let place = |(function, file, line): &(u32, u32, u32)| Place {
                function: demangled(names.text(*function)),
                file: names.text(*file).to_owned(),
                line: *line,
            };
            instruction.places.iter().map(place).collect()
        };
        if places.is_empty() {
            places.push(Place::default());
        }
        let mut numbers = Vec::with_capacity(places.len());
        for mut place in places {
            if place.function.is_empty() {
                place.function = format!("{:#x}", instruction.address);
            }
            let shown = shown(&place, names.module(instruction.module));
            let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
            let all = &mut self.all;
            let number = self.by_text.entry(shown).or_insert_with_key(|shown| {
                all.push(Known { shown: shown.clone(), place, module: instruction.module });
                next
            });
            numbers.push(*number);
        }
        numbers
    }
}

/// One line of a stack.
fn shown(place: &Place, module: &str) -> String {
    if place.file.is_empty() {
        let module = module.rsplit('/').next().unwrap_or_default();
        if module.is_empty() {
            place.function.clone()
        } else {
            format!("{} ({module})", place.function)
        }
    } else {
        let file = place.file.rsplit('/').next().unwrap_or_default();
        format!("{} ({file}:{})", place.function, place.line)
    }
}
