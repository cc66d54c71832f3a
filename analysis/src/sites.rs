//! heaptrack's and massif's digests: what grows by site between marks, and who holds most at the peak.
//!
//! heaptrack notes what is live at rest after rounds (marks). Per stack the increase from the first mark of a loop to its last is divided by
//! the operations between them, over the sessions that show the stack. What a backend frees when it ends would hide growth, so the end of a
//! file says nothing here. *In proportion* means: it grew in two thirds of the intervals between marks and in at least two, the last half grows by at
//! least 0.6 of the whole's pace, and no fall takes more than half of the growth away.
//!
//! | a frame is the extension's | the stack asks for a context's block | verdict |
//! | --- | --- | --- |
//! | yes | no | `fail` when in proportion and above 1 byte per operation |
//! | yes | yes | listed: contexts recycle their blocks, so whoever asked first stands there; the rounds judge contexts, and this names the stack |
//! | no | either | listed |

use crate::evidence::JobEvidence;
use crate::leaks::image;
use crate::result::{Holder, Holders, Owner};
use crate::stack::{
    ExtensionImage, allocates_in_contexts, fingerprint, is_allocator, normal_function,
    normal_stack, owner, telling_frame,
};
use crate::stats::bytes;
use pgsoak_proto::evidence::{AllocationSite, PhaseKind, SiteDigest, StackFrame};
use pgsoak_proto::job::Tool;
use std::collections::BTreeMap;

/// Growth above it fails, bytes per operation.
pub const THRESHOLD: f64 = 1.0;

/// Sites of one table of holders.
const HOLDERS: usize = 5;

/// Frames from the innermost in which a request for a context's block shows.
const CONTEXT_DEPTH: usize = 6;

/// Growth of one stack in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteGrowth {
    /// Of the normalised stack.
    pub fingerprint: String,
    /// Innermost first, normalised.
    pub stack: Vec<String>,
    /// The function to look at.
    pub function: String,
    /// Where it is, "file.c:12"; empty: not known.
    pub place: String,
    /// Whose.
    pub owner: Owner,
    /// From the first mark to the last.
    pub bytes_per_operation: f64,
    /// Smallest and largest interval.
    pub range: (f64, f64),
    /// Live at the last mark, over all sessions.
    pub live_bytes: u64,
    /// Intervals in which it grew, and all of the sessions that show it.
    pub grew_in: (usize, usize),
    /// Grows in proportion to the operations.
    pub proportional: bool,
    /// It asks for a block of a memory context.
    pub of_contexts: bool,
}

/// What heaptrack saw of a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseSites {
    /// The phase's name.
    pub phase: String,
    /// Intervals between marks that have operations in them, over all sessions.
    pub intervals: usize,
    /// Operations between the first and the last marks, over all sessions.
    pub operations: u64,
    /// Largest growth first; only what grew.
    pub sites: Vec<SiteGrowth>,
    /// Of the whole processes: everything that malloc gave out and did not get back.
    pub all_bytes_per_operation: f64,
    /// A session's file ends in the middle: what grew did so, what did not may have.
    pub truncated: bool,
}

impl PhaseSites {
    /// What fails by itself.
    pub fn failing(&self) -> impl Iterator<Item = &SiteGrowth> {
        self.sites.iter().filter(|site| {
            site.proportional
                && site.owner == Owner::Extension
                && !site.of_contexts
                && site.bytes_per_operation > THRESHOLD
        })
    }
}

/// One session's marks in a loop: indexes into the digest's, and the digest.
struct Marked<'a> {
    digest: &'a SiteDigest,
    at: Vec<usize>,
}

impl Marked<'_> {
    fn operations(&self, number: usize) -> u64 {
        let mark = self.at.get(number).and_then(|at| self.digest.marks.get(*at));
        mark.map_or(0, |mark| mark.operations)
    }

    fn between(&self) -> u64 {
        let last = self.operations(self.at.len().saturating_sub(1));
        last.saturating_sub(self.operations(0))
    }

    /// Operations and increase of each interval.
    fn intervals(&self, values: &[u64]) -> Vec<(f64, f64)> {
        let value = |number: usize| {
            let at = self.at.get(number).copied().unwrap_or(usize::MAX);
            bytes(values.get(at).copied().unwrap_or(0))
        };
        (1..self.at.len())
            .map(|number| {
                let operations =
                    self.operations(number).saturating_sub(self.operations(number - 1));
                (bytes(operations), value(number) - value(number - 1))
            })
            .filter(|(operations, _)| *operations > 0.0)
            .collect()
    }
}

