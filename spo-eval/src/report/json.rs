//! A run summary as JSON, for programs and for rendering a report again.

use crate::{EvalError, RunSummary, SCHEMA};

/// Writes the summary as indented JSON.
///
/// # Errors
/// A number that is not finite, which JSON cannot hold.
pub fn to_json(summary: &RunSummary) -> Result<String, EvalError> {
    let text = serde_json::to_string_pretty(summary).map_err(refusal)?;
    // Non-finite numbers are written as null without a word; only reading shows them.
    from_json(&text)?;
    Ok(text)
}

/// Reads a summary that [`to_json`] wrote; numbers are equal up to their last bits.
///
/// # Errors
/// Text that is no summary, or one of another schema.
pub fn from_json(text: &str) -> Result<RunSummary, EvalError> {
    let summary: RunSummary = serde_json::from_str(text).map_err(refusal)?;
    if summary.schema == SCHEMA {
        Ok(summary)
    } else {
        Err(EvalError::Schema { found: summary.schema, expected: SCHEMA })
    }
}

fn refusal(error: serde_json::Error) -> EvalError {
    EvalError::Json { problem: error.to_string(), line: error.line(), column: error.column() }
}
