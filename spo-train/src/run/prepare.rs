//! Everything that a run file names, read and checked before anything is written.

use crate::TrainError;
use crate::config::spec::{Dtype, Source, Split};
use crate::config::{Facts, RunPlan, RunSpec, resolve};
use crate::evaluate::labelled_set::LabelledSet;
use crate::events::{Event, Sink};
use crate::persist::disk_space;
use crate::policy::adapters;
use crate::run::disk::Disk;
use crate::run::hub;
use crate::run::online::prompts::Texts;
use crate::run::place::PhaseData;
use crate::run::schedule::{Stage, schedule};
use burn::tensor::Device;
use spo_data::{Dataset, TextSpec, Tokenizer, split_by_fold, split_by_prompt};
use spo_model::{ModelSpec, device};
use std::path::PathBuf;

/// What the split of the pairs that drive λ adds to the seed.
const DRIVING: u64 = 0x0073_7465_6572;

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
    /// The pairs that drive λ of rounds with bounds; none where no round has any.
    pub driving: LabelledSet,
    /// The rows of each phase, in the order of the plan.
    pub(crate) phases: Vec<PhaseData>,
    /// The prompts as text, where scorers read them.
    pub(crate) texts: Texts,
    /// Who may be asked.
    pub(crate) scorers: spo_score::Registry,
    /// Directories of earlier runs: policies that they made in the same way are not trained again.
    pub source_runs: Vec<PathBuf>,
    /// Whether a run that may not fit on the disk is refused.
    pub check_room: bool,
}

impl Prepared {
    /// What the run does, stage by stage.
    pub(crate) fn stages(&self) -> Vec<Stage<'_>> {
        let sets = [&self.train, &self.held_out, &self.driving].map(|set| &*set.dataset);
        schedule(&self.plan, &self.phases, sets)
    }

    /// Rows to compare a saved policy on: the held-out ones, where there are any.
    pub fn probes(&self) -> &Dataset {
        if self.holds_out() { &self.held_out.dataset } else { &self.train.dataset }
    }

    /// Whether anything is held out: not with `holdout = 0`.
    pub fn holds_out(&self) -> bool {
        !self.held_out.dataset.examples.is_empty()
    }

    /// Tokens scored at once: without a tape twice as many fit as in training.
    pub(crate) fn scored_at_once(&self) -> usize {
        let arms = self.plan.rounds.iter().flat_map(|round| &round.arms);
        2 * arms.map(|arm| arm.training.micro_batch_tokens(&self.device)).max().unwrap_or(512)
    }
}

/// Brings what the run file names of the Hub into the cache, reads model shape, tokenizer and data, and resolves the plan. `spo plan` stops here.
///
/// # Errors
/// Whatever is wrong with the run file, the model directory, the device or the data.
pub fn prepare(spec: &RunSpec, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    prepare_on(spec, None, sink)
}

/// As [`prepare`], on this card where the run file asks for `cuda` without a number: each process of a machine has its own.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_on(spec: &RunSpec, card: Option<usize>, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    spec.check_meta_prompts()?;
    let (spec, located) = &hub::local(spec, sink)?;
    let (sections, registries) = (spec.sections(), spec.registries());
    let model = registries.families.spec(&sections.model.path)?;
    let device = match (sections.model.device.as_deref().unwrap_or("auto"), card) {
        ("cuda", Some(card)) => device::open(&format!("cuda:{card}"))?,
        (name, _) => device::open(name)?,
    };
    let tokenizer = Tokenizer::from_path(&sections.model.path)?;
    let text = spec.text(Some(model.context))?;
    let mut read = |split| read(spec, split, &text, &tokenizer, sink);
    let (train, test) = (read(Split::Train)?, read(Split::Test)?);
    // Without a row no dimension is known, which is no fault of the run file.
    if train.examples.is_empty() {
        return Err(TrainError::nothing_left("train data", &train.report));
    }
    let (mut plan, [train, test, driving]) = settle(spec, &model, train, test)?;
    hub::note(&mut plan, located);
    check_rows(&model, [&train, &test, &driving])?;
    adapters::check(spec, &plan, &model, &device)?;
    adapters::multiply(&plan, &device)?;
    check_router_loss(spec, &plan, &model)?;
    check_warm_up(&plan, &test)?;
    let [train, held_out] = label(&plan, &tokenizer, [("train", train), ("held-out", test)])?;
    let driving = driving_set(&plan, &tokenizer, driving, &train)?;
    let texts = Texts::of(spec, &plan, &tokenizer)?;
    let phases = PhaseData::all(&plan, &train.dataset, &held_out.dataset, &model, (&texts, &tokenizer))?;
    sink.event(0.0, &loaded([&train, &held_out, &driving]))?;
    let (source, source_runs) = (spec.source().clone(), vec![]);
    let scorers = registries.scorers.clone();
    let check_room = true;
    Ok(Prepared {
        plan,
        source,
        model,
        device,
        tokenizer,
        train,
        held_out,
        driving,
        phases,
        texts,
        scorers,
        source_runs,
        check_room,
    })
}

