//! Opens a file, decompressing what its first bytes say.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::Path,
};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The file's text as a stream of bytes. `File` that is neither gzip nor zstd is read as it is.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    let mut head = [0_u8; 4];
    let mut got = 0;
    while let Some(rest) = head.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => got += n,
        }
    }
    let start = Cursor::new(head.get(..got).unwrap_or_default().to_vec());
    let whole = start.chain(file);
    if head.starts_with(&ZSTD) {
        let decoder =
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(1 << 17, whole))?;
        Ok(Box::new(decoder))
    } else if head.starts_with(&GZIP) {
        Ok(Box::new(flate2::read::MultiGzDecoder::new(whole)))
    } else {
        Ok(Box::new(whole))
    }
}
