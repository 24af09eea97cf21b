//! Lines of JSON and the numbers in them.

use serde_json::{Map, Value};

use crate::{CoreError, Sides};

/// One line.
pub(super) struct Row {
    pub line: usize,
    fields: Map<String, Value>,
}

/// Every line of `jsonl` that is not blank.
pub(super) fn parse(jsonl: &str) -> Result<Vec<Row>, CoreError> {
    let lines = jsonl.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
    let rows: Vec<Row> = lines
        .map(|(index, text)| {
            let wrong = |found: String| CoreError::Row { line: index + 1, found, expected: "a JSON object".into() };
            match serde_json::from_str(text) {
                Ok(Value::Object(fields)) => Ok(Row { line: index + 1, fields }),
                Ok(other) => Err(wrong(kind(&other).into())),
                Err(error) => Err(wrong(format!("not JSON ({error})"))),
            }
        })
        .collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(CoreError::Length { input: "rows".into(), found: 0, expected: 1 });
    }
    Ok(rows)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl Row {
    /// Whether it has `key`, and not as null.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    fn value(&self, key: &'static str, reason: &str) -> Result<&Value, CoreError> {
        self.fields.get(key).filter(|value| !value.is_null()).ok_or_else(|| CoreError::MissingKey {
            line: self.line,
            key,
            found: self.fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            reason: reason.into(),
        })
    }

    pub fn wrong(&self, key: &str, value: &Value, expected: &str) -> CoreError {
        CoreError::Row { line: self.line, found: format!("`{key}` is {}", kind(value)), expected: expected.into() }
    }

    /// The number (or truth value, as 1 and 0) at `key`.
    pub fn number(&self, key: &'static str, reason: &str) -> Result<f64, CoreError> {
        let value = self.value(key, reason)?;
        match value {
            Value::Bool(truth) => Ok(f64::from(*truth)),
            _ => value.as_f64().ok_or_else(|| self.wrong(key, value, "a number")),
        }
    }

    /// The list of numbers at `key`.
    pub fn numbers(&self, key: &'static str, reason: &str) -> Result<Vec<f64>, CoreError> {
        let value = self.value(key, reason)?;
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.wrong(key, value, "a list of numbers"))
    }

    /// The list of `[chosen, rejected]` at `key`.
    fn pairs(&self, key: &'static str, reason: &str) -> Result<Vec<[f64; 2]>, CoreError> {
        let value = self.value(key, reason)?;
        let pair = |value: &Value| match value.as_array()?.as_slice() {
            [chosen, rejected] => Some([chosen.as_f64()?, rejected.as_f64()?]),
            _ => None,
        };
        let pairs = value.as_array().and_then(|list| list.iter().map(pair).collect());
        pairs.ok_or_else(|| self.wrong(key, value, "a list of [chosen, rejected]"))
    }
}

/// One number per row; `None` where no row has it.
pub(super) fn optional(rows: &[Row], key: &'static str) -> Result<Option<Vec<f64>>, CoreError> {
    if !rows.iter().any(|row| row.has(key)) {
        return Ok(None);
    }
    column(rows, key, "another row has it: give it to all rows or to none").map(Some)
}

/// One number per row.
pub(super) fn column(rows: &[Row], key: &'static str, reason: &str) -> Result<Vec<f64>, CoreError> {
    rows.iter().map(|row| row.number(key, reason)).collect()
}

/// Two numbers per row, which the objective needs.
pub(super) fn needed_sides(
    rows: &[Row],
    chosen: &'static str,
    rejected: &'static str,
    reason: &str,
) -> Result<Option<Sides<Vec<f64>>>, CoreError> {
    Ok(Some(Sides { chosen: column(rows, chosen, reason)?, rejected: column(rows, rejected, reason)? }))
}

/// The error with the line of the row that it is about.
pub(super) fn at_line(rows: &[Row], error: CoreError) -> CoreError {
    match error {
        CoreError::InvalidInput { input, row, found, expected } if row < rows.len() => {
            CoreError::Row { line: rows[row].line, found: format!("{input}: {found}"), expected: expected.into() }
        }
        CoreError::NotFinite { row, quantity, found, .. } if row < rows.len() => CoreError::Row {
            line: rows[row].line,
            found: format!("{quantity} is {found}"),
            expected: "a finite number: the log-probabilities are extreme".into(),
        },
        error => error,
    }
}

/// Two numbers per row; `None` where no row has either.
pub(super) fn sides(
    rows: &[Row],
    chosen: &'static str,
    rejected: &'static str,
) -> Result<Option<Sides<Vec<f64>>>, CoreError> {
    match (optional(rows, chosen)?, optional(rows, rejected)?) {
        (None, None) => Ok(None),
        (Some(chosen), Some(rejected)) => Ok(Some(Sides { chosen, rejected })),
        (None, _) => Err(rows[0].value(chosen, "it goes with the rejected answer's").map(|_| ()).expect_err("absent")),
        (_, None) => Err(rows[0].value(rejected, "it goes with the chosen answer's").map(|_| ()).expect_err("absent")),
    }
}

/// `[[chosen, rejected], …]` of each row, policy by policy; empty where no row has it and none is `needed`.
pub(super) fn policies(rows: &[Row], key: &'static str, needed: bool) -> Result<Vec<Sides<Vec<f64>>>, CoreError> {
    if !needed && !rows.iter().any(|row| row.has(key)) {
        return Ok(Vec::new());
    }
    let mut policies: Vec<Sides<Vec<f64>>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let reason = if needed {
            "the objective looks at further policies"
        } else {
            "another row has it: give it to all rows or to none"
        };
        let pairs = row.pairs(key, reason)?;
        if index == 0 {
            policies.resize_with(pairs.len(), || Sides { chosen: Vec::new(), rejected: Vec::new() });
        }
        if pairs.len() != policies.len() {
            let input = format!("`{key}` of line {}", row.line);
            return Err(CoreError::Length { input, found: pairs.len(), expected: policies.len() });
        }
        for (policy, [chosen, rejected]) in policies.iter_mut().zip(pairs) {
            policy.chosen.push(chosen);
            policy.rejected.push(rejected);
        }
    }
    Ok(policies)
}
