//! MeZO and SubZero: the identities of their directions, steps in closed form, phases and their resumption.

use crate::common::{dataset, golden, model, training};
use burn::tensor::Tensor;
use spo_data::{Group, PackedBatch};
use spo_model::CausalLm;
use spo_model::load::Storage;
use spo_model::lora::LoraSpec;
use spo_model::parameters::{for_each, hash};
use spo_train::config::spec::Best;
use spo_train::config::{CheckpointPlan, TrainingPlan};
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::phase::checkpoint::{Checkpoints, Saved};
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::optimizer::zeroth_order::{Key, Role};
use spo_train::step::optimizer::{FromLosses, Method, Mezo, Optimizer, SubZero, SubZeroConfig, ZerothOrder};
use spo_train::step::tape::{TapeOptions, differentiate};
use spo_train::task::{SupervisedTask, Task};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

const EPSILON: f64 = 1e-3;

fn common_settings(trainable: Trainable) -> ZerothOrder {
    ZerothOrder { epsilon: EPSILON, seed: 5, trainable, ..Default::default() }
}

fn subzero(trainable: Trainable, refresh: u64) -> SubZero {
    SubZero::new(SubZeroConfig { common: common_settings(trainable), rank: 4, refresh })
}

fn losses_of(optimizer: &mut dyn Optimizer) -> &mut dyn FromLosses {
    match optimizer.method() {
        Method::Losses(optimizer) => optimizer,
        Method::Gradients(_) => unreachable!("both go by losses"),
    }
}

/// The weights by path, adapters in them.
fn weights(model: &CausalLm) -> BTreeMap<String, Vec<f64>> {
    let mut all = BTreeMap::new();
    for_each(&model.clone().merged(), "", |parameter| {
        all.insert(parameter.path, parameter.value.into_data().iter::<f64>().collect());
    });
    all
}

/// How far each weight of `to` is from that of `from`.
fn difference(to: &CausalLm, from: &CausalLm) -> BTreeMap<String, Vec<f64>> {
    let (mut to, from) = (weights(to), weights(from));
    for (path, values) in &mut to {
        values.iter_mut().zip(&from[path]).for_each(|(x, y)| *x -= y);
    }
    to
}

fn dot(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) -> f64 {
    a.iter().map(|(path, values)| values.iter().zip(&b[path]).map(|(x, y)| x * y).sum::<f64>()).sum()
}

/// Both probes of a step.
fn probes(optimizer: &mut dyn FromLosses, model: &CausalLm) -> [CausalLm; 2] {
    let up = optimizer.probe(model, &[]).unwrap();
    let down = optimizer.probe(model, &[0.0]).unwrap();
    assert!(optimizer.probe(model, &[0.0, 0.0]).is_none());
    [up, down]
}

#[test]
fn a_step_goes_back_along_its_own_direction_and_probes_leave_the_weights() {
    let start = model("llama-tiny-policy");
    let before = hash(&start, |_| true);
    let all: [Box<dyn Optimizer>; 2] =
        [Box::new(Mezo::new(common_settings(Trainable::All))), Box::new(subzero(Trainable::All, 10))];
    for mut optimizer in all {
        let [up, down] = probes(losses_of(optimizer.as_mut()), &start);
        assert_eq!(hash(&start, |_| true), before);
        let (along, back) = (difference(&up, &start), difference(&down, &start));
        // T6: both sides are the same direction, and the step's is the probes'.
        let length = dot(&along, &along);
        assert!((dot(&along, &back) / length + 1.0).abs() < 1e-4);
        let rate = 0.01;
        let (moved, norm) = losses_of(optimizer.as_mut()).update(start.clone(), &[1.5, 1.0], rate);
        let stepped = difference(&optimizer.policy(&moved), &start);
        let slope = 0.5 / (2.0 * EPSILON);
        for (path, values) in &stepped {
            for (found, along) in values.iter().zip(&along[path]) {
                let expected = -rate * slope * along / EPSILON;
                assert!((found - expected).abs() < 2e-4 * expected.abs() + 1e-3, "{path} {found} {expected}");
            }
        }
        let expected = slope * length.sqrt() / EPSILON;
        assert!((norm / expected - 1.0).abs() < 1e-3, "{norm} {expected}");
        let settled = optimizer.settle(moved);
        assert!(difference(&settled, &start).iter().all(|(path, values)| values == &stepped[path]));
        // Settling a second time changes nothing.
        let again = optimizer.settle(settled.clone());
        assert_eq!(hash(&again, |_| true), hash(&settled, |_| true));
    }
}

