//! What happens to a spool that has reached its size: the oldest samples are thinned, segment by segment, so that the newest go on
//! being kept. Nothing else is touched, no frame disappears or changes its number, and each frame of samples says how many
//! ticks were taken from it, so that the ledger knows.
//!
//! A thinned segment takes the place of the old one atomically: a reader that has the old one open reads it to its end.

use crate::spool::SpoolIoError;
use crate::spool::segment::{self, Entry};
use pgsoak_proto::wire;
use pgsoak_proto::wire::frame::Body;
use prost::Message;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// Of so many ticks one is kept.
pub(super) const KEPT_OF: u64 = 10;

/// Thins the segment that begins with this sequence. Gives how many bytes that freed.
///
/// # Errors
/// When it cannot be read or written anew: it is as it was then.
pub(super) fn thin(dir: &Path, first: u64) -> Result<u64, SpoolIoError> {
    let path = segment::path(dir, first);
    let failed = || SpoolIoError::new("thin the spool segment", &path);
    let file = match File::open(&path) {
        // Released by the daemon meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        opened => opened.map_err(failed())?,
    };
    let before = file.metadata().map_err(failed())?.len();
    let mut thinned = Vec::new();
    let mut offset = 0;
    while let Entry::Whole(content) = segment::entry_at(&file, offset).map_err(failed())? {
        offset = offset.saturating_add(segment::entry_bytes(&content));
        let content = thinned_frame(&content).unwrap_or(content);
        segment::encode(&content, &mut thinned)
            .map_err(|_| failed()(std::io::Error::other("a frame grew by being thinned")))?;
    }
    if offset < before {
        // Damage is the reader's to tell of; what is behind it must not move.
        return Ok(0);
    }
    let after = u64::try_from(thinned.len()).unwrap_or(u64::MAX);
    if after >= before {
        return Ok(0);
    }
    let partial = dir.join(".thinning");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(&thinned)?;
        file.sync_all()?;
        // Not brought back when the daemon released it meanwhile.
        fs::metadata(&path)?;
        fs::rename(&partial, &path)?;
        File::open(dir)?.sync_all()
    };
    match write() {
        Ok(()) => Ok(before.saturating_sub(after)),
        Err(error) => {
            // Best effort: the next thinning writes over it.
            let _ = fs::remove_file(&partial);
            if error.kind() == std::io::ErrorKind::NotFound { Ok(0) } else { Err(failed()(error)) }
        }
    }
}

/// The frame with fewer ticks; `None`: it holds no samples, or they cannot be thinned any more.
fn thinned_frame(content: &[u8]) -> Option<Vec<u8>> {
    let mut frame = wire::Frame::decode(content).ok()?;
    let Some(Body::Samples(batch)) = &frame.body else { return None };
    let samples = pgsoak_proto::evidence::Samples::try_from(batch.clone()).ok()?;
    let thinned = samples.thinned(KEPT_OF)?;
    frame.body = Some(Body::Samples((&thinned).into()));
    Some(frame.encode_to_vec())
}
