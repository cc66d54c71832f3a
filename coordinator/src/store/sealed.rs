//! A finished run's evidence in one file: the frames as they were stored, packed under zstd in blocks, with an index at its end.
//!
//! `MAGIC` · blocks · index (JSON under zstd) · trailer: where the index lies, its length, its checksum, `MAGIC`. A block holds whole
//! frames of one attempt in order, each as `sequence ‖ length ‖ bytes`; the index knows each block's place, its checksum and its first
//! sequence. A frame comes out byte for byte as it went in, so a report made from a sealed run is the report that was made before.

use crate::store::mark::Mark;
use pgsoak_proto::id::JobId;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// At both ends of the file, with the version of the layout.
const MAGIC: &[u8; 16] = b"pgsoak sealed 1\n";
/// The file in a run's folder.
pub(crate) const NAME: &str = "sealed";
/// A block is closed above this, unpacked: small enough to read one frame, large enough to pack well.
const BLOCK: usize = 1 << 20;
/// Most that a block may say it unpacks to: the largest frame and a block beside it.
const MOST_UNPACKED: u64 = 512 << 20;
/// Sequence and length before each frame.
const HEAD: usize = 8 + 4;
/// Where the index lies, its packed length, its checksum, the magic.
const TRAILER: u64 = 8 + 4 + 4 + 16;
/// zstd's level: written once.
const LEVEL: i32 = 9;

/// Why a sealed file is not what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it does not {0} as a sealed run does")]
    Magic(&'static str),
    #[error("its index is damaged: {0}")]
    Index(String),
    #[error("the block at byte {at} is damaged: {problem}")]
    Block { at: u64, problem: String },
}

/// What an attempt has in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Attempt {
    job: JobId,
    attempt: u32,
    /// The high-water mark when it was sealed.
    mark: u64,
    blocks: Vec<Block>,
}

/// A block's place.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Block {
    at: u64,
    packed: u32,
    unpacked: u64,
    crc: u32,
    /// Sequence of its first frame.
    first: u64,
}

/// Writes a sealed file, attempt by attempt.
pub(crate) struct Sealer {
    file: BufWriter<File>,
    at: u64,
    attempts: Vec<Attempt>,
    /// Frames of the attempt in work that lie in no block yet, and the first one's sequence.
    open: Vec<u8>,
    first: Option<u64>,
}

/// A sealed file that is open for reading.
#[derive(Debug)]
pub(crate) struct Sealed {
    file: File,
    attempts: Vec<Attempt>,
}

// === impl Sealer ===

impl Sealer {
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(MAGIC)?;
        let at = MAGIC.len() as u64;
        Ok(Self { file, at, attempts: Vec::new(), open: Vec::new(), first: None })
    }

    /// The frames that follow are of this attempt.
    pub(crate) fn attempt(&mut self, of: Mark) -> io::Result<()> {
        self.close_block()?;
        let Mark { job, attempt, sequence: mark } = of;
        self.attempts.push(Attempt { job, attempt, mark, blocks: Vec::new() });
        Ok(())
    }

    /// Adds a frame of the attempt that was begun last.
    pub(crate) fn frame(&mut self, sequence: u64, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too large"))?;
        self.first.get_or_insert(sequence);
        self.open.extend_from_slice(&sequence.to_le_bytes());
        self.open.extend_from_slice(&length.to_le_bytes());
        self.open.extend_from_slice(bytes);
        if self.open.len() >= BLOCK { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> io::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let bytes = zstd::bulk::compress(&self.open, LEVEL)?;
        let (at, crc, packed) = self.put(&bytes)?;
        let unpacked = self.open.len() as u64;
        self.open.clear();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.blocks.push(Block { at, packed, unpacked, crc, first });
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<(u64, u32, u32)> {
        let length = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a block is too large"))?;
        self.file.write_all(bytes)?;
        let at = self.at;
        self.at += u64::from(length);
        Ok((at, crc32c::crc32c(bytes), length))
    }

    /// Writes the index and makes the file durable. Its bytes.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.close_block()?;
        let index = serde_json::to_vec(&self.attempts).map_err(io::Error::other)?;
        let index = zstd::bulk::compress(&index, LEVEL)?;
        let (at, crc, length) = self.put(&index)?;
        self.file.write_all(&at.to_le_bytes())?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc.to_le_bytes())?;
        self.file.write_all(MAGIC)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.at + TRAILER)
    }
}

// === impl Sealed ===

