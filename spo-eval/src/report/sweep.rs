//! The report of a sweep: table, fronts, hypervolume.

use super::document::{Block, Document, Section, Table};
use super::svg::{self, Chart, ScatterPoint, Series};
use crate::number::{percent, plain, plus_minus, signed};
use crate::{EvalError, SweepRun, SweepSummary, Tally};

/// How to read it.
const LEGEND: &str = "accuracy %: held-out pairs with a positive margin under the run's final policy, with a 95 % bootstrap interval over \
    prompts. On the front is a run that no other run beats or equals on every dimension. The hypervolume is the volume of accuracies \
    that the runs dominate, between 0 and 1; share: what would be lost of it without the run. The runs share their seed, so \
    differences smaller than the intervals mean nothing, and points at different KL to the start are no fair comparison.";

/// The report of a sweep as one self-contained HTML page with inline SVG.
///
/// # Errors
/// An accuracy that is not finite.
pub fn sweep_html(summary: &SweepSummary) -> Result<String, EvalError> {
    Ok(super::html::page(&document(summary)?))
}

/// The report of a sweep as GitHub-flavoured Markdown, without pictures.
///
/// # Errors
/// An accuracy that is not finite.
pub fn sweep_markdown(summary: &SweepSummary) -> Result<String, EvalError> {
    Ok(super::markdown::page(&document(summary)?))
}

/// The trade-off of the first two dimensions with the front, as one SVG picture.
#[must_use]
pub fn front_svg(summary: &SweepSummary) -> String {
    let [first, second, ..] = &summary.dimensions[..] else {
        let (title, x, y) = ("Front".to_owned(), String::new(), String::new());
        return svg::render(&Chart::Scatter { title, x, y, points: vec![] });
    };
    svg::render(&scatter(summary, (0, first), (1, second)))
}

/// Hypervolume over the number of runs, as one SVG picture.
///
/// # Errors
/// An accuracy that is not finite.
pub fn hypervolume_svg(summary: &SweepSummary) -> Result<String, EvalError> {
    Ok(svg::render(&growth(summary)?))
}

/// One row per number of runs, in their order: what the first so many dominate. The last row is the hypervolume of all.
///
/// # Errors
/// As [`hypervolume_svg`].
pub fn hypervolume_rows(summary: &SweepSummary) -> Result<Vec<Vec<String>>, EvalError> {
    let rows = summary.growth()?.into_iter().zip(&summary.runs).enumerate();
    let row = |(index, (volume, run)): (usize, (f64, &SweepRun))| {
        vec![(index + 1).to_string(), run.name.clone(), volume.to_string()]
    };
    Ok([vec!["runs".into(), "last-run".into(), "hypervolume".into()]].into_iter().chain(rows.map(row)).collect())
}

/// One row per run: settings, accuracies, KL, front.
#[must_use]
pub fn sweep_rows(summary: &SweepSummary) -> Vec<Vec<String>> {
    let mut header = vec!["run".to_owned()];
    header.extend(summary.keys().into_iter().map(str::to_owned));
    for dimension in &summary.dimensions {
        let columns = ["accuracy", "accuracy-low", "accuracy-high", "margin", "margin-stderr"];
        header.extend(columns.map(|column| format!("{dimension} {column}")));
    }
    let last = ["kl-start", "kl-stderr", "forgotten", "on-front", "hypervolume-contribution"];
    header.extend(last.map(str::to_owned));
    let row = |run: &SweepRun| {
        let mut row = vec![run.name.clone()];
        row.extend(summary.keys().into_iter().map(|key| setting(run, key)));
        for Tally { accuracy, interval: (low, high), mean_margin, margin_stderr, .. } in &run.tallies {
            row.extend([accuracy, low, high, mean_margin, margin_stderr].map(f64::to_string));
        }
        let kl = run.kl.map_or([String::new(), String::new()], |(mean, error)| [mean.to_string(), error.to_string()]);
        row.extend(kl);
        row.extend([run.forgotten.to_string(), run.on_front.to_string(), run.contribution.to_string()]);
        row
    };
    std::iter::once(header).chain(summary.runs.iter().map(row)).collect()
}

fn setting(run: &SweepRun, key: &str) -> String {
    run.settings.iter().find(|(name, _)| name == key).map_or_else(String::new, |(_, value)| value.clone())
}

