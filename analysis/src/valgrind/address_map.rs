//! Which object an address belongs to, from `/proc/PID/maps`, and in which source file it lies.

use crate::heap::SymbolCache;
use crate::stack::short_file;
use pgsoak_proto::evidence::StackFrame;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Address ranges of mapped files, sorted and without overlap.
#[derive(Clone, Debug, Default)]
pub struct AddressMap {
    ranges: Vec<Range>,
    sources: Option<Sources>,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Range {
    start: u64,
    /// Exclusive.
    end: u64,
    /// Of `start` in the file.
    offset: u64,
    path: String,
}

/// Debug information of the objects that were asked about, shared by the maps of one server's processes.
///
/// valgrind names a file as its compiler was given it, from the folder of its crate: `src/raw/alloc.rs` may be anybody's. With the whole
/// path it is told whether the code is the extension's or a crate's that it uses.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<Mutex<SymbolCache>>);

impl AddressMap {
    /// From the text of `/proc/PID/maps`; lines that are not of that form are passed over. Anonymous mappings are left out.
    pub fn from_maps(text: &str) -> Self {
        let mut ranges: Vec<Range> = text.lines().filter_map(range).collect();
        ranges.sort();
        ranges.dedup_by(|next, kept| next.start < kept.end);
        Self { ranges, sources: None }
    }

    /// Looks up the source files of Rust frames in `sources`.
    #[must_use]
    pub fn with_sources(self, sources: &Sources) -> Self {
        Self { sources: Some(sources.clone()), ..self }
    }

    /// File name of the object at the address.
    pub fn module_of(&self, address: u64) -> Option<&str> {
        self.range_of(address)?.path.rsplit('/').next()
    }

    /// Whether nothing is mapped, so that frames with a source line will have no module.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The source file of a frame at the address, as [`short_file`] has it. `None`: no Rust, or the debug information knows of no such line there.
    pub(crate) fn source_of(&self, address: u64, frame: &StackFrame) -> Option<String> {
        let sources = self.sources.as_ref().filter(|_| frame.file.ends_with(".rs"))?;
        let (path, offset) = self.place_of(address)?;
        let places = sources.0.lock().unwrap_or_else(PoisonError::into_inner).places(path, offset);
        let name = Path::new(&frame.file).file_name();
        // Frames that were inlined share an address.
        places
            .iter()
            .find(|place| place.line == frame.line && Path::new(&place.file).file_name() == name)
            .map(|place| short_file(&place.file))
    }

    /// The object at the address, and the address as the object's own headers count it.
    fn place_of(&self, address: u64) -> Option<(&str, u64)> {
        let path = &self.range_of(address)?.path;
        // In order of addresses: the first mapping of a file is that of its headers.
        let first = self.ranges.iter().find(|range| range.path == *path)?;
        let base = first.start.saturating_sub(first.offset);
        Some((path, address.checked_sub(base)?))
    }

    fn range_of(&self, address: u64) -> Option<&Range> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        self.ranges.get(after.checked_sub(1)?).filter(|range| address < range.end)
    }
}

/// `00400000-00401000 r-xp 00001000 fe:00 1035 /path/of/a file.so (deleted)`
fn range(line: &str) -> Option<Range> {
    let (span, rest) = line.split_once(' ')?;
    let (start, end) = span.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let offset = rest.split(' ').nth(1).and_then(|text| u64::from_str_radix(text, 16).ok())?;
    let path = rest.get(rest.find('/')?..)?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path).trim_end();
    let is_named = !path.ends_with('/');
    (start < end && is_named).then(|| Range { start, end, offset, path: path.to_owned() })
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

    #[test]
    fn a_line_of_rust_gets_the_path_of_its_source() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let sources = Sources::default();
        let map = AddressMap::from_maps(&maps).with_sources(&sources);
        let address = String::from_utf8_lossy as *const () as u64;
        let (path, offset) = map.place_of(address).unwrap();
        let places = sources.0.lock().unwrap().places(path, offset);
        let outermost = places.last().unwrap();
        let frame =
            |file: &str, line| StackFrame { file: file.into(), line, ..StackFrame::default() };
        let of = |frame| map.source_of(address, &frame);
        // As valgrind has it, without the folder.
        let told = of(frame("src/string.rs", outermost.line));
        assert_eq!(told.as_deref(), Some("library/alloc/src/string.rs"), "{places:?}");
        assert_eq!(of(frame("string.rs", outermost.line + 10_000)), None, "another line");
        assert_eq!(of(frame("other.rs", outermost.line)), None, "another file");
        assert_eq!(
            AddressMap::from_maps(&maps).source_of(address, &frame("string.rs", outermost.line)),
            None
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in ".*", address: u64) {
            let _ = AddressMap::from_maps(&text).module_of(address);
        }
    }
}
