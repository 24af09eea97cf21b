//! Small SVG charts: lines, scatter with intervals, bars. Plain markup, no scripts, safe to inline.

use crate::report::escape;

/// A chart to draw. Points that are not finite are left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Chart {
    /// Curves over a common axis; long ones are thinned to the means of neighbouring points.
    Lines {
        /// Title above the chart.
        title: String,
        /// Name of the horizontal axis.
        x: String,
        /// Name of the vertical axis.
        y: String,
        /// Curves, each with its colour and legend entry.
        series: Vec<Series>,
    },
    /// Labelled points with optional intervals.
    Scatter {
        /// Title above the chart.
        title: String,
        /// Name of the horizontal axis.
        x: String,
        /// Name of the vertical axis.
        y: String,
        /// Points, each with its colour and legend entry.
        points: Vec<ScatterPoint>,
    },
    /// Histogram with equal bins.
    Bars {
        /// Title above the chart.
        title: String,
        /// Lower end of the first bin.
        low: f64,
        /// Upper end of the last bin.
        high: f64,
        /// Count of each bin.
        counts: Vec<usize>,
    },
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Legend entry.
    pub name: String,
    /// Number of its colour; the same number has the same colour in every chart, and colours repeat after seven.
    pub colour: usize,
    /// `(x, y)` with ascending `x`.
    pub points: Vec<(f64, f64)>,
}

/// One labelled point.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterPoint {
    /// Legend entry.
    pub label: String,
    /// Number of its colour, as of [`Series::colour`].
    pub colour: usize,
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Interval of `x`, drawn as a horizontal bar.
    pub x_interval: Option<(f64, f64)>,
    /// Interval of `y`, drawn as a vertical bar.
    pub y_interval: Option<(f64, f64)>,
}

const WIDTH: f64 = 460.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 446.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 250.0;

/// Most points of a drawn curve.
const POINTS: usize = 400;

/// Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];

/// Draws a chart as one `<svg>` element.
#[must_use]
pub fn render(chart: &Chart) -> String {
    match chart {
        Chart::Lines { title, x, y, series } => lines(title, x, y, series),
        Chart::Scatter { title, x, y, points } => scatter(title, x, y, points),
        Chart::Bars { title, low, high, counts } => bars(title, *low, *high, counts),
    }
}

/// A linear axis: data range to pixel range.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Axis over the finite values; an empty or single-valued range is widened so that it can be drawn.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high {
            (0.0, 1.0)
        } else if low == high {
            let room = (0.05 * low.abs()).max(0.5);
            (low - room, high + room)
        } else {
            (low, high)
        };
        Self { low, high, from, to }
    }

    /// A little room at both ends, so that marks do not sit on the frame.
    fn padded(self) -> Self {
        let room = 0.06 * (self.high - self.low);
        Self { low: self.low - room, high: self.high + room, ..self }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// About five round values inside the range, with the decimals they need.
    fn ticks(&self) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        ((first..=last).map(|multiple| multiple as f64 * step).collect(), decimals)
    }
}

/// Frame, title, ticks and axis names around `body`; legend entries below.
fn frame(title: &str, axes: (&Axis, &Axis), names: (&str, &str), legend: &[(&str, usize)], body: &str) -> String {
    let height = BOTTOM + 42.0 + 16.0 * legend.len() as f64;
    let title = escape::html(title);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{title}\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui,sans-serif\" font-size=\"11\" fill=\"#333\">\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\" font-weight=\"600\">{title}</text>"
    );
    let (x, y) = axes;
    let (ticks, decimals) = x.ticks();
    for value in ticks {
        let place = x.at(value);
        text.push_str(&format!(
            "<path d=\"M{place:.1} {TOP}V{BOTTOM}\" stroke=\"#eee\"/>\
             <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.decimals$}</text>",
            BOTTOM + 14.0
        ));
    }
    let (ticks, decimals) = y.ticks();
    for value in ticks {
        let place = y.at(value);
        text.push_str(&format!(
            "<path d=\"M{LEFT} {place:.1}H{RIGHT}\" stroke=\"#eee\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.decimals$}</text>",
            LEFT - 5.0,
            place + 4.0
        ));
    }
    let (middle_x, middle_y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    text.push_str(&format!(
        "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#888\"/>\
         <text x=\"{middle_x}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text x=\"12\" y=\"{middle_y}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {middle_y})\">{}</text>{body}",
        BOTTOM + 30.0,
        escape::html(names.0),
        escape::html(names.1),
    ));
    for (index, (name, number)) in legend.iter().enumerate() {
        let line = BOTTOM + 48.0 + 16.0 * index as f64;
        text.push_str(&format!(
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
            line - 9.0,
            colour(*number),
            LEFT + 16.0,
            escape::html(name)
        ));
    }
    text.push_str("</svg>");
    text
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

/// Means of equally many neighbouring points, at most [`POINTS`] of them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let mean = |chunk: &[(f64, f64)]| {
        let (x, y) = chunk.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / chunk.len() as f64, y / chunk.len() as f64)
    };
    finite.chunks(finite.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

fn lines(title: &str, x: &str, y: &str, series: &[Series]) -> String {
    let curves: Vec<_> = series.iter().map(|series| thinned(&series.points)).collect();
    let horizontal = Axis::over(curves.iter().flatten().map(|point| point.0), LEFT, RIGHT);
    let vertical = Axis::over(curves.iter().flatten().map(|point| point.1), BOTTOM, TOP).padded();
    let mut body = String::new();
    for (curve, Series { colour: number, .. }) in curves.iter().zip(series) {
        let place = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", horizontal.at(*x), vertical.at(*y));
        let points: Vec<String> = curve.iter().map(place).collect();
        let stroke = colour(*number);
        body.push_str(&match points.as_slice() {
            [] => String::new(),
            [only] => {
                let (x, y) = only.split_once(',').expect("a place has two coordinates");
                format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{stroke}\"/>")
            }
            many => format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.4\"/>",
                many.join(" ")
            ),
        });
    }
    let legend: Vec<_> = series.iter().map(|series| (series.name.as_str(), series.colour)).collect();
    frame(title, (&horizontal, &vertical), (x, y), &legend, &body)
}

