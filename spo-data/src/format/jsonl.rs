//! JSON Lines: one object per line.

use std::io::{BufRead, Read};

use super::{Format, MAX_ROW_BYTES, RawRow, broken_read, parse_object, too_long};
use crate::DataError;

pub(super) const JSONL: Format = Format {
    name: "jsonl",
    extensions: &["jsonl", "ndjson"],
    summary: "one JSON object per line; blank lines are skipped",
    open: |input, file| {
        Ok(Box::new(Lines { reader: input.stream(file)?, file: file.to_string(), line: 0, done: false }))
    },
};

struct Lines {
    reader: Box<dyn BufRead>,
    file: String,
    line: usize,
    done: bool,
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

impl Iterator for Lines {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.row().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}
