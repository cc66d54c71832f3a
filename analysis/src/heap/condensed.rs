//! What of a digest goes into the evidence: totals, the sites that matter, a short series; bounded in bytes.

use crate::heap::digest::{HeapDigest, HeapPoint, HeapSite};
use pgsoak_proto::convert::MAX_STACK_DEPTH;
use pgsoak_proto::evidence::{
    AllocationSite, MAX_SITE_MARKS, MAX_SITE_POINTS, MAX_SITES, SiteDigest, SiteMark, SitePoint,
    StackFrame,
};
use pgsoak_proto::job::Tool;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// About the most that a digest takes when it is encoded.
pub const MAX_DIGEST_BYTES: usize = 256 << 10;

/// Sites of a process that serves no session.
const OF_OTHERS: usize = 20;

/// Sites that are taken for what they lose when the process leaves, for what they grew by, for what they hold at the peak, and for how often they are called.
const ON_THE_WAY_OUT: usize = 10;
const BY_GROWTH: usize = 90;
const BY_PEAK: usize = 80;

/// The digest of one process. `marks`: where in the workload each mark that was asked for lies. Without a `session` there are totals, and what a
/// loaded library has not given back.
pub fn condensed(
    process: u32,
    session: Option<u32>,
    digest: &HeapDigest,
    marks: &[SiteMark],
) -> SiteDigest {
    let marks: Vec<SiteMark> = marks
        .iter()
        .zip(&digest.marked_bytes)
        .take(MAX_SITE_MARKS)
        .map(|(mark, live_bytes)| SiteMark { live_bytes: *live_bytes, ..*mark })
        .collect();
    let mut condensed = SiteDigest {
        process,
        session,
        tool: Tool::Heaptrack,
        allocations: digest.allocations,
        temporary: digest.temporary,
        peak_bytes: digest.peak_bytes,
        peak_at: digest.peak_ms,
        end_bytes: digest.leaked_bytes,
        duration: digest.duration_ms,
        time_unit: "ms".to_owned(),
        truncated: digest.truncated,
        sites_in_all: u32::try_from(digest.sites.len()).unwrap_or(u32::MAX),
        sites: Vec::new(),
        series: Vec::new(),
        marks,
    };
    if session.is_none() {
        // Of others only what a loaded library has not given back.
        let lost =
            digest.sites.iter().filter(|site| site.leaked_bytes > 0 && is_of_library(digest, site));
        let mut lost: Vec<&HeapSite> = lost.collect();
        lost.sort_by_key(|site| Reverse(site.leaked_bytes));
        condensed.sites =
            lost.into_iter().take(OF_OTHERS).map(|site| told(digest, site, 0)).collect();
        condensed.marks.clear();
        cut_to(&mut condensed, MAX_DIGEST_BYTES);
    }
    if session.is_some() {
        let marks = condensed.marks.len();
        condensed.sites =
            chosen(digest).into_iter().map(|site| told(digest, site, marks)).collect();
        condensed.series = thinned(&digest.series);
        cut_to(&mut condensed, MAX_DIGEST_BYTES);
    }
    condensed
}

/// The sites that matter most first: those that grew between marks, then those at the peak, then the most called.
fn chosen(digest: &HeapDigest) -> Vec<&HeapSite> {
    let sites = &digest.sites;
    let mut taken = BTreeSet::new();
    let mut chosen = Vec::new();
    let mut take = |key: &dyn Fn(&HeapSite) -> u64, upto: usize| {
        let mut order: Vec<usize> = (0..sites.len()).collect();
        order.sort_by_key(|at| (Reverse(sites.get(*at).map_or(0, key)), *at));
        for at in order {
            let Some(site) = sites.get(at).filter(|site| key(site) > 0) else { break };
            if chosen.len() >= upto {
                break;
            }
            if taken.insert(at) {
                chosen.push(site);
            }
        }
    };
    let on_the_way_out = |site: &HeapSite| match is_of_library(digest, site) && leaves(digest, site)
    {
        true => site.leaked_bytes,
        false => 0,
    };
    take(&on_the_way_out, ON_THE_WAY_OUT);
    take(&grown, BY_GROWTH);
    take(&|site| site.peak_bytes, BY_GROWTH + BY_PEAK);
    take(&|site| site.allocations, MAX_SITES);
    chosen
}

fn frames<'a>(digest: &'a HeapDigest, site: &'a HeapSite) -> impl Iterator<Item = &'a StackFrame> {
    site.frames.iter().filter_map(|number| digest.frames.get(usize::try_from(*number).ok()?))
}

