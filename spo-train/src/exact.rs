//! JSON whose floats come back as they were written.
//!
//! serde_json reads floats fast, and some of them a last bit off; reading them exactly is a feature of it that burn's
//! dependencies would have to share. The standard library reads them exactly, so it reads them once more.

use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

/// A value from JSON text.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut value: Value = serde_json::from_str(text)?;
    let mut floats = Floats { text: text.as_bytes(), at: 0 };
    set(&mut value, &mut floats);
    serde_json::from_value(value)
}

/// Sets the floats of a value, whose tables keep the order of the text.
fn set(value: &mut Value, floats: &mut Floats) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(exact) = floats.next().and_then(Number::from_f64) {
                *number = exact;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| set(item, floats)),
        Value::Object(table) => table.values_mut().for_each(|item| set(item, floats)),
        _ => {}
    }
}

/// The numbers of well-formed JSON that are not integers, in their order.
struct Floats<'t> {
    text: &'t [u8],
    at: usize,
}

impl Iterator for Floats<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        loop {
            match self.text.get(self.at)? {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let rest = &self.text[self.at..];
                    let in_number = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    let length = rest.iter().position(|byte| !in_number(byte)).unwrap_or(rest.len());
                    self.at += length;
                    let token = std::str::from_utf8(&rest[..length]).ok()?;
                    // serde_json takes integers beyond 64 bits, and -0, for floats too.
                    if token.parse::<u64>().is_err() && (token == "-0" || token.parse::<i64>().is_err()) {
                        return token.parse().ok();
                    }
                }
                _ => self.at += 1,
            }
        }
    }
}

impl Floats<'_> {
    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += match byte {
                b'\\' => 2,
                _ => 1,
            };
            if *byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::from_str;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    proptest! {
        #[test]
        fn floats_come_back(floats in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..9), name: String, whole: i64) {
            let value = json!({ "a": { (name.clone()): floats }, "b": [whole, name, null, true, u64::MAX] });
            let read: Value = from_str(&value.to_string()).unwrap();
            prop_assert_eq!(read.to_string(), value.to_string());
            let bits = |value: &Value| value["a"][&name].as_array().unwrap().iter().map(|float| float.as_f64().unwrap().to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), bits(&value));
        }
    }

    #[test]
    fn it_reads_what_serde_json_does_not() {
        for float in [1.1e-5 + 1e-21, 0.36363636363636365, 0.0039043049132487795, 5e-324] {
            assert_eq!(from_str::<Vec<f64>>(&json!([float]).to_string()).unwrap()[0].to_bits(), f64::to_bits(float));
        }
        assert_eq!(from_str::<Vec<f64>>("[-0, 1e2, 12, -3]").unwrap(), [0.0, 100.0, 12.0, -3.0]);
        assert!(from_str::<Vec<f64>>("[1").is_err());
    }
}
