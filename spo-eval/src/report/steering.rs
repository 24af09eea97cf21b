//! How far policies follow the preference that they are asked for.

use crate::number::{interval_points, percent, signed};
use crate::report::document::{Section, Table};
use crate::{DimensionScore, RunSummary, Steer, SteeredScores, Subset};

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
    section.table(by_user(&summary.steered));
    section
}

/// Accuracy and margin of each user's own pairs.
fn by_user(found: &[SteeredScores]) -> Table {
    let row = |(of, score): (&SteeredScores, &DimensionScore)| {
        let all = score.tally(Subset::All)?;
        Some(vec![
            of.policy.clone(),
            of.setting.clone(),
            score.dimension.clone(),
            all.pairs.to_string(),
            percent(all.accuracy),
            format!("{} to {}", percent(all.interval.0), percent(all.interval.1)),
            signed(all.mean_margin),
        ])
    };
    let scores = found.iter().flat_map(|of| of.scores.iter().map(move |score| (of, score)));
    Table::of_rows(
        "All held-out pairs of each user or dimension, by what the policy was told",
        3,
        &["policy", "told", "of", "pairs", "accuracy %", "interval", "margin"],
        scores.filter_map(row).collect(),
    )
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
