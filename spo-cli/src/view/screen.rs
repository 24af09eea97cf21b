//! The full screen: where the run is, curves per dimension, the policy × dimension matrix, what happened.

use std::collections::{BTreeMap, BTreeSet};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table};
use spo_train::StepFigures;

use super::board::{Board, Measured, Phase};
use super::words;

const COLOURS: [Color; 6] =
    [Color::LightBlue, Color::LightRed, Color::LightGreen, Color::LightMagenta, Color::LightYellow, Color::LightCyan];

/// Draws a run. `state` says whether it runs, is over, or hangs; `keys` what can be typed.
pub(crate) fn draw(frame: &mut Frame, board: &Board, state: &str, keys: &str) {
    let [head, bar, curves, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Percentage(45),
        Constraint::Min(6),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let title = format!(" {} on {} · {state} · {}", board.name, board.device, words::clock(board.at).trim());
    frame.render_widget(Line::styled(title, Style::new().add_modifier(Modifier::BOLD)), head);
    gauge(frame, board, bar);
    let thirds: [Rect; 3] = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas(curves);
    let charts = [
        ("loss of each step", steps(board, |figures| Some(figures.loss))),
        ("margin of each step", steps(board, |figures| figures.margin)),
        ("held out, accuracy %", held_out(board)),
    ];
    let names: BTreeSet<&String> = charts.iter().flat_map(|(_, curves)| curves.keys()).collect();
    let colour = |name: &String| COLOURS[names.iter().position(|known| *known == name).unwrap_or(0) % COLOURS.len()];
    for ((title, curves), area) in charts.iter().zip(thirds) {
        chart(frame, title, curves, &colour, area);
    }
    let width = 30 + 22 * board.dimensions().len().max(1) as u16;
    let [left, right] = Layout::horizontal([Constraint::Max(width), Constraint::Min(30)]).areas(below);
    matrix(frame, board, left);
    log(frame, board, right);
    frame.render_widget(Line::styled(format!(" {keys}"), Style::new().fg(Color::DarkGray)), foot);
}

fn gauge(frame: &mut Frame, board: &Board, area: Rect) {
    let (ratio, label) = match (&board.scoring, board.current(), board.last()) {
        (Some((policy, done, total)), _, _) => {
            (*done as f64 / (*total).max(1) as f64, format!("scoring {policy}: {done} of {total} answers"))
        }
        (None, Some(phase), Some(figures)) => {
            let done = figures.step as f64 / phase.steps.max(1) as f64;
            let place = format!("{} step {}/{}", phase.name, figures.step, phase.steps);
            (done, format!("{place}, {}", words::progress(figures, board.seconds_left())))
        }
        _ => (0.0, "no step yet".to_owned()),
    };
    let style = Style::new().fg(Color::Blue).bg(Color::Black);
    let label = Span::styled(label, Style::new().fg(Color::White));
    frame.render_widget(Gauge::default().ratio(ratio.clamp(0.0, 1.0)).label(label).gauge_style(style), area);
}

type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// A dimension's curve; a control has its own.
fn curve_name(dimension: &str, phase: Option<&Phase>) -> String {
    match phase {
        Some(phase) if phase.control => format!("{dimension}, {}", phase.name),
        _ => dimension.to_owned(),
    }
}

/// Curves of the steps of the whole run, one after the other; each dimension has its colour.
fn steps(board: &Board, read: impl Fn(&StepFigures) -> Option<f64>) -> Curves {
    let mut curves = Curves::new();
    for phase in &board.phases {
        let before = board.steps_before(&phase.name);
        let points = phase.batches.iter().filter_map(|figures| Some(((before + figures.step) as f64, read(figures)?)));
        curves.entry(curve_name(&phase.dimension, Some(phase))).or_default().extend(points);
    }
    curves.retain(|_, points| !points.is_empty());
    curves
}

/// Accuracy of each dimension over the steps of the whole run.
fn held_out(board: &Board) -> Curves {
    let mut curves = Curves::new();
    for measured in &board.measured {
        let phase = board.phases.iter().find(|phase| phase.name == measured.policy);
        let place = board.steps_before(&measured.policy) + measured.step;
        let curve = curves.entry(curve_name(&measured.dimension, phase)).or_default();
        curve.push((place as f64, 100.0 * measured.accuracy));
    }
    curves
}

fn chart(frame: &mut Frame, title: &str, curves: &Curves, colour: &dyn Fn(&String) -> Color, area: Rect) {
    let block = Block::bordered().title(format!(" {title} "));
    let all = || curves.values().flatten();
    if all().next().is_none() {
        return frame.render_widget(Paragraph::new("nothing yet").block(block), area);
    }
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low < high { [low, high] } else { [low - 0.5, high + 0.5] }
    };
    let (x, y) = (range(&mut all().map(|point| point.0)), range(&mut all().map(|point| point.1)));
    let datasets = curves.iter().map(|(name, points)| {
        let many = points.len() > 1;
        Dataset::default()
            .name(name.clone())
            .marker(if many { Marker::Braille } else { Marker::Dot })
            .graph_type(if many { GraphType::Line } else { GraphType::Scatter })
            .style(Style::new().fg(colour(name)))
            .data(points)
    });
    let labels = |[low, high]: [f64; 2]| [words::short(low), words::short(0.5 * (low + high)), words::short(high)];
    let grey = Style::new().fg(Color::DarkGray);
    let chart = Chart::new(datasets.collect())
        .block(block)
        .x_axis(Axis::default().bounds(x).labels(labels(x)).style(grey))
        .y_axis(Axis::default().bounds(y).labels(labels(y)).style(grey))
        .hidden_legend_constraints((Constraint::Percentage(80), Constraint::Percentage(60)));
    frame.render_widget(chart, area);
}

