//! What run files of several tests have in common: the built-in model and pairs.
#![allow(missing_docs)]

use spo_eval::RunSummary;
use spo_train::config::RunSpec;
use spo_train::events::sink::{Memory, read_events};
use spo_train::events::{Event, Held, Sink, StepFigures};
use spo_train::{TrainError, prepare, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How the built-in model reads questions and answers.
pub const TEXT: &str = r#"[text]
prompt-format = "Question: {prompt}\nAnswer:"
response-format = " {response}"
"#;

pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets")
}

/// The tables of the model, and of its first rows to train and to test on.
pub fn tables(device: &str, train_rows: usize, test_rows: usize) -> String {
    format!(
        r#"[model]
path = {model:?}
device = "{device}"
[[data]]
path = {train:?}
limit = {train_rows}
[[data]]
path = {test:?}
split = "test"
limit = {test_rows}
"#,
        model = assets().join("stories260K"),
        train = assets().join("truthfulqa/pairs.train.jsonl.gz"),
        test = assets().join("truthfulqa/pairs.test.jsonl.gz"),
    )
}

/// A run file with this text in a directory.
pub fn written(dir: &Path, text: &str) -> RunSpec {
    std::fs::write(dir.join("run.toml"), text).unwrap();
    RunSpec::from_file(&dir.join("run.toml")).unwrap()
}

/// Runs to the end.
pub fn finish(spec: &RunSpec) -> RunSummary {
    let prepared = prepare(spec, &mut Memory::default()).unwrap();
    run(prepared, &mut Memory::default(), &AtomicBool::new(false)).unwrap()
}

/// Runs until something ends it.
pub fn start(spec: &RunSpec, sink: &mut dyn Sink) -> Result<RunSummary, TrainError> {
    run(prepare(spec, &mut Memory::default())?, sink, &AtomicBool::new(false))
}

/// The steps of a phase.
pub fn steps<'m>(seen: &'m Memory, phase: &str) -> Vec<&'m StepFigures> {
    let step = |event: &'m Event| if let Event::Step(figures) = event { Some(figures) } else { None };
    seen.0.iter().filter_map(|record| step(&record.event)).filter(|figures| figures.phase == phase).collect()
}

/// What was said of the bounds of a phase.
pub fn held(seen: &Memory, phase: &str) -> Vec<Held> {
    let held = seen.0.iter().filter_map(|record| match &record.event {
        Event::Held(held) if held.phase == phase => Some(held.clone()),
        _ => None,
    });
    held.collect()
}

/// The events of a run directory.
pub fn events(out: &Path) -> Vec<Event> {
    read_events(&out.join("events.jsonl")).unwrap().into_iter().map(|record| record.event).collect()
}
