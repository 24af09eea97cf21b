//! The report of a study: every arm, every comparison, and what they allow to say.

use super::document::{Block, Document, Section, Table};
use super::svg::{self, Chart, ScatterPoint};
use crate::PromptTally;
use crate::number::{interval_points, plain, signed};
use crate::study::{
    Claim, HYPERVOLUME, LEVEL, StudyArm, StudyComparison, StudyHold, StudyPoint, StudyPrompt, StudySummary, detectable,
};

/// How to read the arms.
const ARMS: &str = "Accuracies in % on held-out pairs, mean over seeds ± standard deviation between seeds. At a KL stand policies of \
    the last round, between the last two looks on both sides of it; an arm that was never on both sides has no row there. Points at the \
    end differ in KL: they compare trainings, not trade-offs.";

/// How to read the comparisons.
const TESTS: &str = "Differences of arm and other in points, paired over seeds, with a 95 % t interval. p: two-sided, that there is no \
    difference; p equivalent: of two one-sided tests, that the difference is at least the margin; both after Holm's correction over \
    all rows; hypervolumes have no margin. ";

/// What the seeds are, where they share their held-out pairs.
const SHARED: &str = "Seeds share their held-out pairs, so these p say nothing of other prompts.";

/// What the seeds are, where each holds out other prompts.
const FOLDS: &str = "Each seed holds out another part of the prompts, so its differences are of other trainings and of other \
    prompts. Over prompts: the difference at the end over all pairs that any seed held out, with a 95 % bootstrap interval in \
    which prompts are drawn with all their pairs.";

/// How to read the bounds.
const BOUNDS: &str = "Each run's last round against its bounds, on held-out pairs; a bound is met unless what was reached lies \
    below it by more than its 95 % interval. λ: mean over the second half of the round.";

/// The report of a study as one self-contained HTML page with inline SVG.
#[must_use]
pub fn study_html(summary: &StudySummary) -> String {
    super::html::page(&document(summary))
}

/// The report of a study as GitHub-flavoured Markdown, without pictures.
#[must_use]
pub fn study_markdown(summary: &StudySummary) -> String {
    super::markdown::page(&document(summary))
}

/// The arms' means on the first two dimensions at the end, as one SVG picture.
#[must_use]
pub fn study_front_svg(summary: &StudySummary) -> String {
    let order = summary.orders().first().copied().unwrap_or_default().to_owned();
    svg::render(&scatter(summary, &order, None))
}

/// One row per point: order, arm, seed, KL, accuracies.
#[must_use]
pub fn study_rows(summary: &StudySummary) -> Vec<Vec<String>> {
    let mut header: Vec<String> = ["order", "arm", "seed", "at-kl", "kl"].map(str::to_owned).to_vec();
    header.extend(summary.dimensions.iter().map(|dimension| format!("{dimension} accuracy")));
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let row = |point: &StudyPoint| {
        let StudyPoint { order, arm, seed, at_kl, kl, accuracies } = point;
        let mut row = vec![order.clone(), arm.clone(), seed.to_string(), number(*at_kl), number(*kl)];
        row.extend(accuracies.iter().map(f64::to_string));
        row
    };
    std::iter::once(header).chain(summary.points.iter().map(row)).collect()
}

/// One row per run, dimension and held-out prompt: order, arm, seed, dimension, prompt, pairs, pairs that are right.
#[must_use]
pub fn study_prompt_rows(prompts: &[StudyPrompt]) -> Vec<Vec<String>> {
    let header = ["order", "arm", "seed", "dimension", "prompt", "pairs", "right"].map(str::to_owned).to_vec();
    let row = |StudyPrompt { order, arm, seed, tally }: &StudyPrompt| {
        let numbers = [tally.pairs.to_string(), tally.right.to_string()];
        let words = [order, arm, &seed.to_string(), &tally.dimension, &tally.prompt].map(String::clone);
        words.into_iter().chain(numbers).collect()
    };
    std::iter::once(header).chain(prompts.iter().map(row)).collect()
}

