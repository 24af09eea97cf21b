//! The recipes of SubZero, a few steps of them.

use spo_train::config::RunSpec;
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::{prepare, run};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What a recipe says with these settings in the place of its own.
fn events(file: &str, sets: &[&str]) -> Vec<Event> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/subzero").join(file);
    let out = tempfile::tempdir().unwrap();
    let mut spec = RunSpec::from_file(&file).unwrap();
    let out_of_the_way = format!("out={}", serde_json::json!(out.path().join("run")));
    let more = ["data.0.limit=40", "data.1.limit=20", "evaluation.bootstrap-resamples=40"];
    for set in sets.iter().chain(&more).copied().chain([out_of_the_way.as_str()]) {
        spec.apply_set(set).unwrap();
    }
    let mut seen = Memory::default();
    run(prepare(&spec, &mut Memory::default()).unwrap(), &mut seen, &AtomicBool::new(false)).unwrap();
    seen.0.into_iter().map(|record| record.event).collect()
}

#[test]
fn the_recipe_runs_and_its_control_too() {
    let sets = [
        "training.steps=6",
        "training.eval-every=3",
        "training.zo-refresh=4",
        "rounds.0.controls.0.steps=2",
        "rounds.0.controls.0.eval-every=0",
    ];
    let (mut steps, mut saved) = (vec![], vec![]);
    for event in events("run.toml", &sets) {
        match event {
            Event::Step(figures) => steps.push((figures.phase, figures.tokens, figures.loss)),
            Event::PolicySaved { policy, hash, .. } => saved.push((policy, hash)),
            _ => {}
        }
    }
    let of = |phase: &str| steps.iter().filter(|(name, ..)| name == phase).collect::<Vec<_>>();
    let (main, control) = (&steps[0].0, &steps.last().unwrap().0);
    assert_eq!((of(main).len(), of(control).len()), (6, 2), "{steps:?}");
    // At the start the margin is 0, and two sides of it are close to ln 2 in the mean.
    assert!((steps[0].2 - 2f64.ln()).abs() < 0.05, "{steps:?}");
    assert_eq!(saved.len(), 2);
    assert_ne!(saved[0].1, saved[1].1);
}

#[test]
fn the_recipe_of_scores_runs_and_its_control_stays_where_it_is() {
    let sets = ["training.steps=2", "training.pairs-per-step=4", "training.eval-every=1", "evaluation.kl-samples=4"];
    let (mut scores, mut held_out) = (vec![], vec![]);
    for event in events("score.toml", &sets) {
        match event {
            Event::Step(figures) => scores.push((figures.phase, figures.score.unwrap())),
            Event::HeldOut(found) => held_out.push((found.phase, found.score.unwrap())),
            _ => {}
        }
    }
    assert_eq!((scores.len(), held_out.len()), (4, 4));
    let still: Vec<f64> =
        held_out.iter().filter(|(phase, _)| phase.ends_with(".still")).map(|(_, score)| *score).collect();
    assert!(still.len() == 2 && still[0] == still[1], "{held_out:?}");
    assert!(scores.iter().all(|(_, score)| *score <= 0.0), "{scores:?}");
}
