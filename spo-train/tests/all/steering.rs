//! One policy for many users: gradients of everything that steers, and short runs.

use crate::broken_off::Stops;
use crate::built_in::{TEXT, assets, tables};
use crate::left::{assert_same, left};
use crate::told::{By, WIDTH, contexts, flat, gradients, groups, loss, model, numbers, packed, rows, seed_of};
use burn::tensor::{DType, Tensor};
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch};
use spo_model::decoder::PackedInputs;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Path as Route, Sampling};
use spo_model::lora::{FrontSpec, LoraSpec, is_adapter, load_adapter, merge_adapter, merge_adapter_for};
use spo_model::parameters::{self, replace};
use spo_model::reward::RewardModel;
use spo_model::steering::{Contexts, SavedZ, SteeringSpec, is_steering};
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::forecast::Forecast;
use spo_train::policy::logps::LogpCache;
use spo_train::step::tape::Recompute;
use spo_train::{Prepared, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::atomic::AtomicBool;

#[test]
fn gradients_of_all_that_steers_equal_finite_differences() {
    // Films have four parameters each; a pair's layer, four of the attention, two behind it; two of each core's coefficients.
    let (films, encoder, cores) = (2 * 4, 2 * 7, 2 * 7 * 2);
    let all = [(By::Films, films), (By::Cores, cores), (By::Both, films + cores), (By::Rewards, films)];
    for (by, parameters) in all {
        gradients_equal_finite_differences(by, encoder + parameters);
    }
}

fn gradients_equal_finite_differences(by: By, parameters: usize) {
    let (model, users) = (model(by), [0, 1, 2, 0]);
    let batch = packed(&model);
    let (contexts, rows) = (contexts(), rows(&batch, &users));
    let at = |model: &CausalLm| loss(&model.clone().steered_by(&contexts, Some(&rows)), &batch);
    let steered = model.clone().steered_by(&contexts, Some(&rows));
    let [(_, found), (_, again)] =
        [Recompute::None, Recompute::Blocks].map(|recompute| gradients(&steered, &batch, by, recompute));
    assert_eq!(found.names().any(|name| name == "score.weight"), by == By::Rewards);
    let steering: Vec<&str> = found.names().filter(|name| is_steering(name)).collect();
    assert_eq!(steering.len(), parameters, "{steering:?}");
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
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let error = (gradient[element] - expected).abs();
            assert!(
                error <= 2e-6 * expected.abs().max(1.0),
                "{by:?} {name} {element}: {} {expected}",
                gradient[element]
            );
        }
    }
}

#[test]
fn rows_of_several_users_are_those_of_each_user_alone() {
    By::CONTEXTS.into_iter().for_each(rows_are_those_of_each_user_alone);
}

fn rows_are_those_of_each_user_alone(by: By) {
    let (model, groups, contexts) = (model(by), groups(), contexts());
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
        assert!(found.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{by:?} {index}: {found:?} {alone:?}");
    }
}

#[test]
fn the_order_of_contexts_does_not_count_and_their_labels_do() {
    let model = model(By::Films);
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
    let model = model(By::Films);
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
    spec_of(out, "beta = 0.1", more)
}

fn spec_of(out: &Path, round: &str, more: &str) -> RunSpec {
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
{round}
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

/// The same where z acts through conditional adapters alone.
const BY_CORES: &str = "condition = \"contexts\"\ncomponents = 3\n[steering]\nfilms = false\n\
    users = [\"honesty\", \"helpfulness\"]\nwidth = 8\nheads = 2\ncontexts = 3\nevaluate = [0, 2]\n";

fn prepared(spec: &RunSpec) -> Result<Prepared, TrainError> {
    prepare(spec, &mut Memory::default())
}

fn finished(out: &Path, more: &str) -> Vec<Event> {
    finished_as(&spec(out, more))
}

fn finished_as(spec: &RunSpec) -> Vec<Event> {
    let mut seen = Memory::default();
    run(prepared(spec).unwrap(), &mut seen, &AtomicBool::new(false)).unwrap();
    seen.0.into_iter().map(|record| record.event).collect()
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

    ends_with_the_same_bits(&broken, &whole, &spec(&broken, STEERING));
}

/// Runs in `out` that are broken off leave what the `whole` one left.
fn ends_with_the_same_bits(out: &Path, whole: &Path, spec: &RunSpec) {
    for stop_at in [8, 14] {
        let _ = std::fs::remove_dir_all(out);
        let stop = AtomicBool::new(false);
        let error = run(prepared(spec).unwrap(), &mut Stops(stop_at, &stop), &stop).unwrap_err();
        assert!(matches!(error, TrainError::Interrupted { .. }), "{error}");
        resume(prepared(spec).unwrap(), out, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        assert_same(&left(out), &left(whole), &format!("event {stop_at}"));
    }
}

fn base() -> CausalLm {
    CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap()
}

/// Log-probs of answers to a prompt.
fn logps(model: &CausalLm) -> Vec<f64> {
    let group = Group { prompt: &[1, 11, 12], answers: vec![&[10, 20, 30, 40], &[70, 60, 50, 90]] };
    let scored = model.score(&[group], 512, &HeadOptions::default(), &mut |_| ());
    scored[0].iter().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
}

#[test]
fn a_policy_whose_adapters_go_by_contexts_is_a_merged_model_for_each_user() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("out"));
    let more = format!("{BY_CORES}[warmup]\ndimensions = [\"honesty\"]\nsteps = 2\nlearning-rate = 1e-2\n");
    let events = finished(&broken, &more);
    std::fs::rename(&broken, &whole).unwrap();
    assert_eq!(events.iter().filter_map(measured).count(), 4);
    ends_with_the_same_bits(&broken, &whole, &spec(&broken, &more));

    // The warm-up leaves alone what makes coefficients: the first reference is the same for every user.
    let coefficients = |policy: &str| -> Vec<f32> {
        let model = load_adapter(base(), &whole.join("policies").join(policy)).unwrap().0;
        let mut all = vec![];
        parameters::for_each(&model, "", |parameter| {
            if parameter.path.contains(".core.mixture.") {
                all.extend(parameter.value.into_data().iter::<f32>());
            }
        });
        all
    };
    let third = 1.0f32 / 3.0;
    let fresh = coefficients("warmup");
    assert!(!fresh.is_empty() && fresh.iter().all(|value| *value == 0.0 || (value - third).abs() < 1e-6));
    let policy = whole.join("policies/round-1-honesty");
    assert_ne!(coefficients("round-1-honesty"), fresh);

    let hash = SavedZ::policy_of(&policy).unwrap().unwrap();
    let merged = |seed: f64| {
        let file = dir.path().join(format!("{seed}.safetensors"));
        let z = numbers(WIDTH, seed).into_iter().map(|value| 20.0 * value as f32).collect();
        let user = SavedZ { z, policy: hash.clone(), contexts: 2 };
        user.write(&file).unwrap();
        let conditioned = logps(&user.steer(load_adapter(base(), &policy).unwrap().0, &policy, &file).unwrap());
        let merged = logps(&merge_adapter_for(base(), &policy, &file).unwrap());
        let largest = conditioned.iter().zip(&merged).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-6, "{largest}");
        merged
    };
    assert_ne!(merged(1.0), merged(40.0), "z counts");
    let error = merge_adapter(base(), &policy).unwrap_err().to_string();
    assert!(error.contains("--steer"), "{error}");
    // Without what makes its coefficients it is no policy.
    std::fs::remove_file(policy.join("steering.safetensors")).unwrap();
    assert!(load_adapter(base(), &policy).unwrap_err().to_string().contains("steering.safetensors"));
}

