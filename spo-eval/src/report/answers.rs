//! What scorers say: means per policy, win rates, the pairs of online rounds.

use crate::number::{percent, plain, signed};
use crate::report::document::{Section, Table};
use crate::{AnswerScores, OnlinePairs, RunSummary, WinRate};

/// How to read win rates.
pub(crate) const LEGEND: &str = "wins %: prompts whose answer of the first policy has the higher score, ties count half; 95 % bootstrap \
    interval over prompts. equal length: the same by a logistic regression on the difference in length, at difference 0.";

/// Scores and win rates of the policies' own answers; nothing where no scorer was asked.
pub(crate) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Answers in a scorer's eyes");
    section.table(means(&summary.answers));
    section.table(win_rates(&summary.win_rates));
    if !summary.win_rates.is_empty() {
        section.text(LEGEND);
    }
    section.table(online(&summary.online));
    section
}

fn means(answers: &[AnswerScores]) -> Table {
    let row = |scores: &AnswerScores| {
        vec![
            scores.policy.clone(),
            scores.dimension.clone(),
            signed(scores.mean),
            format!("{} to {}", signed(scores.interval.0), signed(scores.interval.1)),
            scores.answers.to_string(),
            plain(scores.mean_tokens),
        ]
    };
    Table::of_rows(
        "Mean score of a policy's answers to held-out prompts",
        2,
        &["policy", "score", "mean", "interval", "answers", "tokens"],
        answers.iter().map(row).collect(),
    )
}

/// The table of win rates.
pub(crate) fn win_rates(found: &[WinRate]) -> Table {
    let row = |rate: &WinRate| {
        vec![
            rate.a.clone(),
            rate.b.clone(),
            rate.dimension.clone(),
            format!("{}/{}/{}", rate.wins, rate.ties, rate.losses),
            percent(rate.rate),
            format!("{} to {}", percent(rate.rate_interval.0), percent(rate.rate_interval.1)),
            rate.length_controlled.map_or("–".to_owned(), percent),
            format!("{} / {}", signed(rate.a_score), signed(rate.b_score)),
            format!("{} / {}", plain(rate.a_tokens), plain(rate.b_tokens)),
        ]
    };
    Table::of_rows(
        "First against second policy on the same prompts",
        3,
        &["first", "second", "score", "win/tie/loss", "wins %", "interval", "equal length", "means", "tokens"],
        found.iter().map(row).collect(),
    )
}

fn online(pairs: &[OnlinePairs]) -> Table {
    let row = |pairs: &OnlinePairs| {
        vec![
            pairs.round.clone(),
            pairs.policy.clone(),
            pairs.dimension.clone(),
            signed(pairs.mean_score),
            format!("{} / {}", pairs.answers, pairs.prompts),
            pairs.pairs.to_string(),
            plain(pairs.mean_gap),
            format!("{} / {}", plain(pairs.chosen_tokens), plain(pairs.rejected_tokens)),
            pairs.data_wins.map_or("–".to_owned(), percent),
        ]
    };
    Table::of_rows(
        "Pairs that online rounds made of their policy's own answers",
        3,
        &[
            "round",
            "answers of",
            "dimension",
            "mean score",
            "answers / prompts",
            "pairs",
            "gap",
            "tokens",
            "data wins %",
        ],
        pairs.iter().map(row).collect(),
    )
}
