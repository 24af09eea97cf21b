//! Whether each answer is safe: a fact beside the preferences, which any layout may state.

use serde_json::Value;

use super::Row;
use super::row::truth;
use crate::DataError;

/// Keys of two answers' labels: PKU-SafeRLHF's, and those of rows with a chosen and a rejected answer.
const PAIRS: [[&str; 2]; 2] = [["is_response_0_safe", "is_response_1_safe"], ["chosen_safe", "rejected_safe"]];

/// One label per answer; none where the row does not say.
///
/// Keys: `safe` with a list of labels (one label for one answer), or those of [`PAIRS`]. A label is true or false, 1 or 0.
pub(crate) fn safety(row: &Row, answers: usize) -> Result<Vec<bool>, DataError> {
    if row.has("safe") {
        let value = row.nested("safe")?;
        let labels = match value.as_ref() {
            Value::Array(labels) => labels.iter().map(truth).collect(),
            one => truth(one).map(|label| vec![label]),
        };
        return labels
            .filter(|labels: &Vec<bool>| labels.len() == answers)
            .ok_or_else(|| row.wrong("safe", "true or false for each answer", &value));
    }
    for keys in PAIRS {
        if answers == 2 && keys.iter().all(|key| row.has(key)) {
            return Ok(vec![row.truth(keys[0])?, row.truth(keys[1])?]);
        }
    }
    Ok(vec![])
}
