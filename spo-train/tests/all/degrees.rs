//! Preference degrees: gradients, what is switched off, whole runs, resuming, what is refused.

use crate::built_in::{TEXT, assets, events, finish, tables, written};
use crate::left::{assert_same, left};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};
use spo_core::Sides;
use spo_core::objective::build;
use spo_data::{Dataset, Example, Group, PairRef, Preference, Tokenizer};
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::forecast::Forecast;
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{TapeOptions, differentiate_scored, observe};
use spo_train::task::{DegradedRows, DegreeTerm, PairInputs, PreferenceTask, StepTally, Task};
use spo_train::{Manifest, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_path(&assets().join("stories260K")).unwrap()
}

/// The second answer to the third prompt has too few phrases.
fn data(tokenizer: &Tokenizer) -> (Dataset, Vec<PairRef>) {
    let texts = [
        ("The red fox went to the old barn, where a farmer sleeps.", "No."),
        ("A small girl saw the blue bird, and the bird was happy.", "A bird."),
        ("Yes it is.", "The old dog."),
    ];
    let encode = |text: &str| [tokenizer.encode(text, false).unwrap(), tokenizer.eos().into_iter().collect()].concat();
    let row = |(index, (chosen, rejected)): (usize, &(&str, &str))| Example {
        id: format!("row {index}"),
        prompt: tokenizer.encode("Tell me more:", false).unwrap().into(),
        answers: [chosen, rejected].map(|text| encode(text).into()).to_vec(),
        labels: Arc::new([("good".to_string(), Preference::First)].into()),
        ..Example::default()
    };
    let data = Dataset { examples: texts.iter().enumerate().map(row).collect(), report: Default::default() };
    let pairs = data.pairs("good");
    (data, pairs)
}

fn degraded(data: &Dataset, pairs: &[PairRef], options: &Value) -> Option<DegradedRows> {
    let objective = build("dpo", options.as_object().unwrap()).unwrap();
    objective.degrees().map(|degrees| DegradedRows::new(data, pairs, degrees, &tokenizer(), 200).unwrap())
}

fn task<'a>(data: &'a Dataset, pairs: &[PairRef], options: &Value) -> PreferenceTask<'a> {
    let objective = build("dpo", options.as_object().unwrap()).unwrap();
    let reference = Sides { chosen: vec![-60.0, -70.0, -20.0], rejected: vec![-12.0, -20.0, -30.0] };
    let inputs = PairInputs::new(data, pairs, vec![reference]);
    let task = PreferenceTask::new(data, pairs.to_vec(), objective, inputs, device::cpu()).unwrap();
    match degraded(data, pairs, options) {
        Some(rows) => task.with_degrees(DegreeTerm { rows, beta: 0.1, reference: vec![[-60.0, -30.0]; 3] }),
        None => task,
    }
}

/// A model in f32 whose weights are large, so that a step of a difference quotient shows.
fn model(labels: usize) -> CausalLm {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false}"#,
    );
    let model = CausalLm::random(&spec.unwrap(), 11, &device::cpu());
    let mut model = spo_model::parameters::replace(model, "", |parameter| match parameter.shape.len() {
        1 => parameter.value,
        _ => parameter.value * 12.0,
    })
    .with_zero_head(labels);
    let head: Vec<f32> = (0..labels * 16).map(|index| ((index * 7 % 23) as f32 - 11.0) * 0.05).collect();
    model.score.as_mut().unwrap().weight =
        Param::from_tensor(Tensor::from_data(TensorData::new(head, [labels, 16]), &device::cpu()));
    model
}

