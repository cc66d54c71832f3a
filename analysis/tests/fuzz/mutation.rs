//! Inputs that no tool ever wrote: real files cut, spliced, bent and repeated, and noise. The same seed makes the same inputs.

/// Longest input, bytes: what a reader does wrong it does on short ones.
const LONGEST: usize = 256 << 10;

/// What the formats are made of, and numbers at the edges of their types.
const WORDS: [&str; 36] = [
    "\n",
    " ",
    "==1== ",
    "--1-- ",
    "==",
    "0",
    "1",
    "ff",
    "ffffffffffffffff",
    "7fffffffffffffff",
    "18446744073709551615",
    "-1",
    "99999999999999999999999",
    "1e308",
    "NaN",
    "inf",
    "t ",
    "i ",
    "s ",
    "m 1 -",
    "x ",
    "+ ",
    "- ",
    "a ",
    "c ",
    "R ",
    "v 10400 3\n",
    "snapshot=",
    "heap_tree=peak\n",
    "n999999999: 1 0x1: f (x.c:1)\n",
    " bytes in ",
    " blocks are definitely lost in loss record 1 of 1\n",
    "   at 0x0: f (in /x)\n",
    "LEAK SUMMARY:\n",
    "\u{fffd}",
    "_RNvCs",
];

/// SplitMix64: small, and the same for ever.
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`; 0 when there is nothing below.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// An input from the corpus: one of its files, changed a few times; now and then noise alone.
pub fn input(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match (dice.below(16), corpus.get(dice.below(corpus.len()))) {
        (0, _) | (_, None) => noise(dice),
        (1, Some(file)) => file.clone(),
        (_, Some(file)) => window(dice, file),
    };
    for _ in 0..dice.below(8) {
        change(dice, &mut bytes, corpus);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn noise(dice: &mut Dice) -> Vec<u8> {
    let is_text = dice.below(2) == 0;
    (0..dice.below(2_000))
        .map(|_| {
            let [byte, ..] = dice.next().to_le_bytes();
            if is_text { b' ' + byte % 95 } else { byte }
        })
        .collect()
}

/// The file's beginning, so that it is what it says, and some of the rest.
fn window(dice: &mut Dice, file: &[u8]) -> Vec<u8> {
    let head = dice.below(file.len().min(4 << 10) + 1);
    let from = dice.below(file.len() + 1);
    let to = (from + dice.below(32 << 10)).min(file.len());
    match dice.below(4) {
        0 => file[..from].to_vec(),
        1 => [&file[..head], &file[from..to]].concat(),
        _ => file[..file.len().min(LONGEST)].to_vec(),
    }
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = dice.below(bytes.len() + 1);
    let end = (at + dice.below(64)).min(bytes.len());
    match dice.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let piece = bytes[at..end].to_vec();
            let often = dice.below(200);
            let again = piece.iter().copied().cycle().take(piece.len() * often);
            drop(bytes.splice(at..at, again.collect::<Vec<u8>>()));
        }
        3 => {
            let word = WORDS[dice.below(WORDS.len())].as_bytes();
            drop(bytes.splice(at..at, word.iter().copied()));
        }
        4 => {
            let word = WORDS[dice.below(WORDS.len())].as_bytes();
            drop(bytes.splice(at..end, word.iter().copied()));
        }
        5 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        6 => {
            // One number becomes another, as long as one likes.
            let digit = bytes[at..].iter().position(u8::is_ascii_digit).map(|n| n + at);
            if let Some(digit) = digit {
                let word = WORDS[5 + dice.below(11)].as_bytes();
                drop(bytes.splice(digit..=digit, word.iter().copied()));
            }
        }
        7 => {
            // A line goes somewhere else.
            let line: Vec<u8> = bytes[at..]
                .split_inclusive(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default()
                .to_vec();
            let to = dice.below(bytes.len() + 1);
            drop(bytes.splice(to..to, line));
        }
        _ => {
            if let Some(other) = corpus.get(dice.below(corpus.len())) {
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(4 << 10)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
        }
    }
}
