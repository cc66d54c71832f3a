//! SHA-256 in hex: the name of a package file, and what raw files are checked by.

use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Of a file, read at once.
const PIECE: usize = 256 << 10;

/// Of bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of a file, read in pieces.
///
/// # Errors
///
/// When it cannot be read.
pub fn of_file(path: &Path) -> io::Result<String> {
    measured(path).map(|(_, digest)| digest)
}

/// As [`of_file`], and before it the bytes that were read.
///
/// # Errors
///
/// When it cannot be read.
pub fn measured(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut bytes = 0_u64;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, hex(&hasher.finalize())));
        }
        hasher.update(piece.get(..read).unwrap_or_default());
        bytes = bytes.saturating_add(u64::try_from(read).unwrap_or(0));
    }
}

/// Whether a text can be a digest: 64 lower-case hex digits. What names a file must be no path.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Two lower-case hex digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
