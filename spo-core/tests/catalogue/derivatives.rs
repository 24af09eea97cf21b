//! Coded gradients against finite differences; extremes; what holds for swapped pairs.

use burn::tensor::{DType, Device};
use proptest::prelude::*;
use serde_json::json;
use spo_core::{Objective, PairNumbers, Sides};

use crate::batch::{batch, build, default, paired, run};

/// Central differences of the summed loss, one input at a time, against the coded gradient.
#[track_caller]
fn check(label: &str, objective: &dyn Objective, pairs: &PairNumbers) {
    let result = run(objective, pairs);
    let total = |pairs: &PairNumbers| run(objective, pairs).losses.iter().sum::<f64>();
    let scale = result.losses.iter().fold(1.0, |m: f64, loss| m.max(loss.abs()));
    let step = 1e-4;
    let compare = |coded: &[f64], pick: fn(&mut PairNumbers) -> &mut Vec<f64>| {
        for (row, coded) in coded.iter().enumerate() {
            let moved = |by: f64| {
                let mut pairs = pairs.clone();
                pick(&mut pairs)[row] += by;
                total(&pairs)
            };
            let derivative = (moved(step) - moved(-step)) / (2.0 * step);
            let tolerance = 1e-5 * coded.abs() + 1e-9 * scale * pairs.len() as f64;
            assert!(
                (derivative - coded).abs() <= tolerance,
                "{label} row {row}: differences {derivative}, coded {coded}"
            );
        }
    };
    compare(&result.d_chosen, |pairs| &mut pairs.policy_chosen);
    compare(&result.d_rejected, |pairs| &mut pairs.policy_rejected);
    if objective.needs().sampled {
        compare(&result.d_sampled.clone().unwrap(), |pairs| &mut pairs.sampled.as_mut().unwrap().policy);
    }
    if objective.needs().sequence_kl {
        let (chosen, rejected) = result.d_sequence_kl.clone().unwrap();
        compare(&rejected, |pairs| &mut pairs.sequence_kl.as_mut().unwrap().rejected);
        if objective.name() == "tdpo-1" {
            compare(&chosen, |pairs| &mut pairs.sequence_kl.as_mut().unwrap().chosen);
        } else {
            assert!(chosen.iter().all(|derivative| *derivative == 0.0)); // the fixed base line of tdpo-2
        }
    }
}

#[test]
fn finite_differences_of_every_paired_objective() {
    for entry in paired() {
        for (seed, level, spread) in [(1, 40.0, 3.0), (2, 300.0, 40.0)] {
            check(entry.name, default(entry).as_ref(), &batch(seed, 12, level, spread));
        }
    }
}

/// Log-probabilities to −1e4, margins to ± 500.
#[test]
fn finite_differences_at_extremes() {
    for entry in paired() {
        for (seed, level, spread) in [(21, 6600.0, 250.0), (22, 600.0, 250.0)] {
            check(entry.name, default(entry).as_ref(), &batch(seed, 10, level, spread));
        }
    }
}

#[test]
fn finite_differences_of_every_option() {
    let pairs = batch(3, 10, 40.0, 4.0);
    for (name, options) in [
        ("dpo", json!({"label-smoothing": 0.2})),
        ("dpo", json!({"nll-weight": 0.7, "wpo": true})),
        ("dpo", json!({"divergence": "forward-kl"})),
        ("ipo", json!({"divergence": "js"})),
        ("sigmoid-norm", json!({"divergence": "alpha", "divergence-alpha": 0.3})),
        ("mrpo", json!({"mean": "geometric", "weights": [0.5, 0.25, 0.25]})),
        ("mrpo", json!({"adaptive": true, "clip": 1e6})),
        ("sft", json!({"per": "answer"})),
        ("spo", json!({"lambda": 0.4, "margin": "raw", "nll-weight": 0.1})),
        ("spo", json!({"lambda": 2.5, "label-smoothing": 0.1})),
        ("aot", json!({"label-smoothing": 0.1})),
        ("modpo", json!({"weight": 0.3, "others": [0.7], "margin-beta": [0.2]})),
    ] {
        check(&format!("{name} {options}"), build(name, options).as_ref(), &pairs);
    }
}

