//! Weights of preferences by name, as a user gives them: a point of a front.

use super::FrontSpec;
use crate::ModelError;
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// How far weights may sum to something else than one: the rounding of `0.33333`.
const ROUNDING: f64 = 1e-4;

/// Weights of dimensions in the order they were given, such as `honesty=0.7,helpfulness=0.3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights(Vec<(String, f64)>);

impl Weights {
    /// Weights of these dimensions, `[dimensions]`.
    pub fn new(dimensions: &[String], weights: &[f64]) -> Self {
        Self(dimensions.iter().cloned().zip(weights.iter().copied()).collect())
    }

    /// The weights in the order of a front's dimensions, `[dimensions]`, which sum to one.
    ///
    /// # Errors
    /// A dimension that the front does not have, one that is missing or named twice, weights that are negative or do not
    /// sum to one.
    pub fn on(&self, front: &FrontSpec) -> Result<Vec<f64>, ModelError> {
        let dimensions = front.dimensions();
        let refuse = |reason: String| {
            let weights = Self::new(dimensions, &super::equal(dimensions.len()));
            let hint = format!("one weight for each of {}, which sum to 1: {weights}", dimensions.join(", "));
            Err(ModelError::Weights { found: self.to_string(), reason, hint })
        };
        if let Some((name, _)) = self.0.iter().find(|(name, _)| !dimensions.contains(name)) {
            return refuse(format!("the policy knows no dimension `{name}`"));
        }
        let mut weights = vec![];
        for dimension in dimensions {
            match self.0.iter().filter(|(name, _)| name == dimension).collect::<Vec<_>>()[..] {
                [(_, weight)] if *weight >= 0.0 && weight.is_finite() => weights.push(*weight),
                [(_, weight)] => return refuse(format!("the weight of `{dimension}` is {weight}, expected 0 to 1")),
                [] => return refuse(format!("`{dimension}` has no weight")),
                _ => return refuse(format!("`{dimension}` has several weights")),
            }
        }
        let sum: f64 = weights.iter().sum();
        if (sum - 1.0).abs() > ROUNDING {
            return refuse(format!("they sum to {sum}, expected 1"));
        }
        Ok(weights.into_iter().map(|weight| weight / sum).collect())
    }
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let (name, weight) = part.split_once('=').ok_or_else(|| format!("`{part}`: expected DIMENSION=WEIGHT"))?;
            let weight = weight.trim().parse().map_err(|_| format!("`{part}`: {weight:?} is no number"))?;
            Ok::<_, String>((name.trim().to_owned(), weight))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl Display for Weights {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let round = |weight: f64| (weight * 1e4).round() / 1e4;
        let parts: Vec<String> = self.0.iter().map(|(name, weight)| format!("{name}={}", round(*weight))).collect();
        f.write_str(&parts.join(","))
    }
}
