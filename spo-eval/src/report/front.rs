//! Conditional policies: what they score at weights over the whole simplex.

use crate::number::{percent, plain, signed};
use crate::report::document::{Block, Section, Table};
use crate::report::svg::{Chart, ScatterPoint};
use crate::{FrontPoint, FrontSummary, RunSummary};

/// How to read the section.
const LEGEND: &str = "One adapter, merged at each of the weights. accuracy %: held-out pairs with a positive margin \
    Δ log π/π_0, ties count half; 95 % bootstrap interval over prompts. hypervolume: share of the unit cube that the accuracies of \
    all points dominate. rank correlation: Spearman's, of a dimension's weight with its accuracy; 1 where more weight is never less \
    accuracy. Everything else in this report is the policy at equal weights.";

/// The fronts of a run.
pub(super) fn section(summary: &RunSummary) -> Section {
    let mut section = Section::new("Front");
    for front in &summary.fronts {
        section.text(words(front));
        section.table(points(front));
        if let [first, second] = front.dimensions.as_slice() {
            section.blocks.push(Block::Chart(chart(front, first, second, super::colour(summary, &front.policy))));
        }
    }
    if !summary.fronts.is_empty() {
        section.text(LEGEND.to_owned());
    }
    section
}

fn words(front: &FrontSummary) -> String {
    let of = |((name, rank), (low, high)): ((&String, &f64), &(f64, f64))| {
        format!("{name} {} ({} to {})", signed(*rank), signed(*low), signed(*high))
    };
    let ranks = front.dimensions.iter().zip(&front.monotone).zip(&front.monotone_intervals).map(of);
    let (low, high) = front.interval;
    format!(
        "{} at {} weights: hypervolume {:.4} ({low:.4} to {high:.4}); rank correlation of weight and accuracy: {}.",
        front.policy,
        front.points.len(),
        front.hypervolume,
        ranks.collect::<Vec<_>>().join(", ")
    )
}

fn points(front: &FrontSummary) -> Table {
    let row = |point: &FrontPoint| {
        let weights = point.weights.iter().map(|weight| format!("{weight:.2}"));
        let accuracy = point.accuracy.iter().zip(&point.intervals);
        let accuracy = accuracy
            .map(|(share, (low, high))| format!("{} ({} to {})", percent(*share), percent(*low), percent(*high)));
        let margins = point.margins.iter().map(|margin| plain(*margin));
        let mut cells = vec![weights.collect::<Vec<_>>().join(" : ")];
        cells.extend(accuracy.zip(margins).flat_map(|(accuracy, margin)| [accuracy, margin]));
        cells.push(if point.on_front { "yes" } else { "no" }.to_owned());
        cells
    };
    let names = front.dimensions.iter().flat_map(|name| [format!("{name}, accuracy %"), "margin".to_owned()]);
    let headers: Vec<String> =
        [front.dimensions.join(" : ")].into_iter().chain(names).chain(["on front".into()]).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    Table::of_rows(&front.policy, 1, &headers, front.points.iter().map(row).collect())
}

fn chart(front: &FrontSummary, first: &str, second: &str, colour: usize) -> Chart {
    let percents = |(low, high): (f64, f64)| Some((100.0 * low, 100.0 * high));
    let point = |point: &FrontPoint| ScatterPoint {
        label: format!("{first} {:.1}", point.weights[0]),
        colour,
        x: 100.0 * point.accuracy[0],
        y: 100.0 * point.accuracy[1],
        x_interval: percents(point.intervals[0]),
        y_interval: percents(point.intervals[1]),
    };
    Chart::Scatter {
        title: format!("Front of {}", front.policy),
        x: format!("{first}, accuracy %"),
        y: format!("{second}, accuracy %"),
        points: front.points.iter().map(point).collect(),
    }
}
