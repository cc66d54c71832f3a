//! Cuts a stream into lines and numbers, without allocation per line.

use std::io::{self, Read};

/// Bytes read at once.
const CHUNK: usize = 1 << 18;

/// A line longer than this is no line of heaptrack's.
const LONGEST_LINE: usize = 1 << 24;

/// What can be wrong with a file.
#[derive(Debug)]
pub enum Problem {
    /// It cannot be read at all.
    Io(io::Error),
    /// Its first line is not heaptrack's.
    NotHeaptrack(String),
    /// A line cannot be.
    Malformed {
        /// 1-based.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Lines of a stream. A last line without an end counts as cut short, and so does a stream that breaks off.
pub struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_over: bool,
    /// Bytes before the buffer's first.
    before: u64,
    /// The stream broke off, or its last line has no end.
    pub truncated: bool,
    /// Lines given so far.
    pub number: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            is_over: false,
            before: 0,
            truncated: false,
            number: 0,
        }
    }

    /// Bytes of the (uncompressed) stream that were given as lines so far.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.before.saturating_add(u64::try_from(self.start).unwrap_or(u64::MAX))
    }

    /// The next line without its end. A stream that breaks off after its first line ends there, marked as truncated.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let mut searched = self.start;
        loop {
            let unsearched = self.buffer.get(searched..self.end).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', unsearched) {
                let (start, stop) = (self.start, searched + at);
                self.start = stop + 1;
                self.number += 1;
                return Ok(self.buffer.get(start..stop));
            }
            searched = self.end;
            if self.is_over {
                self.truncated |= self.start < self.end;
                self.start = self.end;
                return Ok(None);
            }
            searched -= self.make_room();
            if self.end - self.start > LONGEST_LINE {
                self.truncated = true;
                self.is_over = true;
                self.start = self.end;
                return Ok(None);
            }
            let free = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.from.read(free) {
                Ok(0) => self.is_over = true,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A frame cut short: what was read before it stands.
                Err(error) => {
                    if self.number == 0 && self.end == 0 {
                        return Err(Problem::Io(error));
                    }
                    self.truncated = true;
                    self.is_over = true;
                }
            }
        }
    }

    /// The next line when it is `+ A` or `- A` with one short number and lies in the buffer whole: its kind, its number and its length. Nothing is
    /// taken: [`Self::take`] does that, and [`Self::next`] gives any line. Nearly all lines of an interpreted file are these.
    #[inline]
    pub fn event(&self) -> Option<(u8, u32, usize)> {
        let [kind @ (b'+' | b'-'), b' ', digits @ ..] = self.buffer.get(self.start..self.end)?
        else {
            return None;
        };
        let mut value = 0_u32;
        for (used, byte) in digits.iter().take(9).enumerate() {
            if *byte == b'\n' {
                if used == 0 {
                    return None;
                }
                return Some((*kind, value, used + 3));
            }
            if !byte.is_ascii_hexdigit() {
                return None;
            }
            // Letters have bit 6 and begin at 1.
            value = (value << 4) | u32::from((byte & 0xf) + 9 * (byte >> 6));
        }
        None
    }

    /// Takes the event that was just given, by its length.
    #[inline]
    pub fn take(&mut self, length: usize) {
        self.start = self.start.saturating_add(length).min(self.end);
        self.number += 1;
    }

    /// Moves what is left to the front when the buffer is full; grows it when a line is longer. Gives the shift.
    fn make_room(&mut self) -> usize {
        if self.end < self.buffer.len() {
            return 0;
        }
        let shift = self.start;
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= shift;
        self.start = 0;
        self.before = self.before.saturating_add(u64::try_from(shift).unwrap_or(u64::MAX));
        if self.end * 2 > self.buffer.len() {
            let grown = self.buffer.len() * 2;
            self.buffer.resize(grown, 0);
        }
        shift
    }

    /// An error at the line that was given last.
    pub fn malformed(&self, problem: impl Into<String>) -> Problem {
        Problem::Malformed { line: self.number, problem: problem.into() }
    }
}

