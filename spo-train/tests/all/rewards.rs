//! Reward models: TRL's curve, gradients, whole runs, resuming, what is refused.

use crate::built_in::{TEXT, assets, events, finish, tables, written};
use crate::common;
use crate::left::{assert_same, left};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};
use spo_core::objective::{RewardObjective, build_reward};
use spo_data::{Dataset, Example, Group, Preference, Tokenizer};
use spo_eval::{ScoreKind, Subset};
use spo_model::load::{LoadOptions, Storage};
use spo_model::reward::{Pooling, RewardModel};
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::config::{RunSpec, TrainingPlan};
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate_scored, observe};
use spo_train::task::{RewardPair, RewardTask, StepTally, Task};
use spo_train::{Manifest, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn objective(options: Value) -> Arc<dyn RewardObjective> {
    build_reward("reward", options.as_object().unwrap()).unwrap().into()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_path(&assets().join("stories260K")).unwrap()
}

fn pair(id: &str, prompt: &[u32], answers: [&[u32]; 2], tags: &[(&str, &str)]) -> Example {
    Example {
        id: id.into(),
        prompt: prompt.into(),
        answers: answers.iter().map(|answer| (*answer).into()).collect(),
        labels: Arc::new([("good".to_string(), Preference::First)].into()),
        tags: Arc::new(tags.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect()),
        ..Example::default()
    }
}

fn task<'a>(data: &'a Dataset, options: Value, tokenizer: &Tokenizer) -> RewardTask<'a> {
    let objective = objective(options);
    let pairs = RewardPair::all(data, "good", objective.as_ref(), tokenizer).unwrap();
    RewardTask::new(data, pairs, objective, device::cpu())
}

/// TRL's ten steps on a tiny model whose head was drawn there; see tools/parity/reward.py.
#[test]
fn the_curve_of_trl() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/reward/trl.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let ids = |value: &Value| numbers(value).iter().map(|id| *id as u32).collect::<Vec<u32>>();
    let examples = golden["rows"].as_array().unwrap().iter().map(|row| {
        let (chosen, rejected) = (ids(&row["chosen_ids"]), ids(&row["rejected_ids"]));
        let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
        pair("row", &chosen[..shared], [&chosen[shared..], &rejected[shared..]], &[])
    });
    let data = Dataset { examples: examples.collect(), report: Default::default() };
    let head: Vec<f32> = numbers(&golden["head"]).iter().map(|value| *value as f32).collect();
    let pad = golden["pad_token_id"].as_u64().unwrap() as u32;
    for (curve, options) in [("train_b4", json!({})), ("train_b4_centre0.01", json!({"centre": 0.01}))] {
        let mut model =
            common::model("llama-tiny-policy").without_lm_head().with_score_head(0, Pooling::BeforePads(pad));
        let weight = Tensor::from_data(TensorData::new(head.clone(), [1, head.len()]), &device::cpu());
        model.score.as_mut().unwrap().weight = Param::from_tensor(weight);
        let found = steps(model, &task(&data, options, &Tokenizer::ids_only(vec![])), 4);
        let expected = &golden[curve];
        for (figures, (loss, norm)) in
            found.iter().zip(numbers(&expected["loss"]).iter().zip(numbers(&expected["grad_norm"])))
        {
            let close = |found: f64, expected: f64, by: f64| (found - expected).abs() <= by * expected.abs();
            assert!(close(figures.loss, *loss, 2e-4), "{curve} {}: {} expected {loss}", figures.step, figures.loss);
            assert!(
                close(figures.grad_norm, norm, 1e-3),
                "{curve} {}: {} expected {norm}",
                figures.step,
                figures.grad_norm
            );
        }
        let accuracy: Vec<f64> = found.iter().map(|figures| figures.accuracy.unwrap()).collect();
        assert_eq!(accuracy, numbers(&expected["accuracy"]), "{curve}");
        assert_eq!(found.len(), 10);
    }
}

fn steps(model: CausalLm, task: &dyn Task, per_step: usize) -> Vec<StepFigures> {
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
    let training = TrainingPlan { learning_rate: 1e-4, ..common::training(per_step, 100_000) };
    let phase = Phase {
        name: "curve",
        round: 1,
        training: &training,
        trainable: Trainable::All,
        seed: 0,
        hold: None,
        probes: None,
        shards: 1,
    };
    let start = PhaseState::new(model, training.optimizer(Trainable::All, 0, 0));
    phase.run(start, task, None, Stopping::never(), None, &mut reporter).unwrap();
    let figures = |event| if let Event::Step(figures) = event { Some(figures) } else { None };
    memory.0.into_iter().filter_map(|record| figures(record.event)).collect()
}

