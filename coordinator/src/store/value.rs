//! How a value lies in sled: cut into pieces of at most 4 KiB, each with a version and a checksum.
//!
//! Pieces stay small because sled keeps pages over a quarter of its segment size in files that it never syncs. The piece
//! number is the end of the key, so the pieces of a value lie side by side and in order.

/// Version of the layout.
const VERSION: u8 = 1;
/// Version, number of pieces, checksum of the piece's bytes.
const HEAD: usize = 1 + 2 + 4;
/// Bytes of a value in one piece.
const PIECE: usize = 4_096 - HEAD;
/// Largest value: what 16 bits of piece numbers reach.
pub(crate) const MAX_VALUE: usize = PIECE * 65_535;

/// A value that is not what was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DamagedValue {
    #[error("a piece is too short to be one")]
    Short,
    #[error("a piece has layout version {0}; this program reads {VERSION}")]
    Version(u8),
    #[error("the checksum of piece {0} does not agree")]
    Checksum(u16),
    #[error("piece {missing} of {pieces} is missing")]
    Missing { missing: u16, pieces: u16 },
    #[error("the content does not parse: {0}")]
    Content(String),
}

fn key_of(logical: &[u8], piece: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(logical.len() + 2);
    key.extend_from_slice(logical);
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

/// Adds the pieces of `value` to `batch`. Values beyond [`MAX_VALUE`] are refused by returning false.
#[must_use]
pub(crate) fn put(batch: &mut sled::Batch, logical: &[u8], value: &[u8]) -> bool {
    put_into(logical, value, &mut |key, piece| {
        batch.insert(key, piece);
        true
    })
}

/// Hands the pieces of `value` to `each`, as they would lie in sled; false when it is too large, or when `each` says so.
#[must_use]
pub(crate) fn put_into(
    logical: &[u8],
    value: &[u8],
    each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool,
) -> bool {
    let pieces = value.len().div_ceil(PIECE).max(1);
    let Ok(count) = u16::try_from(pieces) else { return false };
    let mut chunks = value.chunks(PIECE);
    for piece in 0..count {
        let chunk = chunks.next().unwrap_or_default();
        let mut stored = Vec::with_capacity(HEAD + chunk.len());
        stored.push(VERSION);
        stored.extend_from_slice(&count.to_be_bytes());
        stored.extend_from_slice(&crc32c::crc32c(chunk).to_be_bytes());
        stored.extend_from_slice(chunk);
        if !each(key_of(logical, piece), stored) {
            return false;
        }
    }
    true
}

/// Removes pieces `from..` of what is stored under `logical` (after an overwrite by a shorter value: from its count on).
pub(crate) fn remove(
    tree: &sled::Tree,
    batch: &mut sled::Batch,
    logical: &[u8],
    from: u16,
) -> Result<(), sled::Error> {
    let Some(first) = tree.get(key_of(logical, 0))? else { return Ok(()) };
    let count = open_piece(0, &first).map_or(1, |(count, _)| count);
    for piece in from..count {
        batch.remove(key_of(logical, piece));
    }
    Ok(())
}

/// How many pieces a value of so many bytes takes.
pub(crate) fn pieces_of(bytes: usize) -> u16 {
    u16::try_from(bytes.div_ceil(PIECE).max(1)).unwrap_or(u16::MAX)
}

/// The value under `logical`; the outer error is sled's, the inner one says that it is damaged.
pub(crate) fn get(
    tree: &sled::Tree,
    logical: &[u8],
) -> Result<Option<Result<Vec<u8>, DamagedValue>>, sled::Error> {
    let Some(first) = tree.get(key_of(logical, 0))? else { return Ok(None) };
    let mut assembly = Assembly::default();
    assembly.add(0, &first);
    for piece in 1..assembly.pieces() {
        if let Some(stored) = tree.get(key_of(logical, piece))? {
            assembly.add(piece, &stored);
        }
    }
    Ok(Some(assembly.finish()))
}

fn open_piece(piece: u16, stored: &[u8]) -> Result<(u16, &[u8]), DamagedValue> {
    let (head, chunk) = stored.split_at_checked(HEAD).ok_or(DamagedValue::Short)?;
    let [version, a, b, c0, c1, c2, c3] = head else { return Err(DamagedValue::Short) };
    if *version != VERSION {
        return Err(DamagedValue::Version(*version));
    }
    if crc32c::crc32c(chunk) != u32::from_be_bytes([*c0, *c1, *c2, *c3]) {
        return Err(DamagedValue::Checksum(piece));
    }
    Ok((u16::from_be_bytes([*a, *b]), chunk))
}

/// Puts a value together from its pieces, which come in order.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    value: Vec<u8>,
    next: u16,
    pieces: u16,
    damage: Option<DamagedValue>,
}

