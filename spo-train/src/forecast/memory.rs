//! How much memory a run will take, by what it is for.

use crate::config::spec::Recompute;
use crate::config::{ArmPlan, DataShape, TrainingPlan};
use crate::persist::directory::{WARMUP, policy_name};
use crate::phase::{AUTO_ACTIVATION_BYTES, side_by_side};
use crate::policy::adapters::policy_options;
use crate::run::Prepared;
use crate::{TrainError, step::memory};
use serde::Serialize;
use spo_data::{Dataset, Order, micro_batches};
use spo_model::ModelSpec;
use spo_model::device::{describe, on_cpu};
use spo_model::export::PROBE_TOKENS;
use spo_model::load::Storage;
use spo_model::memory::{Batch, Training, generation, parameter_shapes, scoring_head};

/// Memory of one answer's log-prob under one policy: its key, the number, and the table's slack.
const CACHED_ANSWER: usize = 80;
/// Sequences that are sampled together.
const SAMPLED_TOGETHER: usize = 64;

/// What the CPU's allocator holds between operations and in pages used in part, as a share of what a step allocates and
/// frees. A rule of thumb: chosen for the settings of docs/performance.md together.
const ALLOCATOR_SHARE: f64 = 0.2;

/// What a run takes, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryForecast {
    /// The device.
    pub device: String,
    /// The warm-up and every arm of every round, at the top of a step.
    pub phases: Vec<PhaseMemory>,
    /// A policy while responses are sampled from it, where they are.
    pub sampling: Option<usize>,
    /// A policy while it is saved, scored and read back: its weights, a chunk of logits, the pages of the largest tensor's
    /// file, and what the phase before kept of a micro-batch, which the program gives back a second later.
    pub saving: usize,
    /// The largest of these.
    pub peak: usize,
}

/// What a phase takes at the top of a step, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseMemory {
    /// Its name.
    pub phase: String,
    /// Most tokens computed at once: of a micro-batch, or of those that run side by side.
    pub tokens: usize,
    /// Most predicted tokens computed at once.
    pub predicted: usize,
    /// The model's own weights.
    pub weights: usize,
    /// Adapters, frozen ones too.
    pub adapters: usize,
    /// Sums of the gradients.
    pub gradients: usize,
    /// The optimiser's moments, and f32 weights where they are stored in 16 bits.
    pub optimizer: usize,
    /// What the blocks keep of a micro-batch with `recompute = "none"`.
    pub activations_kept: usize,
    /// The same with `recompute = "blocks"`.
    pub activations_recomputed: usize,
    /// Which of the two the phase does. With `every-2` and `every-4` the need is between the two, and the first is counted.
    pub recomputes: bool,
    /// Logits and their slopes.
    pub head: usize,
    /// Log-probs of frozen policies, in host memory.
    pub cache: usize,
    /// Program, tokenizer and data, in host memory: what the process held when this was computed.
    pub program: usize,
    /// What the allocator holds besides, in host memory.
    pub allocator: usize,
    /// All of it on the CPU; on another device what is there.
    pub total: usize,
}

impl MemoryForecast {
    /// What the run will take. The largest micro-batch is looked up in the data, in the order of the run.
    ///
    /// # Errors
    /// Adapters that do not fit the model.
    pub(super) fn of(prepared: &Prepared) -> Result<Self, TrainError> {
        let (plan, spec) = (&prepared.plan, &prepared.model);
        let program = memory::resident_bytes() as usize;
        let mut phases = vec![];
        if let Some(warmup) = &plan.warmup {
            let rows = desirable(&prepared.train.dataset, &warmup.dimensions);
            phases.push(phase(prepared, WARMUP, 0, &warmup.training, &rows, program)?);
        }
        for (index, round) in plan.rounds.iter().enumerate() {
            for arm in &round.arms {
                let rows = rows(&prepared.train.dataset, &round.dimension, arm);
                let name = policy_name(round, arm);
                phases.push(phase(prepared, &name, index + 1, &arm.training, &rows, program)?);
            }
        }
        let host = on_cpu(&prepared.device);
        let largest = phases.iter().max_by_key(|phase| phase.total).expect("a run has rounds");
        let resident = largest.weights + largest.adapters + if host { program } else { 0 };
        let prompts = plan.evaluation.kl_samples.max(plan.evaluation.samples + plan.evaluation.sample_prompts.len());
        let longest = prepared.held_out.dataset.examples.iter().map(|example| example.prompt.len()).max().unwrap_or(0);
        let tokens = (longest + plan.evaluation.kl_max_new_tokens).min(spec.context);
        let laid_out = || resident + generation(spec, prompts.min(SAMPLED_TOGETHER), tokens);
        let sampling = (prompts > 0 && host).then(laid_out);
        let tensors = parameter_shapes(spec).into_iter().map(|(_, shape)| shape.iter().product::<usize>());
        let scored = scoring_head(spec, PROBE_TOKENS) + 4 * tensors.max().unwrap_or(0);
        let saving = resident + scored + if host { largest.activations() } else { 0 };
        let peak = phases.iter().map(|phase| phase.total).chain(sampling).chain([saving]).max().unwrap_or(0);
        Ok(Self { device: describe(&prepared.device), phases, sampling, saving, peak })
    }
}

