//! What the reports of a run look like and that nothing in them can act.

use crate::example_run::summary;
use spo_eval::report::{WIDTH, from_json, html, markdown, score_table, table, to_json};
use spo_eval::{Bootstrap, EvalError, OpposedPair, RunSummary, SteerArm, steer};

#[test]
fn terminal_table() {
    let text = table(&summary());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    insta::assert_snapshot!(text);
}

#[test]
fn terminal_table_splits_many_dimensions_and_cuts_long_names() {
    let mut summary = summary();
    let mut more = summary.matrix.clone();
    for score in &mut more {
        score.dimension = format!("another {}", score.dimension);
    }
    summary.matrix.extend(more);
    for score in &mut summary.matrix {
        score.policy = score.policy.replace("control", "the control without any holding (sequential DPO)");
    }
    let text = score_table(&summary.matrix, &summary.kl, &summary.start);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    insta::assert_snapshot!(text);
}

#[test]
fn markdown_report() {
    insta::assert_snapshot!(markdown(&summary()));
}

#[test]
fn html_report() {
    let page = html(&summary());
    assert!(!page.contains("<script") && !page.contains("<b>a"));
    assert!(!page.contains(['\u{1b}', '\u{202e}']));
    let namespaces = page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(page.matches("http").count(), namespaces + 1, "outside references, besides http-equiv");
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    balanced(&page);
    insta::assert_snapshot!(without_charts(&page));
}

/// The page with an empty element in the place of every chart.
fn without_charts(page: &str) -> String {
    let (first, rest) = page.split_once("<svg").unwrap();
    let parts = rest.split("<svg").map(|part| part.split_once("</svg>").unwrap().1);
    parts.fold(first.to_owned(), |text, part| text + "<svg/>" + part)
}

/// Every element that is opened is closed in order.
fn balanced(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !matches!(name.as_str(), "meta" | "") {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn an_empty_run_still_has_a_report() {
    let empty = RunSummary::default();
    balanced(&html(&empty));
    insta::assert_snapshot!(markdown(&empty));
    assert!(table(&empty).contains("nothing was evaluated"));
}

#[test]
fn json_keeps_the_run_and_refuses_what_it_cannot_hold() {
    let summary = summary();
    let text = to_json(&summary).unwrap();
    let again = to_json(&from_json(&text).unwrap()).unwrap();
    same_values(&serde_json::from_str(&text).unwrap(), &serde_json::from_str(&again).unwrap());
    let mut broken = summary.clone();
    broken.timing[0].seconds = f64::NAN;
    let error = to_json(&broken).unwrap_err();
    assert!(matches!(error, EvalError::Json { .. }) && error.hint().is_some());
    let newer = RunSummary { schema: 2, ..summary };
    assert!(matches!(to_json(&newer), Err(EvalError::Schema { found: 2, .. })));
    assert!(matches!(from_json("{"), Err(EvalError::Json { line: 1, .. })));
}

/// Equal up to the last bits of a number, which the parser's fast path may round the other way.
fn same_values(a: &serde_json::Value, b: &serde_json::Value) {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(x), Number(y)) => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            assert!((x - y).abs() <= 1e-14 * x.abs(), "{x} {y}");
        }
        (Array(x), Array(y)) => {
            assert_eq!(x.len(), y.len());
            x.iter().zip(y).for_each(|(x, y)| same_values(x, y));
        }
        (Object(x), Object(y)) => {
            assert!(x.keys().eq(y.keys()));
            x.values().zip(y.values()).for_each(|(x, y)| same_values(x, y));
        }
        _ => assert_eq!(a, b),
    }
}

#[test]
fn steering_is_in_every_report() {
    let pair = |example: usize| {
        let under_b = if example.is_multiple_of(4) { 1.0 } else { -1.0 };
        OpposedPair { example, prompt: None, under_a: 1.0, under_b }
    };
    let pairs: Vec<_> = (0..40).map(pair).collect();
    let found = steer(
        "conditional",
        ("honesty", "<b>help"),
        "5 contexts",
        SteerArm::Conditioned,
        &pairs,
        &Bootstrap::default(),
    );
    let summary = RunSummary { steer: vec![found.unwrap()], ..summary() };
    let (text, page, json) = (markdown(&summary), html(&summary), to_json(&summary).unwrap());
    assert!(text.contains("STEER on opposed pairs") && text.contains("| +75.0 |"), "{text}");
    assert!(page.contains("STEER on opposed pairs") && page.contains("&lt;b&gt;help") && page.contains("5 contexts"));
    assert_eq!(from_json(&json).unwrap().steer, summary.steer);
}
