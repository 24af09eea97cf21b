//! The example of a reward without a gradient trains.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

#[path = "../../examples/black_box.rs"]
mod black_box;

#[test]
fn rewards_are_finite_and_equal_seeds_give_equal_bits() {
    let rewards = black_box::train("rules:length=30", 3).unwrap();
    assert!(rewards.len() == 3 && rewards.iter().all(|reward| (-2.0..0.0).contains(reward)), "{rewards:?}");
    assert_eq!(black_box::train("rules:length=30", 3).unwrap(), rewards);
    assert!(black_box::train("rules:lenth=30", 1).is_err());
}
