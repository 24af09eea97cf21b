//! Arrow IPC, as `datasets.save_to_disk` stores data sets: the stream format, or a file that wraps one.

use std::io::{Cursor, Read};

use arrow_ipc::reader::StreamReader;

use super::columnar::{guarded, rows};
use super::{Format, Input, Rows, broken_read};
use crate::DataError;

/// Bytes that one record batch may have.
const MAX_BATCH_BYTES: usize = 512 << 20;
/// Rows that one record batch may have without a byte for them, as columns of nulls have none.
const MAX_EMPTY_ROWS: i64 = 1 << 20;
/// What a length begins with since version 5 of the format.
const CONTINUES: i32 = -1;
/// How a file begins whose inside is a stream, with padding to eight bytes.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";

pub(crate) const ARROW: Format = Format {
    name: "arrow",
    extensions: &["arrow", "ipc", "feather"],
    summary: "Arrow IPC, stream or file (Feather 2), with uncompressed buffers",
    open,
};

fn open(input: Input, file: &str) -> Result<Rows, DataError> {
    let mut source = input.stream(file)?;
    let mut start = Vec::new();
    let read = source.by_ref().take(FILE_MAGIC.len() as u64).read_to_end(&mut start);
    read.map_err(|error| broken_read(file, 1, &error))?;
    if start == FILE_MAGIC {
        start.clear();
    }
    let source = Box::new(Cursor::new(start).chain(source));
    let mut reader = guarded(file, 1, || StreamReader::try_new(Framed { source, ..Framed::default() }, None))?;
    let batches = std::iter::from_fn(move || reader.next());
    Ok(rows(batches, file))
}

/// Reads the header of every message first: the reader would take as much memory as a header says before it reads on.
struct Framed {
    source: Box<dyn Read>,
    /// Header that is not handed on yet.
    header: Cursor<Vec<u8>>,
    /// Bytes of the message's body to come.
    body: u64,
}

impl Default for Framed {
    fn default() -> Self {
        Self { source: Box::new(std::io::empty()), header: Cursor::default(), body: 0 }
    }
}

impl Framed {
    fn next_header(&mut self) -> std::io::Result<()> {
        let mut header = Vec::new();
        let mut length = self.word(&mut header)?;
        if length == Some(CONTINUES) {
            length = self.word(&mut header)?;
        }
        if let Some(length @ 1..) = length {
            let length = bounded(i64::from(length))?;
            self.source.by_ref().take(length).read_to_end(&mut header)?;
            let start = header.len().saturating_sub(length as usize);
            // What is no message is for the reader to refuse.
            if let Ok(message) = arrow_ipc::root_as_message(&header[start..]) {
                self.body = bounded(message.bodyLength())?;
                plausible(message.header_as_record_batch().map_or(0, |batch| batch.length()), self.body)?;
            }
        }
        self.header = Cursor::new(header);
        Ok(())
    }

    /// Four bytes as a number, if they are there.
    fn word(&mut self, header: &mut Vec<u8>) -> std::io::Result<Option<i32>> {
        let at = header.len();
        self.source.by_ref().take(4).read_to_end(header)?;
        Ok(header[at..].try_into().ok().map(i32::from_le_bytes))
    }
}

/// A length that a header may state.
fn bounded(length: i64) -> std::io::Result<u64> {
    u64::try_from(length).ok().filter(|length| *length <= MAX_BATCH_BYTES as u64).ok_or_else(|| {
        let message = format!("record batch of {length} bytes, more than {} MiB", MAX_BATCH_BYTES >> 20);
        std::io::Error::new(std::io::ErrorKind::FileTooLarge, message)
    })
}

/// A number of rows that so many bytes can hold: a value has a bit at least.
fn plausible(rows: i64, body: u64) -> std::io::Result<()> {
    if u64::try_from(rows).is_ok_and(|rows| rows <= MAX_EMPTY_ROWS as u64 || rows / 8 <= body) {
        return Ok(());
    }
    let message = format!("record batch of {rows} rows in {body} bytes");
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message))
}

impl Read for Framed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.header.position() == self.header.get_ref().len() as u64 && self.body == 0 {
            self.next_header()?;
        }
        let read = self.header.read(buffer)?;
        if read > 0 || self.body == 0 {
            return Ok(read);
        }
        let most = buffer.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
        let read = self.source.read(&mut buffer[..most])?;
        self.body -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_body_longer_than_memory_is_an_error() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/formats/saved/train/data-00000-of-00001.arrow");
        let good = std::fs::read(path).unwrap();
        // The schema comes first and has no body; the second message is a batch.
        let length = |at: usize| i32::from_le_bytes(good[at + 4..at + 8].try_into().unwrap()) as usize;
        let second = 8 + length(0);
        let header = &good[second + 8..second + 8 + length(second)];
        let body = arrow_ipc::root_as_message(header).unwrap().bodyLength();
        let place = second + 8 + header.windows(8).position(|bytes| bytes == body.to_le_bytes()).unwrap();
        for stated in [i64::MAX, -1, 1 << 40] {
            let mut file = good.clone();
            file[place..place + 8].copy_from_slice(&stated.to_le_bytes());
            let rows: Result<Vec<_>, _> = open(Input::Memory(file), "a.arrow").unwrap().collect();
            assert!(rows.unwrap_err().to_string().contains("more than 512 MiB"), "{stated}");
        }
        assert!(open(Input::Memory(good.clone()), "a.arrow").unwrap().all(|row| row.is_ok()));
    }

    /// A column of nulls has no bytes, so that a file of 840 bytes stated 10^16 rows.
    #[test]
    fn more_rows_than_bytes_can_hold_are_an_error() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/arrow/rows-without-bytes");
        let file = std::fs::read(path).unwrap();
        let rows: Result<Vec<_>, _> = open(Input::Memory(file), "a.arrow").unwrap().collect();
        assert!(rows.unwrap_err().to_string().contains("rows in 96 bytes"));
        assert!(plausible(MAX_EMPTY_ROWS, 0).is_ok() && plausible(MAX_EMPTY_ROWS + 8, 1 << 18).is_ok());
        assert!(plausible(MAX_EMPTY_ROWS + 8, 0).is_err() && plausible(-1, 8).is_err());
    }
}
