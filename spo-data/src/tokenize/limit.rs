//! Bounds on what a template may produce: templates come with models from anywhere.

use std::io::{Error, ErrorKind, Write};

use minijinja::State;
use minijinja::value::{Kwargs, Rest, Value};

/// Longest rendered text.
const MAX_BYTES: usize = 64 << 20;
/// Widest indentation.
const MAX_INDENT: usize = 64;

/// Text that refuses to grow beyond its bound.
#[derive(Default)]
pub(super) struct Bounded(pub(super) Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            let message = format!("the rendered text is longer than {} MiB", MAX_BYTES >> 20);
            return Err(Error::new(ErrorKind::FileTooLarge, message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Jinja's `indent`, with a bounded width.
pub(super) fn indent(
    text: &str,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, minijinja::Error> {
    let width = width.or(kwargs.get("width")?).unwrap_or(4);
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    check_width(width)?;
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented { " ".repeat(width) + line } else { line.to_string() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

pub(super) fn check_width(width: usize) -> Result<(), minijinja::Error> {
    if width <= MAX_INDENT {
        return Ok(());
    }
    let message = format!("indentation by {width} is more than {MAX_INDENT}");
    Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
}

/// Jinja's printf-style `format`, with bounded widths.
pub(super) fn format(state: &State, text: &Value, arguments: Rest<Value>) -> Result<Value, minijinja::Error> {
    check_widths(text)?;
    minijinja::filters::format(state, text, arguments)
}

/// Python's methods of strings and containers; `str.format` with bounded widths.
pub(super) fn method(state: &State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, minijinja::Error> {
    if name == "format" {
        check_widths(value)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

/// Refuses a format text with a number of six digits, which can only be a width meant to fill memory.
fn check_widths(text: &Value) -> Result<(), minijinja::Error> {
    let text = text.as_str().unwrap_or_default();
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 5) {
        let message = "a format width is more than 99999";
        return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message));
    }
    Ok(())
}