/// The loss of a task's rows, and its gradients where they are asked for.
fn loss(model: &CausalLm, task: &dyn Task, recompute: Recompute, gradients: Option<&mut Gradients>) -> f64 {
    let rows: Vec<usize> = (0..task.len()).collect();
    let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
    let batch = task.pack(model, &rows, &groups);
    let mut tally = StepTally { weight: task.weight(&groups), ..Default::default() };
    match gradients {
        Some(gradients) => {
            let options =
                TapeOptions { recompute, trainable: Trainable::All, head: Default::default(), router_loss: 0.0 };
            differentiate_scored(model, &batch, &options, gradients, |scored| {
                task.logp_gradients(&rows, &batch, scored, &mut tally)
            })
            .unwrap();
        }
        None => {
            observe(model, &batch, &Default::default(), |scored| {
                task.logp_gradients(&rows, &batch, scored, &mut tally)
            })
            .unwrap();
        }
    }
    tally.mean_loss()
}

fn tiny() -> CausalLm {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false}"#,
    );
    let model = CausalLm::random(&spec.unwrap(), 11, &device::cpu()).with_score_head(3, Pooling::BeforePads(0));
    // Larger weights, so that a step of a difference quotient shows in f32.
    spo_model::parameters::replace(model, "", |parameter| match parameter.shape.len() {
        1 => parameter.value,
        _ => parameter.value * 12.0,
    })
}

fn with_critiques() -> Dataset {
    let rows = [
        pair(
            "a",
            &[5, 9, 12],
            [&[20, 21, 2], &[30, 2]],
            &[("chosen_critique", "Clear."), ("rejected_critique", "Short.")],
        ),
        pair("b", &[7], [&[40, 41, 42, 0], &[50, 51]], &[("chosen_critique", "Right.")]),
        pair("c", &[8, 8], [&[60], &[61, 62, 0, 0]], &[]),
    ];
    Dataset { examples: rows.to_vec(), report: Default::default() }
}

