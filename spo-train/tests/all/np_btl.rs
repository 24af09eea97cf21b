//! examples/np_btl.rs, shortened: a few labelled pairs tell whose preference is asked for.

#[path = "../../../examples/np_btl.rs"]
mod example;

#[test]
fn three_contexts_are_worth_ten_points() {
    let found = example::train(250, 1);
    let of = |contexts: usize| found.iter().find(|(count, _)| *count == contexts).map_or(f64::NAN, |(_, found)| *found);
    assert!(of(3) - of(0) >= 10.0, "{found:?}");
    assert!((65.0..=80.0).contains(&of(0)), "{found:?}");
}
