//! What rounds with bounds held, and how their λ went.

use crate::report::document::{Block, Section, Table};
use crate::report::svg::{Chart, Series};
use crate::{HoldPoint, HoldSummary, RoundSummary, RunSummary};

/// The bounds, what was reached, and the way there.
pub(super) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Held dimensions");
    if summary.holds.is_empty() && summary.rounds.iter().all(|round| round.held.is_empty()) {
        return section;
    }
    section.text(
        "A round with `hold` finds its λ by dual ascent on training pairs that no round learns, or on answers of its own to \
         their prompts; what it reached is judged on the held-out pairs, or on fresh answers to held-out prompts. A bound is met unless what was reached lies below it by more than its 95 % interval. λ is the \
         mean over the second half of the round, and the price of the bound: one nat less of the held dimension's reward \
         would give λ nats of the new one's, net of the KL term."
            .to_owned(),
    );
    let row = |hold: &HoldSummary| {
        vec![
            hold.round.clone(),
            hold.dimension.clone(),
            hold.words(),
            hold.value(hold.asked),
            hold.value(hold.reached),
            format!("{} to {}", hold.value(hold.interval.0), hold.value(hold.interval.1)),
            if hold.met { "yes" } else { "no" }.to_owned(),
            format!("{:.3}{}", hold.lambda, if hold.at_limit { " (limit)" } else { "" }),
            hold.value(hold.driven),
            format!("{} / {}", hold.pairs, hold.driving),
        ]
    };
    section.table(Table::of_rows(
        "",
        3,
        &[
            "policy",
            "dimension",
            "bound on",
            "asked, at least",
            "reached",
            "interval",
            "met",
            "λ, the price",
            "on what drives λ",
            "pairs, or prompts, judging / driving",
        ],
        summary.holds.iter().map(row).collect(),
    ));
    let missed: Vec<String> = summary.holds.iter().filter_map(HoldSummary::shortfall).collect();
    if !missed.is_empty() {
        section.blocks.push(Block::List(missed));
    }
    for round in summary.rounds.iter().filter(|round| !round.held.is_empty()) {
        charts(&mut section, summary, round);
    }
    section
}

/// λ of every held dimension, and of each what was reached beside what had to be.
fn charts(section: &mut Section, summary: &RunSummary, round: &RoundSummary) {
    let mut names: Vec<&str> = vec![];
    for point in &round.held {
        if !names.contains(&point.dimension.as_str()) {
            names.push(&point.dimension);
        }
    }
    let colour = super::colour(summary, &round.policy);
    let line = |name: String, colour: usize, dimension: &str, read: fn(&HoldPoint) -> f64| Series {
        name,
        colour,
        points: round
            .held
            .iter()
            .filter(|point| point.dimension == dimension)
            .map(|point| (point.step as f64, read(point)))
            .collect(),
    };
    let chart = |title: String, y: &str, series| {
        Block::Chart(Chart::Lines { title, x: "step".to_owned(), y: y.to_owned(), series })
    };
    let lambdas =
        names.iter().enumerate().map(|(index, name)| line((*name).into(), colour + index, name, |of| of.lambda));
    section.blocks.push(chart(format!("λ of {}", round.policy), "λ", lambdas.collect()));
    for name in names {
        let measure =
            round.held.iter().find(|point| point.dimension == name).map_or("", |point| point.measure.as_str());
        let series = vec![
            line("reached".into(), colour, name, |of| of.reached),
            line("bound".into(), colour + 1, name, |of| of.bound),
        ];
        section.blocks.push(chart(format!("{measure} on {name} in {}", round.policy), measure, series));
    }
}