/// A row of [`study_prompt_rows`] as what it was made of; `None` for anything else.
pub fn study_prompt_of_row(row: &[String]) -> Option<StudyPrompt> {
    let [order, arm, seed, dimension, prompt, pairs, right] = row else { return None };
    let (seed, pairs, right) = (seed.parse().ok()?, pairs.parse().ok()?, right.parse().ok()?);
    let (dimension, prompt) = (dimension.clone(), prompt.clone());
    let tally = PromptTally { policy: String::new(), dimension, prompt, pairs, right };
    Some(StudyPrompt { order: order.clone(), arm: arm.clone(), seed, tally })
}

fn document(summary: &StudySummary) -> Document {
    let mut arms = Section::new("Arms");
    arms.table(table(summary));
    arms.text(ARMS);
    for order in summary.orders() {
        for place in places(summary) {
            arms.blocks.push(Block::Chart(scatter(summary, order, place)));
        }
    }
    let mut tests = Section::new("Comparisons");
    tests.table(comparisons(summary));
    tests.text(format!("{TESTS}{}", if summary.design.folds.is_some() { FOLDS } else { SHARED }));
    let mut claims = Section::new("What the data allow to say");
    claims.blocks.push(Block::List(sentences(summary)));
    let mut sections = vec![claims, arms, tests];
    if !summary.holds.is_empty() {
        let mut bounds = Section::new("Bounds");
        bounds.table(holds(summary));
        bounds.text(BOUNDS);
        sections.push(bounds);
    }
    Document { title: format!("Study {}", summary.design.name), sections }
}

fn holds(summary: &StudySummary) -> Table {
    let row = |StudyHold { order, arm, seed, hold }: &StudyHold| {
        let met = if hold.met { "yes" } else { "no" }.to_owned();
        let interval = format!("{} to {}", hold.value(hold.interval.0), hold.value(hold.interval.1));
        let words = [order, arm, &seed.to_string(), &hold.dimension, &hold.words()].map(String::clone);
        let numbers = [hold.value(hold.asked), hold.value(hold.reached), interval, met, format!("{:.3}", hold.lambda)];
        words.into_iter().chain(numbers).collect()
    };
    let header =
        ["order", "arm", "seed", "dimension", "bound on", "asked, at least", "reached", "interval", "met", "λ"];
    Table::of_rows("", 5, &header, summary.holds.iter().map(row).collect())
}

fn places(summary: &StudySummary) -> Vec<Option<f64>> {
    summary.design.places()
}

