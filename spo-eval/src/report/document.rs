//! A report before it takes a form: sections of text, tables, charts and samples. Text is raw; each renderer escapes it.

use crate::report::svg::Chart;
use crate::{Artefact, Sample};

/// A whole report.
pub(crate) struct Document {
    pub(crate) title: String,
    pub(crate) sections: Vec<Section>,
}

/// A titled part of a report.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) blocks: Vec<Block>,
}

impl Section {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, blocks: Vec::new() }
    }

    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// Adds a table unless it has no rows.
    pub(crate) fn table(&mut self, table: Table) {
        if table.height() > 0 {
            self.blocks.push(Block::Table(table));
        }
    }
}

/// One piece of a section.
pub(crate) enum Block {
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// Left out where pictures cannot be shown; what it says in numbers is in a table beside it.
    Chart(Chart),
    Samples(Vec<Sample>),
    Hashes(Vec<Artefact>),
}

/// A table by columns; the first column of the first group names the rows.
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) groups: Vec<Group>,
}

/// Columns under a common title, which may be empty.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
}

/// One column.
pub(crate) struct Column {
    pub(crate) header: String,
    pub(crate) cells: Vec<String>,
    pub(crate) numeric: bool,
}

impl Table {
    /// A table without groups from its rows; the first `labels` columns are text, the others numbers.
    pub(crate) fn of_rows(caption: &str, labels: usize, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        let mut columns: Vec<Column> = header
            .iter()
            .enumerate()
            .map(|(index, header)| Column { header: (*header).to_owned(), cells: Vec::new(), numeric: index >= labels })
            .collect();
        for row in rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.cells.push(cell);
            }
        }
        Self { caption: caption.to_owned(), groups: vec![Group { title: String::new(), columns }] }
    }

    /// Number of rows.
    pub(crate) fn height(&self) -> usize {
        self.columns().next().map_or(0, |column| column.cells.len())
    }

    /// All columns in order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &Column> {
        self.groups.iter().flat_map(|group| &group.columns)
    }
}