fn phase(
    prepared: &Prepared,
    name: &str,
    round: usize,
    settings: &TrainingPlan,
    rows: &[Row],
    program: usize,
) -> Result<PhaseMemory, TrainError> {
    let (spec, host) = (&prepared.model, on_cpu(&prepared.device));
    let options = policy_options(&prepared.plan, spec, &prepared.device)?;
    let storage = options.load.storage.unwrap_or(Storage::F32);
    let lora = options.lora.as_ref();
    let frozen_ranks = match lora {
        Some(lora) if options.stack => lora.rank * (round.saturating_sub(1) + usize::from(options.start.is_some())),
        _ => 0,
    };
    let training =
        Training { storage, blocks: options.load.blocks, lora, frozen_ranks, fused: host && storage == Storage::F32 };
    let order = Order {
        n: rows.len(),
        batch: settings.pairs_per_step,
        seed: prepared.plan.seed,
        round: round as u64,
        shuffle: settings.shuffle,
    };
    let budget = match settings.update_in_backward {
        true => usize::MAX,
        false => settings.micro_batch_tokens(&prepared.device),
    };
    // Micro-batches of a small model run side by side, each with gradients of its own.
    let alone = settings.update_in_backward || !side_by_side(&prepared.device, spec);
    let threads = if alone { 1 } else { rayon::current_num_threads() };
    let (batch, at_once) = largest_batch(rows, &order, settings.steps, budget, threads, !host);
    let [kept, recomputed] = [false, true].map(|recomputed| training.activations(spec, batch, recomputed));
    let (kept, recomputed) = (kept?, recomputed?);
    let recomputes = match settings.recompute {
        Recompute::Auto => {
            Training { lora: None, ..training.clone() }.activations(spec, batch, false)? > AUTO_ACTIVATION_BYTES
        }
        chosen => chosen == Recompute::Blocks,
    };
    let mut state = training.state(spec)?;
    let sets = if at_once > 1 { at_once + 1 } else { 1 };
    // Of an embedding table with a head of its own, only the rows of tokens that occur have gradients and moments.
    let [mut untouched, mut untouched_in_a_step] = [0, 0];
    if training.embedding_by_rows(spec) {
        let touched = touched_rows(rows, &order, settings.steps, spec.vocab_size);
        [untouched, untouched_in_a_step] = touched.map(|rows| 4 * spec.hidden_size * (spec.vocab_size - rows));
    }
    state.optimizer -= 2 * untouched;
    state.gradients -= untouched_in_a_step;
    let mut phase = PhaseMemory {
        phase: name.into(),
        tokens: batch.tokens,
        predicted: batch.rows,
        weights: state.weights,
        adapters: state.adapters,
        gradients: if settings.update_in_backward {
            largest_part(spec, untouched_in_a_step)
        } else {
            state.gradients * sets
        },
        optimizer: state.optimizer,
        activations_kept: kept,
        activations_recomputed: recomputed,
        recomputes,
        head: training.head(spec, batch, settings.head_chunk_rows) * at_once,
        cache: CACHED_ANSWER * round * rows.iter().map(|row| row.answers).sum::<usize>(),
        program,
        allocator: 0,
        total: 0,
    };
    let passing = phase.gradients + phase.activations() + phase.head;
    phase.total = phase.weights + phase.adapters + phase.optimizer + passing;
    if host {
        phase.allocator = (ALLOCATOR_SHARE * (passing + phase.cache + phase.program) as f64) as usize;
        phase.total += phase.cache + phase.program + phase.allocator;
    }
    Ok(phase)
}

