//! Segment files: their names, their entries, where a good tail ends.

use crate::spool::SpoolIoError;
use pgsoak_proto::MAX_FRAME_BYTES;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Length and checksum before the content of an entry.
pub(super) const HEADER_BYTES: u64 = 8;

const SUFFIX: &str = ".seg";

/// What lies at an offset of a segment.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A whole entry that matches its checksum.
    Whole(Vec<u8>),
    /// Nothing: the segment ends here.
    End,
    /// The beginning of an entry, or one at the very end that does not match its checksum: a write that was cut off, or is
    /// not over.
    Torn,
    /// An entry that cannot be right, whatever is still to come.
    Damaged,
}

/// The path of the segment whose first frame has this sequence.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// First sequences of the segments, rising. Files of other names are left alone.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, SpoolIoError> {
    let failed = || SpoolIoError::new("list the spool", dir);
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        firsts.extend(first.filter(|first| *first > 0));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Bytes of all segments.
pub(super) fn total_bytes(dir: &Path) -> Result<u64, SpoolIoError> {
    let mut total = 0_u64;
    for first in list(dir)? {
        let path = path(dir, first);
        match fs::metadata(&path) {
            Ok(metadata) => total = total.saturating_add(metadata.len()),
            // Removed by the daemon meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SpoolIoError::new("read the size of", path)(error)),
        }
    }
    Ok(total)
}

/// Appends an entry with this content to a buffer.
///
/// # Errors
/// When the content is larger than [`MAX_FRAME_BYTES`].
pub(super) fn encode(content: &[u8], into: &mut Vec<u8>) -> Result<(), TooLarge> {
    let length = u32::try_from(content.len()).map_err(|_| TooLarge)?;
    if content.is_empty() || content.len() > MAX_FRAME_BYTES {
        return Err(TooLarge);
    }
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&checksum(length, content).to_le_bytes());
    into.extend_from_slice(content);
    Ok(())
}

/// A content that no entry holds.
#[derive(Debug)]
pub(super) struct TooLarge;

fn checksum(length: u32, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), content)
}

/// The entry at an offset.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn entry_at(file: &File, offset: u64) -> io::Result<Entry> {
    let mut header = [0_u8; 8];
    match read_at(file, &mut header, offset)? {
        0 => return Ok(Entry::End),
        8 => {}
        _ => return Ok(Entry::Torn),
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    let Some(bytes) = usize::try_from(length).ok().filter(|b| (1..=MAX_FRAME_BYTES).contains(b))
    else {
        return Ok(Entry::Damaged);
    };
    let mut content = vec![0; bytes];
    let start = offset.saturating_add(HEADER_BYTES);
    if read_at(file, &mut content, start)? < bytes {
        return Ok(Entry::Torn);
    }
    if checksum(length, &content) == expected {
        return Ok(Entry::Whole(content));
    }
    let is_last = file.metadata()?.len() <= start.saturating_add(u64::from(length));
    Ok(if is_last { Entry::Torn } else { Entry::Damaged })
}

/// As many bytes as there are, up to the length of the buffer.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The good part of a segment: how many entries, where they end, and the last one.
pub(super) struct GoodPart {
    /// Whole entries from the start.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Content of the last.
    pub last: Option<Vec<u8>>,
}

/// Reads a segment up to its end or the first entry that is not whole.
pub(super) fn good_part(file: &File) -> io::Result<GoodPart> {
    let mut good = GoodPart { entries: 0, bytes: 0, last: None };
    while let Entry::Whole(content) = entry_at(file, good.bytes)? {
        good.bytes += entry_bytes(&content);
        good.entries += 1;
        good.last = Some(content);
    }
    Ok(good)
}

/// Bytes that an entry with this content takes.
pub(super) fn entry_bytes(content: &[u8]) -> u64 {
    HEADER_BYTES.saturating_add(u64::try_from(content.len()).unwrap_or(u64::MAX))
}
