//! JSON Lines: one object per line.

use std::io::{BufRead, Read};

use super::{Format, MAX_ROW_BYTES, RawRow, broken_read, json, parse_object, too_long, until_error};
use crate::DataError;

pub(crate) const JSONL: Format = Format {
    name: "jsonl",
    extensions: &["jsonl", "ndjson"],
    summary: "one JSON object per line; blank lines are skipped; an array is read as json",
    open: |input, file| {
        let (start, reader) = json::peek(input.stream(file)?, file)?;
        if json::is_whole(&start) {
            return Ok(json::rows(reader, &start, file));
        }
        let mut lines = Lines { reader, file: file.to_string(), line: 0 };
        Ok(until_error(move || lines.row()))
    },
};

struct Lines {
    reader: Box<dyn BufRead>,
    file: String,
    line: usize,
}

impl Lines {
    fn row(&mut self) -> Result<Option<RawRow>, DataError> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let limit = MAX_ROW_BYTES as u64 + 1;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|error| broken_read(&self.file, self.line, &error))? == 0 {
                return Ok(None);
            }
            if bytes.len() > MAX_ROW_BYTES {
                return Err(too_long(&self.file, self.line));
            }
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| self.line == 1).unwrap_or(&bytes);
            let text = text.trim_ascii();
            if !text.is_empty() {
                return parse_object(text, &self.file, self.line).map(Some);
            }
        }
    }
}
