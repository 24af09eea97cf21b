//! Losses that no golden file has, against their formulas written a second time on plain numbers.

use serde_json::json;

use crate::batch::{batch, build, run};

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

type Formula<'a> = Box<dyn Fn(usize) -> f64 + 'a>;

#[test]
fn formulas() {
    let pairs = batch(17, 40, 40.0, 4.0);
    let (lengths, reference) = (pairs.lengths.clone().unwrap(), pairs.reference.clone().unwrap());
    let (kl, sampled) = (pairs.sequence_kl.clone().unwrap(), pairs.sampled.clone().unwrap());
    let (strengths, safety) = (pairs.strengths.clone().unwrap(), pairs.safety.clone().unwrap());
    let lw = |i: usize| pairs.policy_chosen[i] - reference.chosen[i];
    let ll = |i: usize| pairs.policy_rejected[i] - reference.rejected[i];
    let d = |i: usize| lw(i) - ll(i);
    let mean_w = |i: usize| pairs.policy_chosen[i] / lengths.chosen[i];
    let mean_l = |i: usize| pairs.policy_rejected[i] / lengths.rejected[i];
    let log_odds = |p: f64| p - (-p.exp()).ln_1p();
    // Three references; probabilities instead of logarithms, relative to the first.
    let mixed = |i: usize, chosen: bool, harmonic: bool, adaptive: bool, clip: f64| {
        let policies: Vec<&spo_core::Sides<Vec<f64>>> = [&reference].into_iter().chain(&pairs.mixture).collect();
        let of = |s: &spo_core::Sides<Vec<f64>>, chosen: bool| if chosen { s.chosen[i] } else { s.rejected[i] };
        let mean = |chosen: bool| policies.iter().map(|s| of(s, chosen)).sum::<f64>().abs() / 3.0;
        let epsilon = clip * mean(chosen) / (mean(true) + mean(false));
        let base = of(&reference, chosen);
        let gap = |s: &spo_core::Sides<Vec<f64>>| if adaptive { (of(s, true) - of(s, false)).abs() } else { 1.0 };
        let total: f64 = policies.iter().map(|s| gap(s)).sum();
        let clipped = policies
            .iter()
            .map(|s| (gap(s) / total, of(s, chosen).max(base * (1.0 + epsilon)).min(base * (1.0 - epsilon))));
        match harmonic {
            true => base - clipped.map(|(a, logp)| a / (logp - base).exp()).sum::<f64>().ln(),
            false => clipped.map(|(a, logp)| a * logp).sum(),
        }
    };
    let mrpo = |harmonic: bool, adaptive: bool, clip: f64| -> Formula<'_> {
        let mixed = &mixed;
        let pairs = &pairs;
        Box::new(move |i| {
            let side = |chosen| mixed(i, chosen, harmonic, adaptive, clip);
            softplus(-0.1 * (pairs.policy_chosen[i] - side(true) - pairs.policy_rejected[i] + side(false)))
        })
    };
    let delta = |s: &spo_core::Sides<Vec<f64>>, i: usize| s.chosen[i] - s.rejected[i];
    let cases: Vec<(&str, serde_json::Value, Formula)> = vec![
        ("simpo", json!({}), Box::new(|i| softplus(-(2.0 * (mean_w(i) - mean_l(i)) - 1.0)))),
        (
            "cpo",
            json!({}),
            Box::new(|i| softplus(-0.1 * (pairs.policy_chosen[i] - pairs.policy_rejected[i])) - mean_w(i)),
        ),
        ("orpo", json!({}), Box::new(|i| 0.1 * softplus(log_odds(mean_l(i)) - log_odds(mean_w(i))) - mean_w(i))),
        (
            "alpha-po",
            json!({"alpha": 0.5}),
            Box::new(|i| {
                let reward = |p: f64| (1.0 - p.exp().powf(-0.5)) / 0.5;
                softplus(-(2.0 * (reward(mean_w(i)) - reward(mean_l(i))) - 1.0))
            }),
        ),
        (
            "chi-po",
            json!({}),
            Box::new(|i| softplus(-(0.1 * (lw(i).exp() + lw(i) - ll(i).exp() - ll(i))).clamp(-10.0, 10.0))),
        ),
        ("r-dpo", json!({}), Box::new(|i| softplus(-(0.1 * d(i) + 0.01 * (lengths.chosen[i] - lengths.rejected[i]))))),
        ("tdpo-1", json!({}), Box::new(|i| softplus(-0.1 * (d(i) - (kl.rejected[i] - kl.chosen[i]))))),
        ("tdpo-2", json!({}), Box::new(|i| softplus(-0.1 * (d(i) - 0.5 * (kl.rejected[i] - kl.chosen[i]))))),
        ("mm-dpo", json!({}), Box::new(|i| softplus(-0.1 * (1.0 + 0.5 * (1.0 - (-0.5 * strengths[i]).exp())) * d(i)))),
        ("selm", json!({}), Box::new(|i| softplus(-0.1 * d(i)) + 1e-4 * (sampled.policy[i] - sampled.reference[i]))),
        (
            "bfpo",
            json!({}),
            Box::new(|i| (d(i) - (1.5 * safety.chosen[i] - 0.5 * safety.rejected[i] - 0.5) / 0.1).powi(2)),
        ),
        ("dpop", json!({}), Box::new(|i| softplus(-0.1 * (d(i) - 50.0 * (-lw(i)).max(0.0))))),
        ("dpop", json!({"penalty": 2.0}), Box::new(|i| softplus(-0.1 * (d(i) - 2.0 * (-lw(i)).max(0.0))))),
        ("dpo-shift", json!({}), Box::new(|i| softplus(-0.1 * (lw(i) - 0.95 * ll(i))))),
        (
            "safe-dpo",
            json!({"safety-margin": 3.0}),
            Box::new(|i| match (safety.chosen[i] == 1.0, safety.rejected[i] == 1.0) {
                (true, true) => softplus(-0.1 * d(i)),
                (true, false) => softplus(3.0 - 0.1 * d(i)),
                (false, true) => softplus(3.0 + 0.1 * d(i)),
                (false, false) => 0.0,
            }),
        ),
        (
            "modpo",
            json!({"weight": 0.4, "margin-beta": 0.2}),
            Box::new(|i| {
                let start = &pairs.earlier[0];
                let policy = pairs.policy_chosen[i] - pairs.policy_rejected[i] - delta(start, i);
                let other = 0.2 * (delta(&pairs.earlier[1], i) - delta(start, i));
                softplus(-(0.1 * policy - 0.6 * other) / 0.4)
            }),
        ),
        ("mrpo", json!({}), mrpo(true, true, 0.1)),
        ("mrpo", json!({"clip": 0.01}), mrpo(true, true, 0.01)),
        ("mrpo", json!({"adaptive": false, "clip": 1e3}), mrpo(true, false, 1e3)),
        ("mrpo", json!({"mean": "geometric", "clip": 0.01}), mrpo(false, true, 0.01)),
        ("mrpo", json!({"mean": "geometric", "adaptive": false}), mrpo(false, false, 0.1)),
        (
            "bco",
            json!({"shift": true}),
            Box::new(|i| {
                let mean = (0..40).map(|j| lw(j) + ll(j)).sum::<f64>() / 80.0;
                softplus(-0.1 * (lw(i) - mean)) + softplus(0.1 * (ll(i) - mean))
            }),
        ),
    ];
    for (name, options, formula) in cases {
        let result = run(build(name, options.clone()).as_ref(), &pairs);
        // The coded weights have a small addend against a division by zero.
        let adaptive = if name == "mrpo" && options["adaptive"] != json!(false) { 1e-6 } else { 0.0 };
        for (row, loss) in result.losses.iter().enumerate() {
            let expected = formula(row);
            assert!(
                (loss - expected).abs() <= 1e-11 * expected.abs().max(1.0) + adaptive,
                "{name} {options} row {row}: {loss}, {expected}"
            );
        }
    }
}

