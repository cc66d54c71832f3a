//! Which object an address belongs to, from `/proc/PID/maps`.

/// Address ranges of mapped files, sorted and without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    /// Start, end (exclusive), file name without folder.
    ranges: Vec<(u64, u64, String)>,
}

impl AddressMap {
    /// From the text of `/proc/PID/maps`; lines that are not of that form are passed over. Anonymous mappings are left out.
    pub fn from_maps(text: &str) -> Self {
        let mut ranges: Vec<(u64, u64, String)> = text.lines().filter_map(range).collect();
        ranges.sort();
        ranges.dedup_by(|next, kept| next.0 < kept.1);
        Self { ranges }
    }

    /// File name of the object at the address.
    pub fn module_of(&self, address: u64) -> Option<&str> {
        let after = self.ranges.partition_point(|(start, _, _)| *start <= address);
        let (_, end, module) = self.ranges.get(after.checked_sub(1)?)?;
        (address < *end).then_some(module.as_str())
    }

    /// Whether nothing is mapped, so that frames with a source line will have no module.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// `00400000-00401000 r-xp 00001000 fe:00 1035 /path/of/a file.so (deleted)`
fn range(line: &str) -> Option<(u64, u64, String)> {
    let (span, rest) = line.split_once(' ')?;
    let (start, end) = span.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let path = rest.get(rest.find('/')?..)?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path).trim_end();
    let name = path.rsplit('/').next()?;
    (start < end && !name.is_empty()).then(|| (start, end, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00108000-00109000 r--p 00000000 fe:00 10354696   /tmp/w/postgres
00109000-0010a000 r-xp 00001000 fe:00 10354696   /tmp/w/postgres
0010d000-001e3000 rw-p 00000000 00:00 0 
04a40000-04e40000 rwxp 00000000 00:00 0          [heap]
05000000-05002000 r-xp 00000000 fe:00 77         /usr/lib/a b/pg_tviews.so (deleted)
nonsense
";

    #[test]
    fn addresses_find_their_object() {
        let map = AddressMap::from_maps(MAPS);
        assert_eq!(map.module_of(0x109000), Some("postgres"));
        assert_eq!(map.module_of(0x109fff), Some("postgres"));
        assert_eq!(map.module_of(0x10a000), None);
        assert_eq!(map.module_of(0x5001234), Some("pg_tviews.so"));
        assert_eq!(map.module_of(0x4a40000), None);
        assert_eq!(map.module_of(0), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in ".*", address: u64) {
            let _ = AddressMap::from_maps(&text).module_of(address);
        }
    }
}
