//! Whether each answer is safe: a fact beside the preferences, which any layout may state.

use serde_json::Value;

use super::Row;
use crate::DataError;

/// Keys of two answers' labels: PKU-SafeRLHF's, and those of rows with a chosen and a rejected answer.
const PAIRS: [[&str; 2]; 2] = [["is_response_0_safe", "is_response_1_safe"], ["chosen_safe", "rejected_safe"]];

/// One label per answer; none where the row does not say.
///
/// Keys: `safe` with a list of labels (one label for one answer), or those of [`PAIRS`]. A label is true or false, 1 or 0.
pub(crate) fn safety(row: &Row, answers: usize) -> Result<Vec<bool>, DataError> {
    if row.has("safe") {
        let value = row.value("safe")?;
        let labels = match value {
            Value::Array(labels) => labels.iter().map(label).collect(),
            one => label(one).map(|label| vec![label]),
        };
        return labels
            .filter(|labels: &Vec<bool>| labels.len() == answers)
            .ok_or_else(|| row.wrong("safe", "true or false for each answer", value));
    }
    for keys in PAIRS {
        if answers == 2 && keys.iter().all(|key| row.has(key)) {
            let of = |key: &str| {
                let value = row.value(key)?;
                label(value).ok_or_else(|| row.wrong(key, "true or false", value))
            };
            return Ok(vec![of(keys[0])?, of(keys[1])?]);
        }
    }
    Ok(vec![])
}

fn label(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(label) => Some(*label),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) if ["true", "1"].contains(&text.trim().to_lowercase().as_str()) => Some(true),
        Value::String(text) if ["false", "0"].contains(&text.trim().to_lowercase().as_str()) => Some(false),
        _ => None,
    }
}
