//! What a program of the user's measured.

use crate::report::document::{Section, Table};
use crate::{Benchmark, RunSummary};

/// Results by policy; nothing where there was no such program.
pub(crate) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Measured by evaluation.command");
    section.table(table(&summary.benchmarks));
    section
}

fn table(found: &[Benchmark]) -> Table {
    let mut names: Vec<&str> = found.iter().flat_map(|one| one.results.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let row = |name: &&str| {
        let values =
            found.iter().map(|one| one.results.get(*name).map_or("–".to_owned(), |value| format!("{value:.4}")));
        std::iter::once((*name).to_owned()).chain(values).collect()
    };
    let head: Vec<&str> = std::iter::once("result").chain(found.iter().map(|one| one.policy.as_str())).collect();
    Table::of_rows("Results by policy", 1, &head, names.iter().map(row).collect())
}
