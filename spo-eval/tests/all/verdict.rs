//! The sentence follows the numbers, also where they do not please.

use crate::example_run::summary;
use spo_eval::{PairedDifference, RunSummary, verdict};

fn with_differences(change: impl Fn(&mut PairedDifference)) -> RunSummary {
    let mut summary = summary();
    summary.differences.iter_mut().for_each(change);
    summary
}

#[test]
fn bought_and_cost() {
    insta::assert_snapshot!(verdict(&summary()));
}

#[test]
fn within_noise() {
    let noisy = with_differences(|difference| {
        difference.accuracy_difference = 0.012;
        difference.interval = (-0.01, 0.034);
    });
    let text = verdict(&noisy);
    assert_eq!(text.matches("within noise").count(), 2);
    assert!(!text.contains("bought") && !text.contains("cost"));
}

#[test]
fn the_wrong_way_round_is_said() {
    let reversed = with_differences(|difference| {
        difference.accuracy_difference = -difference.accuracy_difference;
        difference.interval = (-difference.interval.1, -difference.interval.0);
    });
    let text = verdict(&reversed);
    assert!(text.contains("of honesty accuracy instead of keeping it"), "{text}");
    assert!(text.contains("also gained"), "{text}");
}

#[test]
fn an_unfair_control_is_named() {
    let mut summary = summary();
    summary.rounds[2].settings[1].value = "0.001".to_owned();
    assert!(verdict(&summary).contains("the control also differs in learning-rate"));
}

#[test]
fn missing_parts_are_named() {
    let complete = summary();
    let mut run = complete.clone();
    run.kl.clear();
    assert!(verdict(&run).contains("KL to the start not measured"));
    run.differences.clear();
    assert!(verdict(&run).contains("were not compared on the same pairs of honesty"));
    run.rounds.pop();
    assert!(verdict(&run).contains("no control with λ = 0 (sequential DPO) was run"));
    run.rounds.pop();
    assert!(verdict(&run).starts_with("No round held an earlier dimension"));
}