/// On devices without f64 the same code runs in f32.
#[test]
fn single_precision_agrees_and_stays_finite() {
    let moderate = batch(4, 64, 40.0, 4.0);
    let mut extreme = batch(5, 4, 40.0, 4.0);
    extreme.policy_chosen = vec![-1e4, -1e-3, -1e4, -1e-3];
    extreme.policy_rejected = vec![-1e-3, -1e4, -1e4, -1e-3];
    for entry in paired() {
        let objective = default(entry);
        for (pairs, compare) in [(&moderate, true), (&extreme, false)] {
            let mut logps = pairs.to_tensors(&Device::flex().autodiff(), DType::F32);
            logps.policy_chosen = logps.policy_chosen.require_grad();
            let losses = objective.forward(&logps).unwrap().per_pair;
            let gradients = losses.clone().sum().backward();
            let derivatives = logps.policy_chosen.grad(&gradients).unwrap().try_into_vec_as::<f64>().unwrap();
            let losses = losses.try_into_vec_as::<f64>().unwrap();
            assert!(
                losses.iter().chain(&derivatives).all(|value| value.is_finite()),
                "{}: {losses:?} {derivatives:?}",
                entry.name
            );
            if compare {
                let exact = run(objective.as_ref(), pairs);
                let near =
                    |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0));
                assert!(near(&losses, &exact.losses) && near(&derivatives, &exact.d_chosen), "{}", entry.name);
            }
        }
    }
}

