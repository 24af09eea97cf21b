//! Bounds on what a template may make: templates come with models from anywhere.

use super::error::{Result, fail};

/// Longest text, rendered or on the way.
const MAX_BYTES: usize = 64 << 20;
/// Longest list.
const MAX_ITEMS: usize = 1 << 20;
/// Widest padding of one value.
const MAX_WIDTH: i128 = 99_999;
/// Widest indentation of a line.
const MAX_INDENT: i128 = 64;

pub(crate) fn check_bytes(bytes: usize) -> Result<()> {
    if bytes > MAX_BYTES { fail(format!("the text is longer than {} MiB", MAX_BYTES >> 20)) } else { Ok(()) }
}

pub(crate) fn check_items(items: usize) -> Result<()> {
    if items > MAX_ITEMS { fail(format!("a list is longer than {MAX_ITEMS} items")) } else { Ok(()) }
}

pub(crate) fn repeated(text: &str, times: usize) -> Result<String> {
    check_bytes(text.len().saturating_mul(times))?;
    Ok(text.repeat(times))
}

/// A width of a format, within bounds.
pub(crate) fn width(width: i128) -> Result<usize> {
    if width > MAX_WIDTH {
        return fail(format!("a format width is more than {MAX_WIDTH}"));
    }
    Ok(width.max(0) as usize)
}

/// A width of an indentation, within bounds.
pub(crate) fn indent(width: i128) -> Result<usize> {
    if width > MAX_INDENT {
        return fail(format!("indentation by {width} is more than {MAX_INDENT}"));
    }
    Ok(width.max(0) as usize)
}
