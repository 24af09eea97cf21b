//! Layouts of rows: fields to records. One file per family of layouts and one line in [`SCHEMAS`].

mod hh;
mod ids;
mod kto;
mod prefs;
mod rated;
mod row;
mod safety;
mod sft;
mod trl;

use crate::error::nearest;
use crate::record::Record;
use crate::{DataError, format::RawRow};
pub use row::Row;
pub(crate) use safety::safety;

/// How the labels of a layout get their dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimensions {
    /// The rows name their dimensions.
    Named,
    /// One unnamed preference: `dimension = "…"` names it.
    Unnamed,
    /// No labels.
    None,
}

/// A layout of rows.
pub struct Schema {
    /// What `schema = "…"` says.
    pub name: &'static str,
    /// One line for a user.
    pub summary: &'static str,
    /// Keys that a row must have.
    pub keys: &'static [&'static str],
    /// Where dimensions come from.
    pub dimensions: Dimensions,
    /// What a row must fulfil beyond its keys to be recognised.
    pub recognise: fn(&Row) -> bool,
    /// Reads one row.
    pub read: fn(&Row) -> Result<Record, DataError>,
    /// Rows in succession with the same prompt are answers of one example.
    pub merge: bool,
}

/// All layouts, in the order of detection: the more particular comes first.
pub const SCHEMAS: &[&Schema] = &[
    &ids::PAIR_IDS,
    &ids::COMPLETION_IDS,
    &prefs::PREFS,
    &rated::PKU_SAFE_RLHF,
    &rated::ULTRA_FEEDBACK,
    &rated::HELP_STEER_3,
    &rated::HELP_STEER_2,
    &rated::SCORED_LIST,
    &hh::HH,
    &trl::EXPLICIT,
    &trl::IMPLICIT,
    &kto::KTO,
    &sft::PROMPT_COMPLETION,
    &sft::MESSAGES,
    &sft::TEXT,
];

/// The schema of this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Schema, DataError> {
    SCHEMAS.iter().find(|schema| schema.name == name).copied().ok_or_else(|| DataError::UnknownSchema {
        name: name.to_string(),
        known: SCHEMAS.iter().map(|schema| schema.name).collect(),
    })
}

/// The first schema that recognises a row, with the reason.
///
/// # Errors
/// When none does.
pub fn detect(file: &str, raw: &RawRow) -> Result<(&'static Schema, String), DataError> {
    for schema in SCHEMAS {
        let row = Row { file, line: raw.line, fields: &raw.fields, schema: schema.name, dimension: "" };
        if schema.keys.iter().all(|key| row.has(key)) && (schema.recognise)(&row) {
            return Ok((schema, format!("first layout whose keys fit: {}", schema.keys.join(", "))));
        }
    }
    let found: Vec<String> = raw.fields.keys().cloned().collect();
    // The layout that misses the least is the one most likely meant; of two, the one with more keys in the row.
    let absent = |key: &&&str| raw.fields.get(**key).is_none_or(serde_json::Value::is_null);
    let distance = |schema: &&&Schema| {
        let missing = schema.keys.iter().filter(absent).count();
        (missing, std::cmp::Reverse(schema.keys.len() - missing))
    };
    let likely = SCHEMAS.iter().min_by_key(distance).expect("there are layouts");
    let missing: Vec<&'static str> = likely.keys.iter().filter(absent).copied().collect();
    let mistake = missing.iter().find_map(|key| {
        let unused = found.iter().map(String::as_str).filter(|name| !likely.keys.contains(name));
        nearest(key, unused).map(|name| Box::new((name.to_string(), key.to_string())))
    });
    let file = file.to_string();
    Err(DataError::NoSchema { file, line: raw.line, found, likely: likely.name, missing, nearest: mistake })
}