/// Losses that never rise with the chosen log-probability and never fall with the rejected one.
const MONOTONE: &[&str] = &[
    "spo",
    "dpo",
    "robust",
    "hinge",
    "bco",
    "apo-zero",
    "sigmoid-norm",
    "simpo",
    "cpo",
    "orpo",
    "alpha-po",
    "chi-po",
    "r-dpo",
    "dpop",
    "dpo-shift",
    "tdpo-1",
    "tdpo-2",
    "modpo",
    "mm-dpo",
    "mrpo",
    "selm",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn extremes_stay_finite_and_monotone(
        chosen in prop_oneof![-1e4..-1e-3f64, Just(-1e4), Just(-1e-3), -600.0..-1e-3f64],
        rejected in prop_oneof![-1e4..-1e-3f64, Just(-1e4), Just(-1e-3), -600.0..-1e-3f64],
        reference_chosen in prop_oneof![-1e4..-1e-3f64, -600.0..-1e-3f64],
        reference_rejected in prop_oneof![-1e4..-1e-3f64, -600.0..-1e-3f64],
    ) {
        let mut pairs = batch(9, 3, 40.0, 3.0);
        pairs.policy_chosen[0] = chosen;
        pairs.policy_rejected[0] = rejected;
        let reference = Sides {
            chosen: vec![reference_chosen, -40.0, -30.0],
            rejected: vec![reference_rejected, -41.0, -20.0],
        };
        pairs.earlier[1] = reference.clone();
        pairs.reference = Some(reference);
        for entry in paired() {
            let result = run(default(entry).as_ref(), &pairs); // fails itself on NaN and infinities
            if MONOTONE.contains(&entry.name) {
                for row in 0..3 {
                    prop_assert!(result.d_chosen[row] <= 0.0, "{} d_chosen {}", entry.name, result.d_chosen[row]);
                    prop_assert!(result.d_rejected[row] >= 0.0, "{} d_rejected {}", entry.name, result.d_rejected[row]);
                }
            }
        }
    }

    #[test]
    fn swapping_the_sides_mirrors_the_loss(seed in 0u64..1000, spread in 0.1..60.0f64) {
        let pairs = batch(seed, 8, 100.0, spread);
        let mut swapped = pairs.clone();
        std::mem::swap(&mut swapped.policy_chosen, &mut swapped.policy_rejected);
        let flip = |s: &mut Sides<Vec<f64>>| std::mem::swap(&mut s.chosen, &mut s.rejected);
        swapped.reference.iter_mut().for_each(flip);
        swapped.earlier.iter_mut().for_each(flip);
        // ℓ(−m) − ℓ(m) = m for a logistic loss of the logit m; rewards swap sides.
        for (name, logit) in [("dpo", 0.1), ("spo", 0.1), ("cdpo", 0.1 * 0.8)] {
            let objective = build(name, json!({}));
            let (a, b) = (run(objective.as_ref(), &pairs), run(objective.as_ref(), &swapped));
            prop_assert_eq!(&a.chosen_reward, &b.rejected_reward);
            for row in 0..8 {
                let reward = a.chosen_reward[row] - a.rejected_reward[row];
                let margin = logit / 0.1 * reward - a.margin_offset.as_ref().map_or(0.0, |margin_offset| margin_offset[row]);
                prop_assert!((b.losses[row] - a.losses[row] - margin).abs() < 1e-9 * margin.abs().max(1.0));
                prop_assert!((a.d_chosen[row] + a.d_rejected[row]).abs() < 1e-15);
            }
        }
    }

    /// A flipped label is the pair with its sides swapped, in the new dimension and in the earlier ones.
    #[test]
    fn smoothed_labels_are_a_mixture_with_the_swapped_pairs(seed in 0u64..1000, share in 0.01..0.49f64) {
        let pairs = batch(seed, 8, 100.0, 5.0);
        let mut swapped = pairs.clone();
        std::mem::swap(&mut swapped.policy_chosen, &mut swapped.policy_rejected);
        let flip = |s: &mut Sides<Vec<f64>>| std::mem::swap(&mut s.chosen, &mut s.rejected);
        swapped.reference.iter_mut().for_each(flip);
        swapped.earlier.iter_mut().for_each(flip);
        let plain = build("spo", json!({"lambda": 1.5}));
        let (own, other) = (run(plain.as_ref(), &pairs), run(plain.as_ref(), &swapped));
        let smoothed = build("spo", json!({"lambda": 1.5, "label-smoothing": share}));
        let found = run(smoothed.as_ref(), &pairs);
        for row in 0..8 {
            let mixed = (1.0 - share) * own.losses[row] + share * other.losses[row];
            prop_assert!((found.losses[row] - mixed).abs() < 1e-12 * mixed.max(1.0));
            let mixed = (1.0 - share) * own.d_chosen[row] + share * other.d_rejected[row];
            prop_assert!((found.d_chosen[row] - mixed).abs() < 1e-12);
        }
    }

    #[test]
    fn a_batch_is_the_sum_of_its_pairs(seed in 0u64..1000) {
        let pairs = batch(seed, 6, 60.0, 5.0);
        let mut reordered = batch(seed, 6, 60.0, 5.0);
        reordered.policy_chosen.reverse();
        reordered.policy_rejected.reverse();
        let reverse = |s: &mut Sides<Vec<f64>>| { s.chosen.reverse(); s.rejected.reverse(); };
        reordered.reference.iter_mut().for_each(reverse);
        reordered.earlier.iter_mut().for_each(reverse);
        reordered.mixture.iter_mut().for_each(reverse);
        reordered.lengths.iter_mut().for_each(reverse);
        reordered.sequence_kl.iter_mut().for_each(reverse);
        reordered.safety.iter_mut().for_each(reverse);
        reordered.strengths.iter_mut().for_each(|v| v.reverse());
        reordered.sampled.iter_mut().for_each(|s| { s.policy.reverse(); s.reference.reverse(); });
        for entry in paired() {
            let a = run(default(entry).as_ref(), &pairs);
            let mut b = run(default(entry).as_ref(), &reordered);
            b.losses.reverse();
            for (a, b) in a.losses.iter().zip(b.losses) {
                prop_assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{}: {} {}", entry.name, a, b);
            }
        }
    }
}
