//! KTO: one completion, desirable or not.

use serde_json::Value;

use super::{Dimensions, Schema};
use crate::Preference;

pub(super) const KTO: Schema = Schema {
    name: "kto",
    summary: "prompt, completion and label (true is desirable)",
    keys: &["prompt", "completion", "label"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let label = match row.value("label")? {
            Value::Bool(label) => *label,
            Value::Number(label) if [0.0, 1.0].map(Some).contains(&label.as_f64()) => label.as_f64() == Some(1.0),
            Value::String(text) if ["true", "1"].contains(&text.to_lowercase().as_str()) => true,
            Value::String(text) if ["false", "0"].contains(&text.to_lowercase().as_str()) => false,
            other => return Err(row.wrong("label", "true or false", other)),
        };
        let used = ["prompt", "completion", "label"];
        let mut record = row.record(row.prompt("prompt")?, vec![row.answer("completion")?], &used);
        let preference = if label { Preference::First } else { Preference::Second };
        record.labels.insert(row.dimension.to_string(), preference);
        Ok(record)
    },
    merge: false,
};
