//! Unpaired and list-wise objectives.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use spo_core::CoreError;
use spo_core::objective::{
    self, AnswerNumbers, ListGradient, ListNumbers, build_list, build_unpaired, differentiate_answers,
    differentiate_lists,
};

use crate::batch::{batch, build, run};

fn lists(seed: u64, lengths: &[usize], spread: f64) -> ListNumbers {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ragged = |f: &mut dyn FnMut(f64) -> f64| -> Vec<Vec<f64>> {
        lengths.iter().map(|n| (0..*n).map(|_| f(rng.random())).collect()).collect()
    };
    let reference = ragged(&mut |u| -50.0 - 20.0 * u);
    let noise = ragged(&mut |u| spread * (2.0 * u - 1.0));
    let policy = reference.iter().zip(noise).map(|(r, n)| r.iter().zip(n).map(|(r, n)| r + n).collect()).collect();
    ListNumbers { policy, reference, gains: ragged(&mut |u| (5.0 * u).floor()) }
}

fn run_lists(name: &str, options: &Value, numbers: &ListNumbers) -> ListGradient {
    let objective = build_list(name, options.as_object().unwrap()).unwrap();
    differentiate_lists(objective.as_ref(), numbers, &Device::flex()).unwrap()
}

#[test]
fn list_wise_finite_differences() {
    for (name, options) in
        [("plackett-luce", json!({})), ("opo", json!({"alpha": 3.0})), ("opo", json!({"variant": "neural"}))]
    {
        for spread in [6.0, 500.0] {
            let numbers = lists(3, &[4, 2, 1, 5], spread);
            let result = run_lists(name, &options, &numbers);
            let total = |numbers: &ListNumbers| run_lists(name, &options, numbers).losses.iter().sum::<f64>();
            for (row, list) in result.d_policy.iter().enumerate() {
                for (column, coded) in list.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut numbers = numbers.clone();
                        numbers.policy[row][column] += by;
                        total(&numbers)
                    };
                    let derivative = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                    let tolerance = 1e-5 * coded.abs() + 1e-11 * spread.max(100.0);
                    assert!((derivative - coded).abs() < tolerance, "{name} {options}: {derivative} {coded}");
                }
            }
        }
    }
}

#[test]
fn two_answers_make_plackett_luce_dpo() {
    let pairs = batch(4, 30, 50.0, 5.0);
    let reference = pairs.reference.clone().unwrap();
    let two = |a: &[f64], b: &[f64]| -> Vec<Vec<f64>> { a.iter().zip(b).map(|(a, b)| vec![*b, *a]).collect() };
    let numbers = ListNumbers {
        policy: two(&pairs.policy_chosen, &pairs.policy_rejected),
        reference: two(&reference.chosen, &reference.rejected),
        gains: vec![vec![0.0, 1.0]; 30],
    };
    let lists = run_lists("plackett-luce", &json!({}), &numbers);
    let dpo = run(build("dpo", json!({})).as_ref(), &pairs);
    for row in 0..30 {
        assert!((lists.losses[row] - dpo.losses[row]).abs() < 1e-13);
        assert!((lists.d_policy[row][1] - dpo.d_chosen[row]).abs() < 1e-13);
        assert!((lists.d_policy[row][0] - dpo.d_rejected[row]).abs() < 1e-13);
    }
}

#[test]
fn plackett_luce_is_the_likelihood_of_the_order() {
    let numbers = lists(5, &[5, 3], 8.0);
    let result = run_lists("plackett-luce", &json!({"beta": 0.3}), &numbers);
    for row in 0..2 {
        let mut order: Vec<usize> = (0..numbers.policy[row].len()).collect();
        order.sort_by(|a, b| numbers.gains[row][*b].total_cmp(&numbers.gains[row][*a]));
        let score = |i: &usize| 0.3 * (numbers.policy[row][*i] - numbers.reference[row][*i]);
        let expected: f64 = (0..order.len())
            .map(|k| order[k..].iter().map(|i| score(i).exp()).sum::<f64>().ln() - score(&order[k]))
            .sum();
        assert!((result.losses[row] - expected).abs() < 1e-11, "{} {expected}", result.losses[row]);
    }
}

