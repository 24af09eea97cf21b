//! One gradient in several ways: packed or padded, prompts shared or not, on any number of threads.

use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch};
use spo_model::family::FAMILIES;
use spo_model::lora::LoraSpec;
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};
use std::path::Path;

/// Prompt and answers, of unlike lengths.
type Pair = (Vec<u32>, [Vec<u32>; 2]);

fn pairs() -> Vec<Pair> {
    let tokens = |from: usize, count: usize| (from..from + count).map(|i| ((i * 37 + 11) % 160) as u32).collect();
    let shapes = [(30, 9, 21), (5, 40, 3), (61, 2, 17), (12, 12, 12), (1, 1, 70)];
    let pair = |(index, (prompt, chosen, rejected))| {
        let at = 100 * index;
        (tokens(at, prompt), [tokens(at + 7, chosen), tokens(at + 50, rejected)])
    };
    shapes.into_iter().enumerate().map(pair).collect()
}

/// The built-in model and the tiny one of every family.
fn models() -> Vec<(String, CausalLm)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let families = std::fs::read_dir(root.join("fixtures/families")).unwrap().map(|entry| entry.unwrap().path());
    let mut dirs: Vec<_> = families.chain([root.join("spo-cli/assets/stories260K")]).collect();
    dirs.sort();
    let load = |dir: std::path::PathBuf| {
        let name = dir.file_name().unwrap().to_str().unwrap().to_string();
        (name, CausalLm::from_dir(&dir, None, &device::cpu()).unwrap())
    };
    let models: Vec<(String, CausalLm)> = dirs.into_iter().map(load).collect();
    for family in FAMILIES {
        assert!(models.iter().any(|(_, model)| model.spec().family == family.name), "no tiny {}", family.name);
    }
    models
}

/// A made-up gradient with respect to each answer's log-prob, as a loss would give it.
fn logp_gradient(answer: usize) -> f32 {
    (answer as f32 * 1.7 + 0.4).sin()
}

/// What a micro-batch gives: the log-prob of each answer, and the gradients.
struct Step {
    logps: Vec<f64>,
    gradients: Gradients,
}

/// A batch whose answers are in the order of [`pairs`]; the first `lengths[i]` tokens of answer `i` count.
fn step(model: &CausalLm, groups: &[Group], lengths: &[usize], trainable: Trainable, head: &HeadOptions) -> Step {
    let batch = PackedBatch::new(groups);
    let options = TapeOptions { recompute: Recompute::None, trainable, head: head.clone(), router_loss: 0.0 };
    let (mut gradients, mut sums) = (Gradients::default(), vec![]);
    differentiate(model, &batch, &options, &mut gradients, |logps| {
        let mut logp_gradients = vec![0.0; logps.len()];
        for (answer, (rows, &length)) in batch.sequences.iter().zip(lengths).enumerate() {
            let rows = rows.start..rows.start + length;
            logp_gradients[rows.clone()].fill(logp_gradient(answer));
            sums.push(logps[rows].iter().map(|logp| f64::from(*logp)).sum());
        }
        Ok::<_, std::convert::Infallible>(logp_gradients)
    })
    .unwrap();
    Step { logps: sums, gradients }
}

fn lengths(pairs: &[Pair]) -> Vec<usize> {
    pairs.iter().flat_map(|(_, answers)| answers.iter().map(Vec::len)).collect()
}

fn shared(pairs: &[Pair]) -> Vec<Group<'_>> {
    pairs
        .iter()
        .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
        .collect()
}

fn packed(model: &CausalLm, trainable: Trainable) -> Step {
    let pairs = pairs();
    step(model, &shared(&pairs), &lengths(&pairs), trainable, &HeadOptions::default())
}

/// Log-probs and every parameter's gradient agree to `tolerance`, relative to their size. A gradient that is 0 but for
/// rounding, as that of a key's bias, is held against a thousandth of all gradients.
#[track_caller]
fn assert_equal(what: &str, found: &Step, expected: &Step, tolerance: f64) {
    assert_eq!(found.logps.len(), expected.logps.len());
    for (found, expected) in found.logps.iter().zip(&expected.logps) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{what}: {found}, expected {expected}");
    }
    assert!(expected.gradients.names().eq(found.gradients.names()), "{what}");
    let floor = 1e-3 * expected.gradients.norm();
    for name in expected.gradients.names() {
        let [a, b] = [found, expected].map(|step| step.gradients.get(name).unwrap());
        let norm = |x: burn::tensor::Tensor<1>| x.square().sum().into_scalar::<f64>().sqrt();
        let (error, size) = (norm(a - b.clone()), norm(b).max(floor));
        assert!(error <= tolerance * size, "{what} {name}: differs by {error:e} at size {size:e}");
    }
}

