//! Opens a file, decompressing what its first bytes say.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::Path,
};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A file that was opened.
pub struct Source {
    /// Its text as a stream of bytes.
    pub text: Box<dyn Read + Send>,
    /// The text is JSON, most likely.
    pub starts_with_brace: bool,
}

/// A file that is neither gzip nor zstd is read as it is.
pub fn open(path: &Path) -> io::Result<Source> {
    let (head, whole) = peeked(File::open(path)?)?;
    let decompressed: Box<dyn Read + Send> = if head.starts_with(&ZSTD) {
        Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(
            1 << 17,
            whole,
        ))?)
    } else if head.starts_with(&GZIP) {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else {
        return Ok(Source { starts_with_brace: head.starts_with(b"{"), text: Box::new(whole) });
    };
    // A frame that is broken from its start is told when it is read.
    match peeked(decompressed) {
        Ok((head, text)) => {
            Ok(Source { starts_with_brace: head.starts_with(b"{"), text: Box::new(text) })
        }
        Err(error) => Err(error),
    }
}

/// The first four bytes, and a stream that still has them.
fn peeked<R: Read>(mut stream: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = [0_u8; 4];
    let mut got = 0;
    while let Some(rest) = head.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let head = head.get(..got).unwrap_or_default().to_vec();
    Ok((head.clone(), Cursor::new(head).chain(stream)))
}