#[test]
fn smooth_ndcg_approaches_ndcg() {
    let numbers = lists(6, &[6, 4, 3], 30.0);
    for options in [json!({"alpha": 1e4}), json!({"variant": "neural", "tau": 1e-4})] {
        let result = run_lists("opo", &options, &numbers);
        for row in 0..3 {
            let dcg = |key: &dyn Fn(usize) -> f64| {
                let mut order: Vec<usize> = (0..numbers.policy[row].len()).collect();
                order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
                let gain = |i: &usize| numbers.gains[row][*i].exp2() - 1.0;
                order.iter().enumerate().map(|(k, i)| gain(i) / (k as f64 + 2.0).log2()).sum::<f64>()
            };
            let found = dcg(&|i| numbers.policy[row][i] - numbers.reference[row][i]);
            let expected = 1.0 - found / dcg(&|i| numbers.gains[row][i]);
            assert!((result.losses[row] - expected).abs() < 1e-6, "{options}: {} {expected}", result.losses[row]);
        }
    }
}

#[test]
fn extremes_of_other_shapes_stay_finite() {
    let numbers = ListNumbers {
        policy: vec![vec![-1e4, -1e-3, -500.0], vec![-10.0]],
        reference: vec![vec![-1e-3, -1e4, -1.0], vec![-1e4]],
        gains: vec![vec![0.0, 4.0, 1.0], vec![0.0]],
    };
    run_lists("plackett-luce", &json!({}), &numbers);
    run_lists("opo", &json!({}), &numbers);
    run_lists("opo", &json!({"variant": "neural"}), &numbers);
    let answers = AnswerNumbers {
        policy: vec![-1e4, -1e-3, -1e4, -1e-3],
        reference: vec![-1e-3, -1e4, -1e-3, -1e4],
        desirable: vec![1.0, 1.0, 0.0, 0.0],
        kl: 500.0,
    };
    for name in ["kto", "apo-zero-unpaired"] {
        let objective = build_unpaired(name, &serde_json::Map::new()).unwrap();
        let result = differentiate_answers(objective.as_ref(), &answers, &Device::flex()).unwrap();
        assert!(result.losses.iter().all(|loss| (0.0..=1.0).contains(loss)));
        assert!(result.d_policy[..2].iter().all(|d| *d <= 0.0) && result.d_policy[2..].iter().all(|d| *d >= 0.0));
    }
}

#[test]
fn unpaired_formulas_and_finite_differences() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let answers = AnswerNumbers {
        policy: vec![-10.0, -20.0, -31.0, -7.0],
        reference: vec![-12.0, -19.0, -30.5, -9.0],
        desirable: vec![1.0, 0.0, 1.0, 0.0],
        kl: 0.8,
    };
    let options = json!({"beta": 0.5, "desirable-weight": 1.3, "undesirable-weight": 0.7});
    let extreme = AnswerNumbers {
        policy: vec![-9500.0, -9500.0, -40.0, -540.0],
        reference: vec![-10000.0, -10000.0, -540.0, -40.0],
        kl: 120.0,
        ..answers.clone()
    };
    for (name, kl, answers) in [
        ("kto", 0.8, &answers),
        ("apo-zero-unpaired", 0.0, &answers),
        ("kto", 120.0, &extreme),
        ("apo-zero-unpaired", 0.0, &extreme),
    ] {
        let objective = build_unpaired(name, options.as_object().unwrap()).unwrap();
        let run =
            |answers: &AnswerNumbers| differentiate_answers(objective.as_ref(), answers, &Device::flex()).unwrap();
        let result = run(answers);
        for row in 0..4 {
            let ratio = answers.policy[row] - answers.reference[row];
            let expected = match answers.desirable[row] == 1.0 {
                true => 1.3 * (1.0 - sigmoid(0.5 * (ratio - kl))),
                false => 0.7 * (1.0 - sigmoid(0.5 * (kl - ratio))),
            };
            assert!((result.losses[row] - expected).abs() < 1e-12);
            let moved = |by: f64| {
                let mut answers = answers.clone();
                answers.policy[row] += by;
                run(&answers).losses[row]
            };
            let derivative = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((derivative - result.d_policy[row]).abs() < 1e-8);
        }
    }
}

#[test]
fn the_wrong_shape_is_an_error() {
    let error = objective::build("kto", &serde_json::Map::new()).unwrap_err();
    assert_eq!(error.to_string(), "objective `kto` takes unpaired data, not paired data");
    assert!(matches!(build_list("dpo", &serde_json::Map::new()), Err(CoreError::WrongShape { .. })));
    let empty = ListNumbers { policy: vec![], reference: vec![], gains: vec![] };
    let objective = build_list("opo", &serde_json::Map::new()).unwrap();
    assert!(differentiate_lists(objective.as_ref(), &empty, &Device::flex()).is_err());
}
