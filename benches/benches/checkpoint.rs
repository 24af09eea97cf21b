//! What do events, checkpoints every 100 steps and the progress bar cost beside the optimiser steps themselves?
//!
//! One run says it: the time that its steps take, the time that its sinks take of it, and that of a checkpoint. So this
//! is no benchmark of criterion's, which would have to find two percent in the difference of two runs. On a terminal
//! the bar is drawn, elsewhere lines are written.
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use spo_benches::ASSETS;
use spo_data::{DataSpec, Dataset, Example, PairRef, TextSpec, Tokenizer, load};
use spo_model::{CausalLm, ModelSpec};
use spo_train::config::{Facts, RunSpec, resolve};
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::csv::Tables;
use spo_train::events::sink::tensorboard::TensorBoard;
use spo_train::events::sink::{All, EventFile};
use spo_train::phase::checkpoint::Checkpoints;
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::policy::logps::LogpCache;
use spo_train::step::gradients::Trainable;
use spo_train::task::{PairInputs, PreferenceTask};
use spo_train::{Event, Sink, TrainError};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Steps between two checkpoints.
const EVERY: f64 = 100.0;

/// Takes the time that its sinks take, and the steps'.
struct Timed<'a> {
    sinks: All<'a>,
    spent: Duration,
    steps: Vec<f64>,
}

impl Sink for Timed<'_> {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let started = Instant::now();
        self.sinks.event(seconds, event)?;
        if let Event::Step(figures) = event {
            self.spent += started.elapsed();
            self.steps.push(figures.seconds);
        }
        Ok(())
    }
}

/// A model with what it trains on.
struct Setting {
    name: &'static str,
    model: CausalLm,
    data: Dataset,
    pairs: Vec<PairRef>,
    pairs_per_step: usize,
    steps: u64,
    checkpoints: usize,
}

fn built_in() -> Setting {
    let directory = format!("{ASSETS}/stories260K");
    let tokenizer = Tokenizer::from_dir(directory.as_ref()).expect("the built-in tokenizer");
    let file = DataSpec { limit: Some(256), ..DataSpec::new(format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz")) };
    let data = load(&[file], &TextSpec::default(), &tokenizer, &mut |_| ()).expect("the built-in pairs");
    Setting {
        name: "stories260K, 16 pairs a step",
        model: CausalLm::from_dir(directory.as_ref(), None, &Device::flex()).expect("the built-in model"),
        pairs: data.pairs("honesty"),
        data,
        pairs_per_step: 16,
        steps: 200,
        checkpoints: 20,
    }
}

/// 56 million random weights.
fn larger() -> Setting {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1408,
        "num_hidden_layers": 8, "num_attention_heads": 8, "max_position_embeddings": 1024}"#,
    )
    .expect("a whole configuration");
    let tokens =
        |start: usize, count: usize| (0..count).map(|at| ((start + 37 * at) % 31_000) as u32).collect::<Vec<_>>();
    let example = |row: usize| Example {
        id: row.to_string(),
        prompt: tokens(row, 128).as_slice().into(),
        answers: vec![tokens(row + 7, 192).as_slice().into(), tokens(row + 11, 192).as_slice().into()],
        ..Example::default()
    };
    Setting {
        name: "56 M weights, 8 pairs of 512 tokens a step",
        model: CausalLm::random(&spec, 1, &Device::flex()),
        data: Dataset { examples: (0..16).map(example).collect(), report: Default::default() },
        pairs: (0..16).map(|example| PairRef { example, chosen: 0, rejected: 1 }).collect(),
        pairs_per_step: 8,
        steps: 6,
        checkpoints: 3,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(setting: Setting) {
    let Setting { name, model, data, pairs, pairs_per_step, steps, checkpoints } = setting;
    let text = format!(
        "schema = 1\nmodel = {{ path = \"none\" }}\ndata = [{{ path = \"none\" }}]\nrounds = [{{ dimension = \"d\" }}]\n\
         training = {{ steps = {steps}, pairs-per-step = {pairs_per_step} }}"
    );
    let spec = RunSpec::from_str("bench", &text).expect("a whole run file");
    let facts = Facts { pairs: [("d".to_owned(), pairs.len())].into(), ..Facts::default() };
    let plan = resolve(&spec, &facts).expect("nothing is wrong with it");
    let place = tempfile::tempdir().expect("a place for the run");
    let out = place.path();
    let cache = LogpCache::open(out).expect("a fresh directory");

    let mut file = EventFile::create(&out.join("events.jsonl")).expect("a fresh file");
    let mut tables = Tables::create(out).expect("fresh files");
    let mut tensorboard = TensorBoard::create(out, 0.0).expect("fresh files");
    let mut bar = spo_cli::progress();
    let sinks = All(vec![&mut file, &mut tables, &mut tensorboard, bar.as_mut()]);
    let (mut timed, stop) = (Timed { sinks, spent: Duration::ZERO, steps: vec![] }, AtomicBool::new(false));
    let mut reporter = Reporter::new(out.into(), &mut timed, &stop);
    let reference = cache.fill("start", "start", 0, &model, &[&data], 1024, &mut reporter).expect("scored");
    let reference = reference.sides(&data, &pairs, |_| true).expect("all are stored");
    let arm = plan.rounds[0].main();
    let objective = spo_core::objective::build(&arm.objective, &arm.options).expect("dpo");
    let inputs = PairInputs::new(&data, &pairs, vec![reference]);
    let task = PreferenceTask::new(&data, pairs, objective, inputs, spo_model::device::cpu()).expect("a whole task");
    let phase = Phase {
        name: "bench",
        round: 1,
        training: &arm.training,
        trainable: Trainable::All,
        seed: 0,
        hold: None,
        probes: None,
        shards: 1,
    };
    let start = PhaseState::new(model, arm.training.optimizer(Trainable::All, 0, 1));
    let state = phase.run(start, &task, None, Stopping::never(), None, &mut reporter).expect("trained");
    let (step, events) = (median(timed.steps), timed.spent.as_secs_f64() / steps as f64);
    drop(bar);

    let mut kept = Checkpoints::open(out, &plan.checkpoints, None, 0).expect("a fresh directory");
    let mut save = || {
        let started = Instant::now();
        kept.save("bench", &state, None).expect("written");
        started.elapsed().as_secs_f64()
    };
    let checkpoint = median((0..checkpoints).map(|_| save()).collect());
    let share = |seconds: f64| 100.0 * seconds / step;
    println!(
        "{name}: step {:.1} ms; of a step: events, files and bar {:.2} % ({:.3} ms), a checkpoint every {EVERY} \
        steps {:.2} % ({:.1} ms each), together {:.2} %",
        1e3 * step,
        share(events),
        1e3 * events,
        share(checkpoint / EVERY),
        1e3 * checkpoint,
        share(events + checkpoint / EVERY)
    );
}

fn main() {
    // `cargo bench -- stories` takes those whose name has the word in it.
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for setting in [built_in(), larger()] {
        if setting.name.contains(&word) {
            measure(setting);
        }
    }
}