fn scatter(title: &str, x: &str, y: &str, points: &[ScatterPoint]) -> String {
    let ends = |value: f64, interval: Option<(f64, f64)>| {
        let (low, high) = interval.unwrap_or((value, value));
        [value, low, high]
    };
    let horizontal = Axis::over(points.iter().flat_map(|point| ends(point.x, point.x_interval)), LEFT, RIGHT).padded();
    let vertical = Axis::over(points.iter().flat_map(|point| ends(point.y, point.y_interval)), BOTTOM, TOP).padded();
    let mut body = String::new();
    for point in points.iter().filter(|point| point.x.is_finite() && point.y.is_finite()) {
        let (x, y, fill) = (horizontal.at(point.x), vertical.at(point.y), colour(point.colour));
        let finite = |interval: Option<(f64, f64)>| interval.filter(|(low, high)| low.is_finite() && high.is_finite());
        if let Some((low, high)) = finite(point.x_interval) {
            let (low, high) = (horizontal.at(low), horizontal.at(high));
            body.push_str(&format!("<path d=\"M{low:.1} {y:.1}H{high:.1}\" stroke=\"{fill}\" opacity=\".6\"/>"));
        }
        if let Some((low, high)) = finite(point.y_interval) {
            let (low, high) = (vertical.at(low), vertical.at(high));
            body.push_str(&format!("<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"{fill}\" opacity=\".6\"/>"));
        }
        let label = escape::html(&point.label);
        body.push_str(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\"><title>{label}</title></circle>"
        ));
    }
    let legend: Vec<_> = points.iter().map(|point| (point.label.as_str(), point.colour)).collect();
    frame(title, (&horizontal, &vertical), (x, y), &legend, &body)
}

fn bars(title: &str, low: f64, high: f64, counts: &[usize]) -> String {
    let horizontal = Axis::over([low, high].into_iter(), LEFT, RIGHT);
    let vertical = Axis::over(counts.iter().map(|count| 1.05 * *count as f64).chain([0.0]), BOTTOM, TOP);
    let width = (RIGHT - LEFT) / counts.len().max(1) as f64;
    let bar = |(index, count): (usize, &usize)| {
        let top = vertical.at(*count as f64);
        format!(
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            LEFT + width * index as f64,
            (width - 1.0).max(0.5),
            BOTTOM - top,
            colour(0)
        )
    };
    let body: String = counts.iter().enumerate().map(bar).collect();
    frame(title, (&horizontal, &vertical), ("", "count"), &[], &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = |low, high| Axis { low, high, from: 0.0, to: 100.0 };
        assert_eq!(axis(0.0, 100.0).ticks(), (vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0], 0));
        let (ticks, decimals) = axis(-0.13, 0.42).ticks();
        assert_eq!(decimals, 1);
        assert_eq!(ticks.len(), 3);
        assert!(ticks.iter().all(|tick| (-0.13..=0.42).contains(tick)));
        assert_eq!(axis(10.0, 20.0).at(12.5), 25.0);
    }

    #[test]
    fn thinning_keeps_the_mean_and_drops_what_is_not_finite() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|step| (f64::from(step), f64::from(step % 25))).collect();
        let thin = thinned(&points);
        assert_eq!(thin.len(), POINTS);
        assert!(thin.iter().all(|(_, y)| *y == 12.0));
        assert_eq!(thinned(&[(0.0, f64::NAN), (1.0, 2.0)]), [(1.0, 2.0)]);
    }

    #[test]
    fn charts_of_nothing_or_of_one_value_are_drawn() {
        let text = |text: &str| text.to_owned();
        let one = Series { name: text("<a>"), colour: 9, points: vec![(1e20, 3.0)] };
        let nowhere = ScatterPoint {
            label: text("b"),
            colour: 0,
            x: f64::NAN,
            y: 0.0,
            x_interval: Some((0.0, f64::INFINITY)),
            y_interval: None,
        };
        for chart in [
            Chart::Lines { title: text("t"), x: text("x"), y: text("y"), series: vec![one] },
            Chart::Lines { title: text("t"), x: text("x"), y: text("y"), series: Vec::new() },
            Chart::Scatter { title: text("t"), x: text("x"), y: text("y"), points: vec![nowhere] },
            Chart::Bars { title: text("t"), low: 2.0, high: 2.0, counts: vec![4] },
            Chart::Bars { title: text("t"), low: 0.0, high: 0.0, counts: Vec::new() },
        ] {
            let drawn = render(&chart);
            assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>"));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf") && !drawn.contains("<a>"), "{drawn}");
        }
    }

    #[test]
    fn points_and_intervals_are_where_they_belong() {
        let point = |x, y| ScatterPoint {
            label: format!("{x}"),
            colour: x as usize,
            x,
            y,
            x_interval: Some((x - 1.0, x + 1.0)),
            y_interval: None,
        };
        let chart = Chart::Scatter {
            title: "t".to_owned(),
            x: "x".to_owned(),
            y: "y".to_owned(),
            points: vec![point(1.0, 0.0), point(9.0, 10.0)],
        };
        insta::assert_snapshot!(render(&chart).replace('>', ">\n"));
    }
}
