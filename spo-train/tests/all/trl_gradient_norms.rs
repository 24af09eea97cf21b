//! The gradient norm of each of TRL's 25 losses, through the whole model.

use crate::common::{dataset, golden, logps, model};
use serde_json::{Map, Value, json};
use spo_core::{Objective, Sides};
use spo_data::{Dataset, Group, PackedBatch, PairRef};
use spo_model::device;
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate_scored};
use spo_train::task::{PairInputs, PreferenceTask, StepTally, Task};

/// TRL's arguments as an objective and its options.
fn objective(args: &Value) -> (String, Map<String, Value>) {
    let types = args["loss_type"].as_array().unwrap();
    if types.len() > 1 {
        let terms = types.iter().zip(args["loss_weights"].as_array().unwrap());
        let term = |(name, weight)| json!({ "name": name, "weight": weight, "beta": args["beta"] });
        let terms: Vec<Value> = terms.map(term).collect();
        return ("weighted-sum".into(), [("terms".to_string(), json!(terms))].into_iter().collect());
    }
    let mut options: Map<String, Value> = [("beta".to_string(), args["beta"].clone())].into_iter().collect();
    for (theirs, ours) in [
        ("label_smoothing", "label-smoothing"),
        ("ld_alpha", "ld-alpha"),
        ("f_alpha_divergence_coef", "divergence-alpha"),
        ("use_weighting", "wpo"),
    ] {
        if let Some(value) = args.get(theirs) {
            options.insert(ours.into(), value.clone());
        }
    }
    if let Some(divergence) = args["f_divergence_type"].as_str() {
        options.insert("divergence".into(), divergence.trim_end_matches("_divergence").replace('_', "-").into());
    }
    (types[0].as_str().unwrap().into(), options)
}

/// The reference's log-probs summed as the objective wants them.
fn inputs(arch: &str, data: &Dataset, pairs: &[PairRef], objective: &dyn Objective) -> PairInputs {
    let reference = model(&format!("{arch}-tiny-ref"));
    let whole = logps(&reference, data, pairs);
    let Some(alpha) = objective.needs().length_desensitising else {
        return PairInputs::new(data, pairs, vec![whole]);
    };
    let short = logps(&reference, &as_long_as_the_shorter(data), pairs);
    let mix = |whole: &[f64], short: &[f64]| whole.iter().zip(short).map(|(w, s)| s + alpha * (w - s)).collect();
    let sides = Sides { chosen: mix(&whole.chosen, &short.chosen), rejected: mix(&whole.rejected, &short.rejected) };
    let mut inputs = PairInputs::new(data, pairs, vec![sides]);
    inputs.numbers.length_desensitised = Some(alpha);
    inputs
}

/// Both answers of each example cut to the length of the shorter one.
fn as_long_as_the_shorter(data: &Dataset) -> Dataset {
    let mut data = data.clone();
    for example in &mut data.examples {
        let shortest = example.answers.iter().map(|answer| answer.len()).min().unwrap();
        example.answers.iter_mut().for_each(|answer| *answer = answer[..shortest].into());
    }
    data
}

#[test]
fn gradient_norms_equal_trl() {
    for arch in ["llama", "qwen3"] {
        let golden = golden(arch);
        let data = dataset(&golden);
        let pairs = data.pairs("preference");
        let policy = model(&format!("{arch}-tiny-policy"));
        let cases = golden["losses"].as_object().unwrap();
        assert_eq!(cases.len(), 25);
        let mut worst: (f64, f64) = (0.0, 0.0);
        for (name, case) in cases {
            let (objective, options) = objective(&case["args"]);
            let objective = spo_core::objective::build(&objective, &options).unwrap();
            let inputs = inputs(arch, &data, &pairs, objective.as_ref());
            let task = PreferenceTask::new(&data, pairs.clone(), objective, inputs, device::cpu()).unwrap();
            let rows: Vec<usize> = (0..task.len()).collect();
            let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
            let batch = PackedBatch::new(&groups);
            let options = TapeOptions {
                recompute: Recompute::None,
                trainable: Trainable::All,
                head: Default::default(),
                router_loss: 0.0,
            };
            let mut figures = StepTally { weight: 4.0, ..Default::default() };
            let mut gradients = Gradients::default();
            differentiate_scored(&policy, &batch, &options, &mut gradients, |scored| {
                task.logp_gradients(&rows, &batch, scored, &mut figures)
            })
            .unwrap();
            let (loss, norm) = (case["loss"].as_f64().unwrap(), case["grad_norm"].as_f64().unwrap());
            let found = (figures.loss / figures.weight, gradients.norm());
            let errors = ((found.0 - loss).abs() / loss.abs(), (found.1 - norm).abs() / norm);
            // The forward KL takes the exponential of a log-ratio, and with it of both programs' rounding.
            let tolerance = if name == "f_forward_kl" { 2e-4 } else { 2e-5 };
            assert!(errors.0 <= tolerance, "{arch} {name}: loss {} expected {loss}", found.0);
            assert!(errors.1 <= tolerance, "{arch} {name}: norm {} expected {norm}", found.1);
            worst = (worst.0.max(errors.0), worst.1.max(errors.1));
            if let Some(each) = case.get("grad_norm_per_param") {
                for (parameter, expected) in each.as_object().unwrap() {
                    let path = gradients.names().find(|path| policy.spec().layout.name(path) == *parameter).unwrap();
                    let found = gradients.get(path).unwrap().square().sum().into_scalar::<f32>().sqrt();
                    let expected = expected.as_f64().unwrap();
                    let error = (f64::from(found) - expected).abs() / expected;
                    assert!(error <= 1e-4, "{arch} {name} {parameter}: {found} expected {expected}");
                }
            }
        }
        println!("{arch}: largest relative errors, loss {:.1e}, gradient norm {:.1e}", worst.0, worst.1);
    }
}
