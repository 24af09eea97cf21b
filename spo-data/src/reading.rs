//! One file's rows to records: a sample of them decides the layout, and what nobody reads is counted.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::format::RawRow;
use crate::record::Record;
use crate::report::FileReport;
use crate::schema::{self, Dimensions, Row, Schema, lost};
use crate::{DataError, DataSpec, Registry};

/// Rows that decide the layout of a file, and the bytes of text at which there are enough of them.
const SAMPLE: usize = 256;
const SAMPLE_BYTES: usize = 16 << 20;
/// Name of a preference that nobody named.
const UNNAMED: &str = "preference";
/// Columns that are counted by name; a file with more has no table's columns but keys that are data.
const MOST_COLUMNS: usize = 1000;

/// The layout of a file and what was left of its rows.
pub(crate) struct Reading<'a> {
    pub(crate) schema: Schema,
    why: String,
    /// Whether the user named the schema and so knows what it leaves out.
    named: bool,
    file: &'a str,
    short: &'a str,
    dimension: &'a str,
    unused: BTreeMap<String, usize>,
}

/// The first rows, and the error that ended them.
pub(crate) fn sample(rows: &mut dyn Iterator<Item = Result<RawRow, DataError>>) -> (Vec<RawRow>, Option<DataError>) {
    let (mut sample, mut bytes) = (Vec::new(), 0);
    while sample.len() < SAMPLE && bytes < SAMPLE_BYTES {
        match rows.next() {
            Some(Ok(row)) => {
                bytes += row.fields.values().map(size).sum::<usize>();
                sample.push(row);
            }
            Some(Err(error)) => return (sample, Some(error)),
            None => break,
        }
    }
    (sample, None)
}

/// Bytes of a value, roughly.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 8,
    }
}

impl<'a> Reading<'a> {
    /// The layout that the spec names or the sample shows.
    pub(crate) fn start(
        registry: &Registry,
        spec: &'a DataSpec,
        file: &'a str,
        short: &'a str,
        sample: &[RawRow],
    ) -> Result<Self, DataError> {
        let (schema, why) = match &spec.schema {
            Some(name) => (registry.schema(name)?, "named by schema".to_string()),
            None => schema::detect(registry.schemas(), file, sample)?,
        };
        if let (Some(dimension), true) = (&spec.dimension, schema.dimensions != Dimensions::Unnamed) {
            let expected = match schema.dimensions {
                Dimensions::None => "no dimension: rows of this layout have no preference",
                _ => "no dimension: rows of this layout name their own",
            };
            let value = dimension.clone();
            return Err(DataError::BadSetting { key: "dimension", value, expected });
        }
        let (named, dimension) = (spec.schema.is_some(), spec.dimension.as_deref().unwrap_or(UNNAMED));
        Ok(Self { schema, why, named, file, short, dimension, unused: BTreeMap::new() })
    }

    pub(crate) fn record(&mut self, raw: &RawRow) -> Result<Record, DataError> {
        let row = Row::new(self.file, raw.line, &raw.fields, self.schema.name, self.dimension);
        let mut record = (self.schema.read)(&row)?;
        record.safe = schema::safety(&row, record.answers.len())?;
        if record.id == format!("{}:{}", self.file, raw.line) {
            record.id = format!("{}:{}", self.short, raw.line);
        }
        if !self.named {
            lost::check(&row, &record)?;
        }
        for (column, _) in row.unread() {
            let known = self.unused.contains_key(column) || self.unused.len() < MOST_COLUMNS;
            let name = if known { column.as_str() } else { "further columns" };
            *self.unused.entry(name.to_string()).or_default() += 1;
        }
        Ok(record)
    }

    pub(crate) fn report(self, format: &str, rows: usize) -> FileReport {
        let (file, format, schema) = (self.file.to_string(), format.to_string(), self.schema.name.to_string());
        FileReport { file, format, schema, why: self.why, rows, unused: self.unused }
    }
}

/// Gives columns the names that schemas know. A column that had such a name before stays, under another one.
pub(crate) fn rename_columns(mut raw: RawRow, spec: &DataSpec, file: &str) -> Result<RawRow, DataError> {
    let keys: Vec<String> = raw.fields.keys().cloned().collect();
    let mut renamed = Map::new();
    for (wanted, found) in &spec.columns {
        let Some(value) = raw.fields.shift_remove(found) else {
            return Err(DataError::MissingKey {
                file: file.to_string(),
                line: raw.line,
                schema: "columns",
                key: found.clone(),
                null: false,
                found: keys,
            });
        };
        renamed.insert(wanted.clone(), value);
    }
    for (wanted, value) in renamed {
        if let Some(other) = raw.fields.insert(wanted.clone(), value) {
            raw.fields.insert(format!("{wanted} (the file's own)"), other);
        }
    }
    Ok(raw)
}
