//! KTO: one completion, desirable or not.

use super::{Dimensions, Row, Schema, sft};
use crate::record::Record;
use crate::{DataError, Preference};

pub(crate) const KTO: Schema = Schema {
    name: "kto",
    summary: "prompt, completion and label (true is desirable; also kto_tag)",
    keys: &["prompt", "completion", "label"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| labelled(row, row.record(row.prompt("prompt")?, vec![row.answer("completion")?], &KTO_KEYS)?),
    merge: false,
};

pub(crate) const KTO_MESSAGES: Schema = Schema {
    name: "kto-messages",
    summary: "a conversation whose last assistant turn label judges (true is desirable; also kto_tag)",
    keys: &["messages", "label"],
    dimensions: Dimensions::Unnamed,
    recognise: |row| sft::has_messages(row),
    read: |row| labelled(row, sft::conversation(row, &["messages", "label"])?),
    merge: false,
};

const KTO_KEYS: [&str; 3] = ["prompt", "completion", "label"];

fn labelled(row: &Row, mut record: Record) -> Result<Record, DataError> {
    let preference = if row.truth("label")? { Preference::First } else { Preference::Second };
    record.labels.insert(row.dimension.to_string(), preference);
    Ok(record)
}
