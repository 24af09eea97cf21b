//! An optimiser of one's own that takes losses and no gradients: its steps in a phase, and their resumption.

use crate::common::{dataset, golden, model, training};
use burn::tensor::{Tensor, TensorData};
use spo_data::{Group, PackedBatch};
use spo_model::CausalLm;
use spo_model::parameters::{Parameter, count, for_each, replace};
use spo_train::config::spec::Best;
use spo_train::config::{CheckpointPlan, TrainingPlan};
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::phase::checkpoint::{Checkpoints, Saved};
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::optimizer::{FromLosses, Method, Optimizer};
use spo_train::step::row_sparse::RowSparse;
use spo_train::step::tape::{TapeOptions, differentiate};
use spo_train::task::{SupervisedTask, Task};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// Distance of the two models whose losses are compared.
const EPSILON: f64 = 1e-4;

/// Both sides of a random direction, with a memory of the derivatives before.
#[derive(Debug, Default)]
struct TwoSided {
    step: u64,
    derivative: f64,
}

/// The direction of a step: ±1 for every weight.
fn direction(step: u64, parameter: &Parameter) -> Tensor<1> {
    let key = blake3::hash(format!("{step} {}", parameter.path).as_bytes());
    let mut bits = vec![0; parameter.value.dims()[0]];
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bits);
    let signs: Vec<f32> = bits.into_iter().map(|bit: u8| if bit.is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
    let length = signs.len();
    Tensor::from_data(TensorData::new(signs, [length]), &parameter.value.device())
}

impl TwoSided {
    fn moved(&self, model: CausalLm, by: f64) -> CausalLm {
        replace(model, "", |parameter| {
            let along = direction(self.step, &parameter);
            parameter.value + along * by
        })
    }
}

impl FromLosses for TwoSided {
    fn probe(&mut self, model: &CausalLm, losses: &[f64]) -> Option<CausalLm> {
        let by = [EPSILON, -EPSILON].get(losses.len())?;
        Some(self.moved(model.clone(), *by))
    }

    fn update(&mut self, model: CausalLm, losses: &[f64], learning_rate: f64) -> (CausalLm, f64) {
        let derivative = (losses[0] - losses[1]) / (2.0 * EPSILON);
        self.derivative = 0.5 * self.derivative + derivative;
        let norm = derivative.abs() * (count(&model, |_| true) as f64).sqrt();
        let model = self.moved(model, -learning_rate * self.derivative);
        self.step += 1;
        (model, norm)
    }
}

impl Optimizer for TwoSided {
    fn method(&mut self) -> Method<'_> {
        Method::Losses(self)
    }

    fn trains(&self, _: &str) -> bool {
        true
    }

    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_> {
        let derivative = Tensor::from_data(
            TensorData::from([self.derivative]),
            (&spo_model::device::cpu(), burn::tensor::DType::F64),
        );
        Box::new([("derivative".to_owned(), RowSparse::Whole(derivative))].into_iter())
    }

    fn restore(&mut self, steps: u64, state: BTreeMap<String, Tensor<1>>) -> Result<(), String> {
        let derivative = state.get("derivative").ok_or("derivative is missing")?.clone().into_data();
        (self.step, self.derivative) = (steps, derivative.iter::<f64>().next().ok_or("derivative is empty")?);
        Ok(())
    }
}

fn start() -> PhaseState {
    PhaseState::new(model("llama-tiny-policy"), Box::new(TwoSided::default()))
}

/// Steps on four rows each, in micro-batches of one row.
fn plan(steps: u64) -> TrainingPlan {
    TrainingPlan { steps, learning_rate: 1e-6, ..training(4, 1) }
}

fn run(
    state: PhaseState,
    plan: &TrainingPlan,
    checkpoints: Option<&mut Checkpoints>,
) -> (PhaseState, Vec<StepFigures>) {
    let data = dataset(&golden("llama"));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
    let phase = Phase {
        name: "probed",
        round: 0,
        training: plan,
        trainable: Trainable::All,
        seed: 0,
        hold: None,
        probes: None,
        shards: 1,
    };
    let state = phase.run(state, &task, None, Stopping::never(), checkpoints, &mut reporter).unwrap();
    let figures = memory.0.into_iter().filter_map(|record| match record.event {
        Event::Step(figures) => Some(figures),
        _ => None,
    });
    (state, figures.collect())
}

#[test]
fn the_losses_are_those_of_the_batch_at_the_models_it_asks_for() {
    let data = dataset(&golden("llama"));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let groups: Vec<Group> = (0..4).map(|row| task.group(row)).collect();
    let (batch, start_model) = (PackedBatch::new(&groups), model("llama-tiny-policy"));
    let (mut gradients, mut loss) = (Gradients::default(), 0.0);
    differentiate(&start_model, &batch, &TapeOptions::default(), &mut gradients, |logps| {
        let weight = logps.len() as f64;
        loss = -logps.iter().map(|logp| f64::from(*logp)).sum::<f64>() / weight;
        Ok::<_, ()>(vec![(-1.0 / weight) as f32; logps.len()])
    })
    .unwrap();
    let (mut expected, mut weights) = (0.0, 0);
    for_each(&start_model, "", |parameter| {
        weights += parameter.value.dims()[0];
        if let Some(gradient) = gradients.get(&parameter.path) {
            expected += (gradient * direction(0, &parameter)).sum().into_scalar::<f32>() as f64;
        }
    });

    let (_, figures) = run(start(), &plan(1), None);
    let derivative = figures[0].grad_norm / (weights as f64).sqrt();
    assert!((derivative / expected.abs() - 1.0).abs() < 0.03, "derivative {derivative}, expected {expected}");
    assert!((figures[0].loss - loss).abs() < 1e-4, "loss {}, expected {loss}", figures[0].loss);
    assert_eq!(figures[0].tokens, 2 * batch.tokens() as u64, "the batch runs twice");
}

#[test]
fn its_state_comes_back_with_the_checkpoint() {
    let out = tempfile::tempdir().unwrap();
    let checkpoints = CheckpointPlan { every_steps: 2, every_minutes: 0.0, keep_last: 2, keep_best: Best::None };
    let mut checkpoints = Checkpoints::open(out.path(), &checkpoints, None, 0).unwrap();
    let (whole, figures) = run(start(), &plan(4), None);
    run(start(), &plan(2), Some(&mut checkpoints));
    let file = std::fs::read_dir(out.path().join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let saved = Saved::open(&file).unwrap();
    let restored = saved.restore(model("llama-tiny-ref"), Box::new(TwoSided::default())).unwrap();
    let (resumed, rest) = run(restored, &plan(4), None);

    let curve = |figures: &[StepFigures]| figures.iter().map(|of| (of.step, of.loss, of.grad_norm)).collect::<Vec<_>>();
    assert_eq!(curve(&rest), curve(&figures[2..]));
    let hash = |state: &PhaseState| spo_model::parameters::hash(&state.model, |_| true);
    assert_eq!(hash(&resumed), hash(&whole));
}
