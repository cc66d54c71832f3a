//! Flame graphs of heaps: interactive, self-contained SVG.

use crate::heap::diff::comparable;
use crate::heap::digest::{HeapDigest, HeapSite};
use inferno::flamegraph::{self, Options, color::BasicPalette, color::Palette};
use std::collections::BTreeMap;

/// What the width of a frame means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeapCost {
    /// Bytes live when the whole heap was at its peak.
    Peak,
    /// Bytes live at the end.
    Leaked,
    /// Calls.
    Allocations,
    /// Calls whose block was freed before the next allocation.
    Temporary,
}

/// Why no graph could be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// There is nothing to draw.
    #[error("no site has any {0}")]
    Empty(&'static str),
    /// inferno refused.
    #[error("draw the flame graph")]
    Inferno(#[source] std::io::Error),
}

impl HeapCost {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Peak => "bytes at peak",
            Self::Leaked => "bytes at the end",
            Self::Allocations => "allocations",
            Self::Temporary => "temporary allocations",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Peak | Self::Leaked => "bytes",
            Self::Allocations | Self::Temporary => "calls",
        }
    }

    const fn of(self, site: &HeapSite) -> u64 {
        match self {
            Self::Peak => site.peak_bytes,
            Self::Leaked => site.leaked_bytes,
            Self::Allocations => site.allocations,
            Self::Temporary => site.temporary,
        }
    }
}

/// One heap.
///
/// # Errors
///
/// When no site has any of the cost.
pub fn graph(digest: &HeapDigest, cost: HeapCost, title: &str) -> Result<String, DrawError> {
    let folded: Vec<String> = digest
        .sites
        .iter()
        .filter(|site| cost.of(site) > 0)
        .map(|site| format!("{} {}", line(&site.stack), cost.of(site)))
        .collect();
    draw(&folded, cost, title)
}

/// Two heaps: as wide as the second, red where it has more than the first, blue where less.
///
/// # Errors
///
/// When no site of the second has any of the cost.
pub fn difference(
    before: &HeapDigest,
    after: &HeapDigest,
    cost: HeapCost,
    title: &str,
) -> Result<String, DrawError> {
    let mut both: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for site in &before.sites {
        both.entry(line(&comparable(site))).or_default().0 += cost.of(site);
    }
    for site in &after.sites {
        both.entry(line(&comparable(site))).or_default().1 += cost.of(site);
    }
    let folded: Vec<String> = both
        .iter()
        .filter(|(_, (before, after))| before + after > 0)
        .map(|(stack, (before, after))| format!("{stack} {before} {after}"))
        .collect();
    draw(&folded, cost, title)
}

/// Outermost first, as folded stacks are written; what separates frames and figures is taken out of names.
fn line(stack: &[String]) -> String {
    let frames: Vec<String> =
        stack.iter().rev().map(|frame| frame.replace([';', '\n', '\r'], ",")).collect();
    frames.join(";")
}

fn draw(folded: &[String], cost: HeapCost, title: &str) -> Result<String, DrawError> {
    if folded.is_empty() {
        return Err(DrawError::Empty(cost.label()));
    }
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = Some(cost.label().to_owned());
    options.count_name = cost.unit().to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.iter().map(String::as_str), &mut svg)
        .map_err(DrawError::Inferno)?;
    Ok(String::from_utf8_lossy(&svg).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: u64) -> HeapDigest {
        let site = HeapSite {
            peak_bytes: bytes,
            stack: vec!["lose (x.c:3)".into(), "main (x.c:9)".into()],
            ..HeapSite::default()
        };
        HeapDigest { sites: vec![site], ..HeapDigest::default() }
    }

    #[test]
    fn graphs_name_their_functions_and_need_nothing_else() {
        let svg = graph(&digest(100), HeapCost::Peak, "a <b>").unwrap();
        assert!(svg.contains("lose (x.c:3)") && svg.contains("bytes at peak"));
        assert!(!svg.contains("src=\"http"));
        let svg = difference(&digest(100), &digest(300), HeapCost::Peak, "d").unwrap();
        assert!(svg.contains("lose") && svg.contains("200"), "the difference is told");
        assert!(graph(&digest(0), HeapCost::Peak, "t").is_err());
    }
}