/// Whether a frame is of a library that the server loaded: an extension, not what programs are linked with.
fn is_of_library(digest: &HeapDigest, site: &HeapSite) -> bool {
    frames(digest, site)
        .any(|frame| frame.module.ends_with(".so") && !frame.module.starts_with("lib"))
}

/// Whether it was allocated while the process left.
fn leaves(digest: &HeapDigest, site: &HeapSite) -> bool {
    frames(digest, site).any(|frame| frame.function == "proc_exit_prepare")
}

/// The largest growth from one mark to any later one.
fn grown(site: &HeapSite) -> u64 {
    let mut lowest = u64::MAX;
    let mut most = 0;
    for bytes in &site.marked_bytes {
        lowest = lowest.min(*bytes);
        most = most.max(bytes - lowest);
    }
    most
}

fn told(digest: &HeapDigest, site: &HeapSite, marks: usize) -> AllocationSite {
    let frame = |number: &u32| digest.frames.get(usize::try_from(*number).ok()?).cloned();
    AllocationSite {
        stack: site.frames.iter().filter_map(frame).take(MAX_STACK_DEPTH).collect(),
        allocations: site.allocations,
        temporary: site.temporary,
        peak_bytes: site.peak_bytes,
        end_bytes: site.leaked_bytes,
        marked_bytes: site.marked_bytes.iter().copied().take(marks).collect(),
    }
}

/// The highest of neighbours, so that no peak is lost.
fn thinned(points: &[HeapPoint]) -> Vec<SitePoint> {
    let step = points.len().div_ceil(MAX_SITE_POINTS).max(1);
    let highest = |group: &[HeapPoint]| {
        let highest = group.iter().max_by_key(|point| point.bytes)?;
        Some(SitePoint { at: highest.ms, bytes: highest.bytes })
    };
    points.chunks(step).filter_map(highest).collect()
}

/// Leaves out the last sites until the digest takes no more than about `most` bytes.
pub(crate) fn cut_to(digest: &mut SiteDigest, most: usize) {
    let mut frames = BTreeSet::new();
    let mut bytes = 100 + digest.series.len() * 12 + digest.marks.len() * 24;
    let mut kept = 0;
    for site in &digest.sites {
        bytes += 40 + site.stack.len() * 2 + site.marked_bytes.len() * 4;
        for frame in &site.stack {
            if frames.insert(frame) {
                bytes += 16 + frame.function.len() + frame.module.len() + frame.file.len();
            }
        }
        if bytes > most {
            break;
        }
        kept += 1;
    }
    digest.sites.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(count: u32) -> HeapDigest {
        let frame = |n: u32| StackFrame { function: format!("f{n}"), ..StackFrame::default() };
        let site = |n: u32| HeapSite {
            peak_bytes: u64::from(n),
            allocations: u64::from(count - n),
            marked_bytes: vec![50, if n == 3 { 60 } else { 50 }, 10],
            frames: vec![n; 80],
            ..HeapSite::default()
        };
        HeapDigest {
            sites: (0..count).map(site).collect(),
            frames: (0..count).map(frame).collect(),
            marked_bytes: vec![1, 2, 3],
            series: (0..1000).map(|ms| HeapPoint { ms, bytes: ms % 977 }).collect(),
            ..HeapDigest::default()
        }
    }

    #[test]
    fn what_grows_comes_first_then_the_peak_then_the_calls() {
        let marks = [SiteMark { round: 7, ..SiteMark::default() }; 3];
        let short = condensed(1, Some(0), &digest(500), &marks);
        assert_eq!((short.sites.len(), short.sites_in_all), (MAX_SITES, 500));
        assert_eq!(short.sites[0].stack[0].function, "f3");
        assert_eq!(short.sites[0].stack.len(), MAX_STACK_DEPTH);
        assert_eq!(short.sites[1].peak_bytes, 499);
        assert!(short.sites.iter().any(|site| site.allocations == 500));
        assert_eq!(short.marks[2], SiteMark { round: 7, live_bytes: 3, ..SiteMark::default() });
        assert!(short.series.len() <= MAX_SITE_POINTS);
        assert_eq!(short.series.iter().map(|point| point.bytes).max(), Some(976));
    }

    #[test]
    fn another_process_has_totals_alone() {
        let short = condensed(1, None, &digest(5), &[]);
        assert!(short.sites.is_empty() && short.series.is_empty() && short.marks.is_empty());
        assert_eq!(short.sites_in_all, 5);
    }

    #[test]
    fn a_digest_is_cut_to_its_bytes() {
        let mut short = condensed(1, Some(0), &digest(150), &[]);
        cut_to(&mut short, 6000);
        assert!(short.sites.len() > 5 && short.sites.len() < 40, "{}", short.sites.len());
    }
}