impl Sealed {
    /// Opens the file and reads its index.
    pub(crate) fn open(path: &Path) -> Result<Self, SealedError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let head = read(&file, 0, MAGIC.len())?;
        if head != MAGIC {
            return Err(SealedError::Magic("begin"));
        }
        let trailer_at =
            length.checked_sub(TRAILER).filter(|at| *at >= 16).ok_or(SealedError::Magic("end"))?;
        let trailer = read(&file, trailer_at, 32)?;
        let (place, magic) = trailer.split_at_checked(16).unwrap_or_default();
        let [a, b, c, d, e, f, g, h, l0, l1, l2, l3, c0, c1, c2, c3] = place else {
            return Err(SealedError::Magic("end"));
        };
        if magic != MAGIC {
            return Err(SealedError::Magic("end"));
        }
        let at = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let packed = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        if at.checked_add(u64::from(packed)) != Some(trailer_at) {
            return Err(SealedError::Index("it does not lie where it should".to_owned()));
        }
        let index = read(&file, at, packed as usize)?;
        if crc32c::crc32c(&index) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
            return Err(SealedError::Index("its checksum does not agree".to_owned()));
        }
        let most = usize::try_from(MOST_UNPACKED).unwrap_or(usize::MAX);
        let index = zstd::bulk::decompress(&index, most)?;
        let attempts: Vec<Attempt> = serde_json::from_slice(&index)
            .map_err(|error| SealedError::Index(error.to_string()))?;
        Ok(Self { file, attempts })
    }

    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.attempts.iter().map(|of| Mark { job: of.job, attempt: of.attempt, sequence: of.mark })
    }

    /// The frames of an attempt from the one with `from` on, in order, until `each` returns false. A damaged block is handed over once,
    /// with the sequence of its first frame.
    pub(crate) fn frames(
        &self,
        job: JobId,
        attempt: u32,
        from: u64,
        each: &mut impl FnMut(u64, Result<&[u8], SealedError>) -> bool,
    ) {
        let of = self.attempts.iter().find(|of| of.job == job && of.attempt == attempt);
        let blocks = of.map_or(&[][..], |of| &of.blocks);
        let before = blocks.partition_point(|block| block.first <= from).saturating_sub(1);
        for block in blocks.iter().skip(before) {
            let goes_on = match self.block(block) {
                Ok(unpacked) => each_frame(block, &unpacked, from, each),
                Err(error) => each(block.first, Err(error)),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn block(&self, of: &Block) -> Result<Vec<u8>, SealedError> {
        let failed = |problem: String| SealedError::Block { at: of.at, problem };
        if of.unpacked > MOST_UNPACKED {
            return Err(failed("it says that it unpacks to more than a block may".to_owned()));
        }
        let packed = read(&self.file, of.at, of.packed as usize)
            .map_err(|error| failed(error.to_string()))?;
        if crc32c::crc32c(&packed) != of.crc {
            return Err(failed("its checksum does not agree".to_owned()));
        }
        let room = usize::try_from(of.unpacked).unwrap_or(usize::MAX);
        zstd::bulk::decompress(&packed, room).map_err(|error| failed(error.to_string()))
    }
}

/// Whether the next block is wanted.
fn each_frame(
    block: &Block,
    mut rest: &[u8],
    from: u64,
    each: &mut impl FnMut(u64, Result<&[u8], SealedError>) -> bool,
) -> bool {
    while !rest.is_empty() {
        let Some((sequence, bytes, after)) = split_frame(rest) else {
            let problem = "a frame in it is cut off".to_owned();
            return each(block.first, Err(SealedError::Block { at: block.at, problem }));
        };
        rest = after;
        if sequence >= from && !each(sequence, Ok(bytes)) {
            return false;
        }
    }
    true
}

fn split_frame(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (sequence, length) = head.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length.first_chunk::<4>()?);
    let (frame, rest) = rest.split_at_checked(length as usize)?;
    Some((u64::from_le_bytes(*sequence), frame, rest))
}

fn read(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, fs};

    type Frames = BTreeMap<(u8, u32), Vec<(u64, Vec<u8>)>>;

    fn job(of: u8) -> JobId {
        JobId::from_bytes([of; 16])
    }

    fn seal(path: &Path, frames: &Frames) {
        let mut sealer = Sealer::begin(path).unwrap();
        for ((of, attempt), frames) in frames {
            let sequence = frames.last().map_or(0, |(sequence, _)| *sequence);
            sealer.attempt(Mark { job: job(*of), attempt: *attempt, sequence }).unwrap();
            for (sequence, bytes) in frames {
                sealer.frame(*sequence, bytes).unwrap();
            }
        }
        let bytes = sealer.finish().unwrap();
        assert_eq!(bytes, fs::metadata(path).unwrap().len());
    }

    fn read_all(sealed: &Sealed, of: u8, attempt: u32, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        sealed.frames(job(of), attempt, from, &mut |sequence, bytes| {
            found.push((sequence, bytes.unwrap().to_owned()));
            true
        });
        found
    }

    fn frames() -> impl Strategy<Value = Frames> {
        // Large ones among them, so that there are several blocks; gaps in the sequence.
        let size = prop_oneof![0_usize..200, 300_000_usize..600_000];
        let of = prop::collection::vec((1_u64..4, size, any::<u8>()), 0..9).prop_map(|frames| {
            let mut sequence = 0;
            frames
                .into_iter()
                .map(|(step, size, byte)| {
                    sequence += step;
                    (sequence, vec![byte; size])
                })
                .collect::<Vec<_>>()
        });
        prop::collection::btree_map((0_u8..3, 1_u32..3), of, 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_frame_comes_out_as_it_went_in(frames in frames(), from in 0_u64..20) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(NAME);
            seal(&path, &frames);
            let sealed = Sealed::open(&path).unwrap();
            prop_assert_eq!(sealed.marks().count(), frames.len());
            for ((of, attempt), frames) in &frames {
                prop_assert_eq!(&read_all(&sealed, *of, *attempt, 0), frames);
                let after: Vec<_> =
                    frames.iter().filter(|(sequence, _)| *sequence >= from).cloned().collect();
                prop_assert_eq!(read_all(&sealed, *of, *attempt, from), after);
            }
            prop_assert_eq!(read_all(&sealed, 9, 1, 0), vec![]);
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_and_no_other_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let text = |n: u64| (n, format!("frame {n} {}", n * 7_919).into_bytes());
        let frames: Frames = BTreeMap::from([((1, 1), (1..40).map(text).collect())]);
        seal(&path, &frames);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let is_seen = Sealed::open(&path).map_or(true, |sealed| {
                let mut problems = 0;
                sealed.frames(job(1), 1, 0, &mut |_, bytes| {
                    problems += usize::from(bytes.is_err());
                    true
                });
                problems > 0
            });
            assert!(is_seen, "byte {at} of {}", whole.len());
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Sealed::open(&path).is_err(), "cut at {at}");
        }
    }
}
