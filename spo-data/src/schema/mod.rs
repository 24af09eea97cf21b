//! Layouts of rows: fields to records. One file per family of layouts and one line in `BUILTIN`.

mod hh;
mod ids;
mod kto;
mod lists;
pub(crate) mod lost;
mod messages;
mod names;
mod prefs;
mod rated;
mod row;
mod safety;
mod sft;
mod trl;
mod votes;

use serde_json::Value;

use crate::error::nearest;
use crate::format::RawRow;
use crate::record::Record;
use crate::{DataError, NoSchema};
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
#[derive(Debug, Clone, Copy)]
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
    /// Reads one row. Columns that it does not ask the row for count as not used.
    pub read: fn(&Row) -> Result<Record, DataError>,
    /// Rows in succession with the same prompt are answers of one example.
    pub merge: bool,
}

/// The layouts of this crate, in the order of detection: the more particular comes first.
pub(crate) const BUILTIN: &[Schema] = &[
    ids::PAIR_IDS,
    ids::COMPLETION_IDS,
    prefs::PREFS,
    rated::PKU_SAFE_RLHF,
    rated::ULTRA_FEEDBACK,
    rated::HELP_STEER_3,
    rated::HELP_STEER_2_PREFERENCE,
    rated::HELP_STEER_2,
    votes::SHP,
    votes::ARENA,
    votes::ARENA_PROMPTS,
    lists::SCORED_LIST,
    lists::RANKED_LIST,
    hh::HH,
    trl::EXPLICIT,
    trl::IMPLICIT,
    kto::KTO,
    kto::KTO_MESSAGES,
    sft::PROMPT_COMPLETION,
    lists::ANSWERS,
    lists::RESPONSES,
    sft::MESSAGES,
    sft::TEXT,
];

/// The first of the schemas that fits a sample of rows, with the reason: some row has all its keys, and at least half of
/// those that do are recognised.
///
/// # Errors
/// When none fits.
pub(crate) fn detect(schemas: &[Schema], file: &str, sample: &[RawRow]) -> Result<(Schema, String), DataError> {
    for schema in schemas {
        let rows = sample.iter().map(|raw| Row::new(file, raw.line, &raw.fields, schema.name, ""));
        let complete: Vec<Row> = rows.filter(|row| schema.keys.iter().all(|key| row.has(key))).collect();
        let recognised = complete.iter().filter(|row| (schema.recognise)(row)).count();
        if recognised > 0 && 2 * recognised >= complete.len() {
            let names = schema.keys.iter().map(|key| match complete[0].column(key) {
                Some(column) if column != *key => format!("{key} (here {column})"),
                _ => key.to_string(),
            });
            let keys = names.collect::<Vec<_>>().join(", ");
            return Ok((*schema, format!("first layout whose keys fit: {keys}")));
        }
    }
    Err(unknown(schemas, file, &sample[0]))
}

/// The error for a row of no known layout: with the layout that misses the least, as it is the one most likely meant; of
/// two, the one with more keys in the row.
fn unknown(schemas: &[Schema], file: &str, raw: &RawRow) -> DataError {
    let found: Vec<String> = raw.fields.keys().cloned().collect();
    let row = Row::new(file, raw.line, &raw.fields, "", "");
    let absent = |key: &&&str| !row.has(key);
    let distance = |schema: &&Schema| {
        let missing = schema.keys.iter().filter(absent).count();
        (missing, std::cmp::Reverse(schema.keys.len() - missing))
    };
    let likely = schemas.iter().min_by_key(distance).expect("there are layouts");
    let missing: Vec<&'static str> = likely.keys.iter().filter(absent).copied().collect();
    let mistake = missing.iter().find_map(|key| {
        let unused = found.iter().map(String::as_str).filter(|name| !likely.keys.contains(name));
        nearest(key, unused).map(|name| (name.to_string(), key.to_string()))
    });
    // Rows in a list under one key, as in {"data": [{…}, …]}.
    let is_row = |value: &Value| value.is_object() && !messages::is_message(value);
    let rows = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(is_row));
    let inside = raw.fields.iter().find(|(_, value)| rows(value)).map(|(name, _)| name.clone());
    let layouts = schemas.iter().map(|schema| (schema.name, schema.keys)).collect();
    let file = file.to_string();
    let (line, likely) = (raw.line, likely.name);
    let nearest = mistake;
    DataError::NoSchema(Box::new(NoSchema { file, line, found, likely, missing, nearest, inside, layouts }))
}
