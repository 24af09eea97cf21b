//! A plan as `key = value  (origin)` lines.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RunPlan;

/// Where a resolved value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Built in.
    Default,
    /// Written in the run file.
    File {
        /// The run file's name.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// Given as `--set` on the command line.
    Set {
        /// The argument as it was given.
        argument: String,
    },
    /// Worked out from other values.
    Computed {
        /// From what.
        from: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Set { argument } => write!(f, "--set {argument}"),
            Self::Computed { from } => write!(f, "computed from {from}"),
        }
    }
}

/// One resolved value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanLine {
    /// Dotted key, e.g. `rounds.1.learning-rate`; arms of a round are `rounds.1.arms.0` (main) and on.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

impl RunPlan {
    /// Every resolved value with its origin, in the plan's order.
    pub fn lines(&self) -> Vec<PlanLine> {
        let mut lines = Vec::new();
        let Ok(Value::Object(mut plan)) = serde_json::to_value(self) else {
            unreachable!("a plan holds only strings, numbers, lists and tables")
        };
        plan.remove("origins");
        self.collect(String::new(), &Value::Object(plan), &mut lines);
        lines
    }

    fn collect(&self, key: String, value: &Value, lines: &mut Vec<PlanLine>) {
        let join = |name: &str| {
            if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
        };
        match value {
            Value::Object(table) if !table.is_empty() => {
                for (name, value) in table {
                    self.collect(join(name), value, lines);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, value) in items.iter().enumerate() {
                    self.collect(join(&index.to_string()), value, lines);
                }
            }
            // Absent optional values have nothing to show.
            Value::Null => {}
            _ => lines.push(PlanLine {
                origin: self.origins.get(&key).cloned().unwrap_or(Origin::Default),
                value: value.clone(),
                key,
            }),
        }
    }
}
