//! How the dimensions' gradients stood to each other on the way.

use crate::number::plain;
use crate::report::document::{Block, Section, Table};
use crate::report::svg::{Chart, Series};
use crate::{GradientGram, RunSummary};

/// A table of all pairs of dimensions, and their cosines by step.
pub(super) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Gradients");
    if summary.gradients.is_empty() {
        return section;
    }
    section.text(
        "The cosine of two dimensions' gradients, each of the mean loss on pairs of its own: below 0 a step for one is a step \
         against the other, near 0 they hardly touch.",
    );
    let phases = summary.rounds.iter().map(|round| &round.policy);
    let of = |phase: &String| -> Vec<&GradientGram> {
        summary.gradients.iter().filter(|gram| gram.phase == *phase).collect()
    };
    let (mut rows, mut charts) = (vec![], vec![]);
    for (phase, grams) in phases.map(|phase| (phase, of(phase))) {
        let Some(first) = grams.first() else { continue };
        let mut series = vec![];
        for (a, b) in first.pairs() {
            let points: Vec<(f64, f64)> =
                grams.iter().filter_map(|gram| Some((gram.step as f64, gram.cosine(a, b)?))).collect();
            let [name, other] = [a, b].map(|at| first.dimensions[at].as_str());
            let (low, high) = points
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
            let mean = points.iter().map(|(_, y)| y).sum::<f64>() / points.len().max(1) as f64;
            let cells =
                if points.is_empty() { vec!["–".to_owned(); 3] } else { [mean, low, high].map(plain).to_vec() };
            rows.push([vec![phase.clone(), name.into(), other.into(), points.len().to_string()], cells].concat());
            series.push(Series {
                name: format!("{name} × {other}"),
                colour: super::colour(summary, phase) + series.len(),
                points,
            });
        }
        series.retain(|line| !line.points.is_empty());
        if !series.is_empty() {
            let (title, x, y) = (format!("Cosine of gradients in {phase}"), "step".to_owned(), "cosine".to_owned());
            charts.push(Block::Chart(Chart::Lines { title, x, y, series }));
        }
    }
    let heads = ["policy", "dimension", "and", "steps", "mean cosine", "least", "most"];
    section.table(Table::of_rows("", 3, &heads, rows));
    section.blocks.extend(charts);
    section
}
