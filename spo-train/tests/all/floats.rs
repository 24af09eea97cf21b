//! Numbers of events and plans come back from JSON to the last bit, on which resumed runs rely. serde_json does so with
//! its feature `float_roundtrip` only.

use proptest::prelude::*;

proptest! {
    #[test]
    fn floats_come_back(float in prop::num::f64::ANY.prop_filter("JSON has no others", |float| float.is_finite())) {
        let read: f64 = serde_json::from_str(&serde_json::to_string(&float).unwrap()).unwrap();
        prop_assert_eq!(read.to_bits(), float.to_bits());
    }
}

#[test]
fn floats_that_are_read_one_bit_off_without_the_feature_come_back() {
    for float in [1.1e-5 + 1e-21, 0.36363636363636365, 0.0039043049132487795, 5e-324] {
        let read: f64 = serde_json::from_str(&serde_json::to_string(&float).unwrap()).unwrap();
        assert_eq!(read.to_bits(), f64::to_bits(float));
    }
}
