//! How far policies follow the preference that they are asked for.

use crate::number::{interval_points, percent, signed};
use crate::report::document::{Section, Table};
use crate::{RunSummary, Steer};

/// How to read the table.
const LEGEND: &str = "Pairs whose two labels name different answers. STEER: accuracy on the first dimension's labels when asked for \
    the first, plus that on the second's when asked for the second, less 100; 95 % bootstrap interval over prompts. 0: the \
    policy does not follow, 100: always, -100: it does the opposite.";

/// STEER of each policy and setting, with its controls; nothing where none was measured.
pub(crate) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Steering");
    section.table(table(&summary.steer));
    if !summary.steer.is_empty() {
        section.text(LEGEND);
    }
    section
}

/// The table of STEER.
pub(crate) fn table(found: &[Steer]) -> Table {
    let row = |steer: &Steer| {
        vec![
            steer.policy.clone(),
            format!("{} / {}", steer.first, steer.second),
            steer.setting.clone(),
            steer.arm.name().to_owned(),
            format!("{} / {}", steer.pairs, steer.prompts),
            percent(steer.accuracy_first),
            percent(steer.accuracy_second),
            signed(steer.steer),
            interval_points((steer.interval.0 / 100.0, steer.interval.1 / 100.0)),
        ]
    };
    Table::of_rows(
        "STEER on opposed pairs",
        4,
        &["policy", "between", "asked by", "arm", "pairs / prompts", "first %", "second %", "STEER", "interval"],
        found.iter().map(row).collect(),
    )
}
