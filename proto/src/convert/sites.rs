//! What heaptrack and massif saw.
//!
//! On the wire every frame stands once and stacks are indexes: backends' stacks share almost all of their frames.

use crate::convert::leaks::MAX_STACK_DEPTH;
use crate::convert::{InvalidMessage, Within, each, invalid, word};
use crate::evidence::{
    AllocationSite, MAX_SITE_MARKS, MAX_SITE_POINTS, MAX_SITES, SiteDigest, SiteMark, SitePoint,
    StackFrame,
};
use crate::job::Tool;
use crate::wire;
use std::collections::HashMap;

fn at_most<T>(items: &[T], most: usize, field: &str) -> Result<(), InvalidMessage> {
    if items.len() <= most {
        return Ok(());
    }
    Err(invalid(field, format_args!("has {} entries, more than {most}", items.len())))
}

fn as_many<T, U>(items: &[T], as_there_are: &[U], field: &str) -> Result<(), InvalidMessage> {
    if items.len() == as_there_are.len() {
        return Ok(());
    }
    let (is, should) = (items.len(), as_there_are.len());
    Err(invalid(field, format_args!("has {is} entries, not {should}")))
}

impl TryFrom<wire::SiteDigest> for SiteDigest {
    type Error = InvalidMessage;

    fn try_from(wire: wire::SiteDigest) -> Result<Self, Self::Error> {
        let wire::SiteDigest {
            process,
            session,
            tool,
            allocations,
            temporary,
            peak_bytes,
            peak_at,
            end_bytes,
            duration,
            time_unit,
            truncated,
            sites_in_all,
            marks,
            frames,
            sites,
            series_at,
            series_bytes,
        } = wire;
        let tool: Tool = word::<wire::Tool, _>(tool, "tool")?;
        if !matches!(tool, Tool::Heaptrack | Tool::Massif) {
            return Err(invalid("tool", format_args!("{tool} has no sites")));
        }
        at_most(&marks, MAX_SITE_MARKS, "marks")?;
        at_most(&sites, MAX_SITES, "sites")?;
        at_most(&frames, MAX_SITES * MAX_STACK_DEPTH, "frames")?;
        at_most(&series_at, MAX_SITE_POINTS, "series_at")?;
        as_many(&series_bytes, &series_at, "series_bytes")?;
        let frames: Vec<StackFrame> = each(frames, "frames")?;
        let marks: Vec<SiteMark> = marks.into_iter().map(Into::into).collect();
        let sites = sites
            .into_iter()
            .enumerate()
            .map(|(at, site)| {
                site_from(site, &frames, marks.len()).within(format_args!("sites[{at}]"))
            })
            .collect::<Result<_, _>>()?;
        let series =
            series_at.into_iter().zip(series_bytes).map(|(at, bytes)| SitePoint { at, bytes });
        Ok(Self {
            process,
            session,
            tool,
            allocations,
            temporary,
            peak_bytes,
            peak_at,
            end_bytes,
            duration,
            time_unit,
            truncated,
            sites_in_all,
            sites,
            series: series.collect(),
            marks,
        })
    }
}

fn site_from(
    wire: wire::AllocationSite,
    frames: &[StackFrame],
    marks: usize,
) -> Result<AllocationSite, InvalidMessage> {
    let wire::AllocationSite { stack, allocations, temporary, peak_bytes, end_bytes, marked_bytes } =
        wire;
    at_most(&stack, MAX_STACK_DEPTH, "stack")?;
    if marked_bytes.len() != marks {
        let problem = format_args!("has {} entries, not {marks}", marked_bytes.len());
        return Err(invalid("marked_bytes", problem));
    }
    let stack = stack
        .into_iter()
        .map(|index| {
            let frame = usize::try_from(index).ok().and_then(|index| frames.get(index));
            frame.cloned().ok_or_else(|| {
                invalid("stack", format_args!("{index} is none of {} frames", frames.len()))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(AllocationSite { stack, allocations, temporary, peak_bytes, end_bytes, marked_bytes })
}

impl From<wire::SiteMark> for SiteMark {
    fn from(wire: wire::SiteMark) -> Self {
        let wire::SiteMark { phase, round, operations, live_bytes } = wire;
        Self { phase, round, operations, live_bytes }
    }
}

impl From<&SiteMark> for wire::SiteMark {
    fn from(mark: &SiteMark) -> Self {
        let SiteMark { phase, round, operations, live_bytes } = *mark;
        Self { phase, round, operations, live_bytes }
    }
}

impl From<&SiteDigest> for wire::SiteDigest {
    fn from(digest: &SiteDigest) -> Self {
        let mut frames: Vec<wire::StackFrame> = Vec::new();
        let mut known: HashMap<&StackFrame, u32> = HashMap::new();
        let marks = digest.marks.len().min(MAX_SITE_MARKS);
        let mut sites = Vec::with_capacity(digest.sites.len().min(MAX_SITES));
        for site in digest.sites.iter().take(MAX_SITES) {
            let stack = site.stack.iter().take(MAX_STACK_DEPTH).map(|frame| {
                *known.entry(frame).or_insert_with(|| {
                    frames.push(frame.into());
                    u32::try_from(frames.len() - 1).unwrap_or(u32::MAX)
                })
            });
            let stack = stack.collect();
            let mut marked_bytes = site.marked_bytes.clone();
            marked_bytes.resize(marks, 0);
            sites.push(wire::AllocationSite {
                stack,
                allocations: site.allocations,
                temporary: site.temporary,
                peak_bytes: site.peak_bytes,
                end_bytes: site.end_bytes,
                marked_bytes,
            });
        }
        let points = || digest.series.iter().take(MAX_SITE_POINTS);
        // Only these two tools have sites; nothing else is ever written.
        let tool = match digest.tool {
            Tool::Massif => Tool::Massif,
            _ => Tool::Heaptrack,
        };
        Self {
            process: digest.process,
            session: digest.session,
            tool: wire::Tool::from(tool).into(),
            allocations: digest.allocations,
            temporary: digest.temporary,
            peak_bytes: digest.peak_bytes,
            peak_at: digest.peak_at,
            end_bytes: digest.end_bytes,
            duration: digest.duration,
            time_unit: digest.time_unit.clone(),
            truncated: digest.truncated,
            sites_in_all: digest.sites_in_all,
            marks: digest.marks.iter().take(MAX_SITE_MARKS).map(Into::into).collect(),
            frames,
            sites,
            series_at: points().map(|point| point.at).collect(),
            series_bytes: points().map(|point| point.bytes).collect(),
        }
    }
}
