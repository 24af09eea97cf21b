//! examples/np_btl.rs: a few labelled pairs tell whose preference is asked for, as well as in arXiv 2412.13998.

#[path = "../../../examples/np_btl.rs"]
mod example;

/// Accuracy in per cent at each number of contexts, as published.
const PUBLISHED: [(usize, f64); 5] = [(0, 76.4), (1, 86.6), (3, 94.7), (5, 97.4), (10, 98.9)];

#[test]
fn contexts_are_worth_what_was_published() {
    let found = example::train(1000, 1);
    assert_eq!(found.len(), PUBLISHED.len());
    for ((contexts, accuracy), published) in found.iter().zip(PUBLISHED) {
        assert!(*contexts == published.0 && (accuracy - published.1).abs() <= 2.0, "{found:?}");
    }
}
