//! Arrow IPC, as `datasets.save_to_disk` stores data sets: the stream format, or a file that wraps one.

use std::cell::Cell;
use std::io::{Cursor, Read};
use std::rc::Rc;

use arrow_ipc::reader::StreamReader;

use super::columnar::{guarded, rows};
use super::{Format, Input, Rows, broken_read};
use crate::DataError;

/// Bytes that one record batch may have.
const MAX_BATCH_BYTES: usize = 512 << 20;
/// How a file begins whose inside is a stream, with padding to eight bytes.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";

pub(super) const ARROW: Format = Format {
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
    let unparsed = Rc::new(Cell::new(0));
    let guard = Guard { source, unparsed: unparsed.clone() };
    let mut reader = guarded(file, 1, || StreamReader::try_new(guard, None))?;
    let batches = std::iter::from_fn(move || {
        unparsed.set(0);
        reader.next()
    });
    Ok(rows(batches, file))
}

/// Stops a batch that never ends.
struct Guard {
    source: Box<dyn Read>,
    unparsed: Rc<Cell<usize>>,
}

impl Read for Guard {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.unparsed.get() > MAX_BATCH_BYTES {
            let message = format!("record batch longer than {} MiB", MAX_BATCH_BYTES >> 20);
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
        }
        let read = self.source.read(buffer)?;
        self.unparsed.set(self.unparsed.get() + read);
        Ok(read)
    }
}
