//! Floats in JSON, which come back with every bit. Earlier versions stored their bits as whole numbers: these are still
//! read.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A float as this version writes it, or its bits.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
struct Float(f64);

impl<'d> Deserialize<'d> for Float {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(from)?;
        match number.as_u64() {
            Some(bits) => Ok(Self(f64::from_bits(bits))),
            None => number.as_f64().map(Self).ok_or_else(|| D::Error::custom(format!("{number} is no float"))),
        }
    }
}

/// Reads one.
pub(crate) fn one<'d, D: Deserializer<'d>>(from: D) -> Result<f64, D::Error> {
    Ok(Float::deserialize(from)?.0)
}

/// Reads one, or none.
pub(crate) fn option<'d, D: Deserializer<'d>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(Option::<Float>::deserialize(from)?.map(|float| float.0))
}

/// Reads a list.
pub(crate) fn list<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<f64>, D::Error> {
    Ok(Vec::<Float>::deserialize(from)?.into_iter().map(|float| float.0).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize, Deserialize)]
    struct Kept {
        #[serde(deserialize_with = "one")]
        one: f64,
        #[serde(deserialize_with = "option")]
        none: Option<f64>,
        #[serde(deserialize_with = "list")]
        list: Vec<f64>,
    }

    proptest! {
        #[test]
        fn floats_come_back_with_every_bit(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            let text = serde_json::to_string(&Kept { one: value, none: None, list: vec![value, 1.0] }).unwrap();
            let bits = value.to_bits();
            let earlier = format!("{{\"one\":{bits},\"none\":{bits},\"list\":[{bits}]}}");
            for (text, some) in [(text, false), (earlier, true)] {
                let kept: Kept = serde_json::from_str(&text).unwrap();
                prop_assert_eq!((kept.one.to_bits(), kept.list[0].to_bits()), (bits, bits));
                prop_assert_eq!(kept.none.map(f64::to_bits), some.then_some(bits));
            }
        }
    }
}