/// The newest accuracy of every policy on every dimension.
fn matrix(frame: &mut Frame, board: &Board, area: Rect) {
    let dimensions = board.dimensions();
    let mut policies: Vec<&str> = vec![];
    for measured in &board.measured {
        if !policies.contains(&measured.policy.as_str()) {
            policies.push(&measured.policy);
        }
    }
    let cell = |policy: &str, dimension: &str| {
        let of = |measured: &&Measured| measured.policy == policy && measured.dimension == dimension;
        let newest = board.measured.iter().rev().find(of);
        newest.map_or_else(String::new, |measured| {
            let interval = |(low, high)| format!(" ({:.0}–{:.0})", 100.0 * low, 100.0 * high);
            let interval = measured.interval.map_or_else(String::new, interval);
            format!("{:.1}{interval} {:+.1}", 100.0 * measured.accuracy, measured.margin)
        })
    };
    let row = |policy: &&str| {
        Row::new([(*policy).to_owned()].into_iter().chain(dimensions.iter().map(|dimension| cell(policy, dimension))))
    };
    let widths = [Constraint::Min(12)].into_iter().chain(dimensions.iter().map(|_| Constraint::Length(20)));
    let header = ["policy"].into_iter().chain(dimensions.iter().copied());
    let table = Table::new(policies.iter().map(row), widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title(" held out: accuracy % (95 % interval), margin "));
    frame.render_widget(table, area);
}

/// Warnings first, then what happened last.
fn log(frame: &mut Frame, board: &Board, area: Rect) {
    let (rows, width) = (usize::from(area.height.saturating_sub(2)), usize::from(area.width.saturating_sub(2)).max(1));
    let folded = |text: String, style: Style| {
        let characters: Vec<char> = text.chars().collect();
        characters.chunks(width).map(|part| Line::styled(part.iter().collect::<String>(), style)).collect::<Vec<_>>()
    };
    let last = |mut lines: Vec<Line<'static>>, room: usize| lines.split_off(lines.len().saturating_sub(room));
    let yellow = Style::new().fg(Color::Yellow);
    let warnings = board.warnings.iter().flat_map(|text| folded(format!("! {text}"), yellow)).collect();
    let mut lines = last(warnings, rows / 2);
    let newest = board.log.iter().skip(board.log.len().saturating_sub(rows));
    let happened = newest.flat_map(|line| folded(line.clone(), Style::new())).collect();
    lines.extend(last(happened, rows.saturating_sub(lines.len())));
    let title = match board.warnings.len() {
        0 => " log ".to_owned(),
        count => format!(" log, warnings: {count} "),
    };
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::board::{Board, tests::board};
    use super::draw;

    fn drawn(board: &Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board, "running", "q: leave")).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_run_in_its_second_round() {
        insta::assert_snapshot!(drawn(&board(), 120, 32));
    }

    #[test]
    fn no_size_and_no_state_breaks_it() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 90)] {
            drawn(&board(), width, height);
            drawn(&Board::default(), width, height);
        }
    }
}