/// Reads the marks of a job's digests, loop by loop.
pub fn sites(job: &JobEvidence) -> Vec<PhaseSites> {
    let image = image(job);
    let loops = job.attempt.phases.iter().filter(|span| span.started.kind == PhaseKind::Loop);
    loops
        .filter_map(|span| {
            let marked: Vec<Marked<'_>> = job
                .attempt
                .site_digests
                .iter()
                .filter(|digest| digest.tool == Tool::Heaptrack && digest.session.is_some())
                .map(|digest| {
                    let marks = digest.marks.iter().enumerate();
                    let of_phase = marks.filter(|(_, mark)| mark.phase == span.started.phase);
                    Marked { digest, at: of_phase.map(|(at, _)| at).collect() }
                })
                .filter(|marked| marked.between() > 0)
                .collect();
            (!marked.is_empty()).then(|| phase_sites(&span.started.name, &marked, &image))
        })
        .collect()
}

/// A stack in one session: its bytes at the digest's marks, and the first site that has it.
type Shown<'a> = (&'a Marked<'a>, Vec<u64>, &'a AllocationSite);

fn phase_sites(phase: &str, marked: &[Marked<'_>], image: &ExtensionImage) -> PhaseSites {
    let mut grown: BTreeMap<String, Vec<Shown<'_>>> = BTreeMap::new();
    let (mut intervals, mut operations, mut whole) = (0, 0_u64, 0.0);
    for of_session in marked {
        let live: Vec<u64> = of_session.digest.marks.iter().map(|mark| mark.live_bytes).collect();
        let of_whole = of_session.intervals(&live);
        intervals += of_whole.len();
        operations = operations.saturating_add(of_session.between());
        whole += of_whole.iter().map(|(_, increase)| increase).sum::<f64>();
        for site in &of_session.digest.sites {
            let shows = of_session.at.iter().any(|at| site.marked_bytes.get(*at) > Some(&0));
            if !shows {
                continue;
            }
            let known = grown.entry(fingerprint(&site.stack)).or_default();
            // Stacks that differ in lines alone are one.
            match known.last_mut() {
                Some((last, sums, _)) if std::ptr::eq(*last, of_session) => {
                    for (sum, more) in sums.iter_mut().zip(&site.marked_bytes) {
                        *sum = sum.saturating_add(*more);
                    }
                }
                _ => known.push((of_session, site.marked_bytes.clone(), site)),
            }
        }
    }
    let mut sites: Vec<SiteGrowth> = grown
        .into_iter()
        .filter_map(|(fingerprint, of_sessions)| site_growth(fingerprint, &of_sessions, image))
        .collect();
    sites.sort_by(|a, b| {
        b.bytes_per_operation
            .total_cmp(&a.bytes_per_operation)
            .then(a.fingerprint.cmp(&b.fingerprint))
    });
    PhaseSites {
        phase: phase.to_owned(),
        intervals,
        operations,
        sites,
        all_bytes_per_operation: if operations > 0 { whole / bytes(operations) } else { 0.0 },
        truncated: marked.iter().any(|of_session| of_session.digest.truncated),
    }
}

fn site_growth(
    fingerprint: String,
    of_sessions: &[Shown<'_>],
    image: &ExtensionImage,
) -> Option<SiteGrowth> {
    let stack = &of_sessions.first()?.2.stack;
    let mut all: Vec<(f64, f64)> = Vec::new();
    let (mut late, mut fall, mut live) = ((0.0, 0.0), 0.0_f64, 0_u64);
    for (marked, values, _) in of_sessions {
        let intervals = marked.intervals(values);
        let half = intervals.len() / 2;
        for (operations, increase) in intervals.iter().skip(half) {
            late = (late.0 + operations, late.1 + increase);
        }
        for (_, increase) in &intervals {
            fall = fall.max(-increase);
        }
        let last = marked.at.last().and_then(|at| values.get(*at));
        live = live.saturating_add(last.copied().unwrap_or(0));
        all.extend(intervals);
    }
    let operations: f64 = all.iter().map(|(operations, _)| operations).sum();
    let increase: f64 = all.iter().map(|(_, increase)| increase).sum();
    if operations <= 0.0 || increase <= 0.0 {
        return None;
    }
    let slope = increase / operations;
    let grew = all.iter().filter(|(_, increase)| *increase > 0.0).count();
    let pace = |(operations, increase): &(f64, f64)| increase / operations;
    let range =
        all.iter().map(pace).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), pace| {
            (low.min(pace), high.max(pace))
        });
    let is_late = late.0 > 0.0 && late.1 / late.0 >= 0.6 * slope;
    let (function, place) = named(telling_frame(stack, image));
    Some(SiteGrowth {
        fingerprint,
        stack: normal_stack(stack),
        function,
        place,
        owner: owner(stack, image),
        bytes_per_operation: slope,
        range,
        live_bytes: live,
        grew_in: (grew, all.len()),
        proportional: grew >= 2 && grew * 3 >= all.len() * 2 && is_late && fall * 2.0 <= increase,
        of_contexts: is_of_contexts(stack),
    })
}

pub(crate) fn named(frame: Option<&StackFrame>) -> (String, String) {
    let function = frame
        .map(|frame| normal_function(&frame.function))
        .filter(|function| !function.is_empty())
        .unwrap_or_else(|| "???".to_owned());
    let place = frame
        .filter(|frame| !frame.file.is_empty())
        .map(|frame| format!("{}:{}", frame.file, frame.line))
        .unwrap_or_default();
    (function, place)
}