fn place(at_kl: Option<f64>) -> String {
    at_kl.map_or("the end".to_owned(), |kl| format!("KL {kl}"))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn spread(values: &[f64]) -> String {
    let middle = mean(values);
    if values.len() < 2 {
        return plain(middle);
    }
    let variance = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    format!("{} ± {}", plain(middle), plain(variance.sqrt()))
}

fn table(summary: &StudySummary) -> Table {
    let mut header: Vec<String> = ["order", "at", "method", "arm", "seeds"].map(str::to_owned).to_vec();
    header.extend(summary.dimensions.iter().map(|dimension| format!("{dimension} %")));
    header.push("KL".to_owned());
    let mut rows = vec![];
    for order in summary.orders() {
        for at_kl in places(summary) {
            for StudyArm { name: arm, method, .. } in &summary.design.arms {
                let points: Vec<&StudyPoint> = summary.points_of(order, arm, at_kl).collect();
                if points.is_empty() {
                    continue;
                }
                let mut row =
                    vec![order.to_owned(), place(at_kl), method.clone(), arm.clone(), points.len().to_string()];
                for index in 0..summary.dimensions.len() {
                    let of: Vec<f64> = points.iter().map(|point| 100.0 * point.accuracies[index]).collect();
                    row.push(spread(&of));
                }
                let kl: Vec<f64> = points.iter().filter_map(|point| point.kl).collect();
                row.push(if kl.is_empty() { "–".to_owned() } else { spread(&kl) });
                rows.push(row);
            }
        }
    }
    Table::of_rows("", 4, &header.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

/// A difference of accuracies in points; a hypervolume as it is.
fn unit(one: &StudyComparison) -> f64 {
    if one.measure == HYPERVOLUME { 1.0 } else { 100.0 }
}

fn comparisons(summary: &StudySummary) -> Table {
    let folds = summary.comparisons.iter().any(|one| one.over_prompts.is_some());
    let row = |one: &StudyComparison| {
        let (low, high) = one.test.interval;
        let difference = match one.measure == HYPERVOLUME {
            true => [format!("{:+.4}", one.test.mean), format!("{low:+.4} to {high:+.4}")],
            false => [signed(100.0 * one.test.mean), interval_points((low, high))],
        };
        let [difference, interval] = difference;
        let p = |value: f64| format!("{value:.3}");
        let labels = [&one.order, &place(one.at_kl), &one.arm, &one.against, &one.measure].map(String::clone);
        let equivalent = if one.measure == HYPERVOLUME { "–".to_owned() } else { p(one.p_equivalence) };
        let numbers = [difference, interval, p(one.p_difference), equivalent, one.test.seeds.to_string()];
        let over = one.over_prompts.as_ref().map_or("–".to_owned(), |over| {
            let points = interval_points(over.interval);
            format!("{}, {points} ({} prompts)", signed(100.0 * over.mean), over.prompts)
        });
        let over = folds.then_some(over);
        labels.into_iter().chain(numbers).chain(over).collect()
    };
    let mut header = vec![
        "order",
        "at",
        "arm or method",
        "other",
        "measure",
        "difference",
        "interval",
        "p",
        "p equivalent",
        "seeds",
    ];
    header.extend(folds.then_some("over prompts"));
    Table::of_rows("", 5, &header, summary.comparisons.iter().map(row).collect())
}

fn sentences(summary: &StudySummary) -> Vec<String> {
    let design = &summary.design;
    let shown = |one: &StudyComparison| {
        let (what, than) = match one.claim() {
            Claim::Better => ("has more", "than"),
            Claim::Worse => ("has less", "than"),
            Claim::Equivalent => ("has, within the margin, as much", "as"),
            Claim::Open => return None,
        };
        let StudyComparison { order, arm, against, measure, .. } = one;
        Some(format!("{order}, at {}: {arm} {what} {measure} {than} {against}.", place(one.at_kl)))
    };
    let mut said: Vec<String> = summary.comparisons.iter().filter_map(shown).collect();
    let open = summary.comparisons.iter().filter(|one| one.claim() == Claim::Open).count();
    let (count, margin) = (summary.comparisons.len(), 100.0 * design.margin);
    if open > 0 {
        let seeds = summary.comparisons.iter().map(|one| one.test.seeds).max().unwrap_or(0);
        let accuracies = summary.comparisons.iter().filter(|one| one.measure != HYPERVOLUME);
        let deviations: Vec<f64> = accuracies.map(|one| unit(one) * one.test.deviation).collect();
        let typical = mean(&deviations);
        said.push(format!(
            "Of {open} of {count} comparisons neither a difference nor equivalence within {margin} points is shown. With {seeds} seeds and \
             the {} points that differences vary by here, on average, one of {} points shows four times out of five before correction.",
            plain(typical),
            plain(detectable(seeds, typical))
        ));
    }
    if count == 0 {
        said.push("Nothing yet: a comparison takes two seeds that both arms have.".to_owned());
    } else {
        said.push(format!("Every test is at {:.0} % after Holm's correction over all {count}.", 100.0 * LEVEL));
    }
    said
}

fn scatter(summary: &StudySummary, order: &str, at_kl: Option<f64>) -> Chart {
    let axis = |index: usize| summary.dimensions.get(index).cloned().unwrap_or_default();
    let point = |(colour, StudyArm { name: arm, .. }): (usize, &StudyArm)| {
        let all: Vec<&StudyPoint> = summary.points_of(order, arm, at_kl).collect();
        let of = |index: usize| -> Vec<f64> {
            all.iter().filter_map(|point| point.accuracies.get(index)).map(|value| 100.0 * value).collect()
        };
        let range = |values: &[f64]| {
            let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
            fold(f64::min).zip(fold(f64::max))
        };
        let (x, y) = (of(0), of(1));
        if x.is_empty() || y.is_empty() {
            return None;
        }
        let (x_interval, y_interval) = (range(&x), range(&y));
        Some(ScatterPoint { label: arm.clone(), colour, x: mean(&x), y: mean(&y), x_interval, y_interval })
    };
    Chart::Scatter {
        title: format!("{order}, at {}", place(at_kl)),
        x: format!("{}, accuracy %", axis(0)),
        y: format!("{}, accuracy %", axis(1)),
        points: summary.design.arms.iter().enumerate().filter_map(point).collect(),
    }
}
