//! What a run achieved: verdict, matrix, differences, forgetting, score kinds, divergences, trade-off charts.

use crate::number::{interval_points, percent, plain, plus_minus, signed};
use crate::report::document::{Block, Section, Table};
use crate::report::hold;
use crate::report::matrix::{Detail, Pairs, has_boilerplate, matrix};
use crate::report::svg::{Chart, ScatterPoint};
use crate::report::{answers, benchmarks, front, gradients, steering};
use crate::verdict::makes_rewards;
use crate::{
    DimensionScore, PairedDifference, RunSummary, ScoreKind, Subset, Tally, dimensions, find_score, forgetting,
    policies, verdict,
};

/// How to read the matrix.
const LEGEND: &str = "accuracy %: pairs with a positive margin, ties count half; 95 % bootstrap interval over prompts. \
    confl, agree, alone: the same on pairs where the other dimension's label contradicts, agrees or is missing. margin: mean Δ log π/π_0 in nats. \
    The start is tied with itself. KL start: sampled KL to the start in nats per response, with its standard error.";

/// As [`LEGEND`], of reward models.
const REWARD_LEGEND: &str = "accuracy %: pairs whose chosen answer has the higher reward, ties count half; 95 % bootstrap interval \
    over prompts. confl, agree, alone: the same on pairs where the other dimension's label contradicts, agrees or is missing. margin: mean difference \
    of the rewards, chosen minus rejected. ACC+: prompts all of whose pairs are right.";

/// How to read the matrix of these scores.
pub(crate) fn legend(scores: &[DimensionScore]) -> String {
    let rewards: Vec<_> = scores.iter().filter(|score| score.kind == ScoreKind::Reward).collect();
    if rewards.is_empty() {
        return LEGEND.to_owned();
    }
    let whole = rewards.iter().filter_map(|score| {
        let share = score.tally(Subset::All)?.accuracy_of_prompts()?;
        Some(format!("{} on {} {} %", score.policy, score.dimension, percent(share)))
    });
    let whole: Vec<String> = whole.collect();
    format!("{REWARD_LEGEND} {}.", whole.join(", "))
}

/// What the numbers of one run cannot show.
const CLAIMS: &str = "At equal α and β, holding an earlier dimension is expected to keep it better than sequential DPO does, at a \
    cost in the new dimension and in KL to the start. In the exact limit both reach the same trade-off curve, so one run does not \
    show that one of them trades better: that needs several seeds, matched KL to the start, and sequential DPO re-tuned as the control.";

/// Every section of results.
pub(crate) fn sections(summary: &RunSummary) -> Vec<Section> {
    let mut outcome = Section::new("Outcome");
    outcome.text(verdict(summary));
    if !makes_rewards(summary) {
        outcome.text(CLAIMS);
    }
    vec![
        outcome,
        matrices(summary),
        front::section(summary),
        steering::section(summary),
        hold::section(summary),
        gradients::section(summary),
        answers::section(summary),
        benchmarks::section(summary),
        comparisons(summary),
        kinds(summary),
        trade_off(summary),
    ]
}

fn matrices(summary: &RunSummary) -> Section {
    let mut section = Section::new("Policies × dimensions");
    if summary.matrix.is_empty() {
        return section;
    }
    let table = |pairs| matrix(&summary.matrix, &summary.kl, &summary.start, pairs, Detail::Wide);
    section.table(table(Pairs::All));
    if has_boilerplate(&summary.matrix) {
        section.table(table(Pairs::Substantive));
    }
    section.text(legend(&summary.matrix));
    section.table(divergences(summary));
    section
}

/// Every sampled divergence.
pub(crate) fn divergences(summary: &RunSummary) -> Table {
    let row = |estimate: &crate::KlEstimate| {
        vec![
            estimate.policy.clone(),
            estimate.reference.clone(),
            plus_minus(estimate.mean, estimate.stderr),
            estimate
                .sampled_mean
                .zip(estimate.sampled_stderr)
                .map_or("–".to_owned(), |(mean, error)| plus_minus(mean, error)),
            plus_minus(estimate.k3_mean, estimate.k3_stderr),
            estimate.samples.to_string(),
            plain(estimate.mean_tokens),
        ]
    };
    Table::of_rows(
        "KL divergence in nats per response, estimated on sampled responses",
        2,
        &["policy", "from", "KL", "mean log-ratio", "k3", "samples", "tokens"],
        summary.kl.iter().map(row).collect(),
    )
}

