//! Losses on rewards: closed form, finite differences, TRL's numbers.

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use spo_core::objective::{Critique, RewardGradient, RewardNumbers, build_reward, differentiate_rewards};
use spo_core::{CoreError, loss_table};

/// One side of some numbers.
type Side = fn(&mut RewardNumbers) -> &mut Vec<f64>;

fn pairs() -> RewardNumbers {
    RewardNumbers {
        chosen: vec![0.3, -1.2, 2.0, 40.0, -600.0, 0.7],
        rejected: vec![-0.4, 0.9, 2.0, -30.0, 500.0, 0.1],
        strengths: Some(vec![0.5, 2.0, 0.0, 3.0, 1.0, 0.0]),
        ties: vec![0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
    }
}

fn run(options: &Value, pairs: &RewardNumbers) -> RewardGradient {
    let objective = build_reward("reward", options.as_object().unwrap()).unwrap();
    differentiate_rewards(objective.as_ref(), pairs, &Device::flex()).unwrap()
}

#[test]
fn closed_form_and_finite_differences() {
    for options in [
        json!({}),
        json!({"margin": true}),
        json!({"tie-weight": 0.5, "centre": 0.01}),
        json!({"margin": true, "tie-weight": 2.0, "centre": 0.1, "critique": true}),
    ] {
        let (pairs, of) = (pairs(), |key: &str| options[key].as_f64().unwrap_or(0.0));
        let found = run(&options, &pairs);
        for row in 0..pairs.chosen.len() {
            let (chosen, rejected, tie) = (pairs.chosen[row], pairs.rejected[row], pairs.ties[row]);
            let margin = if options["margin"] == json!(true) { pairs.strengths.as_ref().unwrap()[row] } else { 0.0 };
            let x = margin - (chosen - rejected);
            let softplus = if x > 30.0 { x } else { x.exp().ln_1p() };
            let expected = (1.0 - tie) * softplus
                + tie * of("tie-weight") * (chosen - rejected).powi(2)
                + of("centre") * (chosen + rejected).powi(2);
            assert!((found.losses[row] - expected).abs() <= 1e-12 * expected.max(1.0), "{options} {row}");
            let sides: [(Side, f64); 2] = [
                (|pairs| &mut pairs.chosen, found.d_chosen[row]),
                (|pairs| &mut pairs.rejected, found.d_rejected[row]),
            ];
            for (side, derivative) in sides {
                let moved = |by: f64| {
                    let mut pairs = pairs.clone();
                    side(&mut pairs)[row] += by;
                    run(&options, &pairs).losses[row]
                };
                let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                assert!(
                    (difference - derivative).abs() <= 1e-6 * derivative.abs().max(1.0),
                    "{options} {row}: {difference} {derivative}"
                );
            }
        }
    }
}

#[test]
fn losses_of_trl() {
    let path = format!("{}/../fixtures/reward/trl.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let floats = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let losses = golden["losses"].as_array().unwrap();
    assert!(losses.len() >= 4);
    for case in losses {
        let pairs = RewardNumbers {
            chosen: floats(&case["chosen"]),
            rejected: floats(&case["rejected"]),
            strengths: case["margin"].is_array().then(|| floats(&case["margin"])),
            ties: vec![0.0; floats(&case["chosen"]).len()],
        };
        let options = json!({"margin": case["margin"].is_array(), "centre": case["centre"]});
        let found = run(&options, &pairs).losses;
        let (mean, expected) = (found.iter().sum::<f64>() / found.len() as f64, case["loss"].as_f64().unwrap());
        assert!((mean - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{case}: {mean}");
    }
}

#[test]
fn what_a_loss_on_rewards_lacks() {
    let build = |options: Value| build_reward("reward", options.as_object().unwrap());
    let objective = build(json!({"margin": true})).unwrap();
    let without = RewardNumbers { strengths: None, ..pairs() };
    let error = differentiate_rewards(objective.as_ref(), &without, &Device::flex()).unwrap_err();
    assert!(matches!(&error, CoreError::MissingInput { input, .. } if input == "strengths"), "{error}");
    let plain = build(json!({})).unwrap();
    let not_finite = RewardNumbers { chosen: vec![f64::NAN; 6], ..pairs() };
    assert!(
        differentiate_rewards(plain.as_ref(), &not_finite, &Device::flex()).unwrap_err().to_string().contains("NaN")
    );
    let short = RewardNumbers { ties: vec![], ..pairs() };
    assert!(differentiate_rewards(plain.as_ref(), &short, &Device::flex()).is_err());
    assert!(build(json!({"centre": -1.0})).unwrap_err().to_string().contains("`centre`"));
    assert!(
        build_reward("dpo", &Map::new())
            .unwrap_err()
            .to_string()
            .contains("takes paired data, not pairwise reward data")
    );
    let with = build(json!({"critique": true})).unwrap();
    assert_eq!((plain.critique(), with.critique()), (None, Some(Critique { weight: 1.0, max_tokens: 256 })));
}

#[test]
fn a_table_of_rewards() {
    let rows = "{\"chosen_reward\": 1.0, \"rejected_reward\": 1.0}\n{\"chosen_reward\": 3.0, \"rejected_reward\": 1.0, \"tie\": null}";
    let table = loss_table("reward", &Map::new(), rows, &Device::flex()).unwrap();
    assert!((table["per_pair"][0].as_f64().unwrap() - 2f64.ln()).abs() < 1e-12);
    assert_eq!((&table["margin"], &table["gradient"][0]["chosen_reward"]), (&json!([0.0, 2.0]), &json!(-0.5)));
    let error = loss_table("reward", &Map::new(), "{\"chosen_reward\": 1.0}", &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("rejected_reward"), "{error}");
}
