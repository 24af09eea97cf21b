//! Everything that a run file names, read and checked before anything is written.

use crate::TrainError;
use crate::config::spec::{Dtype, Source, Split};
use crate::config::{Facts, RunPlan, RunSpec, resolve};
use crate::evaluate::labelled_set::LabelledSet;
use crate::events::{Event, Sink};
use crate::persist::directory::{START, WARMUP};
use crate::persist::disk_space;
use crate::policy::adapters;
use crate::run::disk::Disk;
use crate::task::build::ArmData;
use burn::tensor::Device;
use spo_data::{DataSpec, Dataset, Part, Tokenizer, load, load_cached, split_by_prompt};
use spo_model::{ModelSpec, device};
use std::path::PathBuf;

/// Everything a run needs, read and checked; nothing written yet.
#[derive(Debug)]
pub struct Prepared {
    /// The resolved run file.
    pub plan: RunPlan,
    /// Where it came from.
    pub source: Source,
    /// The starting model's shape.
    pub model: ModelSpec,
    /// Where it will run.
    pub device: Device,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The pairs to train on.
    pub train: LabelledSet,
    /// The pairs to evaluate on.
    pub held_out: LabelledSet,
    /// Directories of earlier runs: policies that they made in the same way are not trained again.
    pub source_runs: Vec<PathBuf>,
    /// Whether a run that may not fit on the disk is refused.
    pub check_room: bool,
}

/// Reads model shape, tokenizer and data, and resolves the plan. `spo plan` stops here.
///
/// # Errors
/// Whatever is wrong with the run file, the model directory, the device or the data.
pub fn prepare(spec: &RunSpec, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    let sections = spec.sections();
    let model = ModelSpec::from_path(&sections.model.path)?;
    let device = device::open(sections.model.device.as_deref().unwrap_or("auto"))?;
    let tokenizer = Tokenizer::from_path(&sections.model.path)?;
    let text = spec.text(Some(model.context))?;
    let mut read = |split: Split| -> Result<Dataset, TrainError> {
        let of_split = sections.data.iter().filter(|entry| entry.split == split);
        // Of a directory whose files name their split, an entry reads the files of its own.
        let part = match split {
            Split::Train => Part::Train,
            Split::Test => Part::Test,
        };
        let specs: Vec<DataSpec> = of_split.map(|entry| DataSpec { part, ..entry.source.clone() }).collect();
        let (name, mut told) = (if split == Split::Train { "train" } else { "held-out" }, Ok(()));
        let mut progress = |rows: usize| {
            if told.is_ok() {
                told = sink.event(0.0, &Event::Reading { split: name.into(), rows });
            }
        };
        let dataset = match &sections.token_cache {
            Some(directory) => load_cached(&specs, &text, &tokenizer, directory, &mut progress)?.0,
            None => load(&specs, &text, &tokenizer, &mut progress)?,
        };
        told.map(|()| dataset)
    };
    let (mut train, mut test) = (read(Split::Train)?, read(Split::Test)?);
    let bytes = match sections.model.dtype.unwrap_or(Dtype::F32) {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    };
    let facts = |train: &Dataset| Facts {
        context_length: Some(model.context),
        model_bytes: Some(bytes * model.parameters()),
        ..Facts::of(train)
    };
    let mut plan = resolve(spec, &facts(&train))?;
    if let Some(holdout) = plan.holdout {
        (train, test) = split_by_prompt(train, holdout, plan.seed);
        plan = resolve(spec, &facts(&train))?;
    }
    for example in train.examples.iter().chain(&test.examples) {
        let answers: Vec<&[u32]> = example.answers.iter().map(|answer| answer.as_slice()).collect();
        model.check_row(&example.id, &example.prompt, &answers)?;
    }
    adapters::check(spec, &plan, &model)?;
    let mut dimensions: Vec<String> = vec![];
    for round in &plan.rounds {
        if !dimensions.contains(&round.dimension) {
            dimensions.push(round.dimension.clone());
        }
    }
    // A warm-up that is evaluated on the way needs held-out answers of its own dimensions.
    let warmup = plan.warmup.iter().filter(|warmup| warmup.training.eval_every > 0);
    for dimension in warmup.flat_map(|warmup| &warmup.dimensions) {
        if !test.answers(dimension).iter().any(|row| row.desirable) {
            return Err(TrainError::NoPairs { what: format!("held-out answers of `{dimension}`") });
        }
    }
    let labelled =
        |split, dataset| LabelledSet::new(split, dataset, dimensions.clone(), &plan.evaluation.boilerplate, &tokenizer);
    let (train, held_out) = (labelled("train", train)?, labelled("held-out", test)?);
    for dimension in &dimensions {
        for set in [&train, &held_out] {
            if set.judged(dimension).is_empty() {
                return Err(TrainError::NoPairs { what: format!("{} data of `{dimension}`", set.split) });
            }
        }
    }
    check_objectives(&plan, &train.dataset, &held_out.dataset)?;
    sink.event(
        0.0,
        &Event::DataLoaded {
            sets: [train.summaries(), held_out.summaries()].concat(),
            conflicts: [train.conflicts(), held_out.conflicts()].concat(),
        },
    )?;
    let (source, source_runs) = (spec.source().clone(), vec![]);
    Ok(Prepared { plan, source, model, device, tokenizer, train, held_out, source_runs, check_room: true })
}

/// Refuses an objective that needs what the data or the rounds before lack, before anything is trained.
fn check_objectives(plan: &RunPlan, train: &Dataset, held_out: &Dataset) -> Result<(), TrainError> {
    let mut names = vec![if plan.warmup.is_some() { WARMUP } else { START }.to_string()];
    for round in &plan.rounds {
        for arm in &round.arms {
            ArmData::new(train, &round.dimension, arm)?.check(&names)?;
            // Its loss on held-out rows is computed on the way.
            if arm.training.eval_every > 0 {
                let data = ArmData::new(held_out, &round.dimension, arm)?;
                data.check(&names)?;
                if data.len() == 0 {
                    let what = format!("held-out {} of `{}`", arm.data.words(), round.dimension);
                    return Err(TrainError::NoPairs { what });
                }
            }
        }
        names.push(round.name.clone());
    }
    Ok(())
}

/// Refuses a run for which the disk has no room, beside what its directory holds already.
pub(super) fn check_room(prepared: &Prepared) -> Result<(), TrainError> {
    match prepared.check_room {
        true => disk_space::require(&prepared.plan.out, Disk::still_needed(prepared)?, false),
        false => Ok(()),
    }
}
