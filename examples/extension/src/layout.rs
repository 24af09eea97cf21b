//! A layout of rows: a question with the answer that won and the one that lost.

use spo_data::schema::{Dimensions, Schema};

pub(crate) const DUEL: Schema = Schema {
    name: "duel",
    summary: "ask, won and lost",
    keys: &["ask", "won", "lost"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| row.chosen_first(row.prompt("ask")?, row.answer("won")?, row.answer("lost")?, &["ask", "won", "lost"]),
    merge: false,
};
