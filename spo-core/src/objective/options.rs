//! Hyper-parameters as data: defaults, ranges, meaning; and their two-step decoding.

use std::ops::Bound;

use serde_json::{Map, Value};

use crate::CoreError;

/// One hyper-parameter.
#[derive(Debug, Clone, Copy)]
pub struct OptionDoc {
    /// Its kebab-case name.
    pub key: &'static str,
    /// Its default as JSON; `null` for none.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Where the default comes from.
    pub source: &'static str,
    /// The numbers it may have.
    pub range: (Bound<f64>, Bound<f64>),
    /// Whether a list of such numbers will do as well.
    pub accepts_list: bool,
    /// The names it may have, where it is a name.
    pub choices: &'static [&'static str],
}

impl OptionDoc {
    /// A number above zero, without a default: for the rest of the fields.
    pub const POSITIVE: Self =
        Self { key: "", default: "null", meaning: "", source: "", range: POSITIVE, accepts_list: false, choices: &[] };
}

/// Any finite number.
pub const ANY: (Bound<f64>, Bound<f64>) = (Bound::Unbounded, Bound::Unbounded);
/// Above zero.
pub const POSITIVE: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Unbounded);
/// Zero to one, both included.
pub const SHARE: (Bound<f64>, Bound<f64>) = (Bound::Included(0.0), Bound::Included(1.0));
/// Above zero, below one.
pub const BETWEEN_0_AND_1: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Excluded(1.0));
/// Zero to below one half.
pub const BELOW_HALF: (Bound<f64>, Bound<f64>) = (Bound::Included(0.0), Bound::Excluded(0.5));
/// Zero or more.
pub const NON_NEGATIVE: (Bound<f64>, Bound<f64>) = (Bound::Included(0.0), Bound::Unbounded);

impl OptionDoc {
    /// The default value.
    pub fn default_value(&self) -> Value {
        serde_json::from_str(self.default).expect("defaults in the registry are JSON")
    }

    /// The accepted values in words.
    pub fn expected(&self) -> String {
        let bound = |bound, included, excluded| match bound {
            Bound::Included(value) => Some(format!("{included} {value}")),
            Bound::Excluded(value) => Some(format!("{excluded} {value}")),
            Bound::Unbounded => None,
        };
        let bounds: Vec<_> =
            [bound(self.range.0, "≥", ">"), bound(self.range.1, "≤", "<")].into_iter().flatten().collect();
        let or_list = if self.accepts_list { ", or a list of them" } else { "" };
        match (self.default_value(), bounds.is_empty()) {
            (Value::Bool(_), _) => "true or false".into(),
            (Value::String(_), _) => self.choices.join(" or "),
            (Value::Array(_), true) => "a list".into(),
            (Value::Array(_), false) => format!("a list of numbers {}", bounds.join(" and ")),
            (_, true) => format!("a number{or_list}"),
            (_, false) => format!("a number {}{or_list}", bounds.join(" and ")),
        }
    }

    /// Whether every number in `value` is in range.
    fn accepts(&self, value: &Value) -> bool {
        use std::ops::RangeBounds;
        match value {
            Value::Number(number) => number.as_f64().is_some_and(|number| self.range.contains(&number)),
            Value::Array(values) => values.iter().all(|value| self.accepts(value)),
            Value::String(name) => self.choices.is_empty() || self.choices.contains(&name.as_str()),
            _ => true,
        }
    }
}

/// The nearest of `names` to `wanted`, if one is near enough to be a slip of the pen.
pub(crate) fn nearest(wanted: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let similarity = |name| strsim::normalized_damerau_levenshtein(wanted, name);
    // Of equally near names the first: the registry has the more usual ones in front.
    names.filter(|name| similarity(name) > 0.5).reduce(|a, b| if similarity(b) > similarity(a) { b } else { a })
}

/// The user's options over the defaults, as a value that a hyper-parameter struct decodes.
pub(crate) fn complete(
    objective: &str,
    docs: &[&OptionDoc],
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, CoreError> {
    for (key, value) in given {
        let Some(doc) = docs.iter().find(|doc| doc.key == key) else {
            return Err(CoreError::UnknownOption {
                objective: objective.into(),
                key: key.clone(),
                known: docs.iter().map(|doc| doc.key).collect::<Vec<_>>().join(", "),
                nearest: nearest(key, docs.iter().map(|doc| doc.key)),
            });
        };
        let same_type = match doc.default_value() {
            Value::Number(_) => value.is_number() || (value.is_array() && doc.accepts_list),
            Value::String(_) => value.is_string(),
            Value::Bool(_) => value.is_boolean(),
            Value::Array(_) => value.is_array(),
            _ => true,
        };
        if !same_type || !doc.accepts(value) {
            return Err(CoreError::InvalidOption {
                objective: objective.into(),
                key: key.clone(),
                found: value.to_string(),
                expected: doc.expected(),
            });
        }
    }
    let values = docs
        .iter()
        .map(|doc| (doc.key.to_string(), given.get(doc.key).cloned().unwrap_or_else(|| doc.default_value())));
    Ok(values.collect())
}