/// Whether a stack ends in PostgreSQL's own allocation of context blocks.
pub(crate) fn is_of_contexts(stack: &[StackFrame]) -> bool {
    stack.iter().take(CONTEXT_DEPTH).any(|frame| allocates_in_contexts(&frame.function))
}

/// Who holds most at the peak of the session in which the extension holds most, or whose peak is the highest; `None`: nothing was seen.
pub fn holders(job: &JobEvidence) -> Option<Holders> {
    let image = image(job);
    let digest = job
        .attempt
        .site_digests
        .iter()
        .filter(|digest| digest.session.is_some() && !digest.sites.is_empty())
        .max_by_key(|digest| {
            let own =
                digest.sites.iter().filter(|site| owner(&site.stack, &image) == Owner::Extension);
            let held = own.fold(0_u64, |sum, site| sum.saturating_add(site.peak_bytes));
            (held, digest.peak_bytes, std::cmp::Reverse(digest.process))
        })?;
    let mut by_place: BTreeMap<(Owner, String, String), Holder> = BTreeMap::new();
    let is_told = |site: &&AllocationSite| !site.stack.first().is_some_and(is_remainder);
    for site in digest.sites.iter().filter(is_told) {
        let owner = owner(&site.stack, &image);
        let frame = match owner {
            Owner::Extension => telling_frame(&site.stack, &image),
            _ => asking_frame(&site.stack),
        };
        let (function, place) = named(frame);
        let holder = by_place.entry((owner, function, place)).or_insert_with_key(|key| Holder {
            owner: key.0,
            function: key.1.clone(),
            place: key.2.clone(),
            peak_bytes: 0,
            allocations: 0,
            temporary: 0,
        });
        holder.peak_bytes = holder.peak_bytes.saturating_add(site.peak_bytes);
        holder.allocations = holder.allocations.saturating_add(site.allocations);
        holder.temporary = holder.temporary.saturating_add(site.temporary);
    }
    let mut all: Vec<Holder> =
        by_place.into_values().filter(|holder| holder.peak_bytes > 0).collect();
    // A stable sort: equals stay in the order of their names.
    all.sort_by_key(|holder| {
        (holder.owner != Owner::Extension, std::cmp::Reverse(holder.peak_bytes))
    });
    let own = all.iter().filter(|holder| holder.owner == Owner::Extension).count();
    // However much the extension holds, the largest of the others are shown beside it.
    let shown_of_own = own.min(HOLDERS.max(1) - 1).max(HOLDERS.saturating_sub(all.len() - own));
    let rest = all.split_off(own);
    all.truncate(shown_of_own);
    all.extend(rest.into_iter().take(HOLDERS - all.len().min(HOLDERS)));
    Some(Holders {
        workload: job.workload.name.clone(),
        tool: job.spec.tool,
        build: job.spec.build.to_string(),
        arm: job.spec.arm,
        session: digest.session.unwrap_or(0),
        peak_bytes: digest.peak_bytes,
        allocations: digest.allocations,
        temporary: digest.temporary,
        sites: all,
    })
}

/// The frame that asked: past allocators, and past the functions that contexts are asked through.
fn asking_frame(stack: &[StackFrame]) -> Option<&StackFrame> {
    let last =
        stack.iter().take(CONTEXT_DEPTH).rposition(|frame| allocates_in_contexts(&frame.function));
    let from = last.map_or(0, |last| last + 1);
    let rest = stack.get(from..).unwrap_or_default();
    let is_named = |frame: &&StackFrame| {
        !frame.function.is_empty()
            && !frame.function.starts_with("0x")
            && !is_remainder(frame)
            && !is_allocator(frame)
    };
    rest.iter().find(is_named).or_else(|| rest.first()).or_else(|| stack.first())
}

/// massif's word for what it does not list: "in 25 places, all below massif's threshold (1.00%)".
fn is_remainder(frame: &StackFrame) -> bool {
    frame.function.contains("below massif's threshold")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> StackFrame {
        StackFrame { function: function.into(), module: module.into(), ..StackFrame::default() }
    }

    #[test]
    fn the_asking_frame_is_past_the_contexts() {
        let stack = [
            frame("0x5f", "postgres"),
            frame("MemoryContextAlloc", "postgres"),
            frame("palloc0", "postgres"),
            frame("RelationBuildDesc", "postgres"),
        ];
        assert_eq!(asking_frame(&stack).unwrap().function, "RelationBuildDesc");
        assert!(is_of_contexts(&stack));
        let malloc = [frame("malloc", ""), frame("save_ps_display_args", "postgres")];
        assert_eq!(asking_frame(&malloc).unwrap().function, "save_ps_display_args");
        assert!(!is_of_contexts(&malloc));
        assert!(asking_frame(&[]).is_none());
        let stripped = [frame("0x5f", "postgres"), frame("InitCatCache", "postgres")];
        assert_eq!(asking_frame(&stripped).unwrap().function, "InitCatCache");
    }
}
