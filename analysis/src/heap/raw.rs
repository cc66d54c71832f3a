//! What raw files have instead of names: modules in memory, and pointers instead of allocation indexes.

use crate::heap::lines::Words;
use std::collections::HashMap;

/// Modules as they lie in memory, and every module that was ever there.
#[derive(Debug, Default)]
pub struct Modules {
    /// Paths, by module number from 1.
    pub paths: Vec<String>,
    numbers: HashMap<String, u32>,
    /// Segments in memory now: first address, one past the last, base, module number. Sorted when `is_sorted`.
    segments: Vec<(u64, u64, u64, u32)>,
    is_sorted: bool,
    /// Path of the program.
    pub exe: String,
}

impl Modules {
    /// A line `m LEN FILE BASE (VADDR MEMSZ)*` or `m 1 -`. `None`: the line cannot be.
    pub fn line(&mut self, mut words: Words<'_>) -> Option<()> {
        let length = words.hex()?;
        let path = String::from_utf8_lossy(words.text(length)?).into_owned();
        if path == "-" {
            self.segments.clear();
            return Some(());
        }
        let path = if path == "x" { self.exe.clone() } else { path };
        let number = match self.numbers.get(&path) {
            Some(number) => *number,
            None => {
                self.paths.push(path.clone());
                let number = u32::try_from(self.paths.len()).ok()?;
                self.numbers.insert(path, number);
                number
            }
        };
        let base = words.hex()?;
        while let Some(vaddr) = words.hex() {
            let size = words.hex()?;
            let start = base.checked_add(vaddr)?;
            self.segments.push((start, start.checked_add(size)?, base, number));
        }
        self.is_sorted = false;
        Some(())
    }

    /// Where an address lies: module number and offset from its base; number 0: in no module that is known.
    pub fn find(&mut self, address: u64) -> (u32, u64) {
        if !self.is_sorted {
            self.segments.sort_unstable();
            self.is_sorted = true;
        }
        let after = self.segments.partition_point(|(start, ..)| *start <= address);
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some((_, end, base, number)) if address < *end => (*number, address - base),
            _ => (0, address),
        }
    }
}

/// Live blocks by pointer, and allocation indexes by size and trace, as heaptrack's interpreter would number them.
#[derive(Debug, Default)]
pub struct Blocks {
    live: HashMap<u64, u32>,
    indexes: HashMap<(u64, u32), u32>,
}

impl Blocks {
    /// The allocation index of a size and trace; `new` makes one.
    pub fn index(&mut self, bytes: u64, trace: u32, new: impl FnOnce() -> u32) -> u32 {
        *self.indexes.entry((bytes, trace)).or_insert_with(new)
    }

    /// A block is live. A pointer that is live already was freed unseen; its old block is forgotten, as heaptrack does.
    pub fn allocated(&mut self, pointer: u64, index: u32) {
        self.live.insert(pointer, index);
    }

    /// The block at the pointer is gone; `None`: it was never seen.
    pub fn freed(&mut self, pointer: u64) -> Option<u32> {
        self.live.remove(&pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_module() {
        let mut modules = Modules { exe: "/bin/x".into(), ..Modules::default() };
        modules.line(Words::new(b"1 x 1000 0 100 200 50")).unwrap();
        modules.line(Words::new(b"6 /l b.s 8000 0 10")).unwrap();
        assert_eq!(modules.find(0x1240), (1, 0x240));
        assert_eq!(modules.find(0x1150), (0, 0x1150));
        assert_eq!(modules.find(0x8001), (2, 1));
        assert_eq!(modules.paths, ["/bin/x", "/l b.s"]);
        modules.line(Words::new(b"1 -")).unwrap();
        assert_eq!(modules.find(0x8001), (0, 0x8001));
        assert_eq!(modules.paths.len(), 2);
    }

    #[test]
    fn broken_module_lines_are_refused() {
        for line in [&b"zz"[..], b"ffffffffffffffff x", b"1 x", b"1 x ffffffffffffffff 1 1"] {
            assert!(Modules::default().line(Words::new(line)).is_none(), "{line:?}");
        }
    }
}
