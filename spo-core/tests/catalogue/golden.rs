//! Losses and metrics of TRL 1.16 on its own log-probabilities.

use serde_json::{Value, json};
use spo_core::{PairNumbers, Sides};

use crate::batch::{build, run};

fn load(architecture: &str) -> Value {
    let path = format!("{}/../fixtures/trl/{architecture}-tiny.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn sides(values: Vec<f64>) -> Sides<Vec<f64>> {
    let rejected = values[4..].to_vec();
    Sides { chosen: values[..4].to_vec(), rejected }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sums of token log-probabilities with weight `alpha` beyond the other answer's length.
fn desensitised(golden: &Value, model: &str, alpha: f64) -> Vec<f64> {
    let lengths = lengths(golden);
    let rows = golden[model]["token_logps"].as_array().unwrap();
    let masks = golden["batch"]["completion_mask"].as_array().unwrap();
    (0..8)
        .map(|row| {
            let (own, other) = (lengths[row] as usize, lengths[(row + 4) % 8] as usize);
            let mask = &floats(&masks[row])[1..];
            let logps = floats(&rows[row]).into_iter().zip(mask).filter(|(_, keep)| **keep > 0.0).map(|(logp, _)| logp);
            let weights = spo_core::logprob::weight::desensitised(own, other, alpha);
            logps.zip(weights).map(|(logp, weight)| logp * weight).sum()
        })
        .collect()
}

fn lengths(golden: &Value) -> Vec<f64> {
    let masks = golden["batch"]["completion_mask"].as_array().unwrap();
    masks.iter().map(|mask| floats(mask).iter().sum()).collect()
}

fn pairs(golden: &Value, args: &Value) -> PairNumbers {
    let logps = |model: &str| match args["ld_alpha"].as_f64() {
        Some(alpha) => desensitised(golden, model, alpha),
        None => floats(&golden[model]["seq_logps"]),
    };
    let policy = sides(logps("policy"));
    let mut pairs = PairNumbers::new(policy.chosen, policy.rejected);
    pairs.reference = Some(sides(logps("ref")));
    pairs.lengths = Some(sides(lengths(golden)));
    pairs.length_desensitised = args["ld_alpha"].as_f64();
    if args["use_weighting"].as_bool() == Some(true) {
        // The weight needs whole distributions, which the file does not have: take it from TRL's own two losses.
        let alone = |name: &str| floats(&golden["losses"][name]["loss_of_each_pair_alone"]);
        let weights: Vec<f64> = alone("wpo").iter().zip(alone("sigmoid")).map(|(w, s)| (w / s).ln()).collect();
        pairs.on_policy = Some(Sides { rejected: vec![0.0; 4], chosen: weights });
    }
    pairs
}

/// TRL's arguments as an objective.
fn spec(args: &Value) -> (String, Value) {
    let types = args["loss_type"].as_array().unwrap();
    let mut options = json!({});
    if types.len() == 1 {
        let name = types[0].as_str().unwrap();
        options["beta"] = args["beta"].clone();
        for (theirs, ours) in [
            ("label_smoothing", "label-smoothing"),
            ("ld_alpha", "ld-alpha"),
            ("f_alpha_divergence_coef", "divergence-alpha"),
        ] {
            if !args[theirs].is_null() {
                options[ours] = args[theirs].clone();
            }
        }
        if args["use_weighting"].as_bool() == Some(true) {
            options["wpo"] = json!(true);
        }
        if let Some(divergence) = args["f_divergence_type"].as_str() {
            let name = divergence.trim_end_matches("_divergence").replace('_', "-");
            options["divergence"] = json!(name);
        }
        return (name.into(), options);
    }
    let terms = types.iter().zip(args["loss_weights"].as_array().unwrap());
    let terms: Vec<Value> =
        terms.map(|(name, weight)| json!({"name": name, "weight": weight, "beta": args["beta"]})).collect();
    ("weighted-sum".into(), json!({"terms": terms}))
}

fn one(pairs: &PairNumbers, row: usize) -> PairNumbers {
    let pick = |sides: &Sides<Vec<f64>>| Sides { chosen: vec![sides.chosen[row]], rejected: vec![sides.rejected[row]] };
    let mut alone = PairNumbers::new(vec![pairs.policy_chosen[row]], vec![pairs.policy_rejected[row]]);
    alone.reference = pairs.reference.as_ref().map(pick);
    alone.length_desensitised = pairs.length_desensitised;
    alone.lengths = pairs.lengths.as_ref().map(pick);
    alone.on_policy = pairs.on_policy.as_ref().map(pick);
    alone
}

/// What the spacing of f32 log-probabilities does to a loss or reward: two steps on each of the four, times the derivatives.
fn spacing(logp: f64, derivative: f64) -> f64 {
    logp.abs() * derivative.abs() * 4.0 * f64::from(f32::EPSILON)
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64, spacing: f64) {
    let tolerance = 1e-5 * expected.abs() + spacing;
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, TRL {expected}, tolerance {tolerance:e}");
}

fn check(architecture: &str) {
    let golden = load(architecture);
    let losses = golden["losses"].as_object().unwrap();
    assert_eq!(losses.len(), 25);
    for (name, case) in losses {
        let args = &case["args"];
        let (objective, options) = spec(args);
        let objective = build(&objective, options);
        let pairs = pairs(&golden, args);
        let result = run(objective.as_ref(), &pairs);
        let noise = |result: &spo_core::PairGradient, pairs: &PairNumbers, row: usize| {
            spacing(pairs.policy_chosen[row], result.d_chosen[row])
                + spacing(pairs.policy_rejected[row], result.d_rejected[row])
        };
        let margins =
            result.chosen_reward.iter().zip(&result.rejected_reward).map(|(chosen, rejected)| chosen - rejected);
        let margins: Vec<f64> = margins.collect();
        let right: Vec<f64> = margins.iter().map(|margin| f64::from(*margin > 0.0)).collect();
        let mean_noise = (0..4).map(|row| noise(&result, &pairs, row)).sum::<f64>() / 4.0;
        let loss = case["loss"].as_f64().unwrap();
        close(&format!("{architecture} {name}"), mean(&result.losses), loss, mean_noise);
        let beta = args["beta"].as_f64().unwrap();
        let (chosen, rejected) = (mean(&pairs.policy_chosen), mean(&pairs.policy_rejected));
        for (key, value, noise) in [
            ("rewards/chosen", &result.chosen_reward, spacing(chosen, beta)),
            ("rewards/rejected", &result.rejected_reward, spacing(rejected, beta)),
            ("rewards/margins", &margins, spacing(chosen + rejected, beta)),
            ("rewards/accuracies", &right, 0.0),
            ("logps/chosen", &pairs.policy_chosen, 0.0),
            ("logps/rejected", &pairs.policy_rejected, 0.0),
        ] {
            // A weighted sum reports its first term, as TRL does.
            let expected = case["metrics"][key].as_f64().unwrap();
            close(&format!("{architecture} {name} {key}"), mean(value), expected, noise);
        }
        for (row, expected) in floats(&case["loss_of_each_pair_alone"]).into_iter().enumerate() {
            let pair = one(&pairs, row);
            let found = run(objective.as_ref(), &pair);
            close(&format!("{architecture} {name}, pair {row}"), found.losses[0], expected, noise(&found, &pair, 0));
        }
    }
}

#[test]
fn llama() {
    check("llama");
}

#[test]
fn qwen3() {
    check("qwen3");
}

#[test]
fn kto_at_the_first_step() {
    use burn::tensor::Device;
    use spo_core::objective::{AnswerNumbers, build_unpaired, differentiate_answers};
    for architecture in ["llama", "qwen3"] {
        let golden = load(architecture);
        let answers = AnswerNumbers {
            policy: floats(&golden["policy"]["seq_logps"]),
            reference: floats(&golden["ref"]["seq_logps"]),
            desirable: [[1.0; 4], [0.0; 4]].concat(),
            kl: golden["kto_b8"]["log"][0]["kl"].as_f64().unwrap(),
        };
        for (name, key) in [("kto", "kto_b8"), ("apo-zero-unpaired", "kto_apo_zero_unpaired_b8")] {
            let objective = build_unpaired(name, &serde_json::Map::new()).unwrap();
            let result = differentiate_answers(objective.as_ref(), &answers, &Device::flex()).unwrap();
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            close(name, mean(&result.losses), golden[key]["loss"][0].as_f64().unwrap(), spacing(200.0, 0.025));
            close(
                name,
                mean(&result.reward[..4]),
                golden[key]["log"][0]["rewards/chosen"].as_f64().unwrap(),
                spacing(200.0, 0.1),
            );
            close(
                name,
                mean(&result.reward[4..]),
                golden[key]["log"][0]["rewards/rejected"].as_f64().unwrap(),
                spacing(200.0, 0.1),
            );
        }
    }
}
