//! A file format: a row is a line `question ? answer that won > answer that lost`.

use serde_json::Map;
use spo_data::DataError;
use spo_data::format::{Format, Input, RawRow, Rows};
use std::io::BufRead;

pub(crate) const ARROWS: Format =
    Format { name: "arrows", extensions: &["duels"], summary: "lines of: question ? won > lost", open };

fn open(input: Input, file: &str) -> Result<Rows, DataError> {
    let (lines, file) = (input.stream(file)?.lines(), file.to_string());
    Ok(Box::new(lines.enumerate().map(move |(index, line)| {
        let malformed = |message: String| DataError::MalformedRow { file: file.clone(), line: index + 1, message };
        let line = line.map_err(|error| malformed(error.to_string()))?;
        let parts = line.split_once('?').and_then(|(ask, answers)| Some((ask, answers.split_once('>')?)));
        let (ask, (won, lost)) = parts.ok_or_else(|| malformed("expected `question ? won > lost`".into()))?;
        let fields = [("ask", format!("{ask}?")), ("won", won.trim_end().into()), ("lost", lost.trim_end().into())];
        let fields: Map<_, _> = fields.map(|(key, text)| (key.to_string(), text.into())).into_iter().collect();
        Ok(RawRow { line: index + 1, fields })
    })))
}
