//! glibc's `malloc_info` → what the allocator of a process says of itself.
//!
//! The XML ends with totals over all arenas: `system current` is what was taken from the kernel for arenas, `fast` and `rest` are free
//! (the top chunk is in `rest`), `mmap` are large blocks, served apart and all in use. Blocks in a thread's own cache count as in use.

/// Sums over all arenas, bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MallocInfo {
    /// Handed out and not given back, with headers; large blocks included.
    pub in_use: u64,
    /// Taken from the kernel and handed out to nobody.
    pub free: u64,
}

/// Reads the XML; `None`: it is cut short, or none.
pub fn parse(xml: &str) -> Option<MallocInfo> {
    // After the last arena; an arena's own totals look the same.
    let (_, totals) = xml.rsplit_once("</heap>")?;
    if !totals.trim_end().ends_with("</malloc>") {
        return None;
    }
    let size = |tag: &str, kind: &str| {
        let start = format!("<{tag} type=\"{kind}\"");
        let element = totals.lines().find(|line| line.trim_start().starts_with(&start))?;
        let (_, value) = element.split_once(" size=\"")?;
        value.split_once('"')?.0.parse::<u64>().ok()
    };
    let free = size("total", "fast")?.checked_add(size("total", "rest")?)?;
    let arenas = size("system", "current")?;
    let mapped = size("total", "mmap")?;
    Some(MallocInfo { in_use: arenas.saturating_sub(free).checked_add(mapped)?, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a backend of PostgreSQL 15, glibc 2.36.
    const REAL: &str = "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n  <size from=\"33\" to=\"33\" total=\"33\" count=\"1\"/>\n\
        </sizes>\n<total type=\"fast\" count=\"0\" size=\"0\"/>\n<total type=\"rest\" count=\"5\" size=\"133188\"/>\n\
        <system type=\"current\" size=\"1413120\"/>\n</heap>\n<total type=\"fast\" count=\"0\" size=\"0\"/>\n\
        <total type=\"rest\" count=\"5\" size=\"133188\"/>\n<total type=\"mmap\" count=\"3\" size=\"929792\"/>\n\
        <system type=\"current\" size=\"1413120\"/>\n<system type=\"max\" size=\"1441792\"/>\n\
        <aspace type=\"total\" size=\"1413120\"/>\n</malloc>\n";

    #[test]
    fn totals_are_read_and_large_blocks_are_in_use() {
        let read = parse(REAL).unwrap();
        assert_eq!(read, MallocInfo { in_use: 1_413_120 - 133_188 + 929_792, free: 133_188 });
    }

    #[test]
    fn what_is_cut_short_says_nothing() {
        for length in 0..REAL.len() - 1 {
            assert_eq!(parse(&REAL[..length]), None, "{length}");
        }
        assert_eq!(parse("</heap></malloc>"), None);
    }
}
