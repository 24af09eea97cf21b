//! How a run was trained: rounds, curves, distributions, settings.

use crate::number::{percent, plain, plus_minus};
use crate::report::document::{Block, Section, Table};
use crate::report::svg::{Chart, Series};
use crate::{CurvePoint, DegreeScore, Distribution, Evaluation, RoundSummary, RunSummary};

/// Every section about training.
pub(crate) fn sections(summary: &RunSummary) -> Vec<Section> {
    vec![rounds(summary), degrees(summary), distributions(summary), settings(summary)]
}

fn rounds(summary: &RunSummary) -> Section {
    let mut section = Section::new("Rounds");
    let row = |round: &RoundSummary| {
        let lambda: Vec<String> = round.lambda.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let loss = |point: Option<&CurvePoint>| point.map_or("–".to_owned(), |point| format!("{:.4}", point.loss));
        vec![
            if round.control { format!("{} (control)", round.policy) } else { round.policy.clone() },
            round.reference.clone(),
            round.dimension.clone(),
            round.objective.clone(),
            if lambda.is_empty() { "–".to_owned() } else { lambda.join(", ") },
            round.curve.last().map_or(0, |point| point.step + 1).to_string(),
            loss(round.curve.first()),
            loss(round.curve.last()),
        ]
    };
    section.table(Table::of_rows(
        "",
        5,
        &["policy", "from", "dimension", "objective", "λ", "steps", "first loss", "last loss"],
        summary.rounds.iter().map(row).collect(),
    ));
    let ended = |round: &RoundSummary| Some(format!("{} {}", round.policy, round.ended.as_ref()?));
    let ended: Vec<String> = summary.rounds.iter().filter_map(ended).collect();
    if !ended.is_empty() {
        section.blocks.push(Block::List(ended));
    }
    let scored: Vec<Vec<String>> = summary.rounds.iter().filter_map(scores).collect();
    if !scored.is_empty() {
        section.text(
            "score: mean of what the round's scorer says of the policy's own answers, in training at both sides of the step's \
             directions, and to held-out prompts.",
        );
        let heads = ["policy", "first step", "last step", "held out, first", "held out, last"];
        section.table(Table::of_rows("Scores of a policy's own answers", 1, &heads, scored));
    }
    type Reading = fn(&CurvePoint) -> Option<f64>;
    let readings: [(&str, &str, Reading); 4] = [
        ("Loss", "loss", |point| Some(point.loss)),
        ("Accuracy on training pairs", "accuracy %", |point| point.accuracy.map(|share| 100.0 * share)),
        ("Reward margin on training pairs", "margin", |point| point.margin),
        ("Mean score of the policy's answers", "score", |point| point.score),
    ];
    let mut chart = |title: &str, [x, y]: [&str; 2], points: &dyn Fn(&RoundSummary) -> Vec<(f64, f64)>| {
        let line = |round: &RoundSummary| Series {
            name: round.policy.clone(),
            colour: super::colour(summary, &round.policy),
            points: points(round),
        };
        let series: Vec<_> = summary.rounds.iter().map(line).filter(|line| !line.points.is_empty()).collect();
        if !series.is_empty() {
            let (title, x, y) = (title.to_owned(), x.to_owned(), y.to_owned());
            section.blocks.push(Block::Chart(Chart::Lines { title, x, y, series }));
        }
    };
    for (title, y, read) in readings {
        chart(title, ["step", y], &|round| {
            round.curve.iter().filter_map(|point| Some((point.step as f64, read(point)?))).collect()
        });
    }
    for dimension in replayed(summary) {
        let of = |point: &CurvePoint| {
            let (_, loss) = point.replayed.iter().find(|(name, _)| *name == dimension)?;
            Some((point.step as f64, *loss))
        };
        let title = format!("Loss on replayed pairs of {dimension}");
        chart(&title, ["step", "loss"], &|round| round.curve.iter().filter_map(of).collect());
    }
    chart("Held-out loss", ["step", "loss"], &|round| {
        round.evaluations.iter().map(|look| (look.step as f64, look.loss)).collect()
    });
    chart("Mean score of answers to held-out prompts", ["step", "score"], &|round| {
        round.evaluations.iter().filter_map(|look| Some((look.step as f64, look.score?))).collect()
    });
    for dimension in looked_at(summary) {
        let of = |look: &Evaluation| {
            let (_, accuracy, _) = look.dimensions.iter().find(|(name, ..)| *name == dimension)?;
            Some((look.step as f64, 100.0 * accuracy))
        };
        let title = format!("Held-out accuracy on {dimension}");
        chart(&title, ["step", "accuracy %"], &|round| round.evaluations.iter().filter_map(of).collect());
        let over_kl = |look: &Evaluation| Some((look.kl?.0, of(look)?.1));
        let title = format!("{title} over KL");
        let kl = "KL to the start, nats per response";
        chart(&title, [kl, "accuracy %"], &|round| {
            let mut points: Vec<_> = round.evaluations.iter().filter_map(over_kl).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        });
    }
    section
}