#[test]
fn a_reward_model_is_steered_measured_and_resumed_as_a_policy_is() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    let spec = spec_of(&out, "objective = \"reward\"", STEERING);
    let events = finished_as(&spec);
    std::fs::rename(&out, &whole).unwrap();
    let steer: Vec<(&str, f64)> = events
        .iter()
        .filter_map(
            |event| if let Event::Steered(found) = event { Some((found.setting.as_str(), found.steer)) } else { None },
        )
        .collect();
    assert_eq!((steer.len(), steer[0]), (4, ("0 contexts", 0.0)));
    assert_eq!(events.iter().filter_map(measured).count(), 4);
    let policy = whole.join("policies/round-1-honesty");
    let frozen = RewardModel::base(&assets().join("stories260K"), &device::cpu()).unwrap();
    let loaded = frozen.adapted(&policy).unwrap();
    assert!(loaded.model.steering.is_some() && loaded.model.score.is_some() && !whole.join("model").exists());
    ends_with_the_same_bits(&out, &whole, &spec);
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
    let spec = SteeringSpec { width: 8, heads: 2, contexts: 3, films: true };
    let own = parameters::count(&base.with_steering(&spec, 0), is_steering);
    assert_eq!(steered.adapters - plain.adapters, 4 * own);
    assert!(steered.gradients - plain.gradients >= 4 * own, "one sum for each micro-batch at a time");
    assert_eq!(steered.optimizer - plain.optimizer, 8 * own);
    assert!(steered.activations_kept > plain.activations_kept);
    let (by_cores, plain) = (memory(BY_CORES), memory(""));
    let lora = LoraSpec {
        front: By::Cores.lora().front.map(|front| FrontSpec { shared_rank: 4, ..front }),
        ..LoraSpec::new(2, 8.0)
    };
    let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
    let spec = SteeringSpec { width: 8, heads: 2, contexts: 3, films: false };
    let of = |model: &CausalLm| parameters::count(model, |path| is_steering(path) || is_adapter(path));
    let own = of(&base.clone().with_lora(&lora, 0).unwrap().with_steering(&spec, 0));
    let without = of(&base.with_lora(&LoraSpec::new(2, 4.0), 0).unwrap());
    assert_eq!(by_cores.adapters - plain.adapters, 4 * (own - without));
    assert_eq!(by_cores.optimizer - plain.optimizer, 8 * (own - without));
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
    let by_cores = |changes: &[&str], words: &[&str]| refused(BY_CORES, changes, words);
    by_cores(&["lora.condition=\"none\""], &["steering.films", "condition = \"contexts\""]);
    refused("components = 3\n", &[], &["lora.components", "condition = \"contexts\""]);
    let error = spec(out, BY_CORES).apply_set("lora.components=1").unwrap_err();
    assert!(error.to_string().contains("an integer of at least 2"), "{error}");
    by_cores(&["lora.dora=true"], &["lora", "magnitudes"]);
    by_cores(&["lora.rounds=\"stack\""], &["lora.rounds"]);
    by_cores(&["lora.concentration=0.5"], &["concentration", "weights"]);
    refused("condition = \"contexts\"\n", &[], &["lora.condition", "[steering]"]);
    refused(STEERING, &["lora.condition=\"weights\""], &["lora.condition", "contexts"]);
    refused(STEERING, &["steering.films=false"], &["steering.films", "contexts"]);
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
    let model = base.with_steering(&SteeringSpec { width: WIDTH, heads: 2, contexts: 4, films: true }, 5);
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
