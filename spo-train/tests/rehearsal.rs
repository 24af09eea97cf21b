//! The longest row runs before the first step, so that memory that does not suffice shows at once.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{dataset, golden, model};
use serde_json::json;
use spo_data::{Group, PackedBatch};
use spo_train::config::TrainingPlan;
use spo_train::event::Event;
use spo_train::gradients::Trainable;
use spo_train::phase::{Phase, PhaseState};
use spo_train::session::Session;
use spo_train::sink::Memory;
use spo_train::stopping::Stopping;
use spo_train::tape::{Scored, Slopes};
use spo_train::task::{SupervisedTask, Task, WindowTally};
use spo_train::{Sink, TrainError};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Notes the rows of each micro-batch.
struct Noted<'a> {
    task: SupervisedTask<'a>,
    batches: Mutex<Vec<Vec<usize>>>,
}

impl Task for Noted<'_> {
    fn len(&self) -> usize {
        self.task.len()
    }
    fn group(&self, row: usize) -> Group<'_> {
        self.task.group(row)
    }
    fn id(&self, row: usize) -> &str {
        self.task.id(row)
    }
    fn slopes(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        window: &mut WindowTally,
    ) -> Result<Slopes, TrainError> {
        self.batches.lock().unwrap().push(rows.to_vec());
        self.task.slopes(rows, batch, scored, window)
    }
}

/// The rows of each micro-batch of a run, and the steps that its events tell of.
fn batches(steps: u64, pairs_per_step: usize, token_budget: usize, in_backward: bool) -> (Vec<Vec<usize>>, Vec<u64>) {
    let data = dataset(&golden("llama"));
    let task = Noted { task: SupervisedTask::new(&data, &["preference".to_string()]), batches: Mutex::default() };
    let training: TrainingPlan = serde_json::from_value(json!({
        "steps": steps, "epochs": null, "pairs-per-step": pairs_per_step, "tokens-per-micro-batch": token_budget,
        "learning-rate": 1e-3, "schedule": "constant", "warmup-steps": 0, "final-learning-rate-ratio": 0.0,
        "weight-decay": 0.0, "adam-betas": [0.9, 0.999], "adam-eps": 1e-8, "max-grad-norm": 0.0, "shuffle": false,
        "recompute": "none", "head-chunk-rows": 0, "update-in-backward": in_backward
    }))
    .unwrap();
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut session = Session::new(std::env::temp_dir(), &mut memory as &mut dyn Sink, &stop);
    let phase = Phase { name: "rehearsed", round: 0, training: &training, trainable: Trainable::All, seed: 0 };
    let start = PhaseState::new(model("llama-tiny-policy"));
    phase.run(start, &task, None, Stopping::never(), &mut session).unwrap();
    let step = |record: spo_train::sink::Record| match record.event {
        Event::Window(window) => Some(window.step),
        _ => None,
    };
    (task.batches.into_inner().unwrap(), memory.0.into_iter().filter_map(step).collect())
}

fn longest() -> usize {
    let data = dataset(&golden("llama"));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let longest = (0..task.len()).max_by_key(|row| task.group(*row).tokens()).unwrap();
    assert!(longest > 1, "the fixture's longest row does not come first");
    longest
}

#[test]
fn the_longest_row_of_a_long_phase_runs_first() {
    let (rows, told) = batches(100, 1, 1, false);
    assert_eq!(rows[0], [longest()]);
    assert_eq!(rows[1..5], [[0], [1], [2], [3]], "then the rows in their order");
    assert_eq!((rows.len(), told), (101, (1..=100).collect()), "no step is told of for it");
}

#[test]
fn nothing_is_rehearsed_that_soon_shows() {
    assert_eq!(batches(5, 1, 1, false).0[0], [0], "a short phase");
    assert_eq!(batches(100, longest() + 1, 100_000, false).0.len(), 100, "a row of the first window");
    assert_eq!(batches(100, 1, 1, true).0[0], [0], "windows that are updated in backward");
}
