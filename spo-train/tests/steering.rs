//! One policy for many users: gradients of everything that steers, and short runs.
#![allow(clippy::unwrap_used, missing_docs)]

mod built_in;
mod left;

use built_in::{TEXT, assets, tables};
use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use left::{assert_same, left};
use spo_data::{Group, PackedBatch};
use spo_model::decoder::PackedInputs;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Path as Route, Sampling};
use spo_model::lora::{LoraSpec, SavedModules, load_adapter};
use spo_model::parameters::{self, replace};
use spo_model::steering::{Contexts, SteeringSpec, is_steering};
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, Sink};
use spo_train::forecast::Forecast;
use spo_train::policy::logps::LogpCache;
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};
use spo_train::{Prepared, TrainError, prepare, resume, run};
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const WIDTH: usize = 8;

/// Numbers that look random.
fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|index| ((index as f64 + 1.0) * 12.9898 + seed).sin() * 0.4).collect()
}

fn seed_of(path: &str) -> f64 {
    path.bytes().map(f64::from).sum()
}

/// A tiny f64 model with films that do something and adapters.
fn model() -> CausalLm {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true}"#,
    );
    let lora = LoraSpec::new(2, 4.0);
    let steering = SteeringSpec { width: WIDTH, heads: 2, contexts: 4 };
    let model = CausalLm::random(&spec.unwrap(), 7, &device::cpu()).with_lora(&lora, 3).unwrap();
    let model = model.with_steering(&steering, 5);
    let model = replace(model, "", |parameter| {
        let value = parameter.value.cast(DType::F64);
        let [count] = value.dims();
        // At the start films and encoders' biases would hide mistakes.
        let moved = is_steering(&parameter.path) || parameter.path.ends_with("lora.b");
        match moved {
            true => value + flat(numbers(count, seed_of(&parameter.path))),
            false => value,
        }
    });
    model.unsteered()
}

fn flat(values: Vec<f64>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (&device::cpu(), DType::F64))
}

/// Three users with 2, 0 and 3 contexts.
fn contexts() -> Contexts {
    let pairs = flat(numbers(5 * 32, 1.0)).reshape([5, 32]);
    Contexts { pairs, sets: vec![2, 0, 3] }
}

fn groups() -> [Group<'static>; 4] {
    let group = |prompt: &'static [u32], answers: [&'static [u32]; 2]| Group { prompt, answers: answers.to_vec() };
    [
        group(&[1, 2, 3], [&[4, 5, 6], &[7]]),
        group(&[8], [&[9, 10], &[11, 12]]),
        group(&[1, 20, 21], [&[22], &[23, 24, 25]]),
        group(&[3, 3], [&[4, 4], &[5]]),
    ]
}

/// The user of each token of a batch, where group `i` is of user `users[i]`.
fn rows(batch: &PackedBatch, users: &[i32]) -> Vec<i32> {
    batch.groups.iter().zip(users).flat_map(|(group, user)| std::iter::repeat_n(*user, group.tokens())).collect()
}

/// The gradient of the loss with respect to the log-prob of each token: numbers that f32 holds.
fn slope(row: usize) -> f64 {
    [0.5, -0.25, 1.0, -0.75, 0.125][row % 5]
}

/// `Σ slope · log p` in f64.
fn loss(model: &CausalLm, batch: &PackedBatch) -> f64 {
    let inputs = PackedInputs::new(batch, model.spec(), &device::cpu());
    let logps = activation::log_softmax(model.logits(model.hidden(&inputs)), 1);
    let targets: Tensor<2, Int> = inputs.targets.unsqueeze_dim(1);
    let logps: Vec<f64> = logps.gather(1, targets).into_data().iter::<f64>().collect();
    logps.iter().enumerate().map(|(row, logp)| slope(row) * logp).sum()
}

