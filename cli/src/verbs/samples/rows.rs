//! Rows as CSV or JSON lines on standard output, or as a Parquet file.

use crate::verbs::samples::parquet::ParquetFile;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::io::{self, BufWriter, Stdout, Write as _};

/// What a column holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Text,
    Whole,
    Real,
}

/// A column by its name.
pub(super) type Column = (&'static str, Kind);

/// One value, of its column's kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Whole(u64),
    Real(f64),
    /// It was not read.
    Missing,
}

/// Takes rows; all of them have the same columns.
pub(super) enum Rows {
    Csv(Box<csv::Writer<Stdout>>),
    Json(BufWriter<Stdout>, Vec<Column>),
    Parquet(Box<ParquetFile>),
}

/// A row as JSON: an object in the order of its columns.
struct Object<'a>(&'a [Column], &'a [Cell<'a>]);

// === impl Cell ===

impl From<Option<u64>> for Cell<'_> {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Missing, Self::Whole)
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Whole(number) => serializer.serialize_u64(*number),
            Self::Real(number) => serializer.serialize_f64(*number),
            Self::Missing => serializer.serialize_none(),
        }
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(columns, cells) = self;
        let mut map = serializer.serialize_map(Some(columns.len()))?;
        for ((name, _), cell) in columns.iter().zip(*cells) {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

// === impl Rows ===

impl Rows {
    pub(super) fn csv(columns: &[Column]) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(io::stdout());
        writer.write_record(columns.iter().map(|(name, _)| name))?;
        Ok(Self::Csv(Box::new(writer)))
    }

    pub(super) fn json(columns: Vec<Column>) -> Self {
        Self::Json(BufWriter::new(io::stdout()), columns)
    }

    /// Cells in the order of the columns.
    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> anyhow::Result<()> {
        match self {
            Self::Csv(writer) => {
                for cell in cells {
                    match cell {
                        Cell::Text(text) => writer.write_field(text)?,
                        Cell::Whole(number) => writer.write_field(number.to_string())?,
                        Cell::Real(number) => writer.write_field(format!("{number:?}"))?,
                        Cell::Missing => writer.write_field("")?,
                    }
                }
                writer.write_record(None::<&[u8]>)?;
            }
            Self::Json(writer, columns) => {
                serde_json::to_writer(&mut *writer, &Object(columns, cells))?;
                writer.write_all(b"\n")?;
            }
            Self::Parquet(file) => file.row(cells)?,
        }
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Csv(mut writer) => writer.flush()?,
            Self::Json(mut writer, _) => writer.flush()?,
            Self::Parquet(file) => file.finish()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_row_has_its_columns_in_their_order() {
        let columns =
            [("z", Kind::Text), ("a", Kind::Whole), ("m", Kind::Real), ("n", Kind::Whole)];
        let cells = [Cell::Text("x\"y"), Cell::Whole(7), Cell::Real(1.5), None.into()];
        let json = serde_json::to_string(&Object(&columns, &cells)).unwrap();
        assert_eq!(json, r#"{"z":"x\"y","a":7,"m":1.5,"n":null}"#);
    }
}