/// The mean scores of a round whose loss is of them.
fn scores(round: &RoundSummary) -> Option<Vec<String>> {
    let shown = |score: Option<f64>| score.map_or_else(|| "–".to_owned(), |score| format!("{score:.4}"));
    let trained: Vec<f64> = round.curve.iter().filter_map(|point| point.score).collect();
    let held_out: Vec<f64> = round.evaluations.iter().filter_map(|look| look.score).collect();
    let (first, last) = (*trained.first()?, trained.last().copied());
    let mut row = vec![round.policy.clone()];
    row.extend([Some(first), last, held_out.first().copied(), held_out.last().copied()].map(shown));
    Some(row)
}

fn degrees(summary: &RunSummary) -> Section {
    let mut section = Section::new("Preference degrees");
    if summary.degrees.is_empty() {
        return section;
    }
    section.text(
        "right: held-out answers whose degree the head names. by length: the same for a logistic regression on the answer's \
         length alone. A head that is no better has learnt lengths, not content.",
    );
    let row = |score: &DegreeScore| {
        vec![
            score.policy.clone(),
            score.degrees.to_string(),
            format!("{} / {}", score.pairs, score.pairs + score.left_out),
            score.answers.to_string(),
            percent(score.accuracy),
            percent(1.0 / score.degrees as f64),
            percent(score.length_accuracy),
            plain(score.loss),
        ]
    };
    section.table(Table::of_rows(
        "",
        1,
        &[
            "policy",
            "degrees",
            "pairs with degrees",
            "held-out answers",
            "right %",
            "by chance %",
            "by length %",
            "loss",
        ],
        summary.degrees.iter().map(row).collect(),
    ));
    section
}

/// Dimensions that running policies were measured on, in order of first mention.
fn looked_at(summary: &RunSummary) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, ..) in summary.rounds.iter().flat_map(|round| &round.evaluations).flat_map(|look| &look.dimensions) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// Dimensions whose pairs were replayed, in order of first mention.
fn replayed(summary: &RunSummary) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in summary.rounds.iter().flat_map(|round| &round.curve).flat_map(|point| &point.replayed) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

fn distributions(summary: &RunSummary) -> Section {
    let mut section = Section::new("Distributions");
    let offsets = summary.rounds.iter().filter_map(|round| Some((round, round.margin_offset.as_ref()?)));
    let named = offsets.map(|(round, shape)| (format!("c of {}", round.policy), shape));
    let all: Vec<(String, &Distribution)> =
        named.chain(summary.margins.iter().map(|shape| (shape.name.clone(), shape))).collect();
    if all.is_empty() {
        return section;
    }
    section.text(format!(
        "c is what a round carries over from earlier dimensions: pairs with c > 0 weigh more than in DPO, pairs with c < 0 less. \
         Where |c| > {}, the loss is saturated and the pair hardly trains or trains at full weight.",
        crate::SATURATION
    ));
    let row = |(name, shape): &(String, &Distribution)| {
        let mut row = vec![name.clone(), shape.count.to_string(), plus_minus(shape.mean, shape.deviation)];
        row.extend([1, 3, 5].map(|index| plain(shape.quantiles[index])));
        // Only c enters a loss where a large value means saturation.
        let is_offset = summary.rounds.iter().any(|round| round.margin_offset.as_ref() == Some(*shape));
        row.push(if is_offset { format!("{} %", percent(shape.saturated)) } else { "–".to_owned() });
        row
    };
    let beyond = format!("|x| > {}", crate::SATURATION);
    section.table(Table::of_rows(
        "",
        1,
        &["values", "count", "mean ± deviation", "5 %", "median", "95 %", &beyond],
        all.iter().map(row).collect(),
    ));
    section.blocks.extend(all.into_iter().map(|(title, shape)| {
        let (low, high) = (shape.quantiles[0], shape.quantiles[6]);
        Block::Chart(Chart::Bars { title, low, high, counts: shape.histogram.clone() })
    }));
    section
}

fn settings(summary: &RunSummary) -> Section {
    let mut section = Section::new("Settings");
    for round in &summary.rounds {
        let row = |setting: &crate::Setting| vec![setting.key.clone(), setting.value.clone(), setting.origin.clone()];
        let rows = round.settings.iter().map(row).collect();
        section.table(Table::of_rows(&round.policy, 3, &["key", "value", "origin"], rows));
    }
    section
}
