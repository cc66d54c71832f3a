//! Rows as a Parquet file: zstd, dictionaries for texts, row groups of a quarter of a million rows.

use crate::verbs::samples::rows::{Cell, Column, Kind};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::{fs::File, path::Path, sync::Arc};

/// Rows that are held in memory at once.
const GROUP: usize = 250_000;

/// Values of a column that are not written yet; a definition level of 0 is a value that is missing.
enum Values {
    Text(Vec<ByteArray>),
    Whole(Vec<i64>),
    Real(Vec<f64>),
}

/// A file under way.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<File>,
    columns: Vec<(Values, Vec<i16>)>,
    rows: usize,
}

// === impl ParquetFile ===

impl ParquetFile {
    /// Makes the file; what was there is replaced.
    pub(super) fn create(path: &Path, columns: &[Column]) -> anyhow::Result<Self> {
        let mut schema = String::from("message samples {\n");
        for (name, kind) in columns {
            let of = match kind {
                Kind::Text => "BYTE_ARRAY",
                Kind::Whole => "INT64",
                Kind::Real => "DOUBLE",
            };
            let text = if *kind == Kind::Text { " (UTF8)" } else { "" };
            schema.push_str(&format!("  OPTIONAL {of} {name}{text};\n"));
        }
        schema.push('}');
        let schema = Arc::new(parse_message_type(&schema)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties))?;
        let columns = columns
            .iter()
            .map(|(_, kind)| {
                let values = match kind {
                    Kind::Text => Values::Text(Vec::new()),
                    Kind::Whole => Values::Whole(Vec::new()),
                    Kind::Real => Values::Real(Vec::new()),
                };
                (values, Vec::new())
            })
            .collect();
        Ok(Self { writer, columns, rows: 0 })
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> anyhow::Result<()> {
        for ((values, levels), cell) in self.columns.iter_mut().zip(cells) {
            levels.push(i16::from(!matches!(cell, Cell::Missing)));
            match (values, cell) {
                (Values::Text(values), Cell::Text(text)) => values.push((*text).into()),
                (Values::Whole(values), Cell::Whole(number)) => {
                    // Beyond what a signed number holds there is no memory.
                    values.push(i64::try_from(*number).unwrap_or(i64::MAX));
                }
                (Values::Real(values), Cell::Real(number)) => values.push(*number),
                (_, Cell::Missing) => {}
                (_, other) => anyhow::bail!("{other:?} is not of its column's kind"),
            }
        }
        self.rows += 1;
        if self.rows >= GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for (values, levels) in &mut self.columns {
            let Some(mut column) = group.next_column()? else { break };
            let levels = std::mem::take(levels);
            match values {
                Values::Text(values) => {
                    let values = std::mem::take(values);
                    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
                }
                Values::Whole(values) => {
                    let values = std::mem::take(values);
                    column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
                }
                Values::Real(values) => {
                    let values = std::mem::take(values);
                    column.typed::<DoubleType>().write_batch(&values, Some(&levels), None)?;
                }
            }
            column.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }

    /// Writes what is left, and the file's end.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.write_group()?;
        let file = self.writer.into_inner()?;
        file.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    #[test]
    fn what_was_written_is_read_again_also_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.parquet");
        let columns = [("who", Kind::Text), ("kib", Kind::Whole), ("at", Kind::Real)];
        let mut file = ParquetFile::create(&path, &columns).unwrap();
        for n in 0..300_000_u32 {
            let kib = (n % 3 > 0).then_some(u64::from(n));
            file.row(&[Cell::Text("backend"), kib.into(), Cell::Real(f64::from(n))]).unwrap();
        }
        file.finish().unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let rows: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), 300_000);
        assert_eq!(rows[299_998], r#"{who: "backend", kib: 299998, at: 299998.0}"#);
        assert_eq!(rows[299_997], r#"{who: "backend", kib: null, at: 299997.0}"#);
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.parquet");
        let mut file = ParquetFile::create(&path, &[("who", Kind::Text)]).unwrap();
        assert!(file.row(&[Cell::Whole(1)]).is_err());
    }
}
