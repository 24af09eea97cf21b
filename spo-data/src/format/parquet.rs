//! Parquet, as the Hugging Face hub stores data sets.

use std::fs::File;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;

use super::columnar::{guarded, rows};
use super::parquet_fields::{FILE, PAGE, PAGE_SIZE};
use super::thrift::{Walked, walk};
use super::{Format, Input, Rows};
use crate::DataError;

/// Rows decoded at a time: memory holds these and the pages that they come from.
const BATCH_ROWS: usize = 256;
/// Bytes in which a page's header ends, but for long statistics.
const HEADER_BYTES: u64 = 4096;

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
        check_footer(&source)?;
        let metadata = ArrowReaderMetadata::load(&source, options)?;
        check_pages(&source, metadata.metadata())?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(source, metadata).with_batch_size(BATCH_ROWS).build()
    })?;
    Ok(rows(reader, file))
}

fn broken(place: &str, what: &str) -> ParquetError {
    ParquetError::General(format!("{place} is none of Parquet's: it has {what}"))
}

/// Refuses a footer that the reader might not come to the end of; of a file that is too short, the reader speaks.
fn check_footer(source: &impl ChunkReader) -> Result<(), ParquetError> {
    let Some(end) = source.len().checked_sub(8) else { return Ok(()) };
    let tail = source.get_bytes(end, 4)?;
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    let Some(start) = end.checked_sub(length) else { return Ok(()) };
    match walk(&source.get_bytes(start, length as usize)?, FILE, 0) {
        Walked::Whole { .. } => Ok(()),
        Walked::Cut => Err(broken("its footer", "no end")),
        Walked::Unlike(what) => Err(broken("its footer", what)),
    }
}

/// The same of the header of every page.
fn check_pages(source: &impl ChunkReader, metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let (mut at, length) = column.byte_range();
        let end = source.len().min(at.saturating_add(length));
        let mut room = HEADER_BYTES;
        while at < end {
            let read = room.min(end - at);
            match walk(&source.get_bytes(at, read as usize)?, PAGE, PAGE_SIZE) {
                Walked::Whole { bytes, number } => {
                    let page = number.and_then(|size| u64::try_from(size).ok());
                    let page = page.ok_or_else(|| broken("the header of a page", "no size"))?;
                    at = at.saturating_add(bytes as u64).saturating_add(page);
                    room = HEADER_BYTES;
                }
                // Statistics may be long.
                Walked::Cut if read == room => room = room.saturating_mul(16),
                Walked::Cut => return Err(broken("the header of a page", "no end")),
                Walked::Unlike(what) => return Err(broken("the header of a page", what)),
            }
        }
    }
    Ok(())
}
