//! A plan as text for 100 columns.

use std::fmt::Write;

use serde_json::Value;
use spo_train::config::{PlanLine, RunPlan};

/// Widest line that holds key, value and origin.
const WIDTH: usize = 100;
/// Where origins begin, at the earliest.
const VALUE: usize = 28;

/// Every value with its origin, grouped by table.
pub(crate) fn plan_text(plan: &RunPlan) -> String {
    let lines = plan.lines();
    let width = lines.iter().map(|line| split(line).1.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut current = "";
    for line in &lines {
        let (table, key) = split(line);
        if table != current {
            let _ = writeln!(text, "\n{table}");
            current = table;
        }
        let (value, origin) = (shown(&line.value), line.origin.to_string());
        let whole = format!("  {key:<width$}  {value:<VALUE$}  {origin}");
        let _ = match value.chars().count() <= VALUE && whole.chars().count() <= WIDTH {
            true => writeln!(text, "{whole}"),
            false => writeln!(text, "  {key:<width$}  {value}\n{origin:>WIDTH$}"),
        };
    }
    text
}

/// Table and key. Options of an objective stand beside the other keys of their arm, as in the run file.
fn split(line: &PlanLine) -> (&str, &str) {
    match line.key.rsplit_once('.') {
        Some((table, key)) => (table.strip_suffix(".options").unwrap_or(table), key),
        None => ("", &line.key),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.trim() == text && !text.contains('\n') => text.clone(),
        other => other.to_string(),
    }
}
