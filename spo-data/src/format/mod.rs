//! File formats: bytes to rows, streaming. One file per format and one line in `BUILTIN`.

mod arrow;
mod columnar;
mod csv;
mod json;
mod jsonl;
mod open;
mod parquet;
mod parquet_fields;
pub(crate) mod python;
mod state;
mod thrift;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::DataError;
pub use open::Input;
pub(crate) use open::data_extension;
pub(crate) use state::divide;

/// Bytes that one row may have: beyond, a file is broken or hostile.
pub const MAX_ROW_BYTES: usize = 64 << 20;

/// A row as its file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// Line where the row begins, counted from 1.
    pub line: usize,
    /// The fields.
    pub fields: Map<String, Value>,
}

/// Rows of an open file.
pub type Rows = Box<dyn Iterator<Item = Result<RawRow, DataError>>>;

/// A file format.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// What `format = "…"` says.
    pub name: &'static str,
    /// Extensions without the dot; `.gz` and `.zst` are taken off before.
    pub extensions: &'static [&'static str],
    /// One line for a user.
    pub summary: &'static str,
    /// Reads rows; the name goes into errors.
    pub open: fn(Input, &str) -> Result<Rows, DataError>,
}

/// The formats of this crate.
pub(crate) const BUILTIN: &[Format] = &[jsonl::JSONL, json::JSON, csv::CSV, csv::TSV, parquet::PARQUET, arrow::ARROW];

/// Rows up to the end or the first error.
fn until_error(mut row: impl FnMut() -> Result<Option<RawRow>, DataError> + 'static) -> Rows {
    let mut done = false;
    Box::new(std::iter::from_fn(move || {
        let next = if done { None } else { row().transpose() };
        done = !matches!(next, Some(Ok(_)));
        next
    }))
}

/// Parses the JSON object of a row.
fn parse_object(bytes: &[u8], file: &str, line: usize) -> Result<RawRow, DataError> {
    let malformed = |message: String| DataError::MalformedRow { file: file.into(), line, message };
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(format!("invalid UTF-8: {error}")))?;
    match serde_json::from_str(text) {
        Ok(Fields(fields)) => Ok(RawRow { line, fields }),
        Err(error) => {
            // The parser counts lines from the row's beginning, the message from the file's.
            // An object that goes on beyond its line is the commonest mistake.
            let goes_on =
                if error.is_eof() { " (an object over several lines? format = \"json\" reads those)" } else { "" };
            let message = error.to_string().replace(&format!(" at line {} column", error.line()), " at column");
            let line = line + error.line().saturating_sub(1);
            Err(DataError::MalformedRow { file: file.into(), line, message: format!("JSON: {message}{goes_on}") })
        }
    }
}

/// The keys of a row, each of which may be there once.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Map::new();
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            if fields.contains_key(&key) {
                return Err(Error::custom(format_args!("the key {key:?} is there twice")));
            }
            fields.insert(key, value);
        }
        Ok(Fields(fields))
    }
}

fn too_long(file: &str, line: usize) -> DataError {
    let message = format!("row longer than {} MiB", MAX_ROW_BYTES >> 20);
    DataError::MalformedRow { file: file.into(), line, message }
}