#[test]
fn limits_of_one_another() {
    let pairs = batch(18, 20, 40.0, 4.0);
    let losses = |name: &str, options| run(build(name, options).as_ref(), &pairs).losses;
    let same = |a: Vec<f64>, b: Vec<f64>, tolerance: f64| {
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= tolerance * a.abs().max(1.0)), "{a:?} {b:?}");
    };
    let dpo = || losses("dpo", json!({}));
    same(losses("cdpo", json!({"label-smoothing": 0.0})), dpo(), 0.0);
    same(losses("robust", json!({"label-smoothing": 0.0})), dpo(), 0.0);
    same(losses("r-dpo", json!({"alpha": 0.0})), dpo(), 0.0);
    same(losses("selm", json!({"alpha": 0.0})), dpo(), 0.0);
    same(losses("dpop", json!({"penalty": 0.0})), dpo(), 0.0);
    same(losses("dpo-shift", json!({"rejected-factor": 1.0})), dpo(), 0.0);
    same(losses("mm-dpo", json!({"weight": 0.0})), dpo(), 1e-12);
    same(losses("tdpo-2", json!({"alpha": 0.0})), dpo(), 0.0);
    same(losses("mrpo", json!({"weights": [1.0, 0.0, 0.0]})), dpo(), 1e-9);
    same(losses("alpha-po", json!({"alpha": 1e-7})), losses("simpo", json!({})), 1e-5);
    same(losses("dpo", json!({"divergence": "alpha", "divergence-alpha": 1e-7})), dpo(), 1e-5);
    for name in ["dpo", "sigmoid-norm"] {
        let alpha = losses(name, json!({"divergence": "alpha", "divergence-alpha": 1.0}));
        same(alpha, losses(name, json!({"divergence": "forward-kl"})), 1e-12);
    }
}
