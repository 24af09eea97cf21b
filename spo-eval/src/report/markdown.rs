//! report.md.

use crate::report::document::{Block, Document, Table};
use crate::report::escape;
use crate::{RunSummary, Sample};

/// The report as GitHub-flavoured Markdown. Charts are left out; their numbers are in the tables.
#[must_use]
pub fn markdown(summary: &RunSummary) -> String {
    page(&super::document(summary))
}

/// A report as Markdown.
pub(crate) fn page(document: &Document) -> String {
    let mut text = format!("# {}\n", escape::markdown(&document.title));
    for section in &document.sections {
        let blocks: Vec<String> = section.blocks.iter().filter_map(block).collect();
        if !blocks.is_empty() {
            text.push_str(&format!("\n## {}\n\n{}", section.title, blocks.join("\n")));
        }
    }
    text
}

fn block(block: &Block) -> Option<String> {
    Some(match block {
        Block::Text(text) => format!("{}\n", escape::markdown(text)),
        Block::List(items) => items.iter().map(|item| format!("- {}\n", escape::markdown(item))).collect(),
        Block::Table(table) => render(table),
        Block::Chart(_) => return None,
        Block::Samples(samples) => samples.iter().map(sample).collect::<Vec<_>>().join("\n"),
        Block::Hashes(hashes) => {
            let line = |name: &str, hash: &str| format!("- {}: {}\n", escape::markdown(name), escape::markdown(hash));
            hashes.iter().map(|artefact| line(&artefact.name, &artefact.hash)).collect()
        }
    })
}

fn render(table: &Table) -> String {
    let columns: Vec<_> = table
        .groups
        .iter()
        .flat_map(|group| group.columns.iter().map(move |column| (group.title.as_str(), column)))
        .collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    if !table.caption.is_empty() {
        text.push_str(&format!("**{}**\n\n", escape::markdown(&table.caption)));
    }
    let header = |(title, column): &(&str, &super::document::Column)| {
        escape::markdown(format!("{title} {}", column.header).trim())
    };
    text.push_str(&line(columns.iter().map(header).collect()));
    let rule = columns.iter().map(|(_, column)| if column.numeric { "--:" } else { ":--" }.to_owned());
    text.push_str(&line(rule.collect()));
    for row in 0..table.height() {
        text.push_str(&line(columns.iter().map(|(_, column)| escape::markdown(&column.cells[row])).collect()));
    }
    text
}

fn sample(sample: &Sample) -> String {
    let mut text = format!("> {}\n\n| policy | answer |\n| :-- | :-- |\n", escape::markdown(&sample.prompt));
    for (policy, answer) in &sample.by_policy {
        text.push_str(&format!("| {} | {} |\n", escape::markdown(policy), escape::markdown(answer)));
    }
    text
}
