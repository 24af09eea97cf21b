//! A comparison with a number, as gates have them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `>= 0.60`, `> 0`, `<= 5`, `< 1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    comparison: Comparison,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
}

/// Longer signs first, so that `>=` is not read as `>`.
const SIGNS: [(&str, Comparison); 4] =
    [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below)];

impl Condition {
    /// What a condition looks like, for messages.
    pub(crate) const EXPECTED: &str = "a comparison with a number, such as \">= 0.60\"";

    /// Reads a condition.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (sign, comparison) = SIGNS.into_iter().find(|(sign, _)| text.starts_with(sign))?;
        let bound: f64 = text[sign.len()..].trim().parse().ok()?;
        bound.is_finite().then_some(Self { comparison, bound })
    }

    /// Whether a value meets it.
    pub fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => value >= self.bound,
            Comparison::Above => value > self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Below => value < self.bound,
        }
    }

    /// By how much a value misses it; 0 where it holds.
    pub fn gap(&self, value: f64) -> f64 {
        if self.holds(value) { 0.0 } else { (value - self.bound).abs() }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, _) =
            SIGNS.iter().find(|(_, comparison)| *comparison == self.comparison).expect("every one has a sign");
        write!(f, "{sign} {}", self.bound)
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("found {text:?}, expected {}", Self::EXPECTED))
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Condition;

    #[test]
    fn conditions_are_read_and_hold_or_not() {
        for (text, holding, missing) in
            [(">= 0.60", 0.6, 0.59), ("> 0", 0.1, 0.0), ("<=5", 5.0, 5.1), (" < -1 ", -1.5, -1.0)]
        {
            let condition = Condition::parse(text).unwrap();
            assert!(condition.holds(holding) && !condition.holds(missing), "{text}");
            assert_eq!(Condition::parse(&condition.to_string()), Some(condition));
        }
        assert!((Condition::parse(">= 0.6").unwrap().gap(0.5) - 0.1).abs() < 1e-12);
        for text in ["0.6", "= 0.6", ">= x", ">=", "", "> inf", "≥ 1"] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }
}
