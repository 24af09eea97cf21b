//! The gradient norm of every TRL loss that the trainer has the inputs for, through the whole model.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{dataset, golden, logps, model};
use serde_json::{Map, Value, json};
use spo_data::{Group, PackedBatch};
use spo_model::device;
use spo_train::gradients::{Gradients, Trainable};
use spo_train::tape::{TapeOptions, differentiate};
use spo_train::task::{PreferenceTask, Task, WindowTally};

/// Losses that need weights of single tokens, which the trainer does not give; it says so.
const REFUSED: &[&str] = &["ld_alpha0", "ld_alpha0.5", "wpo"];

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

#[test]
fn gradient_norms_equal_trl() {
    for arch in ["llama", "qwen3"] {
        let golden = golden(arch);
        let data = dataset(&golden);
        let pairs = data.pairs("preference");
        let reference = logps(&model(&format!("{arch}-tiny-ref")), &data, &pairs);
        let policy = model(&format!("{arch}-tiny-policy"));
        let mut refused = vec![];
        for (name, case) in golden["losses"].as_object().unwrap() {
            let (objective, options) = objective(&case["args"]);
            let objective = spo_core::objective::build(&objective, &options).unwrap();
            let task = PreferenceTask::new(&data, pairs.clone(), objective, vec![reference.clone()], device::cpu());
            let Ok(task) = task else {
                refused.push(name.as_str());
                continue;
            };
            let rows: Vec<usize> = (0..task.len()).collect();
            let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
            let batch = PackedBatch::new(&groups);
            let options = TapeOptions {
                recompute: spo_train::config::spec::Recompute::None,
                trainable: Trainable::All,
                head: Default::default(),
            };
            let mut window = WindowTally { weight: 4.0, ..Default::default() };
            let mut gradients = Gradients::default();
            differentiate(&policy, &batch, &options, &mut gradients, |logps| {
                task.slopes(&rows, &batch, logps, &mut window)
            })
            .unwrap();
            let (loss, norm) = (case["loss"].as_f64().unwrap(), case["grad_norm"].as_f64().unwrap());
            let found = (window.loss / window.weight, gradients.norm());
            assert!((found.0 - loss).abs() <= 2e-4 * loss.abs(), "{arch} {name}: loss {} expected {loss}", found.0);
            assert!((found.1 - norm).abs() <= 1e-3 * norm, "{arch} {name}: norm {} expected {norm}", found.1);
        }
        refused.sort_unstable();
        assert_eq!(refused, REFUSED, "{arch}");
    }
}
