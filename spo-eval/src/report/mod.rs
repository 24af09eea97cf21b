//! A [`crate::RunSummary`] as Markdown, HTML, JSON or a terminal table.
//!
//! The content is built once, as a document of text, tables and charts; each form only renders it and escapes what it must.

mod answers;
mod benchmarks;
mod document;
pub(crate) mod escape;
mod front;
mod gradients;
mod hold;
mod html;
mod json;
mod markdown;
mod matrix;
mod provenance;
mod results;
mod steering;
mod study;
pub mod svg;
mod sweep;
mod table;
mod training;

pub use crate::number::{bytes, count};
pub use html::html;
pub use json::{from_json, to_json};
pub use markdown::markdown;
pub use study::{study_front_svg, study_html, study_markdown, study_prompt_of_row, study_prompt_rows, study_rows};
pub use sweep::{front_svg, hypervolume_rows, hypervolume_svg, sweep_html, sweep_markdown, sweep_rows};
pub use table::{WIDTH, score_table, table, win_rate_table};

use crate::RunSummary;
use document::Document;

/// The content of the report of a run.
fn document(summary: &RunSummary) -> Document {
    let mut sections = results::sections(summary);
    sections.extend(training::sections(summary));
    sections.extend(provenance::sections(summary));
    sections.retain(|section| !section.blocks.is_empty());
    Document { title: format!("Run {}", summary.name), sections }
}

/// Number of a policy's colour: its place among the policies of the run.
fn colour(summary: &RunSummary, policy: &str) -> usize {
    let rounds = summary.rounds.iter().map(|round| round.policy.as_str());
    let mut names = vec![summary.start.as_str()];
    for name in rounds.chain(crate::policies(&summary.matrix)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.iter().position(|name| *name == policy).unwrap_or(names.len())
}