impl Assembly {
    /// Adds a piece. Pieces past the count of the first one are left over from a longer value, and ignored.
    pub(crate) fn add(&mut self, piece: u16, stored: &[u8]) {
        if self.damage.is_some() {
            return;
        }
        match open_piece(piece, stored) {
            Ok((pieces, chunk)) => {
                if piece == 0 {
                    self.pieces = pieces;
                } else if piece >= self.pieces {
                    return;
                }
                if piece != self.next {
                    self.damage =
                        Some(DamagedValue::Missing { missing: self.next, pieces: self.pieces });
                    return;
                }
                self.next += 1;
                self.value.extend_from_slice(chunk);
            }
            Err(_) if piece != 0 && piece >= self.pieces => {}
            Err(damage) => self.damage = Some(damage),
        }
    }

    fn pieces(&self) -> u16 {
        self.pieces
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, DamagedValue> {
        match self.damage {
            Some(damage) => Err(damage),
            None if self.next < self.pieces || self.pieces == 0 => {
                Err(DamagedValue::Missing { missing: self.next, pieces: self.pieces })
            }
            None => Ok(self.value),
        }
    }
}

/// Walks the values under `prefix` in order: `(logical key, value)`.
pub(crate) fn scan(
    tree: &sled::Tree,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], Result<Vec<u8>, DamagedValue>) -> bool,
) -> Result<(), sled::Error> {
    let mut under_way: Option<(Vec<u8>, Assembly)> = None;
    for entry in tree.scan_prefix(prefix) {
        let (key, stored) = entry?;
        let Some((logical, piece)) = key.split_last_chunk::<2>() else { continue };
        let piece = u16::from_be_bytes(*piece);
        match &mut under_way {
            Some((of, assembly)) if of.as_slice() == logical => assembly.add(piece, &stored),
            _ => {
                if let Some((of, assembly)) = under_way.take()
                    && !each(&of, assembly.finish())
                {
                    return Ok(());
                }
                let mut assembly = Assembly::default();
                assembly.add(piece, &stored);
                under_way = Some((logical.to_owned(), assembly));
            }
        }
    }
    if let Some((of, assembly)) = under_way {
        each(&of, assembly.finish());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree() -> (tempfile::TempDir, sled::Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
        (dir, db)
    }

    fn store(tree: &sled::Tree, key: &[u8], value: &[u8]) {
        let mut batch = sled::Batch::default();
        remove(tree, &mut batch, key, pieces_of(value.len())).unwrap();
        assert!(put(&mut batch, key, value));
        tree.apply_batch(batch).unwrap();
    }

    #[test]
    fn long_values_are_split_and_come_back() {
        let (_dir, db) = tree();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE + 7] {
            let value: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            store(&db, b"key", &value);
            assert_eq!(get(&db, b"key").unwrap().unwrap().unwrap(), value, "{length}");
            assert!(db.iter().all(|entry| entry.unwrap().1.len() <= 4_096));
        }
        store(&db, b"key", b"short");
        assert_eq!(db.len(), 1, "the pieces of the longer value are gone");
    }

    #[test]
    fn damage_is_found_and_named() {
        let (_dir, db) = tree();
        store(&db, b"key", &vec![7; 3 * PIECE]);
        let second = key_of(b"key", 1);
        let mut bytes = db.get(&second).unwrap().unwrap().to_vec();
        bytes[100] ^= 1;
        db.insert(&second, bytes).unwrap();
        assert_eq!(get(&db, b"key").unwrap().unwrap(), Err(DamagedValue::Checksum(1)));
        db.remove(&second).unwrap();
        assert_eq!(
            get(&db, b"key").unwrap().unwrap(),
            Err(DamagedValue::Missing { missing: 1, pieces: 3 })
        );
        let mut seen = Vec::new();
        store(&db, b"kez", b"fine");
        scan(&db, b"k", |key, value| {
            seen.push((key.to_vec(), value.is_ok()));
            true
        })
        .unwrap();
        assert_eq!(seen, [(b"key".to_vec(), false), (b"kez".to_vec(), true)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(piece: u16, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut assembly = Assembly::default();
            assembly.add(0, &bytes);
            assembly.add(piece, &bytes);
            let _ = assembly.finish();
        }
    }
}
