//! What the reports of a run look like and that nothing in them can act.

#![allow(clippy::unwrap_used)]

mod example_run;

use example_run::summary;
use spo_eval::report::{WIDTH, from_json, html, markdown, score_table, table, to_json};
use spo_eval::{EvalError, RunSummary};

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
        score.policy = score.policy.replace(
            "control",
            "the control without any holding (sequential DPO)",
        );
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
    assert!(
        !page.contains("http://")
            || page.matches("http://").count()
                == page.matches("http://www.w3.org/2000/svg").count()
    );
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    balanced(&page);
    insta::assert_snapshot!(page);
}

/// Every element that is opened is closed in order.
fn balanced(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
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
    assert!(table(&empty).contains("Held-out pairs"));
}

#[test]
fn json_keeps_every_number_and_refuses_what_it_cannot_hold() {
    let summary = summary();
    assert_eq!(from_json(&to_json(&summary).unwrap()).unwrap(), summary);
    let mut broken = summary.clone();
    broken.timing[0].seconds = f64::NAN;
    let error = to_json(&broken).unwrap_err();
    assert!(matches!(error, EvalError::Json { .. }) && error.hint().is_some());
    let newer = RunSummary {
        schema: 2,
        ..summary
    };
    assert!(matches!(
        to_json(&newer),
        Err(EvalError::Schema { found: 2, .. })
    ));
}