/// The sums of a task's rows, and the gradients of their mean loss where they are asked for.
fn sums(model: &CausalLm, task: &dyn Task, gradients: Option<&mut Gradients>) -> StepTally {
    let rows: Vec<usize> = (0..task.len()).collect();
    let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
    let batch = task.pack(model, &rows, &groups);
    let mut tally = StepTally { weight: task.weight(&groups), step_zero: Some(0.0), ..Default::default() };
    match gradients {
        Some(gradients) => {
            let options = TapeOptions { trainable: Trainable::All, ..Default::default() };
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
    tally
}

#[test]
fn gradients_are_those_of_the_loss() {
    let tokenizer = tokenizer();
    let (data, pairs) = data(&tokenizer);
    for options in [
        json!({"degree-weight": 0.7, "degrees": 3}),
        json!({"degree-weight": 0.7, "degrees": 3, "degree-answers": "replaced", "wpo": true}),
        json!({"degree-weight": 0.7, "degrees": 3, "degree-loss": "pair"}),
    ] {
        let (task, model) = (task(&data, &pairs, &options), model(3));
        let mut gradients = Gradients::default();
        let tally = sums(&model, &task, Some(&mut gradients));
        let classifies = options["degree-loss"].is_null();
        assert_eq!(tally.degrees.map(|degrees| degrees.answers), classifies.then_some(6.0), "{options}");
        let names: Vec<String> = gradients.names().map(String::from).collect();
        assert_eq!(names.contains(&"score.weight".into()), classifies);
        // The weights of WPO are constants of the gradient.
        let names = names.iter().filter(|name| options["wpo"].is_null() || *name == "score.weight");
        for name in names {
            let gradient = gradients.get(name).unwrap();
            let norm = gradient.clone().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
            assert!(norm > 0.0, "{name}");
            let step = 2e-3 / norm.max(1e-3);
            let moved = |by: f32| {
                let moved =
                    spo_model::parameters::replace(model.clone(), "", |parameter| match &parameter.path == name {
                        true => parameter.value + gradient.clone() * by,
                        false => parameter.value,
                    });
                sums(&moved, &task, None).mean_loss()
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let expected = f64::from(norm).powi(2);
            assert!((slope - expected).abs() <= 2e-2 * expected + 2e-4, "{options} {name}: {slope} not {expected}");
        }
    }
}

#[test]
fn a_head_alone_leaves_the_policy_the_gradient_of_dpo() {
    let (data, pairs) = data(&tokenizer());
    let model = model(3);
    let of = |options: Value| {
        let mut gradients = Gradients::default();
        sums(&model, &task(&data, &pairs, &options), Some(&mut gradients));
        gradients
    };
    let (plain, alone) = (of(json!({})), of(json!({"degree-weight": 5.0, "degrees": 3, "degree-loss": "head-only"})));
    assert!(alone.get("score.weight").unwrap().abs().max().into_scalar::<f32>() > 0.0);
    for name in plain.names() {
        let (a, b) = (plain.get(name).unwrap(), alone.get(name).unwrap());
        let (size, far) = (a.clone().abs().max().into_scalar::<f32>(), (a - b).abs().max().into_scalar::<f32>());
        assert!(far <= 1e-5 * size, "{name}: {far} of {size}");
    }
}

#[test]
fn an_ignorant_head_has_the_loss_of_chance() {
    let (data, pairs) = data(&tokenizer());
    let blank = model(3).with_zero_head(3);
    let plain = sums(&blank, &task(&data, &pairs, &json!({})), None);
    let with = sums(&blank, &task(&data, &pairs, &json!({"degree-weight": 0.5, "degrees": 3})), None);
    // Two of the three pairs have degrees.
    let more = 0.5 * 2.0 * 3f64.ln();
    assert!((with.loss - plain.loss - more).abs() < 1e-5);
    assert!((with.step_zero.unwrap() - plain.step_zero.unwrap() - more).abs() < 1e-12);
    let degrees = with.degrees.unwrap();
    assert_eq!((degrees.answers, degrees.accuracy()), (6.0, 1.0 / 3.0));
}

#[test]
fn degrees_are_the_answer_with_less_and_less_of_it() {
    let tokenizer = tokenizer();
    let (data, pairs) = data(&tokenizer);
    let options = json!({"degree-weight": 1.0, "degrees": 3});
    let rows = degraded(&data, &pairs, &options).unwrap();
    assert_eq!(rows.left_out(), 1);
    assert!(rows.of(2).is_empty());
    for row in 0..2 {
        let own = &data.examples[row].answers[0];
        let lengths: Vec<usize> = std::iter::once(own.len()).chain(rows.of(row).iter().map(Vec::len)).collect();
        assert!(lengths.is_sorted_by(|a, b| a > b), "{lengths:?}");
        assert!(rows.of(row).iter().all(|answer| answer.last() == own.last()));
    }
    let text = tokenizer.decode(&rows.of(1)[1]).unwrap();
    assert_eq!(text.trim(), "A the, and the bird was happy.");
    let last = degraded(&data, &pairs, &json!({"degree-weight": 1.0, "degrees": 3, "degree-loss": "pair"})).unwrap();
    assert_eq!(last.of(0), [rows.of(0)[1].clone()]);
}

/// A run file of a round on the built-in model and data.
fn spec(dir: &Path, more: &str) -> RunSpec {
    let text = format!(
        "schema = 1\nseed = 5\nout = \"out\"\n{}{TEXT}\
         [training]\nsteps = 3\npairs-per-step = 6\nlearning-rate = 1e-3\nwarmup-steps = 0\n\
         [evaluation]\nbootstrap-resamples = 40\nkl-samples = 0\nsamples = 0\n[checkpoints]\nevery-steps = 1\n{more}",
        tables("cpu", 40, 24),
    );
    written(dir, &text)
}

const ROUND: &str = "[[rounds]]\ndimension = \"honesty\"\nobjective = \"dpo\"\n";
const DEGREES: &str = "degree-weight = 0.1\ndegrees = 3\n";

fn steps(events: &[Event], of: &str) -> Vec<StepFigures> {
    let figures = |event: &Event| if let Event::Step(figures) = event { Some(figures.clone()) } else { None };
    events.iter().filter_map(figures).filter(|figures| figures.phase == of).collect()
}

#[test]
fn a_run_with_its_controls_reports_degrees_and_keeps_no_head() {
    for lora in ["", "[lora]\nrank = 4\n"] {
        let dir = tempfile::tempdir().unwrap();
        let controls = "[[rounds.controls]]\nname = \"plain\"\ndegree-weight = 0\n\
             [[rounds.controls]]\nname = \"pair\"\ndegree-loss = \"pair\"\n\
             [[rounds.controls]]\nname = \"replaced\"\ndegree-answers = \"replaced\"\n";
        let spec = spec(dir.path(), &format!("{lora}{ROUND}{DEGREES}{controls}"));
        let prepared = prepare(&spec, &mut Memory::default()).unwrap();
        let forecast = Forecast::of(&prepared).unwrap();
        assert!(forecast.phases[0].without_degrees.is_some() && forecast.phases[1].without_degrees.is_none());
        assert!(forecast.phases[0].tokens > forecast.phases[1].tokens);
        let memory = &forecast.memory.phases;
        assert_eq!(memory[0].weights - memory[1].weights, 4 * 3 * 64);
        let summary = finish(&spec);
        let policies: Vec<&str> = summary.degrees.iter().map(|score| score.policy.as_str()).collect();
        assert_eq!(policies, ["round-1-honesty", "round-1-honesty.replaced"]);
        let score = &summary.degrees[0];
        assert_eq!((score.degrees, score.pairs + score.left_out), (3, summary.data[0].pairs));
        assert!(score.answers > 0 && score.answers.is_multiple_of(3));
        assert!(score.loss > 0.0 && score.length_accuracy > 0.2, "{score:?}");
        let out = dir.path().join("out");
        let (events, report) = (events(&out), std::fs::read_to_string(out.join("report.md")).unwrap());
        assert!(report.contains("Preference degrees") && report.contains("by length %"), "{report}");
        let [own, plain, pair] = ["", ".plain", ".pair"].map(|arm| steps(&events, &format!("round-1-honesty{arm}")));
        assert!(own.iter().all(|figures| figures.degree_accuracy.is_some() && figures.degree_loss.is_some()));
        assert!(plain.iter().chain(&pair).all(|figures| figures.degree_accuracy.is_none()));
        // The first loss: ln 2 of the pairs, and of each that has degrees γ ln 3, or γ ln 2.
        let ln2 = 2f64.ln();
        assert!((plain[0].loss - ln2).abs() < 1e-4, "{}", plain[0].loss);
        assert!((0.0..=0.1 * 3f64.ln() + 1e-4).contains(&(own[0].loss - ln2)), "{}", own[0].loss);
        assert!((0.0..=0.1 * ln2 + 1e-4).contains(&(pair[0].loss - ln2)), "{}", pair[0].loss);
        assert_eq!(own[0].degree_accuracy, Some(1.0 / 3.0));
        // What is kept opens as a language model, without a head.
        let exported = CausalLm::from_dir(&out.join("model"), None, &device::cpu()).unwrap();
        assert!(exported.score.is_none());
        let mut stored = String::new();
        for (name, bytes) in left(&out) {
            if name.ends_with(".safetensors") && !name.starts_with("checkpoints") {
                stored.push_str(&String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 16)]));
            }
        }
        assert!(!stored.is_empty() && !stored.contains("score.weight"));
    }
}

