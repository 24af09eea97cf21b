//! Comma- or tab-separated values with a header line.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{BufRead, Read};
use std::rc::Rc;

use csv::{ReaderBuilder, StringRecord, StringRecordsIntoIter};
use serde_json::{Map, Value};

use super::{Format, MAX_ROW_BYTES, RawRow, Rows, too_long, until_error};
use crate::DataError;

pub(crate) const CSV: Format = Format {
    name: "csv",
    extensions: &["csv"],
    summary: "comma-separated with a header; cells with a JSON array or object are parsed",
    open: |input, file| Ok(open(input.stream(file)?, file, b',')),
};

pub(crate) const TSV: Format = Format {
    name: "tsv",
    extensions: &["tsv"],
    summary: "tab-separated with a header, else as csv",
    open: |input, file| Ok(open(input.stream(file)?, file, b'\t')),
};

fn open(source: Box<dyn BufRead>, file: &str, delimiter: u8) -> Rows {
    let unparsed = Rc::new(Cell::new(0));
    let guard = Guard { source, unparsed: unparsed.clone() };
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(guard);
    let header = reader.headers().cloned();
    let file = file.to_string();
    match header {
        Ok(header) => {
            let mut seen = HashSet::new();
            if let Some(name) = header.iter().find(|name| !seen.insert(*name)) {
                let message = format!("two columns have the name {name:?}");
                let hint = "give every column of the header a name of its own";
                return Box::new(std::iter::once(Err(DataError::BadFile { file, message, hint })));
            }
            let mut records = Records { rows: reader.into_records(), header, file, unparsed };
            until_error(move || records.row())
        }
        Err(error) => Box::new(std::iter::once(Err(row_error(&file, 1, &error)))),
    }
}

/// Stops a row that never ends, as an unclosed quote makes it: the parser would hold it all.
struct Guard {
    source: Box<dyn BufRead>,
    unparsed: Rc<Cell<usize>>,
}

impl Read for Guard {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.unparsed.get() > MAX_ROW_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let read = self.source.read(buffer)?;
        self.unparsed.set(self.unparsed.get() + read);
        Ok(read)
    }
}

struct Records {
    rows: StringRecordsIntoIter<Guard>,
    header: StringRecord,
    file: String,
    unparsed: Rc<Cell<usize>>,
}

impl Records {
    fn row(&mut self) -> Result<Option<RawRow>, DataError> {
        self.unparsed.set(0);
        let line = self.rows.reader().position().line() as usize;
        let record = match self.rows.next().transpose() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) => return Err(row_error(&self.file, line, &error)),
        };
        let line = record.position().map_or(line, |position| position.line() as usize);
        let cells = self.header.iter().zip(&record);
        let fields: Map<String, Value> = cells.map(|(name, text)| (name.to_string(), cell(text))).collect();
        Ok(Some(RawRow { line, fields }))
    }
}

/// Messages and id lists come as JSON inside a cell; everything else stays text.
fn cell(text: &str) -> Value {
    let nested = text.starts_with(['[', '{']).then(|| serde_json::from_str(text).ok()).flatten();
    nested.unwrap_or_else(|| Value::from(text))
}

fn row_error(file: &str, line: usize, error: &csv::Error) -> DataError {
    if let csv::ErrorKind::Io(source) = error.kind()
        && source.kind() == std::io::ErrorKind::FileTooLarge
    {
        return too_long(file, line);
    }
    let line = error.position().map_or(line, |position| position.line() as usize);
    DataError::MalformedRow { file: file.into(), line, message: format!("CSV: {error}") }
}