fn comparisons(summary: &RunSummary) -> Section {
    let mut section = Section::new("Differences and forgetting");
    let row = |difference: &PairedDifference| {
        vec![
            difference.dimension.clone(),
            difference.subset.key().to_owned(),
            difference.a.clone(),
            difference.b.clone(),
            signed(100.0 * difference.accuracy_difference),
            interval_points(difference.interval),
            signed(difference.margin_difference),
            format!("{} to {}", signed(difference.margin_interval.0), signed(difference.margin_interval.1)),
            difference.pairs.to_string(),
        ]
    };
    section.table(Table::of_rows(
        "First minus second policy on the same pairs: accuracy in points and margin, each with its 95 % interval",
        4,
        &["dimension", "pairs of", "first", "second", "points", "interval", "margin", "interval", "pairs"],
        summary.differences.iter().map(row).collect(),
    ));
    let mut lost: Vec<crate::Forgetting> = Vec::new();
    for policy in policies(&summary.matrix) {
        let entries = forgetting(&summary.matrix, &summary.path(policy));
        lost.extend(entries.into_iter().filter(|entry| entry.policy == policy && policy != summary.start));
    }
    let row = |entry: crate::Forgetting| {
        let points = plain(100.0 * entry.forgotten);
        vec![entry.policy, entry.dimension, entry.best_policy, percent(entry.best), percent(entry.now), points]
    };
    section.table(Table::of_rows(
        "Forgetting: best accuracy along a policy's own rounds minus its accuracy now, in points",
        3,
        &["policy", "dimension", "best policy", "best %", "now %", "forgotten"],
        lost.into_iter().map(row).collect(),
    ));
    section
}

fn kinds(summary: &RunSummary) -> Section {
    let mut section = Section::new("Scores that answer other questions");
    let mut rows = Vec::new();
    for kind in ScoreKind::ALL {
        for score in summary.scores.iter().filter(|score| score.kind == kind) {
            let Some(all) = score.tally(Subset::All) else {
                continue;
            };
            let part = |subset| score.tally(subset).map_or("–".to_owned(), |tally: &Tally| percent(tally.accuracy));
            rows.push(vec![
                kind.formula().to_owned(),
                score.policy.clone(),
                score.dimension.clone(),
                format!("{} ({} to {})", percent(all.accuracy), percent(all.interval.0), percent(all.interval.1)),
                part(Subset::Conflicting),
                part(Subset::Agreeing),
                part(Subset::Single),
                format!("{} ± {:.2}", signed(all.mean_margin), all.margin_stderr),
            ]);
        }
    }
    if rows.is_empty() {
        return section;
    }
    let used = |kind: &ScoreKind| summary.scores.iter().any(|score| score.kind == *kind);
    let explain = |kind: ScoreKind| format!("{}: {}", kind.formula(), kind.question());
    section.blocks.push(Block::List(ScoreKind::ALL.into_iter().filter(used).map(explain).collect()));
    section.table(Table::of_rows(
        "",
        3,
        &["score", "policy", "dimension", "accuracy %", "confl", "agree", "alone", "margin"],
        rows,
    ));
    section
}

fn trade_off(summary: &RunSummary) -> Section {
    let mut section = Section::new("Trade-off");
    let names = dimensions(&summary.matrix);
    let all = |policy: &str, dimension: &str| {
        find_score(&summary.matrix, policy, dimension).and_then(|score: &DimensionScore| score.tally(Subset::All))
    };
    let percents = |interval: (f64, f64)| Some((100.0 * interval.0, 100.0 * interval.1));
    for (index, first) in names.iter().enumerate() {
        for second in &names[index + 1..] {
            let point = |policy: &str| {
                let (x, y) = (all(policy, first)?, all(policy, second)?);
                Some(ScatterPoint {
                    label: policy.to_owned(),
                    colour: super::colour(summary, policy),
                    x: 100.0 * x.accuracy,
                    y: 100.0 * y.accuracy,
                    x_interval: percents(x.interval),
                    y_interval: percents(y.interval),
                })
            };
            section.blocks.push(Block::Chart(Chart::Scatter {
                title: format!("{first} against {second}"),
                x: format!("{first}, accuracy %"),
                y: format!("{second}, accuracy %"),
                points: policies(&summary.matrix).into_iter().filter_map(point).collect(),
            }));
        }
    }
    for dimension in names {
        let point = |estimate: &crate::KlEstimate| {
            let tally = all(&estimate.policy, dimension).filter(|_| estimate.reference == summary.start)?;
            Some(ScatterPoint {
                label: estimate.policy.clone(),
                colour: super::colour(summary, &estimate.policy),
                x: estimate.mean,
                y: tally.mean_margin,
                x_interval: Some((estimate.mean - 1.96 * estimate.stderr, estimate.mean + 1.96 * estimate.stderr)),
                y_interval: Some((
                    tally.mean_margin - 1.96 * tally.margin_stderr,
                    tally.mean_margin + 1.96 * tally.margin_stderr,
                )),
            })
        };
        let points: Vec<_> = summary.kl.iter().filter_map(point).collect();
        if !points.is_empty() {
            section.blocks.push(Block::Chart(Chart::Scatter {
                title: format!("Margin on {dimension} against KL"),
                x: "KL to the start, nats per response".to_owned(),
                y: format!("{dimension}, mean margin"),
                points,
            }));
        }
    }
    section
}
