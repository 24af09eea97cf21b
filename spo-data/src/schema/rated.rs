//! Public data sets with several dimensions, as ratings or choices.

use serde_json::Value;

use super::row::number;
use super::{Dimensions, Row, Schema};
use crate::record::Record;
use crate::{DataError, Preference};

pub(crate) const PKU_SAFE_RLHF: Schema = Schema {
    name: "pku-safe-rlhf",
    summary: "PKU-SafeRLHF: better_response_id is helpfulness, safer_response_id harmlessness",
    keys: &["prompt", "response_0", "response_1", "better_response_id", "safer_response_id"],
    dimensions: Dimensions::Named,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("response_0")?, row.answer("response_1")?];
        let mut record = row.record(row.prompt("prompt")?, answers, &["prompt", "response_0", "response_1"])?;
        for (key, dimension) in [("better_response_id", "helpfulness"), ("safer_response_id", "harmlessness")] {
            let label = match row.number(key)? {
                0.0 => Preference::First,
                1.0 => Preference::Second,
                _ => return Err(row.wrong(key, "0 or 1", row.value(key)?)),
            };
            record.labels.insert(dimension.to_string(), label);
            record.tags.remove(key);
        }
        Ok(record)
    },
    merge: false,
};

pub(crate) const ULTRA_FEEDBACK: Schema = Schema {
    name: "ultrafeedback",
    summary: "UltraFeedback: completions rated per dimension; the best is paired with the worst",
    keys: &["instruction", "completions"],
    dimensions: Dimensions::Named,
    recognise: |row| {
        let annotated = |item: &Value| item.get("annotations").is_some();
        row.list("completions").is_ok_and(|list| list.is_empty() || list.iter().any(annotated))
    },
    read: |row| {
        let completions = row.list("completions")?;
        let malformed =
            || row.wrong("completions", "a list of {response, annotations}", &Value::Array(completions.clone()));
        let mut answers = Vec::new();
        let mut ratings: Vec<Vec<(&String, f32)>> = Vec::new();
        for completion in &completions {
            answers.push(row.as_answer("completions", completion.get("response").ok_or_else(malformed)?)?);
            let annotations = completion.get("annotations").and_then(Value::as_object).ok_or_else(malformed)?;
            let rated = annotations.iter().filter_map(|(dimension, annotation)| {
                // "N/A" is no rating.
                Some((dimension, number(annotation.get("Rating")?)? as f32))
            });
            ratings.push(rated.collect());
        }
        let prompt = row.prompt("instruction")?;
        let mut record = row.record(prompt, answers, &["instruction"])?;
        for (dimension, _) in ratings.first().into_iter().flatten() {
            let find =
                |rated: &Vec<(&String, f32)>| rated.iter().find(|(name, _)| name == dimension).map(|(_, score)| *score);
            // A dimension counts only if every completion was rated along it.
            if let Some(scores) = ratings.iter().map(find).collect::<Option<Vec<f32>>>() {
                record.scores.insert(dimension.to_string(), scores);
            }
        }
        Ok(record)
    },
    merge: false,
};

const HELP_STEER_DIMENSIONS: [&str; 5] = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"];

pub(crate) const HELP_STEER_2: Schema = Schema {
    name: "helpsteer2",
    summary: "HelpSteer2: rows in succession with one prompt make a pair per rating",
    keys: &["prompt", "response", "helpfulness", "correctness", "coherence", "complexity", "verbosity"],
    dimensions: Dimensions::Named,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("response")?];
        let mut record = row.record(row.prompt("prompt")?, answers, &["prompt", "response"])?;
        for dimension in HELP_STEER_DIMENSIONS {
            record.scores.insert(dimension.to_string(), vec![row.number(dimension)? as f32]);
            record.tags.remove(dimension);
        }
        Ok(record)
    },
    merge: true,
};

const STRENGTH_2: [&str; 4] = ["prompt", "response_1", "response_2", "preference_strength"];
const STRENGTH_3: [&str; 4] = ["context", "response1", "response2", "overall_preference"];

pub(crate) const HELP_STEER_2_PREFERENCE: Schema = Schema {
    name: "helpsteer2-preference",
    summary: "HelpSteer2's preferences: preference_strength from -3 (first answer) to 3 (second)",
    keys: &STRENGTH_2,
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| strength(row, STRENGTH_2),
    merge: false,
};

pub(crate) const HELP_STEER_3: Schema = Schema {
    name: "helpsteer3",
    summary: "HelpSteer3: overall_preference from -3 (first answer) to 3 (second)",
    keys: &STRENGTH_3,
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| strength(row, STRENGTH_3),
    merge: false,
};

/// Two answers with one number for both: below zero the first is better, above zero the second.
fn strength(row: &Row, keys: [&str; 4]) -> Result<Record, DataError> {
    let answers = vec![row.answer(keys[1])?, row.answer(keys[2])?];
    let mut record = row.record(row.prompt(keys[0])?, answers, &keys)?;
    let preference = row.number(keys[3])?;
    record.labels.insert(row.dimension.to_string(), Preference::from_sign(-preference));
    let strength = preference.abs() as f32 / 2.0;
    let first = if preference < 0.0 { strength } else { -strength };
    record.scores.insert(row.dimension.to_string(), vec![first, -first]);
    Ok(record)
}
