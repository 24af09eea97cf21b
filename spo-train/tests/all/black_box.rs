//! The example of a reward without a gradient trains.

#[path = "../../../examples/black_box.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod example;

#[test]
fn rewards_are_finite_and_equal_seeds_give_equal_bits() {
    let rewards = example::train("rules:length=30", 3).unwrap();
    assert!(rewards.len() == 3 && rewards.iter().all(|reward| (-2.0..0.0).contains(reward)), "{rewards:?}");
    assert_eq!(example::train("rules:length=30", 3).unwrap(), rewards);
    assert!(example::train("rules:lenth=30", 1).is_err());
}
