//! Two answers with a preference per named dimension.

use serde_json::Value;

use super::lists::insert_scores;
use super::{Dimensions, Schema};
use crate::Preference;

pub(crate) const PREFS: Schema = Schema {
    name: "prefs",
    summary: "two answers; prefs says per dimension 1 (a is better), -1 (b) or 0 (tie); absent or null is unlabelled",
    keys: &["prompt", "response_a", "response_b", "prefs"],
    dimensions: Dimensions::Named,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("response_a")?, row.answer("response_b")?];
        let used = ["prompt", "response_a", "response_b", "prefs"];
        let mut record = row.record(row.prompt("prompt")?, answers, &used)?;
        // The kind of a row stays a tag.
        if record.tags.contains_key("kind") {
            row.mark("kind");
        }
        let prefs = row.nested("prefs")?;
        let Value::Object(prefs) = prefs.as_ref() else {
            return Err(row.wrong("prefs", "an object from dimension to 1, -1 or 0", &prefs));
        };
        for (dimension, value) in prefs.iter().filter(|(_, value)| !value.is_null()) {
            let sign = value.as_f64().filter(|sign| [-1.0, 0.0, 1.0].contains(sign));
            let sign = sign.ok_or_else(|| row.wrong(&format!("prefs.{dimension}"), "1, -1 or 0", value))?;
            record.labels.insert(dimension.clone(), Preference::from_sign(sign));
        }
        // Strengths of the preferences, where the row has them.
        if row.has("scores") {
            let scores = row.nested("scores")?;
            let Value::Object(scores) = scores.as_ref() else {
                return Err(row.wrong("scores", "an object from dimension to one number per answer", &scores));
            };
            for (dimension, list) in scores.iter().filter(|(_, list)| !list.is_null()) {
                insert_scores(row, &mut record, dimension, list)?;
            }
        }
        Ok(record)
    },
    merge: false,
};
