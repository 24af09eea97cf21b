//! Arrow's record batches, which Parquet and Arrow files are read to, as rows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use serde_json::{Map, Value, json};

use super::{RawRow, Rows, until_error};
use crate::DataError;

/// Items that a list in one row may have.
const MAX_LIST: usize = 16 << 20;

struct Batches<I> {
    batches: I,
    current: Option<RecordBatch>,
    /// Index of the next row of the current batch.
    next: usize,
    /// Rows of earlier batches.
    before: usize,
    file: String,
}

/// Rows of record batches; line `k` is the `k`-th row of the file.
pub(super) fn rows(batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'static, file: &str) -> Rows {
    let mut batches = Batches { batches, current: None, next: 0, before: 0, file: file.to_string() };
    until_error(move || batches.row())
}

impl<I: Iterator<Item = Result<RecordBatch, ArrowError>>> Batches<I> {
    fn row(&mut self) -> Result<Option<RawRow>, DataError> {
        loop {
            if let Some(batch) = &self.current {
                if self.next < batch.num_rows() {
                    let names = batch.schema();
                    let cells = names.fields().iter().zip(batch.columns());
                    let fields = cells.map(|(field, column)| (field.name().clone(), cell(column, self.next)));
                    let fields: Map<String, Value> = fields.collect();
                    self.next += 1;
                    return Ok(Some(RawRow { line: self.before + self.next, fields }));
                }
                self.before += self.next;
            }
            self.next = 0;
            let line = self.before + 1;
            self.current = match guarded(&self.file, line, || self.batches.next().transpose())? {
                Some(batch) => Some(batch),
                None => return Ok(None),
            };
        }
    }
}

/// Runs a reader that may panic on a broken file.
pub(super) fn guarded<T, E: std::fmt::Display>(
    file: &str,
    line: usize,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, DataError> {
    let message = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the file is broken: its reader gave up".to_string(),
    };
    let message = format!("cannot read on from row {line}: {message}");
    let hint = match message.to_lowercase() {
        text if ["compress", "codec", "lz4", "brotli", "lzo", "zstd", "snappy"]
            .iter()
            .any(|word| text.contains(word)) =>
        {
            "the whole file is packed in a way that is not read: write it anew with another compression \
             (Parquet: zstd, snappy, gzip or none; Arrow: none)"
        }
        _ => "the file is damaged or incomplete: fetch or write it anew",
    };
    Err(DataError::BadFile { file: file.into(), message, hint })
}

/// One cell as JSON. A type that no layout can use becomes an object that names it.
fn cell(array: &dyn Array, row: usize) -> Value {
    macro_rules! number {
        ($kind:ty) => {
            array.as_primitive::<$kind>().value(row).into()
        };
    }
    let list = |values: &dyn Array| match values.len() {
        // Nulls take no bytes in a file, so a few bytes could ask for any number of them.
        length @ ..MAX_LIST => (0..length).map(|index| cell(values, index)).collect(),
        length => json!({ "list too long": length }),
    };
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => array.as_primitive::<Float16Type>().value(row).to_f32().into(),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Date32 => number!(Date32Type),
        DataType::Date64 => number!(Date64Type),
        DataType::Timestamp(TimeUnit::Second, _) => number!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => number!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => number!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => number!(TimestampNanosecondType),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(array.as_binary_view().value(row)),
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => list(&array.as_fixed_size_list().value(row)),
        DataType::Struct(_) => {
            let columns = array.as_struct();
            let cells = columns.column_names().into_iter().zip(columns.columns());
            // A struct has the fields of all rows: what this row lacks is null.
            let present = cells.filter(|(_, column)| !column.is_null(row));
            Value::Object(present.map(|(name, column)| (name.to_string(), cell(column, row))).collect())
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(row);
            let entry = |index| {
                let key = match cell(entries.column(0), index) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, cell(entries.column(1), index))
            };
            Value::Object((0..entries.len()).map(entry).collect())
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let key = cell(dictionary.keys(), row).as_u64().and_then(|key| usize::try_from(key).ok());
            key.filter(|key| *key < dictionary.values().len()).map_or(Value::Null, |key| cell(dictionary.values(), key))
        }
        other => json!({ "unsupported column type": other.to_string() }),
    }
}

/// Old writers leave out that a column is text.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "bytes": bytes.len() }),
    }
}