fn broken_read(file: &str, line: usize, error: &std::io::Error) -> DataError {
    DataError::MalformedRow { file: file.into(), line, message: format!("cannot read on: {error}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(format: &str, bytes: &[u8]) -> Vec<Result<RawRow, DataError>> {
        let format = BUILTIN.iter().find(|known| known.name == format).unwrap();
        match (format.open)(Input::Memory(bytes.to_vec()), "memory") {
            Ok(rows) => rows.collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn values(format: &str, bytes: &[u8]) -> Vec<(usize, String)> {
        let text = |row: RawRow| (row.line, Value::Object(row.fields).to_string());
        rows(format, bytes).into_iter().map(|row| text(row.unwrap())).collect()
    }

    fn error(format: &str, bytes: &[u8]) -> String {
        rows(format, bytes).into_iter().find_map(Result::err).map(|error| error.to_string()).unwrap()
    }

    #[test]
    fn lines_may_have_bom_crlf_blanks_and_no_end() {
        let bytes = b"\xef\xbb\xbf{\"a\":1}\r\n\r\n{\"a\":2}";
        assert_eq!(values("jsonl", bytes), [(1, "{\"a\":1}".into()), (3, "{\"a\":2}".into())]);
    }

    #[test]
    fn json_is_an_array_or_objects_in_a_row() {
        let expected = [(1, "{\"a\":\"]}\\\"\"}".to_string()), (3, "{\"b\":[{}]}".to_string())];
        assert_eq!(values("json", b"[{\"a\":\"]}\\\"\"}\n,\n{\"b\":[{}]}]"), expected);
        assert_eq!(values("json", b"\xef\xbb\xbf{\"a\":\"]}\\\"\"}\n\n{\"b\":\n[{}]}\n"), expected);
        assert!(values("json", b" [ ] ").is_empty());
    }

    #[test]
    fn csv_quotes_and_nested_json() {
        let bytes = b"prompt,chosen\n\"a \"\"b\"\"\nc\",\"[{\"\"role\"\": \"\"user\"\"}]\"\nd,\n";
        let expected = [
            (2, "{\"prompt\":\"a \\\"b\\\"\\nc\",\"chosen\":[{\"role\":\"user\"}]}".to_string()),
            (4, "{\"prompt\":\"d\",\"chosen\":\"\"}".to_string()),
        ];
        assert_eq!(values("csv", bytes), expected);
        assert_eq!(values("tsv", b"a\tb\n1\t2,3\n"), [(2, "{\"a\":\"1\",\"b\":\"2,3\"}".to_string())]);
    }

    #[test]
    fn malformed_rows_name_their_line() {
        for (format, bytes, message) in [
            ("jsonl", &b"{\"a\":1}\n{\"a\":"[..], "memory:2: JSON"),
            ("jsonl", b"{\"a\":1}\n[1]\n", "memory:2: JSON: invalid type: sequence, expected a JSON object"),
            ("jsonl", b"{\"a\":1}\n{\"a\":1,\"a\":2}\n", "memory:2: JSON: the key \"a\" is there twice"),
            ("jsonl", b"{\"a\":\"\xff\"}", "memory:1: invalid UTF-8"),
            ("jsonl", b"{\"a\":\"\0\"}", "memory:1: JSON"),
            ("json", b"[{\"a\":1},\n{\"a\":", "memory:2: the file ends inside a row"),
            ("json", b"[{\"a\":1}", "memory:1: the array is not closed"),
            ("json", b"[{\"a\":1}]\n x", "memory:2: expected"),
            ("json", b"[1]", "memory:1: expected"),
            ("csv", b"a,b\n1\n", "memory:2: CSV"),
            ("csv", b"a,b\n1,\xff\n", "memory:2: CSV"),
        ] {
            let found = error(format, bytes);
            assert!(found.starts_with(message), "{found} against {message}");
        }
        let deep = "[".repeat(100_000);
        assert!(error("jsonl", format!("{{\"a\":{deep}").as_bytes()).contains("recursion"));
    }

    #[test]
    fn a_reader_stops_after_its_first_error() {
        assert_eq!(rows("jsonl", b"{\n{\n{\n").len(), 1);
        assert_eq!(rows("json", b"{\"a\":1} x {").len(), 2);
    }

    #[test]
    fn compressed_bytes_are_recognised_and_bombs_are_bounded() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"{\"a\":1}\n").unwrap();
        let gz = gz.finish().unwrap();
        assert_eq!(values("jsonl", &gz), [(1, "{\"a\":1}".into())]);
        assert_eq!(values("jsonl", &[gz.clone(), gz.clone()].concat()).len(), 2);
        assert!(error("jsonl", &gz[..gz.len() - 9]).contains("cannot read on"));
        let zst = zstd::encode_all(&b"[{\"a\":1}]"[..], 1).unwrap();
        assert_eq!(values("json", &zst), [(1, "{\"a\":1}".into())]);
        let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b'a'), 200 << 20), 1).unwrap();
        assert!(error("jsonl", &bomb).contains("row longer than 64 MiB"));
        assert!(error("csv", &bomb).contains("row longer than 64 MiB"));
        let bomb = [&b"{\"a\":\""[..], &vec![b'a'; MAX_ROW_BYTES + 10]].concat();
        assert!(error("json", &bomb).contains("row longer than 64 MiB"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for format in BUILTIN {
                let _ = rows(format.name, &bytes);
            }
        }

        #[test]
        fn any_json_like_text_ends_in_rows_or_an_error(text in "[\\[\\]{},:\"\\\\a1 \n]{0,60}") {
            for format in BUILTIN {
                let _ = rows(format.name, text.as_bytes());
            }
        }
    }
}
