//! What one heap did that another did not, site by site.

use crate::heap::digest::{HeapDigest, HeapSite};
use crate::stack;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;

/// The difference of two digests: second less first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeapDiff {
    /// Calls.
    pub allocations: i64,
    /// Calls whose block was freed before the next allocation.
    pub temporary: i64,
    /// Bytes at the peak.
    pub peak_bytes: i64,
    /// Bytes live at the end.
    pub leaked_bytes: i64,
    /// Sites that differ, by the size of the difference at the end, then at the peak.
    pub sites: Vec<SiteDiff>,
}

/// The difference of one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteDiff {
    /// Functions, innermost first, without files and lines: comparable between builds.
    pub stack: Vec<String>,
    /// Names the stack over builds, releases, hosts and tools; empty in digests of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Calls.
    pub allocations: i64,
    /// Calls whose block was freed before the next allocation.
    pub temporary: i64,
    /// Bytes at the whole heap's peak.
    pub peak_bytes: i64,
    /// Bytes live at the end.
    pub leaked_bytes: i64,
}

impl SiteDiff {
    /// What sites are ordered by: the size of the difference at the end, then at the peak, bytes.
    pub fn size(&self) -> (u64, u64) {
        (self.leaked_bytes.unsigned_abs(), self.peak_bytes.unsigned_abs())
    }
}

/// `after` less `before`. Sites are matched by their fingerprints, so a rebuild that moves lines makes no difference; in digests
/// of older versions, which have none, by their functions.
pub fn diff(before: &HeapDigest, after: &HeapDigest) -> HeapDiff {
    let mut all = before.sites.iter().chain(&after.sites);
    let has_prints = all.all(|site| !site.fingerprint.is_empty());
    let mut sites: HashMap<Cow<'_, str>, (SiteDiff, &HeapSite)> = HashMap::new();
    for (digest, sign) in [(before, -1), (after, 1)] {
        for site in &digest.sites {
            let key = match has_prints {
                true => Cow::Borrowed(site.fingerprint.as_str()),
                false => Cow::Owned(comparable(site).join("\n")),
            };
            let entry = &mut sites.entry(key).or_insert_with(|| (SiteDiff::default(), site)).0;
            entry.allocations += sign * signed(site.allocations);
            entry.temporary += sign * signed(site.temporary);
            entry.peak_bytes += sign * signed(site.peak_bytes);
            entry.leaked_bytes += sign * signed(site.leaked_bytes);
        }
    }
    let mut sites: Vec<SiteDiff> = sites
        .into_values()
        .filter(|(site, _)| {
            [site.allocations, site.temporary, site.peak_bytes, site.leaked_bytes] != [0; 4]
        })
        .map(|(differs, site)| SiteDiff {
            stack: comparable(site),
            fingerprint: site.fingerprint.clone(),
            ..differs
        })
        .collect();
    sites.sort_by(|a, b| b.size().cmp(&a.size()).then_with(|| a.stack.cmp(&b.stack)));
    let less = |get: fn(&HeapDigest) -> u64| signed(get(after)) - signed(get(before));
    HeapDiff {
        allocations: less(|d| d.allocations),
        temporary: less(|d| d.temporary),
        peak_bytes: less(|d| d.peak_bytes),
        leaked_bytes: less(|d| d.leaked_bytes),
        sites,
    }
}

/// A site's functions without files and lines.
pub fn comparable(site: &HeapSite) -> Vec<String> {
    site.stack
        .iter()
        .map(|line| {
            let function = line.rsplit_once(" (").map_or(line.as_str(), |(function, _)| function);
            stack::normal_function(function)
        })
        .collect()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(line: u32, leaked: u64) -> HeapDigest {
        let site = HeapSite {
            leaked_bytes: leaked,
            allocations: 1,
            stack: vec![format!("lose (x.c:{line})"), "main (x.c:9)".into()],
            ..HeapSite::default()
        };
        HeapDigest {
            allocations: 1,
            leaked_bytes: leaked,
            sites: vec![site],
            ..HeapDigest::default()
        }
    }

    #[test]
    fn moved_lines_are_the_same_site() {
        let found = diff(&digest(3, 100), &digest(4, 160));
        assert_eq!(found.sites.len(), 1);
        assert_eq!((found.leaked_bytes, found.sites[0].leaked_bytes), (60, 60));
        assert_eq!(found.sites[0].stack, ["lose", "main"]);
        assert!(diff(&digest(3, 1), &digest(7, 1)).sites.is_empty());
    }
}
