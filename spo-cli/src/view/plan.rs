//! A plan as text for 100 columns.

use std::fmt::Write;

use serde_json::Value;
use spo_train::config::{PlanLine, RunPlan};

/// Widest value that still has its origin beside it.
const VALUE: usize = 42;

/// Every value with its origin, grouped by table.
pub(crate) fn plan_text(plan: &RunPlan) -> String {
    let lines = plan.lines();
    let split = |line: &PlanLine| match line.key.rsplit_once('.') {
        Some((table, key)) => (table.to_owned(), key.to_owned()),
        None => (String::new(), line.key.clone()),
    };
    let width = lines.iter().map(|line| split(line).1.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut current = String::new();
    for line in &lines {
        let (table, key) = split(line);
        if table != current {
            let _ = writeln!(text, "\n{table}");
            current = table;
        }
        let (value, origin) = (shown(&line.value), &line.origin);
        let _ = match value.chars().count() <= VALUE {
            true => writeln!(text, "  {key:<width$}  {value:<VALUE$}  {origin}"),
            // Long values take their own line and lose nothing.
            false => writeln!(text, "  {key:<width$}  {value}\n  {:<width$}  {:<VALUE$}  {origin}", "", ""),
        };
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.contains(['\n', '\r']) => text.clone(),
        other => other.to_string(),
    }
}