#[test]
fn subzero_moves_the_matrices_of_the_blocks_alone_with_the_expected_length() {
    let start = model("llama-tiny-policy");
    let mut optimizer = subzero(Trainable::All, 10);
    let [up, _] = probes(&mut optimizer, &start);
    assert!(up.has_lora(), "a branch beside the weights");
    let (mut found, mut expected) = (0.0, 0.0);
    for (path, values) in difference(&up, &start) {
        let moved = values.iter().any(|value| *value != 0.0);
        assert_eq!(moved, path.starts_with("layers.") && path.ends_with("_proj.weight"), "{path}");
        if moved {
            found += values.iter().map(|value| (value / EPSILON).powi(2)).sum::<f64>();
            expected += values.len() as f64;
        }
    }
    // T3, over the cores of all matrices.
    assert!((found / expected - 1.0).abs() < 0.3, "{found} {expected}");
}

#[test]
fn a_quadratic_is_descended_in_closed_form() {
    // L = ½ Σ h w²: two sides give ρ = ⟨H w, z⟩ exactly, whatever ε is (T7), so that w ← w − rate ρ z.
    let start = model("llama-tiny-policy");
    let curvature = |path: &str| 1.0 + path.len() as f64 / 10.0;
    let loss = |model: &CausalLm| -> f64 {
        let of =
            |(path, values): (&String, &Vec<f64>)| 0.5 * curvature(path) * values.iter().map(|x| x * x).sum::<f64>();
        weights(model).iter().map(of).sum()
    };
    let before = weights(&start);
    let direction = |path: &str, length: usize| Key::new(5, path, Role::Direction, 0, 0).normals(length);
    let slope_of = |(path, values): (&String, &Vec<f64>)| {
        let z = direction(path, values.len());
        curvature(path) * values.iter().zip(z).map(|(w, z)| w * f64::from(z)).sum::<f64>()
    };
    let slope: f64 = before.iter().map(slope_of).sum();
    for epsilon in [1e-2, 1e-1] {
        let mut optimizer = Mezo::new(ZerothOrder { epsilon, ..common_settings(Trainable::All) });
        let losses = probes(&mut optimizer, &start).map(|probe| loss(&probe));
        let found = (losses[0] - losses[1]) / (2.0 * epsilon);
        assert!((found - slope).abs() < 2e-3 * slope.abs().max(1.0), "ε {epsilon}: {found}, expected {slope}");
        let (moved, _) = optimizer.update(start.clone(), &losses, 1e-4);
        for (path, values) in weights(&moved) {
            for ((found, before), z) in values.iter().zip(&before[&path]).zip(direction(&path, values.len())) {
                let expected = before - 1e-4 * slope * f64::from(z);
                assert!((found - expected).abs() < 1e-6 * (1.0 + slope.abs()), "{path}: {found} {expected}");
            }
        }
    }
}

#[test]
fn the_slope_is_that_of_the_gradient() {
    let data = dataset(&golden("llama"));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let groups: Vec<Group> = (0..4).map(|row| task.group(row)).collect();
    let (batch, start) = (PackedBatch::new(&groups), model("llama-tiny-policy"));
    let mut gradients = Gradients::default();
    differentiate(&start, &batch, &TapeOptions::default(), &mut gradients, |logps| {
        Ok::<_, ()>(vec![-1.0 / logps.len() as f32; logps.len()])
    })
    .unwrap();
    let [up, _] = probes(&mut subzero(Trainable::All, 10), &start);
    let along = difference(&up, &start);
    let gradient =
        |path: &String| gradients.get(path).map(|values: Tensor<1>| values.into_data().iter::<f64>().collect());
    let gradient: BTreeMap<_, Vec<f64>> =
        along.iter().map(|(path, values)| (path.clone(), gradient(path).unwrap_or(vec![0.0; values.len()]))).collect();
    let expected = dot(&gradient, &along).abs() * dot(&along, &along).sqrt() / EPSILON.powi(2);
    let optimizer: Box<dyn Optimizer> = Box::new(subzero(Trainable::All, 10));
    let (_, figures) = run(PhaseState::new(start, optimizer), &plan(1), Trainable::All, None);
    let found = figures[0].grad_norm;
    assert!((found / expected - 1.0).abs() < 0.03, "{found}, expected {expected}");
    assert_eq!(figures[0].tokens, 2 * batch.tokens() as u64);
}

/// Steps on four rows each, in micro-batches of one row.
fn plan(steps: u64) -> TrainingPlan {
    TrainingPlan { steps, learning_rate: 1e-5, ..training(4, 1) }
}

