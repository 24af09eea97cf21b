//! What a user writes: `KIND`, `KIND:ARGUMENT`, or a table with `kind` and options.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ScoreError;

/// A scorer by kind, with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Value")]
pub struct ScorerSpec {
    /// The kind, as the registry has it.
    pub kind: String,
    /// What stands behind the colon.
    pub argument: Option<String>,
    /// The options of a table.
    pub options: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Short(String),
    Table(Map<String, Value>),
}

impl TryFrom<Written> for ScorerSpec {
    type Error = ScoreError;

    fn try_from(written: Written) -> Result<Self, ScoreError> {
        match written {
            Written::Short(text) => text.parse(),
            Written::Table(mut options) => match options.shift_remove("kind") {
                Some(Value::String(kind)) => Ok(Self { kind, argument: None, options }),
                _ => Err(ScoreError::BadSpec {
                    spec: Value::Object(options).to_string(),
                    reason: "a table without `kind`".into(),
                    hint: Some("as in { kind = \"rules\", length = 60 }".into()),
                }),
            },
        }
    }
}

impl FromStr for ScorerSpec {
    type Err = ScoreError;

    /// `KIND`, `KIND:ARGUMENT`, or an inline TOML table.
    fn from_str(text: &str) -> Result<Self, ScoreError> {
        let text = text.trim();
        if text.starts_with('{') {
            let table: Result<Map<String, Value>, _> = toml::from_str(&format!("scorer = {text}"));
            return match table.map(|mut table| table.shift_remove("scorer")) {
                Ok(Some(Value::Object(options))) => Self::try_from(Written::Table(options)),
                Ok(_) => unreachable!("braces make a table"),
                Err(error) => Err(ScoreError::BadSpec {
                    spec: text.into(),
                    reason: error.message().into(),
                    hint: Some("an inline table of TOML, as in { kind = \"rules\", length = 60 }".into()),
                }),
            };
        }
        let (kind, argument) = match text.split_once(':') {
            Some((kind, argument)) => (kind, Some(argument.to_owned())),
            None => (text, None),
        };
        Ok(Self { kind: kind.into(), argument, options: Map::new() })
    }
}

impl fmt::Display for ScorerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.argument, self.options.is_empty()) {
            (Some(argument), _) => write!(f, "{}:{argument}", self.kind),
            (None, true) => write!(f, "{}", self.kind),
            (None, false) => write!(f, "{} {}", self.kind, Value::Object(self.options.clone())),
        }
    }
}

impl From<ScorerSpec> for Value {
    fn from(spec: ScorerSpec) -> Self {
        if spec.options.is_empty() {
            return Value::String(spec.to_string());
        }
        let mut table = Map::from_iter([("kind".to_string(), Value::String(spec.kind))]);
        table.extend(spec.options);
        Value::Object(table)
    }
}

impl JsonSchema for ScorerSpec {
    fn schema_name() -> Cow<'static, str> {
        "ScorerSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "object", "additionalProperties": true }] })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_and_tables_are_read_and_written_back() {
        let short: ScorerSpec = "command:python3 a.py --b=c:d".parse().unwrap();
        assert_eq!((short.kind.as_str(), short.argument.as_deref()), ("command", Some("python3 a.py --b=c:d")));
        assert_eq!(short.to_string(), "command:python3 a.py --b=c:d");
        let table: ScorerSpec = r#"{ kind = "rules", length = 60 }"#.parse().unwrap();
        assert_eq!(table.options["length"], 60);
        for spec in [short, table] {
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<ScorerSpec>(&text).unwrap(), spec);
        }
        for wrong in ["{ length = 3 }", "{ kind = }"] {
            assert!(matches!(wrong.parse::<ScorerSpec>(), Err(ScoreError::BadSpec { .. })), "{wrong}");
        }
    }
}