impl PhaseMemory {
    /// What the blocks keep the way the phase runs.
    pub fn activations(&self) -> usize {
        if self.recomputes { self.activations_recomputed } else { self.activations_kept }
    }
}

/// A row of a task.
struct Row<'a> {
    tokens: usize,
    predicted: usize,
    answers: usize,
    /// Prompt and answers.
    parts: Vec<&'a [u32]>,
}

impl<'a> Row<'a> {
    fn new(dataset: &'a Dataset, example: usize, answers: &[usize]) -> Self {
        let example = &dataset.examples[example];
        let chosen = answers.iter().map(|&answer| &example.answers[answer][..]);
        let predicted = chosen.clone().map(<[u32]>::len).sum();
        let parts = std::iter::once(&example.prompt[..]).chain(chosen).collect();
        Self { tokens: example.prompt.len() + predicted, predicted, answers: answers.len(), parts }
    }
}

/// How many of so many tokens the steps see together, and the step that sees most.
fn touched_rows(rows: &[Row], order: &Order, steps: u64, vocabulary: usize) -> [usize; 2] {
    let (mut seen_in, mut ever, mut most) = (vec![0; vocabulary], 0, 0);
    for step in 1..=steps.min(order.steps_per_epoch() as u64) {
        let mut touched = 0;
        let batch = order.batch(step as usize - 1);
        for &token in batch.iter().flat_map(|&row| rows[row].parts.iter().copied().flatten()) {
            let last = std::mem::replace(&mut seen_in[token as usize], step);
            ever += usize::from(last == 0);
            touched += usize::from(last != step);
        }
        most = most.max(touched);
    }
    [ever, most]
}

fn rows<'a>(dataset: &'a Dataset, dimension: &str, arm: &ArmPlan) -> Vec<Row<'a>> {
    match arm.data {
        DataShape::Pairs => {
            let pairs = dataset.pairs(dimension);
            pairs.iter().map(|pair| Row::new(dataset, pair.example, &[pair.chosen, pair.rejected])).collect()
        }
        DataShape::Answers => {
            dataset.answers(dimension).iter().map(|row| Row::new(dataset, row.example, &[row.answer])).collect()
        }
        DataShape::Lists => {
            let all = |example: usize| (0..dataset.examples[example].answers.len()).collect::<Vec<_>>();
            dataset.lists(dimension).into_iter().map(|example| Row::new(dataset, example, &all(example))).collect()
        }
    }
}

fn desirable<'a>(dataset: &'a Dataset, dimensions: &[String]) -> Vec<Row<'a>> {
    let answers = dimensions.iter().flat_map(|dimension| dataset.answers(dimension));
    answers.filter(|row| row.desirable).map(|row| Row::new(dataset, row.example, &[row.answer])).collect()
}

/// Gradients of the part of the model that has most: a block, the embedding but for what is `untouched` of it, or the
/// head.
fn largest_part(spec: &ModelSpec, untouched: usize) -> usize {
    let shapes = parameter_shapes(spec);
    let elements = |prefix: &str| {
        let own = shapes.iter().filter(|(path, _)| path.starts_with(prefix));
        4 * own.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
    };
    elements("layers.0.").max(elements("embed_tokens.") - untouched).max(elements("lm_head."))
}

/// The most of each that up to `threads` micro-batches of the run have together, and how many there are at most.
fn largest_batch(
    rows: &[Row],
    order: &Order,
    steps: u64,
    budget: usize,
    threads: usize,
    padded: bool,
) -> (Batch, usize) {
    let (mut largest, mut at_once) = (Batch::default(), 1);
    for step in 0..steps.min(order.steps_per_epoch() as u64) {
        let batch = order.batch(step as usize);
        let lengths: Vec<usize> = batch.iter().map(|&row| rows[row].tokens).collect();
        for together in micro_batches(&lengths, budget).chunks(threads) {
            at_once = at_once.max(together.len());
            let members = together.concat();
            let sum = |of: fn(&Row) -> usize| members.iter().map(|&member| of(&rows[batch[member]])).sum::<usize>();
            let longest = members.iter().map(|&member| lengths[member]).max().unwrap_or(0);
            largest.tokens = largest.tokens.max(sum(|row| row.tokens));
            largest.rows = largest.rows.max(sum(|row| row.predicted));
            if padded {
                largest.scores = largest.scores.max(members.len() * longest * longest);
            }
        }
    }
    (largest, at_once)
}