/// The gradient of some parameters, against the change of the loss along it.
#[test]
fn gradients_are_those_of_the_loss() {
    let (data, tokenizer) = (with_critiques(), tokenizer());
    for options in [json!({"centre": 0.05}), json!({"critique": true, "critic-weight": 0.3})] {
        let (task, model) = (task(&data, options.clone(), &tokenizer), tiny());
        let (mut gradients, mut again) = (Gradients::default(), Gradients::default());
        let whole = loss(&model, &task, Recompute::None, Some(&mut gradients));
        let recomputed = loss(&model, &task, Recompute::Blocks, Some(&mut again));
        assert_eq!(whole, recomputed);
        assert!((whole - loss(&model, &task, Recompute::None, None)).abs() <= 1e-6 * whole, "{options}");
        let names: Vec<String> = gradients.names().map(String::from).collect();
        assert!(names.contains(&"score.weight".into()));
        assert_eq!(names.contains(&"lm_head.weight".into()), options["critique"] == json!(true));
        for name in &names {
            let gradient = gradients.get(name).unwrap();
            let same = again.get(name).unwrap().sub(gradient.clone()).abs().max().into_scalar::<f32>();
            assert_eq!(same, 0.0, "{name}");
            let norm = gradient.clone().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
            assert!(norm > 0.0, "{name}");
            let step = 2e-3 / norm.max(1e-3);
            let moved = |by: f32| {
                let moved =
                    spo_model::parameters::replace(model.clone(), "", |parameter| match &parameter.path == name {
                        true => parameter.value + gradient.clone() * by,
                        false => parameter.value,
                    });
                loss(&moved, &task, Recompute::None, None)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let expected = f64::from(norm).powi(2);
            assert!(
                (slope - expected).abs() <= 2e-2 * expected + 2e-4,
                "{options} {name}: {slope} expected {expected}"
            );
        }
    }
}

#[test]
fn without_critiques_the_loss_is_that_of_bradley_and_terry() {
    let mut data = with_critiques();
    data.examples.iter_mut().for_each(|example| example.tags = Default::default());
    let (plain, critique) = (
        task(&data, json!({}), &tokenizer()),
        task(&data, json!({"critique": true, "critic-weight": 3.0}), &tokenizer()),
    );
    let model = tiny();
    let of = |task: &RewardTask| {
        let mut gradients = Gradients::default();
        (loss(&model, task, Recompute::None, Some(&mut gradients)), gradients.norm())
    };
    let (a, b) = (of(&plain), of(&critique));
    assert!((a.0 - b.0).abs() <= 1e-6 && (a.1 - b.1).abs() <= 1e-6, "{a:?} {b:?}");
}

/// The critique's cross-entropy and the reward behind it, against a model that scores the whole text at once.
#[test]
fn critiques_are_scored_by_teacher_forcing() {
    let (data, tokenizer, model) = (with_critiques(), tokenizer(), tiny());
    let weight = 0.3;
    let found = loss(
        &model,
        &task(&data, json!({"critique": true, "critic-weight": weight}), &tokenizer),
        Recompute::None,
        None,
    );
    let critic = spo_model::reward::Critic::new(&tokenizer, 4).unwrap();
    let mut expected = 0.0;
    for example in &data.examples {
        let mut rewards = vec![];
        for (answer, key) in example.answers.iter().zip(["chosen_critique", "rejected_critique"]) {
            let text = example.tags.get(key).map(|text| critic.given(&tokenizer, answer, text).unwrap());
            let tokens = text.as_ref().map_or(answer.as_slice(), |text| &text.tokens);
            let group = Group { prompt: &example.prompt, answers: vec![tokens] };
            rewards.push(model.rewards(std::slice::from_ref(&group), 0, 4096, &mut |_| ())[0][0]);
            if let Some(text) = &text {
                let logps = model.score(&[group], 4096, &Default::default(), &mut |_| ());
                expected -= weight * logps[0][0][text.from..].iter().map(|logp| f64::from(*logp)).sum::<f64>();
            }
        }
        expected += (-(rewards[0] - rewards[1])).exp().ln_1p();
    }
    assert!((found - expected / 3.0).abs() <= 1e-5 * expected, "{found} {}", expected / 3.0);
}

/// A run file of a reward round on the built-in model and data.
fn spec(dir: &Path, more: &str) -> RunSpec {
    let text = format!(
        "schema = 1\nseed = 5\nout = \"out\"\n{}{TEXT}\
         [training]\nsteps = 6\npairs-per-step = 6\nlearning-rate = 1e-3\nwarmup-steps = 0\neval-every = 3\n\
         [evaluation]\nbootstrap-resamples = 40\n[checkpoints]\nevery-steps = 1\n{more}",
        tables("cpu", 60, 30),
    );
    written(dir, &text)
}

const ROUND: &str = "[[rounds]]\ndimension = \"honesty\"\nobjective = \"reward\"\n";

#[test]
fn a_run_makes_a_reward_model() {
    for (lora, controls) in
        [("", "[[rounds.controls]]\nname = \"centred\"\ncentre = 0.1\n"), ("[lora]\nrank = 4\n", "")]
    {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &format!("{lora}{ROUND}{controls}"));
        let summary = finish(&spec);
        let out = dir.path().join("out");
        let score = &summary.matrix[0];
        assert_eq!((score.kind, score.policy.as_str()), (ScoreKind::Reward, "round-1-honesty"));
        let tally = score.tally(Subset::All).unwrap();
        assert!(tally.whole_prompts.unwrap() <= tally.prompts);

        // What was exported gives the rewards that were evaluated.
        let model = RewardModel::open(&out.join("model"), None, None, &device::cpu()).unwrap();
        let prepared = prepare(&spec, &mut Memory::default()).unwrap();
        let held_out = &prepared.held_out.dataset;
        let mut margin = 0.0;
        let pairs = held_out.pairs("honesty");
        for pair in &pairs {
            let example = &held_out.examples[pair.example];
            let answers = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
            let rewards =
                model.score(&[Group { prompt: &example.prompt, answers: answers.to_vec() }], 4096, &mut |_| ());
            margin += (rewards[0][0] - rewards[0][1]) / pairs.len() as f64;
        }
        assert!((margin - tally.mean_margin).abs() < 1e-4, "{margin} {}", tally.mean_margin);

        let config: Value = serde_json::from_slice(&std::fs::read(out.join("model/config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
        assert_eq!((&config["num_labels"], config["pad_token_id"].is_u64()), (&json!(1), true));
        let events = events(&out);
        let steps = events.iter().filter(|event| matches!(event, Event::Step(_))).count();
        assert_eq!(steps, if controls.is_empty() { 6 } else { 12 });
        let wrong = |event: &&Event| {
            matches!(event, Event::Sampled(_) | Event::KlEstimated(_) | Event::ResponsesSampled { .. })
        };
        assert!(!events.iter().any(|event| wrong(&event)));
        for event in &events {
            if let Event::HeldOut(found) = event {
                assert!(found.loss.is_finite() && found.dimensions[0].chosen_log_ratio.is_none(), "{found:?}");
            }
            if let Event::Step(figures) = event {
                assert!(figures.grad_norm > 0.0 && figures.chosen_log_ratio.is_none() && figures.accuracy.is_some());
            }
        }
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(report.contains("ACC+") && !report.contains("log π/π_0"), "{report}");
        if !lora.is_empty() {
            let adapter = std::fs::read_to_string(out.join("policies/round-1-honesty/adapter_config.json")).unwrap();
            assert!(adapter.contains("SEQ_CLS") && adapter.contains("\"score\""), "{adapter}");
        }
    }
}

/// More steps on what was made: training goes on from its head.
#[test]
fn a_run_goes_on_from_a_reward_model() {
    let dir = tempfile::tempdir().unwrap();
    finish(&spec(dir.path(), ROUND));
    let mut again = spec(dir.path(), ROUND);
    std::fs::rename(dir.path().join("out/model"), dir.path().join("first")).unwrap();
    std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    again.apply_set(&format!("model.path={:?}", dir.path().join("first"))).unwrap();
    let first = RewardModel::open(&dir.path().join("first"), None, None, &device::cpu()).unwrap();
    finish(&again);
    let second = RewardModel::open(&dir.path().join("out/model"), None, None, &device::cpu()).unwrap();
    let head = |model: &RewardModel| model.model.score.as_ref().unwrap().weight.val();
    let moved = (head(&first) - head(&second)).abs().max().into_scalar::<f32>();
    assert!(moved > 0.0 && moved < 2e-2, "{moved}");
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    for more in ["", "[lora]\nrank = 4\n"] {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &format!("{more}{ROUND}"));
        let out = dir.path().join("out");
        finish(&spec);
        let whole = left(&out);
        for stop_at in [1, 4] {
            std::fs::remove_dir_all(&out).unwrap();
            let mut broken = Broken { steps: stop_at };
            let error = run(prepare(&spec, &mut Memory::default()).unwrap(), &mut broken, &AtomicBool::new(false));
            assert!(error.is_err());
            let prepared = prepare(&Manifest::read(&out).unwrap().spec().unwrap(), &mut Memory::default()).unwrap();
            resume(prepared, &out, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
            assert_same(&left(&out), &whole, &format!("{more} {stop_at}"));
        }
    }
}

/// Breaks a run off after some steps.
struct Broken {
    steps: usize,
}

impl spo_train::Sink for Broken {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if let Event::Step(_) = event {
            if self.steps == 0 {
                return Err(TrainError::sink("broken off here"));
            }
            self.steps -= 1;
        }
        Ok(())
    }
}

/// Rows of text with critiques, for a run.
fn critique_rows() -> String {
    let row = |index: usize| {
        let good = format!("The cat number {index} sat down.");
        json!({
            "prompt": format!("Tell me about cat {index}."), "chosen": good, "rejected": "No.", "score_chosen": 2.0,
            "score_rejected": 0.5, "chosen_critique": "It is clear.", "rejected_critique": "It is short.",
        })
        .to_string()
    };
    (0..24).map(row).collect::<Vec<_>>().join("\n")
}

fn critique_spec(dir: &Path, options: &str) -> RunSpec {
    std::fs::write(dir.join("rows.jsonl"), critique_rows()).unwrap();
    let text = format!(
        "schema = 1\nseed = 5\nout = \"out\"\nholdout = 0.25\n[model]\npath = {:?}\ndevice = \"cpu\"\n\
         [[data]]\npath = \"rows.jsonl\"\ndimension = \"good\"\n[training]\nsteps = 3\npairs-per-step = 6\n\
         learning-rate = 1e-3\nwarmup-steps = 0\neval-every = 3\n[evaluation]\nbootstrap-resamples = 40\n\
         [[rounds]]\ndimension = \"good\"\nobjective = \"reward\"\n{options}",
        assets().join("stories260K")
    );
    std::fs::write(dir.join("run.toml"), text).unwrap();
    RunSpec::from_file(&dir.join("run.toml")).unwrap()
}

#[test]
fn a_run_makes_a_reward_model_that_writes_critiques_first() {
    let dir = tempfile::tempdir().unwrap();
    let spec = critique_spec(dir.path(), "critique = true\nmax-critique-tokens = 8\nmargin = true\ncentre = 0.01\n");
    let summary = finish(&spec);
    let tally = summary.matrix[0].tally(Subset::All).unwrap();
    let model_dir = dir.path().join("out/model");
    let mut model = RewardModel::open(&model_dir, None, None, &device::cpu()).unwrap();
    let critic = spo_model::reward::Critic::new(&Tokenizer::from_path(&model_dir).unwrap(), 8).unwrap();
    let prepared = prepare(&spec, &mut Memory::default()).unwrap();
    let held_out = &prepared.held_out.dataset;
    let pairs = held_out.pairs("good");
    let group = |example: &'static Example| Group {
        prompt: &example.prompt,
        answers: example.answers.iter().map(|answer| answer.as_slice()).collect(),
    };
    let examples: &'static [Example] = Box::leak(held_out.examples.clone().into_boxed_slice());
    let margin = |model: &RewardModel| {
        let of = |pair: &spo_data::PairRef| {
            let rewards = model.score(&[group(&examples[pair.example])], 4096, &mut |_| ());
            rewards[0][pair.chosen] - rewards[0][pair.rejected]
        };
        pairs.iter().map(of).sum::<f64>() / pairs.len() as f64
    };
    let without = margin(&model);
    model.model.score.as_mut().unwrap().critic = Some(critic.clone());
    let with = margin(&model);
    // The table is that of the critiques that the model writes itself.
    assert!((with - tally.mean_margin).abs() < 1e-4, "{with} {}", tally.mean_margin);
    assert!((with - without).abs() > 1e-6, "a critique changes the reward");
    let written = model.model.criticise(&[group(&examples[0])], &critic);
    let critique = &written[0][0];
    assert_eq!(critique.from, examples[0].answers[0].len() + critic.request.len());
    assert!((1..=8).contains(&(critique.tokens.len() - critique.from)));
}

fn refused(spec: &RunSpec) -> String {
    let error = prepare(spec, &mut Memory::default()).unwrap_err();
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn what_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dpo = "[[rounds]]\ndimension = \"helpfulness\"\nobjective = \"dpo\"\n";
    for (more, words) in [
        (format!("{ROUND}{dpo}"), "only round of its run"),
        (format!("{dpo}{ROUND}"), "only round of its run"),
        (format!("{ROUND}[[rounds.controls]]\nname = \"other\"\nobjective = \"dpo\"\n"), "all of them or none"),
        (format!("[warmup]\nsteps = 1\n{ROUND}"), "no warm-up"),
        (format!("{ROUND}max-kl = 1.0\n"), "max-kl"),
        (format!("{ROUND}beta = 0.1\n"), "beta"),
        (format!("{ROUND}margin = true\n"), "strength"),
        (format!("{ROUND}critique = true\n"), "chosen_critique"),
        (format!("{ROUND}[[rounds.controls]]\nname = \"other\"\ncritique = true\n"), "behind a critique"),
    ] {
        let found = refused(&spec(dir.path(), &more));
        assert!(found.contains(words), "no {words:?} in: {found}");
    }
    // A reward model is no policy to start from.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/reward/llama");
    let options = LoadOptions { storage: Some(Storage::F32), blocks: None };
    let found = spo_model::family::Registry::builtin().open(&fixture, options, &device::cpu()).unwrap_err();
    assert!(found.hint().unwrap().contains("objective is `reward`"), "{found}");
}

/// Ties come behind the other pairs, and pull their rewards together.
#[test]
fn ties_are_learnt_where_they_weigh() {
    let mut data = with_critiques();
    let tie = Arc::new([("good".to_string(), Preference::Tie)].into());
    data.examples[0].labels = tie;
    let (left_out, taken) =
        (task(&data, json!({}), &tokenizer()), task(&data, json!({"tie-weight": 0.5}), &tokenizer()));
    assert_eq!((left_out.len(), taken.len(), taken.id(2)), (2, 3, "a"));
    let model = tiny();
    let of = |task: &RewardTask| loss(&model, task, Recompute::None, None);
    let example = &data.examples[0];
    let answers: Vec<&[u32]> = example.answers.iter().map(|answer| answer.as_slice()).collect();
    let rewards = &model.rewards(&[Group { prompt: &example.prompt, answers }], 0, 4096, &mut |_| ())[0];
    let expected = (2.0 * of(&left_out) + 0.5 * (rewards[0] - rewards[1]).powi(2)) / 3.0;
    assert!((of(&taken) - expected).abs() < 1e-5, "{} {expected}", of(&taken));
}
