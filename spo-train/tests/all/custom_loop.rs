//! The example of a training loop of one's own trains.

#[path = "../../../examples/custom_loop.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod example;

#[test]
fn it_begins_at_the_reference_and_learns() {
    let losses: Vec<f64> = example::train(10).unwrap().into_iter().map(|(loss, _)| loss).collect();
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "{losses:?}");
    // One step's pairs may be harder than another's: the mean of the last five.
    assert!(losses[5..].iter().sum::<f64>() / 5.0 < 0.9 * losses[0], "{losses:?}");
}