/// Reads the rows of a split.
fn read(
    spec: &RunSpec,
    split: Split,
    text: &TextSpec,
    tokenizer: &Tokenizer,
    sink: &mut dyn Sink,
) -> Result<Dataset, TrainError> {
    let (sections, registries) = (spec.sections(), spec.registries());
    let name = if split == Split::Train { "train" } else { "held-out" };
    let specs = spec.sources(Some(split), text.system.as_deref());
    let mut told = Ok(());
    let mut progress = |rows: usize| {
        if told.is_ok() {
            told = sink.event(0.0, &Event::Reading { split: name.into(), rows });
        }
    };
    let read = match &sections.token_cache {
        Some(directory) => {
            registries.data.load_cached(&specs, text, tokenizer, directory, &mut progress).map(|(read, _)| read)
        }
        None => registries.data.load(&specs, text, tokenizer, &mut progress),
    };
    let dataset = read.map_err(|error| spec.placed(error))?;
    told.map(|()| dataset)
}

/// The plan, and the rows of its splits: to train on, held out, and those that drive λ.
fn settle(
    spec: &RunSpec,
    model: &ModelSpec,
    train: Dataset,
    test: Dataset,
) -> Result<(RunPlan, [Dataset; 3]), TrainError> {
    let bytes = match spec.sections().model.dtype.unwrap_or(Dtype::F32) {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    };
    let resolved = |train: &Dataset| {
        let model_bytes = Some(bytes * model.parameters());
        resolve(spec, &Facts { context_length: Some(model.context), model_bytes, ..Facts::of(train) })
    };
    let plan = resolved(&train)?;
    let (train, test) = match (plan.holdout_fold, plan.holdout) {
        (Some(fold), _) => split_by_fold(train, fold),
        (None, Some(holdout)) => split_by_prompt(train, holdout, plan.seed),
        (None, None) => (train, test),
    };
    let (train, driving) = match plan.hold_share {
        // By another hash than the held-out prompts, which would else have taken all of the smallest ones.
        Some(share) => split_by_prompt(train, share, plan.seed.wrapping_add(DRIVING)),
        None => (train, Dataset::default()),
    };
    Ok((resolved(&train)?, [train, test, driving]))
}

/// Refuses a row that is too long for the model.
fn check_rows(model: &ModelSpec, sets: [&Dataset; 3]) -> Result<(), TrainError> {
    for example in sets.iter().flat_map(|set| &set.examples) {
        let answers: Vec<&[u32]> = example.answers.iter().map(|answer| answer.as_slice()).collect();
        model.check_row(&example.id, &example.prompt, &answers)?;
    }
    Ok(())
}

/// A loss of the router needs a router.
fn check_router_loss(spec: &RunSpec, plan: &RunPlan, model: &ModelSpec) -> Result<(), TrainError> {
    let arms = plan.rounds.iter().flat_map(|round| &round.arms).map(|arm| &arm.training);
    let mut all = arms.chain(plan.warmup.iter().map(|warmup| &warmup.training));
    if model.experts.is_none() && all.any(|training| training.router_loss != 0.0) {
        let message = format!("the model, of the family {}, has no experts to spread tokens over", model.family);
        return Err(spec.refused("training.router-loss", message, Some("leave it out".into())).into());
    }
    Ok(())
}

