//! JSON: an array of objects, or objects one after the other over any number of lines.

use std::io::BufRead;

use super::{Format, MAX_ROW_BYTES, RawRow, broken_read, parse_object, too_long, until_error};
use crate::DataError;

pub(super) const JSON: Format = Format {
    name: "json",
    extensions: &["json"],
    summary: "an array of JSON objects, or objects one after the other",
    open: |input, file| {
        let (reader, file) = (input.stream(file)?, file.to_string());
        let mut objects = Objects { reader, file, line: 1, place: Place::Start };
        Ok(until_error(move || objects.row()))
    },
};

/// What may come next between two rows.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Start,
    /// After `[` or a comma.
    ArrayItem,
    /// After an item of the array.
    ArrayNext,
    /// Between objects without an array.
    Loose,
    /// After `]`.
    End,
}

/// Cuts the text into objects by counting brackets outside strings, so that memory holds one row.
struct Objects {
    reader: Box<dyn BufRead>,
    file: String,
    line: usize,
    place: Place,
}

impl Objects {
    fn byte(&mut self) -> Result<Option<u8>, DataError> {
        let buffer = self.reader.fill_buf().map_err(|error| broken_read(&self.file, self.line, &error))?;
        let Some(byte) = buffer.first().copied() else {
            return Ok(None);
        };
        self.reader.consume(1);
        self.line += usize::from(byte == b'\n');
        Ok(Some(byte))
    }

    fn malformed(&self, message: &str) -> DataError {
        DataError::MalformedRow { file: self.file.clone(), line: self.line, message: message.into() }
    }

    /// Goes on to the `{` of the next row; `false` at the end.
    fn seek(&mut self) -> Result<bool, DataError> {
        let mut mark = b"\xef\xbb\xbf".iter();
        while let Some(byte) = self.byte()? {
            self.place = match (self.place, byte) {
                (place, b' ' | b'\t' | b'\r' | b'\n') => place,
                (Place::Start, byte) if mark.as_slice().first() == Some(&byte) => {
                    mark.next();
                    Place::Start
                }
                (Place::Start, b'[') => Place::ArrayItem,
                (Place::Start | Place::Loose, b'{') => {
                    self.place = Place::Loose;
                    return Ok(true);
                }
                (Place::ArrayItem, b'{') => {
                    self.place = Place::ArrayNext;
                    return Ok(true);
                }
                (Place::ArrayNext, b',') => Place::ArrayItem,
                (Place::ArrayItem | Place::ArrayNext, b']') => Place::End,
                (_, byte) => {
                    let found = char::from(byte).escape_default();
                    return Err(self.malformed(&format!("expected a JSON object, found \"{found}\"")));
                }
            };
        }
        match self.place {
            Place::ArrayItem | Place::ArrayNext => Err(self.malformed("the array is not closed")),
            Place::Start | Place::Loose | Place::End => Ok(false),
        }
    }

    fn row(&mut self) -> Result<Option<RawRow>, DataError> {
        if !self.seek()? {
            return Ok(None);
        }
        let first_line = self.line;
        let mut bytes = vec![b'{'];
        let mut nesting = Nesting { depth: 1, in_string: false, escaped: false };
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| broken_read(&self.file, self.line, &error))?;
            if buffer.is_empty() {
                return Err(self.malformed("the file ends inside a row"));
            }
            let end = nesting.end(buffer);
            let taken = &buffer[..end.unwrap_or(buffer.len())];
            bytes.extend_from_slice(taken);
            self.line += taken.iter().filter(|byte| **byte == b'\n').count();
            let taken = taken.len();
            self.reader.consume(taken);
            if bytes.len() > MAX_ROW_BYTES {
                return Err(too_long(&self.file, first_line));
            }
            if end.is_some() {
                return parse_object(&bytes, &self.file, first_line).map(Some);
            }
        }
    }
}

/// How deep in brackets, and whether in a string, a text has been left.
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Reads on; where the outermost bracket closes, the bytes up to it.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