fn document(summary: &SweepSummary) -> Result<Document, EvalError> {
    let mut results = Section::new("Runs");
    results.table(table(summary));
    results.text(LEGEND);
    let mut fronts = Section::new("Trade-off and front");
    let front: Vec<&str> = summary.runs.iter().filter(|run| run.on_front).map(|run| run.name.as_str()).collect();
    fronts.text(format!("On the front: {}.", front.join(", ")));
    for (index, first) in summary.dimensions.iter().enumerate() {
        for (offset, second) in summary.dimensions[index + 1..].iter().enumerate() {
            fronts.blocks.push(Block::Chart(scatter(summary, (index, first), (index + 1 + offset, second))));
        }
    }
    for (index, dimension) in summary.dimensions.iter().enumerate() {
        let points = summary.runs.iter().enumerate().filter_map(|(number, run)| {
            let ((mean, error), tally) = (run.kl?, &run.tallies[index]);
            let interval = Some((mean - 1.96 * error, mean + 1.96 * error));
            let point = point(number, run, mean, 100.0 * tally.accuracy);
            Some(ScatterPoint { x_interval: interval, y_interval: percents(tally), ..point })
        });
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            fronts.blocks.push(Block::Chart(Chart::Scatter {
                title: format!("{dimension} against KL"),
                x: "KL to the start, nats per response".to_owned(),
                y: format!("{dimension}, accuracy %"),
                points,
            }));
        }
    }
    let mut volume = Section::new("Hypervolume");
    volume.text(format!("{:.4} of 1, above an accuracy of 0 on every dimension.", summary.hypervolume));
    volume.blocks.push(Block::Chart(growth(summary)?));
    Ok(Document { title: format!("Sweep of {}", summary.name), sections: vec![results, fronts, volume] })
}

fn table(summary: &SweepSummary) -> Table {
    let keys = summary.keys();
    let mut header = vec!["run"];
    header.extend(&keys);
    let accuracies: Vec<String> = summary.dimensions.iter().map(|name| format!("{name}, accuracy %")).collect();
    let margins: Vec<String> = summary.dimensions.iter().map(|name| format!("{name}, margin")).collect();
    header.push("front");
    for (accuracy, margin) in accuracies.iter().zip(&margins) {
        header.extend([accuracy.as_str(), margin.as_str()]);
    }
    header.extend(["KL start", "forgotten, points", "hypervolume share"]);
    let row = |run: &SweepRun| {
        let mut row = vec![run.name.clone()];
        row.extend(keys.iter().map(|key| setting(run, key)));
        row.push(if run.on_front { "yes" } else { "" }.to_owned());
        for tally in &run.tallies {
            let (low, high) = tally.interval;
            row.push(format!("{} ({:.0}–{:.0})", percent(tally.accuracy), 100.0 * low, 100.0 * high));
            row.push(signed(tally.mean_margin));
        }
        row.push(run.kl.map_or("–".to_owned(), |(mean, error)| plus_minus(mean, error)));
        row.push(plain(100.0 * run.forgotten));
        row.push(format!("{:.4}", run.contribution));
        row
    };
    Table::of_rows("", keys.len() + 2, &header, summary.runs.iter().map(row).collect())
}

fn percents(tally: &Tally) -> Option<(f64, f64)> {
    Some((100.0 * tally.interval.0, 100.0 * tally.interval.1))
}

fn point(number: usize, run: &SweepRun, x: f64, y: f64) -> ScatterPoint {
    let front = if run.on_front { " (front)" } else { "" };
    ScatterPoint { label: format!("{}{front}", run.name), colour: number, x, y, x_interval: None, y_interval: None }
}

fn scatter(summary: &SweepSummary, first: (usize, &String), second: (usize, &String)) -> Chart {
    let of_run = |(number, run): (usize, &SweepRun)| {
        let (x, y) = (&run.tallies[first.0], &run.tallies[second.0]);
        let point = point(number, run, 100.0 * x.accuracy, 100.0 * y.accuracy);
        ScatterPoint { x_interval: percents(x), y_interval: percents(y), ..point }
    };
    Chart::Scatter {
        title: format!("{} against {}", first.1, second.1),
        x: format!("{}, accuracy %", first.1),
        y: format!("{}, accuracy %", second.1),
        points: summary.runs.iter().enumerate().map(of_run).collect(),
    }
}

fn growth(summary: &SweepSummary) -> Result<Chart, EvalError> {
    let points = summary.growth()?.into_iter().enumerate().map(|(index, volume)| ((index + 1) as f64, volume));
    Ok(Chart::Lines {
        title: "Hypervolume of the first runs".to_owned(),
        x: "runs".to_owned(),
        y: "hypervolume".to_owned(),
        series: vec![Series { name: summary.name.clone(), colour: 0, points: points.collect() }],
    })
}
