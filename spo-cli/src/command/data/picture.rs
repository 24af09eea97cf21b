//! Conflicts as a picture: a square for each two dimensions, orange where they conflict and blue where they agree.

use spo_data::{Conflict, Estimate};

const CELL: usize = 92;
const TOP: usize = 44;
/// Width of a letter of a dimension's name.
const LETTER: usize = 8;

/// Draws the map as an SVG file.
pub(super) fn draw(conflicts: &[Conflict]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in conflicts.iter().flat_map(|conflict| [&conflict.first, &conflict.second]) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let left = 24 + LETTER * names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let (rows, columns) = (names.get(1..).unwrap_or_default(), &names[..names.len().saturating_sub(1)]);
    let width = left + CELL * columns.len().max(3) + 16;
    let height = TOP + CELL * rows.len() + 72;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">Where dimensions want different answers</text>\n"
    );
    for (row, name) in rows.iter().enumerate() {
        let (x, y) = (left - 8, TOP + CELL * row + CELL / 2 + 4);
        svg += &format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{}</text>\n", escape(name));
    }
    for (column, name) in columns.iter().enumerate() {
        let (x, y) = (left + CELL * column + CELL / 2, TOP + CELL * rows.len() + 18);
        svg += &format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>\n", escape(name));
    }
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap_or(0);
    for conflict in conflicts {
        let (a, b) = (place(&conflict.first), place(&conflict.second));
        svg += &square(conflict, left + CELL * a.min(b), TOP + CELL * (a.max(b) - 1));
    }
    let y = height - 16;
    svg + &format!(
        "<text x=\"12\" y=\"{y}\" font-size=\"11\">share of conflicting pairs among those that both prefer one of, \
         95 % interval, κ, pairs labelled in both</text>\n</svg>\n"
    )
}

fn square(conflict: &Conflict, x: usize, y: usize) -> String {
    let size = CELL - 4;
    let (fill, lines) = match (&conflict.conflict_rate, &conflict.kappa) {
        (Some(Estimate { value, low, high }), Some(kappa)) => {
            let lines = [
                format!("{:.1} %", 100.0 * value),
                format!("{:.1}–{:.1}", 100.0 * low, 100.0 * high),
                format!("κ {:+.2}", kappa.value),
                format!("n = {}", conflict.both),
            ];
            (colour(kappa.value), lines)
        }
        _ => ("#eee".into(), ["no pair".into(), String::new(), String::new(), format!("n = {}", conflict.both)]),
    };
    let (centre, title) = (x + size / 2, escape(&format!("{} × {}", conflict.first, conflict.second)));
    let mut svg = format!(
        "<g><title>{title}</title><rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" fill=\"{fill}\"/>"
    );
    for (line, text) in lines.iter().enumerate() {
        let (y, font) = (y + 24 + 18 * line, if line == 0 { 15 } else { 11 });
        svg += &format!("<text x=\"{centre}\" y=\"{y}\" font-size=\"{font}\" text-anchor=\"middle\">{text}</text>");
    }
    svg + "</g>\n"
}

/// From orange (κ = -1) over white (0) to light blue (1): apart for colour-blind readers too.
fn colour(kappa: f64) -> String {
    let end = if kappa < 0.0 { [230.0, 120.0, 40.0] } else { [86.0, 160.0, 220.0] };
    let [red, green, blue] = end.map(|end: f64| (255.0 + (end - 255.0) * kappa.abs().min(1.0)).round() as u8);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_dimensions_have_a_square() {
        let conflict = |first: &str, second: &str, rate: Option<f64>| {
            let estimate = |value| Estimate { value, low: value, high: value };
            Conflict {
                first: first.into(),
                second: second.into(),
                both: 4,
                agree: 1,
                conflict: 3,
                ties: 0,
                conflict_rate: rate.map(estimate),
                kappa: rate.map(|rate| estimate(1.0 - 2.0 * rate)),
                strongest: vec![],
            }
        };
        let all = [conflict("a<b", "c", Some(0.75)), conflict("a<b", "d", None), conflict("c", "d", Some(0.0))];
        let svg = draw(&all);
        assert_eq!(svg.matches("<g>").count(), 3);
        assert!(svg.contains("75.0 %") && svg.contains("κ -0.50") && svg.contains("no pair"), "{svg}");
        assert!(svg.contains("a&lt;b × c") && !svg.contains("a<b"));
        assert_eq!((colour(0.0), colour(-1.0)), ("#ffffff".into(), "#e67828".into()));
        assert!(draw(&[]).ends_with("</svg>\n"));
    }
}
