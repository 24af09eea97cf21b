//! Metadata by key and kind.

use super::header::Cursor;
use super::{Gguf, GgufError, Value};

impl Gguf {
    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// Text, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.read(key, "text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number that is not negative, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.read(key, "a whole number", |value| match value {
            Value::Whole(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A switch, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(on) => Some(*on),
            _ => None,
        })
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.expected(key, expected)),
        }
    }

    /// What a key must hold, and what it holds.
    pub fn expected(&self, key: &str, expected: &str) -> GgufError {
        let found = match self.get(key) {
            None => "nothing".into(),
            Some(Value::Whole(number)) => number.to_string(),
            Some(Value::Real(number)) => number.to_string(),
            Some(Value::Bool(on)) => on.to_string(),
            Some(Value::Text(text)) => format!("{text:?}"),
            Some(Value::List { count, .. }) => format!("a list of {count} values"),
        };
        self.error(format!("key `{key}`"), format!("found {found}, expected {expected}"))
    }

    /// A list of texts, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let Some((kind, count, mut cursor)) = self.list(key, "a list of texts")? else { return Ok(None) };
        if kind != 8 {
            return Err(self.expected(key, "a list of texts"));
        }
        let texts = (0..count).map(|_| cursor.text()).collect::<Result<_, _>>();
        texts.map(Some).map_err(|(place, reason)| self.error(place, reason))
    }

    /// A list of numbers, whole ones among them, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let Some((kind, count, mut cursor)) = self.list(key, "a list of numbers")? else { return Ok(None) };
        let number = |value| match value {
            Ok(Value::Whole(number)) => Some(number as f32),
            Ok(Value::Real(number)) => Some(number as f32),
            _ => None,
        };
        let numbers: Option<Vec<f32>> = (0..count).map(|_| number(cursor.scalar(kind))).collect();
        numbers.map(Some).ok_or_else(|| self.expected(key, "a list of numbers"))
    }

    /// A list of switches, where the key is there.
    ///
    /// # Errors
    /// It holds something else.
    pub fn switches(&self, key: &str) -> Result<Option<Vec<bool>>, GgufError> {
        let Some((kind, count, mut cursor)) = self.list(key, "a list of switches")? else { return Ok(None) };
        let switch = |value| match value {
            Ok(Value::Bool(on)) => Some(on),
            _ => None,
        };
        let switches: Option<Vec<bool>> = (0..count).map(|_| switch(cursor.scalar(kind))).collect();
        switches.map(Some).ok_or_else(|| self.expected(key, "a list of switches"))
    }

    /// Kind and number of a list's values, and where they are.
    fn list(&self, key: &str, expected: &str) -> Result<Option<(u32, usize, Cursor<'_>)>, GgufError> {
        self.read(key, expected, |value| match value {
            Value::List { kind, count, start } => {
                Some((*kind, *count, Cursor { bytes: &self.parts[0].bytes, at: *start }))
            }
            _ => None,
        })
    }
}