fn run(
    state: PhaseState,
    plan: &TrainingPlan,
    trainable: Trainable,
    checkpoints: Option<&mut Checkpoints>,
) -> (PhaseState, Vec<StepFigures>) {
    let data = dataset(&golden("llama"));
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
    let phase =
        Phase { name: "probed", round: 0, training: plan, trainable, seed: 0, hold: None, probes: None, shards: 1 };
    let state = phase.run(state, &task, None, Stopping::never(), checkpoints, &mut reporter).unwrap();
    let figures = memory.0.into_iter().filter_map(|record| match record.event {
        Event::Step(figures) => Some(figures),
        _ => None,
    });
    (state, figures.collect())
}

fn adapted(model: CausalLm) -> CausalLm {
    model.with_lora(&LoraSpec::new(3, 6.0), 2).unwrap()
}

#[test]
fn equal_seeds_give_equal_bits_and_a_phase_goes_on_in_the_middle_of_a_window() {
    type Make = fn(Trainable, f64, u64) -> Box<dyn Optimizer>;
    let makes: [Make; 2] = [
        |trainable, momentum, seed| {
            let common = ZerothOrder { momentum, seed, estimates: 2, ..common_settings(trainable) };
            Box::new(SubZero::new(SubZeroConfig { common, rank: 4, refresh: 3 }))
        },
        |trainable, momentum, seed| {
            Box::new(Mezo::new(ZerothOrder { momentum, seed, estimates: 2, ..common_settings(trainable) }))
        },
    ];
    type Start = fn() -> CausalLm;
    let starts: [(Start, Trainable, f64); 4] = [
        (|| model("llama-tiny-policy"), Trainable::All, 0.0),
        (|| model("llama-tiny-policy").stored_as(Storage::Bf16), Trainable::All, 0.9),
        (|| adapted(model("llama-tiny-policy")), Trainable::Adapters, 0.9),
        (|| adapted(model("llama-tiny-policy").stored_as(Storage::Bf16)), Trainable::Adapters, 0.0),
    ];
    for (start, trainable, momentum) in starts {
        for make in makes {
            let state = |seed| PhaseState::new(start(), make(trainable, momentum, seed));
            let bits = |state: &PhaseState| hash(&state.model, |_| true);
            let (whole, figures) = run(state(1), &plan(8), trainable, None);
            assert_eq!(bits(&run(state(1), &plan(8), trainable, None).0), bits(&whole), "equal seeds");
            assert_ne!(bits(&run(state(2), &plan(8), trainable, None).0), bits(&whole), "other seeds");
            assert_ne!(bits(&whole), hash(&start(), |_| true), "it moved");
            for at in [2, 4] {
                let out = tempfile::tempdir().unwrap();
                let checkpoints =
                    CheckpointPlan { every_steps: at, every_minutes: 0.0, keep_last: 1, keep_best: Best::None };
                let mut checkpoints = Checkpoints::open(out.path(), &checkpoints, None, 0).unwrap();
                run(state(1), &plan(at), trainable, Some(&mut checkpoints));
                let file = std::fs::read_dir(out.path().join("checkpoints")).unwrap().next().unwrap().unwrap().path();
                let saved = Saved::open(&file).unwrap();
                let restored = saved.restore(start(), make(trainable, momentum, 1)).unwrap();
                let (resumed, rest) = run(restored, &plan(8), trainable, None);
                let curve = |figures: &[StepFigures]| {
                    figures.iter().map(|of| (of.step, of.loss, of.grad_norm)).collect::<Vec<_>>()
                };
                assert_eq!(curve(&rest), curve(&figures[at as usize..]));
                assert_eq!(bits(&resumed), bits(&whole), "resumed after {at}");
            }
        }
    }
}

#[test]
fn both_lower_the_loss_of_adapters() {
    let makes: [Box<dyn Optimizer>; 2] =
        [Box::new(subzero(Trainable::Adapters, 20)), Box::new(Mezo::new(common_settings(Trainable::Adapters)))];
    for optimizer in makes {
        let start = PhaseState::new(adapted(model("llama-tiny-policy")), optimizer);
        let training = TrainingPlan { learning_rate: 1e-3, ..training(4, 100_000) };
        let (_, figures) = run(start, &TrainingPlan { steps: 60, ..training }, Trainable::Adapters, None);
        let mean = |figures: &[StepFigures]| figures.iter().map(|of| of.loss).sum::<f64>() / figures.len() as f64;
        let (first, last) = (mean(&figures[..15]), mean(&figures[45..]));
        assert!(last < first, "{first} {last}");
    }
}