#[test]
fn a_weight_of_zero_changes_no_bit() {
    let [plain, zero] =
        ["", "degree-weight = 0.0\ndegrees = 5\ndegree-answers = \"replaced\"\ndegree-loss = \"pair\"\n"].map(|more| {
            let dir = tempfile::tempdir().unwrap();
            finish(&spec(dir.path(), &format!("{ROUND}{more}")));
            let files = left(&dir.path().join("out"));
            files.into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect::<Vec<_>>()
        });
    assert!(!plain.is_empty());
    assert!(plain == zero);
}

#[test]
fn every_paired_objective_takes_degrees() {
    for objective in ["spo", "ipo", "simpo", "aot", "tdpo-2", "selm", "weighted-sum"] {
        let dir = tempfile::tempdir().unwrap();
        let more = match objective {
            "weighted-sum" => {
                "terms = [{ name = \"dpo\", weight = 1.0 }, { name = \"simpo\", weight = 0.5 }]\nwpo = true\n"
            }
            "selm" => "max-new-tokens = 6\n",
            "ipo" => "ld-alpha = 0.5\n",
            _ => "",
        };
        let round = format!(
            "[[rounds]]\ndimension = \"honesty\"\nobjective = \"{objective}\"\nsteps = 2\neval-every = 2\n\
             tokens-per-micro-batch = 400\n{DEGREES}{more}"
        );
        let summary = finish(&spec(dir.path(), &round));
        assert_eq!(summary.degrees.len(), 1, "{objective}");
        let events = events(&dir.path().join("out"));
        for figures in steps(&events, "round-1-honesty") {
            assert!(figures.loss.is_finite() && figures.grad_norm > 0.0, "{objective}: {figures:?}");
        }
        let held_out =
            events.iter().find_map(|event| if let Event::HeldOut(found) = event { Some(found) } else { None });
        assert!(held_out.unwrap().degree_accuracy.is_some(), "{objective}");
        // The margins are of the pairs alone: those of the running policy are those of the finished one.
        let running = held_out.unwrap().dimensions.iter().find(|found| found.dimension == "honesty").unwrap().margin;
        let finished = summary.matrix.iter().find(|score| score.dimension == "honesty").unwrap();
        let finished = finished.tally(spo_eval::Subset::All).unwrap().mean_margin;
        assert!((running - finished).abs() < 1e-3, "{objective}: {running} {finished}");
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    for more in ["", "[lora]\nrank = 4\n"] {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &format!("{more}{ROUND}{DEGREES}"));
        let out = dir.path().join("out");
        finish(&spec);
        let whole = left(&out);
        std::fs::remove_dir_all(&out).unwrap();
        let prepared = prepare(&spec, &mut Memory::default()).unwrap();
        assert!(run(prepared, &mut Broken { steps: 2 }, &AtomicBool::new(false)).is_err());
        let prepared = prepare(&Manifest::read(&out).unwrap().spec().unwrap(), &mut Memory::default()).unwrap();
        resume(prepared, &out, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        assert_same(&left(&out), &whole, more);
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

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let online = "[rounds.online]\nscorer = \"rules:length=9\"\n";
    for (more, wanted) in [
        (format!("{ROUND}{DEGREES}optimizer = \"mezo\"\nlearning-rate = 1e-4\n"), "learns by gradients"),
        (format!("{ROUND}{DEGREES}{online}"), "an online round makes its pairs on the way"),
        (
            "[[rounds]]\ndimension = [\"honesty\", \"helpfulness\"]\nobjective = \"dpo\"\ndegree-weight = 0.1\n\
             dimension-weights = { honesty = 0.5, helpfulness = 0.5 }\n"
                .into(),
            "a round of several dimensions",
        ),
        (format!("{ROUND}degree-weight = 0.1\ndegrees = 60\n"), "has 59 different phrases"),
        (format!("{ROUND}degree-weight = 0.1\ndegrees = 2.5\n"), "a whole number"),
        (format!("{ROUND}degree-weight = 0.1\ndegrees = 1\n"), "≥ 2 and ≤ 64"),
        (format!("{ROUND}degree-weight = -0.1\n"), "≥ 0"),
        (
            format!("{ROUND}degree-weight = 0.1\ndegree-answers = \"verbs\"\n"),
            "key-phrases or random-words or replaced",
        ),
        (
            "[[rounds]]\ndimension = \"honesty\"\nobjective = \"weighted-sum\"\n\
             terms = [{ name = \"dpo\", weight = 1.0, degree-weight = 0.1 }]\n"
                .into(),
            "belongs to the whole sum",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(&spec(dir.path(), &more), &mut Memory::default()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{more}: {error}");
    }
}
