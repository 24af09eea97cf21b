//! Parquet, as the Hugging Face hub stores data sets.

use std::fs::File;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::columnar::{guarded, rows};
use super::{Format, Input, Rows};
use crate::DataError;

/// Rows decoded at a time: memory holds these and the pages that they come from.
const BATCH_ROWS: usize = 256;

pub(crate) const PARQUET: Format = Format {
    name: "parquet",
    extensions: &["parquet"],
    summary: "Parquet with snappy, zstd, gzip or no compression; nested columns become lists and objects",
    open: |mut input, file| {
        input.check_parquet(file)?;
        match input {
            Input::File(source) => open::<File>(source, file),
            Input::Memory(bytes) => open::<Bytes>(bytes.into(), file),
        }
    },
};

fn open<R: ChunkReader + 'static>(source: R, file: &str) -> Result<Rows, DataError> {
    // The Arrow schema that some writers store asks for types wider than the file has.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = guarded(file, 1, || {
        ParquetRecordBatchReaderBuilder::try_new_with_options(source, options)?.with_batch_size(BATCH_ROWS).build()
    })?;
    Ok(rows(reader, file))
}
