//! What was acknowledged of a run, beside its database: so that a database that lost its end says so.
//!
//! sled takes a log that breaks off for one that ends there, and opens it without a word. This small file is written after
//! every sync of the database and is not synced itself: it can lag behind, and never runs ahead.

use pgsoak_proto::id::JobId;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Job, attempt, sequence, checksum.
const RECORD: usize = 16 + 4 + 8 + 4;

/// An attempt of a run.
type Attempt = (JobId, u32);

/// The open file.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    file: File,
    /// Where each attempt's record lies, and what it says.
    records: BTreeMap<Attempt, (u64, u64)>,
    next: u64,
}

impl Acknowledged {
    /// Opens or makes the file in a run's folder. A record that does not agree with its checksum is no record.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("acknowledged"))?;
        let bytes = std::fs::read(folder.join("acknowledged"))?;
        let mut records = BTreeMap::new();
        let mut next = 0;
        for chunk in bytes.chunks(RECORD) {
            if let Some((attempt, sequence)) = decode(chunk) {
                records.insert(attempt, (next, sequence));
            }
            next += 1;
        }
        Ok(Self { file, records, next })
    }

    /// What each attempt was told.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (Attempt, u64)> + '_ {
        self.records.iter().map(|(attempt, (_, sequence))| (*attempt, *sequence))
    }

    /// Remembers what an attempt is about to be told.
    pub(crate) fn write(&mut self, attempt: Attempt, sequence: u64) -> io::Result<()> {
        let place = match self.records.get(&attempt) {
            Some((place, _)) => *place,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        let record = encode(attempt, sequence);
        self.file.write_all_at(&record, place.saturating_mul(RECORD as u64))?;
        self.records.insert(attempt, (place, sequence));
        Ok(())
    }
}

fn encode((job, attempt): Attempt, sequence: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD);
    record.extend_from_slice(job.as_bytes());
    record.extend_from_slice(&attempt.to_be_bytes());
    record.extend_from_slice(&sequence.to_be_bytes());
    record.extend_from_slice(&crc32c::crc32c(&record).to_be_bytes());
    record
}

fn decode(record: &[u8]) -> Option<(Attempt, u64)> {
    let (body, sum) = record.split_last_chunk::<4>()?;
    if body.len() != RECORD - 4 || crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (job, rest) = body.split_first_chunk::<16>()?;
    let (attempt, rest) = rest.split_first_chunk::<4>()?;
    let sequence = rest.first_chunk::<8>()?;
    let attempt = (JobId::from_bytes(*job), u32::from_be_bytes(*attempt));
    Some((attempt, u64::from_be_bytes(*sequence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_broken_records_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = ((JobId::issue(), 1), (JobId::issue(), 2));
        let mut file = Acknowledged::open(folder.path()).unwrap();
        for sequence in [3, 9] {
            file.write(a, sequence).unwrap();
            file.write(b, sequence + 1).unwrap();
        }
        drop(file);
        let path = folder.path().join("acknowledged");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * RECORD as u64);
        let mut again = Acknowledged::open(folder.path()).unwrap();
        assert_eq!(again.marks().collect::<BTreeMap<_, _>>(), BTreeMap::from([(a, 9), (b, 10)]));
        again.write(b, 11).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Acknowledged::open(folder.path()).unwrap().marks().count(), 0);
    }
}
