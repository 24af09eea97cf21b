//! JSON: an array of objects, or objects one after the other over any number of lines.

use std::io::{BufRead, Cursor, Read};

use super::{Format, MAX_ROW_BYTES, RawRow, Rows, broken_read, parse_object, too_long, until_error};
use crate::DataError;

pub(crate) const JSON: Format = Format {
    name: "json",
    extensions: &["json"],
    summary: "an array of JSON objects, also under one key (data, rows), or objects one after the other",
    open: |input, file| {
        let (start, reader) = peek(input.stream(file)?, file)?;
        Ok(rows(reader, &start, file))
    },
};

/// Keys under which a file may hold its rows.
const WRAPPERS: [&str; 7] = ["data", "rows", "examples", "instances", "items", "train", "records"];
/// Bytes of a file's beginning that tell what it holds.
const START_BYTES: u64 = 4096;

/// The beginning of a text, and the whole of it.
pub(super) fn peek(mut reader: Box<dyn BufRead>, file: &str) -> Result<(Vec<u8>, Box<dyn BufRead>), DataError> {
    let mut start = Vec::new();
    reader.by_ref().take(START_BYTES).read_to_end(&mut start).map_err(|error| broken_read(file, 1, &error))?;
    Ok((start.clone(), Box::new(Cursor::new(start).chain(reader))))
}

/// Whether a text is an array or holds one under a key, and so is no list of lines.
pub(super) fn is_whole(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let array = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    array.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"{") || rest.starts_with(b"]"))
        || wrapper(start).is_some()
}

/// Rows of a text with this beginning.
pub(super) fn rows(mut reader: Box<dyn BufRead>, start: &[u8], file: &str) -> Rows {
    let (mut place, mut line, wrapped) = (Place::Start, 1, wrapper(start));
    if let Some(length) = wrapped {
        let skipped = reader.by_ref().take(length as u64).read_to_end(&mut Vec::new());
        if let Err(error) = skipped {
            return Box::new(std::iter::once(Err(broken_read(file, 1, &error))));
        }
        place = Place::ArrayItem;
        line += start[..length].iter().filter(|byte| **byte == b'\n').count();
    }
    let mut objects = Objects { reader, file: file.to_string(), line, place, wrapped: wrapped.is_some() };
    until_error(move || objects.row())
}

/// Bytes up to the first row of `{"data": [{…}, …]}`.
fn wrapper(start: &[u8]) -> Option<usize> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let key = text.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let name = WRAPPERS.iter().find(|name| key.starts_with(name.as_bytes()))?;
    let colon = key[name.len()..].strip_prefix(b"\"")?.trim_ascii_start();
    let rows = colon.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"[")?;
    rows.trim_ascii_start().starts_with(b"{").then_some(start.len() - rows.len())
}

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
    /// After the `]` of an array under a key.
    Wrapped,
    /// After the last row.
    End,
}

/// Cuts the text into objects by counting brackets outside strings, so that memory holds one row.
struct Objects {
    reader: Box<dyn BufRead>,
    file: String,
    line: usize,
    place: Place,
    /// Whether the array is in an object.
    wrapped: bool,
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
                (Place::ArrayItem | Place::ArrayNext, b']') if self.wrapped => Place::Wrapped,
                (Place::ArrayItem | Place::ArrayNext, b']') => Place::End,
                (Place::Wrapped, b'}') => Place::End,
                (Place::Wrapped, _) => {
                    let message = "there is more beside the list of rows: write that list alone into the file";
                    return Err(self.malformed(message));
                }
                (_, byte) => {
                    let found = char::from(byte).escape_default();
                    return Err(self.malformed(&format!("expected a JSON object, found \"{found}\"")));
                }
            };
        }
        match self.place {
            Place::ArrayItem | Place::ArrayNext => Err(self.malformed("the array is not closed")),
            Place::Wrapped => Err(self.malformed("the object around the array is not closed")),
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
