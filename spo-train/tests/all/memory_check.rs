//! The longest row runs before the first step, so that memory that does not suffice shows at once.

use crate::common::hooked::Hooked;
use crate::common::{dataset, golden, model, training};
use spo_train::config::TrainingPlan;
use spo_train::events::Event;
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::step::gradients::Trainable;
use spo_train::task::{StepTally, SupervisedTask, Task};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// The rows of each micro-batch of a run, and the steps that its events report.
fn batches(training: TrainingPlan) -> (Vec<Vec<usize>>, Vec<u64>) {
    let (data, batches) = (dataset(&golden("llama")), Mutex::new(vec![]));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let hook = |rows: &[usize], _: &mut StepTally| batches.lock().unwrap().push(rows.to_vec());
    let task = Hooked { task, hook };
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
    let phase = Phase {
        name: "checked",
        round: 0,
        training: &training,
        trainable: Trainable::All,
        seed: 0,
        hold: None,
        probes: None,
        shards: 1,
    };
    let start = PhaseState::new(model("llama-tiny-policy"), training.optimizer(Trainable::All, 0, 0));
    phase.run(start, &task, None, Stopping::never(), None, &mut reporter).unwrap();
    let step = |record: spo_train::events::sink::Record| match record.event {
        Event::Step(figures) => Some(figures.step),
        _ => None,
    };
    let reported = memory.0.into_iter().filter_map(step).collect();
    (batches.into_inner().unwrap(), reported)
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
    let (rows, reported) = batches(TrainingPlan { steps: 100, ..training(1, 1) });
    assert_eq!(rows[0], [longest()]);
    assert_eq!(rows[1..5], [[0], [1], [2], [3]], "then the rows in their order");
    assert_eq!((rows.len(), reported), (101, (1..=100).collect()), "no step is reported for it");
}

#[test]
fn nothing_runs_that_soon_shows() {
    let first = |training| batches(training).0[0].clone();
    assert_eq!(first(TrainingPlan { steps: 5, ..training(1, 1) }), [0], "a short phase");
    let whole = TrainingPlan { steps: 100, ..training(longest() + 1, 100_000) };
    assert_eq!(batches(whole).0.len(), 100, "a row of the first batch");
    let in_backward = TrainingPlan { steps: 100, update_in_backward: true, ..training(1, 1) };
    assert_eq!(first(in_backward), [0], "batches that are updated in the backward pass");
}