#[test]
fn gradients_of_all_that_steers_equal_finite_differences() {
    let (model, users) = (model(), [0, 1, 2, 0]);
    let batch = PackedBatch::new(&groups());
    let (contexts, rows) = (contexts(), rows(&batch, &users));
    let at = |model: &CausalLm| loss(&model.clone().steered_by(&contexts, Some(&rows)), &batch);
    let trainable = Trainable::AdaptersAndSteering(SavedModules::default());
    let gradients = |recompute| {
        let options = TapeOptions { recompute, trainable, ..TapeOptions::default() };
        let mut gradients = Gradients::default();
        let steered = model.clone().steered_by(&contexts, Some(&rows));
        differentiate(&steered, &batch, &options, &mut gradients, |logps| {
            Ok::<_, Infallible>((0..logps.len()).map(|row| slope(row) as f32).collect())
        })
        .unwrap();
        gradients
    };
    let found = gradients(Recompute::None);
    let again = gradients(Recompute::Blocks);
    let steering: Vec<&str> = found.names().filter(|name| is_steering(name)).collect();
    // Two films of four parameters each; a pair's layer, four of the attention, two behind it.
    assert_eq!(steering.len(), 2 * 4 + 2 * 7, "{steering:?}");
    assert!(found.names().all(|name| name != "z"));
    for name in found.names() {
        let gradient: Vec<f64> = found.get(name).unwrap().into_data().iter::<f64>().collect();
        let recomputed: Vec<f64> = again.get(name).unwrap().into_data().iter::<f64>().collect();
        assert_eq!(gradient, recomputed, "{name}");
        for element in (0..gradient.len()).step_by(gradient.len().div_ceil(5)) {
            let moved = |by: f64| {
                at(&replace(model.clone(), "", |parameter| {
                    if parameter.path != name {
                        return parameter.value;
                    }
                    let mut values: Vec<f64> = parameter.value.into_data().iter::<f64>().collect();
                    values[element] += by;
                    flat(values)
                }))
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let error = (gradient[element] - expected).abs();
            assert!(error <= 2e-6 * expected.abs().max(1.0), "{name} {element}: {} {expected}", gradient[element]);
        }
    }
}

#[test]
fn rows_of_several_users_are_those_of_each_user_alone() {
    let (model, groups, contexts) = (model(), groups(), contexts());
    let batch = PackedBatch::new(&groups);
    let together = model.clone().steered_by(&contexts, Some(&rows(&batch, &[0, 1, 2, 0])));
    let together = together.token_logps(&batch, &Default::default());
    let firsts = [0..2, 2..2, 2..5];
    for (index, (group, user)) in groups.iter().zip([0usize, 1, 2, 0]).enumerate() {
        let own = firsts[user].clone();
        let pairs = contexts.pairs.clone().narrow(0, own.start.min(4), own.len().max(1));
        let alone = match own.len() {
            0 => model.clone().unsteered(),
            count => model.clone().steered_by(&Contexts { pairs, sets: vec![count] }, None),
        };
        let alone = alone.token_logps(&PackedBatch::new(std::slice::from_ref(group)), &Default::default());
        let found = &together[batch.sequences[2 * index].start..batch.sequences[2 * index + 1].end];
        assert!(found.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{index}: {found:?} {alone:?}");
    }
}

#[test]
fn the_order_of_contexts_does_not_count_and_their_labels_do() {
    let model = model();
    let pairs = contexts().pairs.narrow(0, 0, 3);
    let z = |pairs: Tensor<2>| -> Vec<f64> {
        model.z(&Contexts { sets: vec![pairs.dims()[0]], pairs }).into_data().iter::<f64>().collect()
    };
    let turned = Tensor::cat(vec![pairs.clone().narrow(0, 2, 1), pairs.clone().narrow(0, 0, 2)], 0);
    let far = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far(z(pairs.clone()), z(turned)) < 1e-12);
    let swapped = Tensor::cat(vec![pairs.clone().narrow(1, 16, 16), pairs.clone().narrow(1, 0, 16)], 1);
    assert!(far(z(pairs), z(swapped)) > 1e-2);
}

#[test]
fn an_embedding_is_of_the_last_token_whatever_stands_beside_it() {
    let model = model();
    let groups = groups();
    let together = model.embeddings(&groups, 1000);
    for (group, embedded) in groups.iter().zip(&together) {
        for (answer, embedding) in group.answers.iter().zip(embedded) {
            let text: Vec<u32> = group.prompt.iter().chain(*answer).copied().collect();
            // What predicts a token behind the answer is the hidden state of the answer's last token.
            let batch = PackedBatch::new(&[Group { prompt: &text, answers: vec![&[1]] }]);
            let hidden = model.hidden(&PackedInputs::new(&batch, model.spec(), &device::cpu()));
            let expected: Vec<f32> = hidden.into_data().iter::<f32>().collect();
            assert!(embedding.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{embedding:?} {expected:?}");
        }
    }
}

fn spec(out: &Path, more: &str) -> RunSpec {
    let text = format!(
        r#"schema = 1
seed = 3
out = {out:?}
{tables}{TEXT}[training]
steps = 4
pairs-per-step = 6
learning-rate = 1e-2
warmup-steps = 0
[[rounds]]
dimension = "honesty"
beta = 0.1
[evaluation]
bootstrap-resamples = 40
kl-samples = 2
kl-max-new-tokens = 4
samples = 1
[checkpoints]
every-steps = 1
[lora]
rank = 2
{more}"#,
        tables = tables("cpu", 60, 40),
    );
    RunSpec::from_str("run.toml", &text).unwrap()
}

const STEERING: &str =
    "[steering]\nusers = [\"honesty\", \"helpfulness\"]\nwidth = 8\nheads = 2\ncontexts = 3\nevaluate = [0, 2]\n";

fn prepared(spec: &RunSpec) -> Result<Prepared, TrainError> {
    prepare(spec, &mut Memory::default())
}

fn finished(out: &Path, more: &str) -> Vec<Event> {
    let mut seen = Memory::default();
    run(prepared(&spec(out, more)).unwrap(), &mut seen, &AtomicBool::new(false)).unwrap();
    seen.0.into_iter().map(|record| record.event).collect()
}

/// Stops a run after so many events.
struct Stops<'a>(usize, &'a AtomicBool);

impl Sink for Stops<'_> {
    fn event(&mut self, _: f64, _: &Event) -> Result<(), TrainError> {
        self.0 -= 1;
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn a_run_measures_each_user_and_an_interrupted_one_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken, plain) = (dir.path().join("whole"), dir.path().join("out"), dir.path().join("plain"));
    // A plan names its directory.
    let events = finished(&broken, STEERING);
    std::fs::rename(&broken, &whole).unwrap();
    let measured: Vec<(String, Vec<f64>)> = events.iter().filter_map(measured).collect();
    let settings = ["0 contexts", "2 contexts", "2 contexts, shuffled labels", "2 contexts, swapped labels"];
    assert_eq!(measured.iter().map(|(setting, _)| setting.as_str()).collect::<Vec<_>>(), settings);
    let steer = events.iter().filter_map(|event| if let Event::Steered(found) = event { Some(found) } else { None });
    let steer: Vec<_> = steer.collect();
    assert_eq!(steer.iter().map(|found| found.setting.as_str()).collect::<Vec<_>>(), settings);
    assert_eq!((steer[0].steer, steer[0].interval), (0.0, (0.0, 0.0)), "nobody is told apart without contexts");
    assert_ne!(steer[1].accuracy_first + steer[3].accuracy_first, 0.0);
    let summary = std::fs::read_to_string(whole.join("report.md")).unwrap();
    assert!(summary.contains("STEER") && summary.contains("2 contexts, swapped labels"), "{summary}");
    // Without contexts the policy is the one that everything else measures.
    let matrix = events.iter().find_map(|event| match event {
        Event::Evaluated { scores, .. } => {
            Some(scores.iter().filter(|score| score.kind.is_main()).cloned().collect::<Vec<_>>())
        }
        _ => None,
    });
    let accuracy = |score: &spo_eval::DimensionScore| score.tally(spo_eval::Subset::All).unwrap().accuracy;
    assert_eq!(matrix.unwrap().iter().map(accuracy).collect::<Vec<_>>(), measured[0].1);
    assert!(!whole.join("model").exists(), "no weights of a whole model are a policy for many users");
    let policy = whole.join("policies/round-1-honesty");
    let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
    assert!(load_adapter(base, &policy).unwrap().0.steering.is_some());

    // The reference knows no user: its log-probs are those of a run without steering.
    finished(&plain, "");
    let reference = |out: &Path| {
        let files = std::fs::read_dir(out.join("cache")).unwrap().map(|entry| entry.unwrap().path());
        let logps = files.filter(|path| path.extension().is_some_and(|end| end == "logps"));
        logps.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let example = &prepared(&spec(&dir.path().join("x"), "")).unwrap().held_out.dataset.examples[0].clone();
    let of = |out: &Path| -> Vec<f64> {
        let cache = LogpCache::open(&out.join("cache")).unwrap();
        let all = reference(out).into_iter().map(|hash| cache.read("a policy", &hash).unwrap());
        all.map(|logps| logps.logp("a row", &example.prompt, &example.answers[0]).unwrap()).collect()
    };
    assert!(of(&plain).iter().any(|logp| of(&whole).contains(logp)), "{:?} {:?}", of(&plain), of(&whole));

    for stop_at in [8, 14] {
        let _ = std::fs::remove_dir_all(&broken);
        let stop = AtomicBool::new(false);
        let error = run(prepared(&spec(&broken, STEERING)).unwrap(), &mut Stops(stop_at, &stop), &stop).unwrap_err();
        assert!(matches!(error, TrainError::Interrupted { .. }), "{error}");
        let again = prepared(&spec(&broken, STEERING)).unwrap();
        resume(again, &broken, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        assert_same(&left(&broken), &left(&whole), &format!("event {stop_at}"));
    }
}

/// What was asked, and the accuracy of each user.
fn measured(event: &Event) -> Option<(String, Vec<f64>)> {
    let Event::SteeredScores(found) = event else { return None };
    let accuracy = |score: &spo_eval::DimensionScore| score.tally(spo_eval::Subset::All).unwrap().accuracy;
    Some((found.setting.clone(), found.scores.iter().map(accuracy).collect()))
}

#[test]
fn a_control_may_learn_the_mixed_pairs_of_all_users() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut spec = spec(&out, STEERING);
    spec.apply_set("rounds.0.controls=[{ name = \"mixed\", contexts = 0 }]").unwrap();
    let mut seen = Memory::default();
    run(prepared(&spec).unwrap(), &mut seen, &AtomicBool::new(false)).unwrap();
    let policy = |name: &str| {
        let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
        load_adapter(base, &out.join("policies").join(name)).unwrap().0
    };
    // Without a context no gradient reaches what looks at them.
    let pair = |name: &str| policy(name).steering.unwrap().encoder.pair.dense().into_data();
    assert_ne!(pair("round-1-honesty"), pair("round-1-honesty.mixed"));
    let mixed = seen
        .0
        .iter()
        .filter(|record| matches!(&record.event, Event::Steered(found) if found.policy.ends_with(".mixed")));
    assert_eq!(mixed.count(), 4);
    let refused = prepared(&unsteered(&out)).unwrap_err().to_string();
    assert!(refused.contains("rounds.0.controls.0.contexts"), "{refused}");
}

#[test]
fn the_forecast_counts_what_steers() {
    let memory =
        |more: &str| Forecast::of(&prepared(&spec(Path::new("out"), more)).unwrap()).unwrap().memory.phases[0].clone();
    let (steered, plain) = (memory(STEERING), memory(""));
    let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
    let spec = SteeringSpec { width: 8, heads: 2, contexts: 3 };
    let own = parameters::count(&base.with_steering(&spec, 0), is_steering);
    assert_eq!(steered.adapters - plain.adapters, 4 * own);
    assert!(steered.gradients - plain.gradients >= 4 * own, "one sum for each micro-batch at a time");
    assert_eq!(steered.optimizer - plain.optimizer, 8 * own);
    assert!(steered.activations_kept > plain.activations_kept);
}

/// The same without a section [steering].
fn unsteered(out: &Path) -> RunSpec {
    let mut spec = spec(out, "");
    spec.apply_set("rounds.0.controls=[{ name = \"mixed\", contexts = 0 }]").unwrap();
    spec
}

#[test]
fn what_does_not_go_with_steering_is_refused() {
    let out = Path::new("out");
    let refused = |more: &str, changes: &[&str], words: &[&str]| {
        let mut spec = spec(out, more);
        changes.iter().for_each(|change| spec.apply_set(change).unwrap());
        let error = prepared(&spec).unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(STEERING, &["steering.heads=3"], &["steering.heads", "divides the width of 8"]);
    refused(STEERING, &["steering.users=[\"honesty\", \"brevity\"]"], &["brevity", "helpfulness"]);
    refused(STEERING, &["steering.users=[\"honesty\", \"honesty\"]"], &["honesty", "twice"]);
    refused("[steering]\ncolumn = \"user\"\n", &[], &["user", "column", "has no text"]);
    refused(
        "[steering]\ncolumn = \"kind\"\nusers = [\"honesty\", \"helpfulness\"]\n",
        &[],
        &["steering.users", "steering.column"],
    );
    refused(STEERING, &["training.eval-every=2"], &["eval-every", "steering.evaluate"]);
    refused(STEERING, &["training.optimizer=\"mezo\""], &["optimizer", "adamw"]);
    refused(STEERING, &["rounds.0.objective=\"kto\""], &["kto", "dpo"]);
    refused(STEERING, &["rounds.0.objective=\"aot\""], &["aot", "dpo"]);
    refused(STEERING, &["lora.quantised-base=\"8-bit\""], &["lora.quantised-base"]);
    refused(STEERING, &["evaluation.samples=0", "rounds.0.dimension=\"preference\""], &["preference", "honesty"]);
}

#[test]
fn a_field_of_the_rows_may_name_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let column = "[steering]\ncolumn = \"kind\"\nwidth = 8\nheads = 2\ncontexts = 2\nevaluate = [2]\n";
    let events = finished(&dir.path().join("out"), column);
    let measured: Vec<_> = events.iter().filter_map(measured).collect();
    assert_eq!(measured.len(), 3);
    assert!(measured[0].1.len() >= 2, "{measured:?}");
}

#[test]
fn the_cpu_writes_what_the_tensors_of_a_steered_model_write() {
    let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
    let model = base.with_steering(&SteeringSpec { width: WIDTH, heads: 2, contexts: 4 }, 5);
    let model = replace(model, "", |parameter| match parameter.path.contains("film.") {
        true => {
            let [count] = parameter.value.dims();
            parameter.value + flat(numbers(count, seed_of(&parameter.path))).cast(DType::F32) * 0.5
        }
        false => parameter.value,
    });
    let z = |seed: f64| flat(numbers(WIDTH, seed)).cast(DType::F32).reshape([1, WIDTH]);
    let options =
        GenerateOptions { max_new_tokens: 24, sampling: Sampling::GREEDY, seed: 0, first_stream: 0, stop: vec![] };
    let written = |mut generator: Generator| {
        generator.generate(&[&[1, 403, 407], &[1, 261]], &options, &mut |_, _| Control::Continue)
    };
    let mut found = vec![];
    for seed in [1.0, 40.0] {
        let steered = model.clone().steered(z(seed), None);
        let kernels = Generator::new(steered.clone(), &DecodeOptions::default());
        assert!(matches!(kernels.path(), Route::Kernels { .. }), "{}", kernels.path());
        let own = written(kernels);
        assert_eq!(own, written(Generator::on_tensors(steered, 2)));
        found.push(own);
    }
    assert_ne!(found[0], found[1], "z counts");
}