/// A warm-up that is evaluated on the way needs held-out answers of its own dimensions.
fn check_warm_up(plan: &RunPlan, test: &Dataset) -> Result<(), TrainError> {
    let warmup = plan.warmup.iter().filter(|warmup| warmup.training.eval_every > 0);
    for dimension in warmup.flat_map(|warmup| &warmup.dimensions) {
        if !test.answers(dimension).iter().any(|row| row.desirable) {
            return Err(TrainError::nothing_left(format!("held-out answers of `{dimension}`"), &test.report));
        }
    }
    Ok(())
}

/// Both splits with what the rounds' dimensions say of their rows, of which there must be some in each; with `holdout = 0`
/// nothing is said of the held-out ones, which there are none of.
fn label(
    plan: &RunPlan,
    tokenizer: &Tokenizer,
    splits: [(&'static str, Dataset); 2],
) -> Result<[LabelledSet; 2], TrainError> {
    let mut dimensions: Vec<String> = vec![];
    // Of a dimension that only a scorer knows there are no labels.
    let labelled =
        |dimension: &str| splits.iter().all(|(_, set)| set.judged_dimensions().iter().any(|d| d == dimension));
    for round in &plan.rounds {
        for dimension in round.dimensions() {
            let wanted = round.online.is_none() || labelled(dimension);
            if wanted && !dimensions.contains(dimension) {
                dimensions.push(dimension.clone());
            }
        }
    }
    for user in plan.steering.iter().flat_map(|steering| &steering.users) {
        if !dimensions.contains(user) {
            dimensions.push(user.clone());
        }
    }
    let [train, held_out] = splits.map(|(name, dataset)| {
        LabelledSet::new(name, dataset, dimensions.clone(), &plan.evaluation.boilerplate, tokenizer)
    });
    let mut sets = [train?, held_out?];
    if plan.holdout == Some(0.0) {
        if let Some(round) = plan.rounds.iter().find(|round| round.gate.is_some()) {
            return Err(TrainError::no_pairs(format!("held-out data for the gate of {}", round.name)));
        }
        if plan.holds() {
            return Err(TrainError::no_pairs("held-out data to judge the bounds of `hold` by"));
        }
        // Nothing is evaluated.
        sets[1].dimensions.clear();
    }
    for set in &sets {
        if let Some(dimension) = set.dimensions.iter().find(|dimension| set.judged(dimension).is_empty()) {
            let what = format!("{} data of `{dimension}`", set.split);
            return Err(TrainError::nothing_left(what, &set.dataset.report));
        }
    }
    Ok(sets)
}

/// The pairs that drive λ, of which every held dimension must have some, unless answers to their prompts do it.
fn driving_set(
    plan: &RunPlan,
    tokenizer: &Tokenizer,
    rows: Dataset,
    train: &LabelledSet,
) -> Result<LabelledSet, TrainError> {
    let dimensions = if plan.holds() { train.dimensions.clone() } else { vec![] };
    let set = LabelledSet::new("hold", rows, dimensions, &plan.evaluation.boilerplate, tokenizer)?;
    if plan.holds() && set.dataset.examples.is_empty() {
        return Err(TrainError::no_pairs("data that drive λ (`hold-share`)"));
    }
    let holds = plan.rounds.iter().flat_map(|round| &round.arms).filter_map(|arm| arm.hold.as_ref());
    for dimension in holds.filter(|hold| hold.sampled.is_none()).flat_map(|hold| hold.dimensions.keys()) {
        if set.judged(dimension).is_empty() {
            return Err(TrainError::no_pairs(format!("data of `{dimension}` that drive λ (`hold-share`)")));
        }
    }
    Ok(set)
}

/// What there is to say of the splits.
pub(super) fn loaded(sets: [&LabelledSet; 3]) -> Event {
    // Most runs have no pairs that drive λ.
    let sets = || sets.into_iter().filter(|set| !set.dimensions.is_empty());
    Event::DataLoaded {
        sets: sets().flat_map(LabelledSet::summaries).collect(),
        conflicts: sets().flat_map(LabelledSet::conflicts).collect(),
    }
}

/// Refuses a run for which the disk has no room, beside what its directory holds already.
pub(super) fn check_room(prepared: &Prepared) -> Result<(), TrainError> {
    match prepared.check_room {
        true => disk_space::require(&prepared.plan.out, Disk::still_needed(prepared)?, false),
        false => Ok(()),
    }
}
