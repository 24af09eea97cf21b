//! Tables as plain text for a terminal of 100 columns.

use crate::report::answers;
use crate::report::document::{Column, Table};
use crate::report::escape;
use crate::report::matrix::{Detail, Pairs, has_boilerplate, matrix};
use crate::report::results;
use crate::{DimensionScore, KlEstimate, RunSummary, WinRate, verdict};

/// Widest line of a table.
pub const WIDTH: usize = 100;

/// Narrowest label column that names are cut to before a table is split.
const NARROWEST_LABEL: usize = 20;

/// Between two groups of columns.
const BAR: &str = " │ ";

/// Tables and verdict of a finished run.
#[must_use]
pub fn table(summary: &RunSummary) -> String {
    let mut text = score_table(&summary.matrix, &summary.kl, &summary.start);
    let divergences = results::divergences(summary);
    if divergences.height() > 0 {
        text.push('\n');
        text.push_str(&render(&divergences));
    }
    text.push('\n');
    text.push_str(&wrapped(&verdict(summary)));
    text
}

/// The policy × dimension table, and the same without boilerplate answers where there are any. `start` names π_0, to which the
/// KL column refers; the column is left out if no estimate does.
#[must_use]
pub fn score_table(scores: &[DimensionScore], kl: &[KlEstimate], start: &str) -> String {
    if scores.is_empty() {
        return "No pairs were held out: nothing was evaluated.\n".to_owned();
    }
    let mut text = render(&matrix(scores, kl, start, Pairs::All, Detail::Narrow));
    if has_boilerplate(scores) {
        text.push('\n');
        text.push_str(&render(&matrix(scores, kl, start, Pairs::Substantive, Detail::Narrow)));
    }
    text.push('\n');
    text.push_str(&wrapped(&results::legend(scores)));
    text
}

/// Win rates as a table.
#[must_use]
pub fn win_rate_table(found: &[WinRate]) -> String {
    let mut text = render(&answers::win_rates(found));
    text.push('\n');
    text.push_str(&wrapped(answers::LEGEND));
    text
}

/// Renders a table; groups that do not fit beside each other go below each other.
pub(crate) fn render(table: &Table) -> String {
    let mut text = format!("{}\n", escape::terminal(&table.caption));
    let Some((label, parts)) = split(table) else {
        return text;
    };
    let bar = BAR.chars().count();
    let all: usize = parts.iter().map(|part| bar + part.width()).sum();
    let label_width = column_width(label).min(WIDTH.saturating_sub(all).max(NARROWEST_LABEL));
    let mut block: Vec<&Part<'_>> = Vec::new();
    let mut used = label_width;
    for part in &parts {
        if used + bar + part.width() > WIDTH && !block.is_empty() {
            write_block(&mut text, label, label_width, &block);
            text.push('\n');
            block.clear();
            used = label_width;
        }
        used += bar + part.width();
        block.push(part);
    }
    write_block(&mut text, label, label_width, &block);
    text
}

/// A group's columns, without the label column of the table.
struct Part<'a> {
    title: &'a str,
    columns: &'a [Column],
}

impl Part<'_> {
    fn width(&self) -> usize {
        self.columns.iter().map(column_width).sum::<usize>() + self.gap().len() * self.columns.len().saturating_sub(1)
    }

    /// Between two columns: narrow inside a titled group, whose columns belong together.
    fn gap(&self) -> &'static str {
        if self.title.is_empty() { "  " } else { " " }
    }
}

/// The label column and the groups beside it.
fn split(table: &Table) -> Option<(&Column, Vec<Part<'_>>)> {
    let (label, _) = table.groups.first()?.columns.split_first()?;
    let parts = table.groups.iter().enumerate().map(|(index, group)| Part {
        title: &group.title,
        columns: if index == 0 { &group.columns[1..] } else { &group.columns },
    });
    Some((label, parts.filter(|part| !part.columns.is_empty()).collect()))
}

fn column_width(column: &Column) -> usize {
    column.cells.iter().chain([&column.header]).map(|cell| cell.chars().count()).max().unwrap_or(0)
}

/// `text` in `width` columns, cut with an ellipsis where it is longer.
fn cell(text: &str, width: usize, right: bool) -> String {
    let text = escape::terminal(text);
    let cut = if text.chars().count() > width {
        text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    } else {
        text
    };
    if right { format!("{cut:>width$}") } else { format!("{cut:<width$}") }
}

/// Writes one block of groups beside the label column.
fn write_block(text: &mut String, label: &Column, label_width: usize, block: &[&Part<'_>]) {
    let mut line = |name: &str, groups: Vec<String>| {
        let cells: Vec<String> = std::iter::once(cell(name, label_width, false)).chain(groups).collect();
        text.push_str(cells.join(BAR).trim_end());
        text.push('\n');
    };
    if block.iter().any(|part| !part.title.is_empty()) {
        line("", block.iter().map(|part| cell(part.title, part.width(), false)).collect());
    }
    let row = |pick: &dyn Fn(&Column) -> String| -> Vec<String> {
        let column = |column| cell(&pick(column), column_width(column), column.numeric);
        block.iter().map(|part| part.columns.iter().map(column).collect::<Vec<_>>().join(part.gap())).collect()
    };
    line(&label.header, row(&|column| column.header.clone()));
    for (index, name) in label.cells.iter().enumerate() {
        line(name, row(&|column| column.cells[index].clone()));
    }
}

/// Text broken between words into lines of at most [`WIDTH`] characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in escape::terminal(text).split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > WIDTH {
            lines.push('\n');
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines.push('\n');
    lines
}