#[test]
fn packed_prompts_equal_padded_rows_of_their_own() {
    let pairs = pairs();
    let longest = pairs.iter().flat_map(|(prompt, answers)| answers.iter().map(|answer| prompt.len() + answer.len()));
    let longest = longest.max().unwrap();
    // One row for each answer, all of one length, as trainers without packing lay them out.
    let pad = |(prompt, answers): &Pair| {
        answers.clone().map(|mut answer| {
            answer.resize(longest - prompt.len(), 3);
            answer
        })
    };
    let padded: Vec<Pair> = pairs.iter().map(|pair| (pair.0.clone(), pad(pair))).collect();
    let rows: Vec<Group> = padded
        .iter()
        .flat_map(|(prompt, answers)| answers.iter().map(|answer| Group { prompt, answers: vec![answer] }))
        .collect();
    for (name, model) in models() {
        let padded = step(&model, &rows, &lengths(&pairs), Trainable::All, &HeadOptions::default());
        assert_equal(&name, &packed(&model, Trainable::All), &padded, 1e-5);
    }
}

#[test]
fn shared_prompts_equal_prompts_of_their_own() {
    let pairs = pairs();
    let rows: Vec<Group> = pairs
        .iter()
        .flat_map(|(prompt, answers)| answers.iter().map(|answer| Group { prompt, answers: vec![answer] }))
        .collect();
    for (name, model) in models() {
        let unshared = step(&model, &rows, &lengths(&pairs), Trainable::All, &HeadOptions::default());
        assert_equal(&name, &packed(&model, Trainable::All), &unshared, 1e-5);
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    for (name, model) in models() {
        let pairs = pairs();
        let (mut logps, mut gradients) = (vec![], Gradients::default());
        for (index, group) in shared(&pairs).into_iter().enumerate() {
            let batch = PackedBatch::new(&[group]);
            let options = TapeOptions {
                recompute: Recompute::None,
                trainable: Trainable::All,
                head: Default::default(),
                router_loss: 0.0,
            };
            differentiate(&model, &batch, &options, &mut gradients, |of_rows| {
                let mut logp_gradients = vec![0.0; of_rows.len()];
                for (side, rows) in batch.sequences.iter().enumerate() {
                    logp_gradients[rows.clone()].fill(logp_gradient(2 * index + side));
                    logps.push(of_rows[rows.clone()].iter().map(|logp| f64::from(*logp)).sum());
                }
                Ok::<_, std::convert::Infallible>(logp_gradients)
            })
            .unwrap();
        }
        assert_equal(&name, &Step { logps, gradients }, &packed(&model, Trainable::All), 1e-5);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let on = |threads, model: &CausalLm, trainable| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| packed(model, trainable))
    };
    // Wide enough for every operation to be split.
    let config = r#"{"model_type": "llama", "vocab_size": 4000, "hidden_size": 128, "intermediate_size": 352,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5}"#;
    let wide = CausalLm::random(&ModelSpec::from_json(config).unwrap(), 3, &device::cpu());
    let lora = LoraSpec::new(8, 16.0);
    let adapted = wide.clone().with_lora(&lora, 5).unwrap();
    let mut all: Vec<_> = models().into_iter().map(|(name, model)| (name, model, Trainable::All)).collect();
    all.push(("wide".into(), wide, Trainable::All));
    all.push(("adapted".into(), adapted, Trainable::Adapters));
    for (name, model, trainable) in all {
        let one = on(1, &model, trainable);
        for threads in [2, 3, 8] {
            assert_equal(&format!("{name}, {threads} threads"), &on(threads, &model, trainable), &one, 1e-6);
        }
    }
}

#[test]
fn chunks_of_the_head_add_up() {
    let pairs = pairs();
    for (name, model) in models() {
        let chunks = HeadOptions { chunk_rows: 37, ..HeadOptions::default() };
        let chunked = step(&model, &shared(&pairs), &lengths(&pairs), Trainable::All, &chunks);
        assert_equal(&name, &chunked, &packed(&model, Trainable::All), 1e-5);
    }
}