/// Words of a line after its first two bytes: hexadecimal numbers and strings.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words of `rest`.
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next number; `None`: there is none.
    #[inline]
    pub fn hex(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut used = 0;
        for byte in self.rest {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                _ => break,
            };
            if used == 16 {
                return None;
            }
            value = (value << 4) | u64::from(digit);
            used += 1;
        }
        if used == 0 {
            return None;
        }
        let rest = self.rest.get(used..).unwrap_or_default();
        self.rest = match rest.split_first() {
            Some((b' ', rest)) => rest,
            None => rest,
            Some(_) => return None,
        };
        Some(value)
    }

    /// The next number, as an index.
    #[inline]
    pub fn index(&mut self) -> Option<u32> {
        u32::try_from(self.hex()?).ok()
    }

    /// So many bytes as text.
    pub fn text(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest.strip_prefix(b" ").unwrap_or(rest);
        Some(text)
    }

    /// Everything that is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> (Vec<String>, bool) {
        let mut lines = Lines::new(text);
        let mut out = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            out.push(String::from_utf8_lossy(line).into_owned());
        }
        (out, lines.truncated)
    }

    #[test]
    fn a_last_line_without_an_end_is_cut_short() {
        assert_eq!(all(b"+ 1\n- 1\n"), (vec!["+ 1".into(), "- 1".into()], false));
        assert_eq!(all(b"+ 1\n- 1"), (vec!["+ 1".into()], true));
    }

    #[test]
    fn lines_longer_than_the_buffer_are_whole() {
        let text = format!("a\n{}\nb\n", "x".repeat(3 * CHUNK));
        let (lines, truncated) = all(text.as_bytes());
        assert_eq!((lines.len(), lines[1].len(), truncated), (3, 3 * CHUNK, false));
    }

    #[test]
    fn short_events_are_taken_and_others_left() {
        let mut lines =
            Lines::new(&b"+ 1f\n- A\n+ 1 2 3\n+ \n+ 123456789\n- g\nt 1 0\n+ ffffffff\n+ 1"[..]);
        assert_eq!(lines.event(), None, "nothing was read yet");
        assert_eq!(lines.next().unwrap(), Some(&b"+ 1f"[..]));
        assert_eq!(lines.event(), Some((b'-', 10, 4)));
        lines.take(4);
        assert_eq!((lines.number, lines.offset()), (2, 9));
        for left in ["+ 1 2 3", "+ ", "+ 123456789", "- g", "t 1 0"] {
            assert_eq!(lines.event(), None);
            assert_eq!(lines.next().unwrap(), Some(left.as_bytes()));
        }
        assert_eq!(lines.event(), Some((b'+', u32::MAX, 11)));
        lines.take(11);
        assert_eq!(lines.event(), None, "the last line has no end");
    }

    #[test]
    fn the_offset_is_that_of_the_stream() {
        let text = format!("{}\n", "0123456".repeat(3)).repeat(50_000);
        let mut lines = Lines::new(text.as_bytes());
        let mut expected = 0;
        while let Some(line) = lines.next().unwrap() {
            expected += line.len() as u64 + 1;
            assert_eq!(lines.offset(), expected);
        }
        assert_eq!(expected, text.len() as u64);
    }

    #[test]
    fn words_are_numbers_and_texts() {
        let mut words = Words::new(b"1f ab c/d 7");
        assert_eq!(words.hex(), Some(0x1f));
        assert_eq!(words.text(6), Some(&b"ab c/d"[..]));
        assert_eq!(words.hex(), Some(7));
        assert_eq!(words.hex(), None);
        assert_eq!(Words::new(b"12345678901234567").hex(), None);
        assert_eq!(Words::new(b"g").hex(), None);
    }
}
