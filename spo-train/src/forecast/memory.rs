//! How much memory a run will take, by what it is for.

use crate::TrainError;
use crate::config::TrainingPlan;
use crate::config::spec::Recompute;
use crate::phase::visits::Visits;
use crate::phase::{kept_activations, side_by_side};
use crate::policy::adapters::policy_options;
use crate::policy::{PolicyOptions, sampling};
use crate::run::Prepared;
use crate::run::gradients;
use crate::run::schedule::{self, Stage, held};
use crate::step::{memory, tape};
use crate::task::data::TaskData;
use serde::Serialize;
use spo_data::gguf::is_gguf;
use spo_data::{Group, micro_batches};
use spo_model::ModelSpec;
use spo_model::device::{describe, on_cpu};
use spo_model::export::PROBE_TOKENS;
use spo_model::load::{Kept, Storage};
use spo_model::memory::{Batch, Training, generation, parameter_shapes, scoring_head};
use spo_model::quant::packed::StoredBlocks;
use std::collections::BTreeMap;

/// Memory of one answer's log-prob under one policy: its key, the number, and the table's slack.
const CACHED_ANSWER: usize = 80;

/// What the CPU's allocator holds between operations and in pages used in part, as a share of what a step allocates and
/// frees before its top. A rule of thumb: at 0.3 the steps of an 11 M model took between 1.0 and 1.2 times the plan, on a busy
/// machine most.
pub(super) const ALLOCATOR_SHARE: f64 = 0.3;

/// Operations of a thread in the second for which the allocator keeps what was freed, on a slow machine.
const KEPT_OPERATIONS: f64 = 3e10;

/// The projections that a model's file stores in blocks, by module path.
type Stored = BTreeMap<String, StoredBlocks>;

/// What a run takes, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryForecast {
    /// The device.
    pub device: String,
    /// In which form the model's weights are kept, where its file or the plan has them in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
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
    /// Policies that make rewards of what this one writes, at most.
    pub frozen: usize,
    /// Sums of the gradients.
    pub gradients: usize,
    /// One set of them: what processes that share the phase exchange in a step.
    pub exchanged: usize,
    /// The optimiser's moments, and f32 weights where they are stored in 16 bits; of a zeroth-order optimiser its frames,
    /// or the copy of the weights whose loss it asks for.
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
    pub(super) fn of(prepared: &Prepared, stages: &[Stage]) -> Result<Self, TrainError> {
        let (plan, spec) = (&prepared.plan, &prepared.model);
        let program = memory::resident_bytes() as usize;
        let options = policy_options(plan, spec, &prepared.device)?;
        let host = on_cpu(&prepared.device);
        let mut stored = options.families.stored_blocks(&options.base)?;
        stored.retain(|_, blocks| host || blocks.on_card.is_some());
        let training = stages.iter().filter_map(Stage::training);
        let phases =
            training.map(|training| phase(prepared, training, (program, &stored))).collect::<Result<Vec<_>, _>>()?;
        let largest = phases.iter().max_by_key(|phase| phase.total).expect("a run has rounds");
        let resident = largest.weights + largest.adapters + if host { program } else { 0 };
        let prompts = plan.evaluation.kl_samples.max(plan.evaluation.samples + plan.evaluation.sample_prompts.len());
        let longest = prepared.held_out.dataset.examples.iter().map(|example| example.prompt.len()).max().unwrap_or(0);
        let tokens = (longest + plan.evaluation.kl_max_new_tokens).min(spec.context);
        let laid_out = || resident + generation(spec, prompts.min(sampling::BATCH), tokens);
        let sampling = (prompts > 0 && host).then(laid_out);
        let tensors = parameter_shapes(spec).into_iter().map(|(_, shape)| shape.iter().product::<usize>());
        let scored = scoring_head(spec, PROBE_TOKENS) + 4 * tensors.max().unwrap_or(0);
        let saving = resident + scored + if host { largest.activations() } else { 0 };
        let saving = saving.max(merging(&options, spec, scored + if host { program } else { 0 }));
        let peak = phases.iter().map(|phase| phase.total).chain(sampling).chain([saving]).max().unwrap_or(0);
        let kept = kept(&options, &stored);
        Ok(Self { device: describe(&prepared.device), kept, phases, sampling, saving, peak })
    }
}

/// A base that was kept in blocks, as numbers, while an adapter is merged into it.
fn merging(options: &PolicyOptions, spec: &ModelSpec, beside: usize) -> usize {
    let bytes = if is_gguf(&options.base) { 4 } else { options.load.storage.unwrap_or(Storage::F32).bytes() };
    options.load.blocks.map_or(0, |_| bytes * spec.parameters() + beside)
}

/// In which form weights are kept, in words, where blocks are in play.
fn kept(options: &PolicyOptions, stored: &Stored) -> Option<String> {
    let mut kinds: Vec<&str> = stored.values().map(|blocks| blocks.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (kinds, numbers) = (kinds.join(", "), options.load.storage.unwrap_or(Storage::F32).name());
    match options.load.blocks {
        Some(Kept::AsStored) => Some(format!("{} projections as stored: {kinds}; the rest as {numbers}", stored.len())),
        Some(Kept::Quantised(bits)) => {
            Some(format!("projections quantised anew to {}, the rest as {numbers}", bits.name()))
        }
        None if stored.is_empty() || kinds.eq_ignore_ascii_case(numbers) => None,
        None => Some(format!("{} projections, stored as {kinds}, decoded to {numbers}", stored.len())),
    }
}

fn phase(
    prepared: &Prepared,
    training: &schedule::Training,
    (program, stored): (usize, &Stored),
) -> Result<PhaseMemory, TrainError> {
    let (spec, host, place) = (&prepared.model, on_cpu(&prepared.device), &training.place);
    let (settings, data, round) = (place.training, &training.data.train, place.round() as usize);
    let options = policy_options(&prepared.plan, spec, &prepared.device)?;
    let model = trained(&options, stored, round, host);
    let replayed = || training.data.replayed.iter().map(|rows| &rows.data);
    let rows: Vec<Group> =
        std::iter::once(data).chain(replayed()).flat_map(|data| (0..data.len()).map(|row| data.group(row))).collect();
    let lengths: Vec<usize> = replayed().map(TaskData::len).collect();
    let order = place.visiting(prepared.plan.seed).schedule(data.units(), &lengths);
    let (batch, at_once) = largest_batch(prepared, settings, &rows, &order);
    let mut state = model.state(spec)?;
    // Of an embedding table with a head of its own, only the rows of tokens that occur have gradients and moments.
    let touched = match model.embedding_by_rows(spec) {
        true => touched_rows(&rows, &order, settings.steps, spec.vocab_size),
        false => [spec.vocab_size; 2],
    };
    let [untouched, untouched_in_a_step] = touched.map(|rows| 4 * spec.hidden_size * (spec.vocab_size - rows));
    state.optimizer -= 2 * untouched;
    state.gradients -= untouched_in_a_step;
    // What steers is kept in f32; a warm-up leaves it alone.
    let steering = steering_bytes(&options, spec)?;
    state.adapters += steering;
    if place.arm.is_some() {
        state.gradients += steering;
        state.optimizer += 2 * steering;
    }
    // A block's output before its film, and the gain of each token.
    let films = options.steering.as_ref().is_some_and(|steering| steering.films);
    let film = if films { 2 * 4 * batch.tokens * spec.hidden_size } else { 0 };
    // The head of preference degrees, which AdamW trains as well.
    let head = 4 * data.head_values(spec.hidden_size);
    state.weights += head;
    state.gradients += head;
    state.optimizer += 2 * head;
    // Beside the sum in the making, one of each level of the tree over shards, where one process has them all.
    let levels = prepared.plan.parallel.shards.next_power_of_two().ilog2() as usize;
    let sets = levels + if at_once > 1 { at_once + 1 } else { 1 };
    let gradients = match settings.update_in_backward {
        true => largest_part(spec, untouched_in_a_step),
        // Those of several dimensions are there together.
        false => state.gradients * (sets + apart(prepared, training)),
    };
    let mut phase = PhaseMemory {
        phase: place.policy.clone(),
        tokens: batch.tokens,
        predicted: batch.rows,
        weights: state.weights,
        adapters: state.adapters,
        frozen: held::frozen(&prepared.plan, place) * (state.weights + state.adapters),
        gradients,
        exchanged: state.gradients,
        optimizer: state.optimizer,
        activations_kept: model.activations(spec, batch, false)? + spec.layers.len() * film,
        activations_recomputed: model.activations(spec, batch, true)? + film,
        recomputes: recomputes(&model, spec, batch, (settings.recompute, kept_activations(&prepared.device)))?,
        head: model.head(spec, batch, settings.head_chunk_rows) * at_once,
        cache: CACHED_ANSWER * round * rows.iter().map(|row| row.answers.len()).sum::<usize>(),
        program,
        allocator: 0,
        total: 0,
    };
    if let Some(zeroth_order) = &settings.zeroth_order {
        let chunk = if settings.head_chunk_rows == 0 { batch.rows } else { batch.rows.min(settings.head_chunk_rows) };
        let activations = model.scored_activations(spec, batch)?;
        (phase.gradients, phase.exchanged) = (0, 0);
        phase.optimizer = model.zeroth_order(spec, zeroth_order.zo_rank, zeroth_order.zo_momentum > 0.0)?;
        (phase.activations_kept, phase.activations_recomputed, phase.recomputes) = (activations, activations, false);
        phase.head = scoring_head(spec, chunk);
    }
    if training.data.train.is_written() {
        let together = training.written.per_step.count.min(sampling::BATCH);
        let longest = rows.iter().map(|row| row.prompt.len()).max().unwrap_or(0);
        let tokens = (longest + training.written.per_step.max_new_tokens).min(spec.context);
        let activations = generation(spec, together, tokens);
        (phase.activations_kept, phase.activations_recomputed, phase.head) = (activations, activations, 0);
    }
    // Answers that bounds are on are written between two steps.
    let sampled = place.arm.and_then(|arm| arm.plan.hold.as_ref()?.sampled.as_ref());
    let written = sampled.map_or(0, |sampled| {
        let longest = prepared.driving.dataset.examples.iter().map(|example| example.prompt.len()).max().unwrap_or(0);
        let together = (sampled.sample_prompts * sampled.samples).min(sampling::BATCH);
        generation(spec, together, (longest + sampled.max_new_tokens).min(spec.context))
    });
    let in_use =
        if tapes_are_in_use(&phase, &model, spec, at_once, settings, training) { phase.activations() } else { 0 };
    let passing = (phase.gradients + phase.activations() + phase.head).max(written);
    phase.total = phase.weights + phase.adapters + phase.frozen + phase.optimizer + passing;
    if host {
        phase.allocator = (ALLOCATOR_SHARE * (passing - in_use + phase.cache + phase.program) as f64) as usize;
        phase.total += phase.cache + phase.program + phase.allocator;
    }
    Ok(phase)
}

/// Whether the tapes at the top of a step are all that the allocator has given for tapes: they are kept, of one micro-batch at
/// a time (of those side by side each thread has a heap of its own, and some have ended), and those of the one before have
/// been given back, since this one takes longer than the allocator keeps what was freed.
fn tapes_are_in_use(
    phase: &PhaseMemory,
    model: &Training,
    spec: &ModelSpec,
    at_once: usize,
    settings: &TrainingPlan,
    training: &schedule::Training,
) -> bool {
    let by_tape = settings.zeroth_order.is_none() && !training.data.train.is_written();
    // Two for each weight and token in the forward pass, as many or twice as many in the backward pass.
    let per_weight = if model.lora.is_some() { 4 } else { 6 };
    let operations = (per_weight * spec.active_parameters() * phase.tokens) as f64;
    let long = operations > KEPT_OPERATIONS * rayon::current_num_threads() as f64;
    by_tape && !phase.recomputes && at_once == 1 && long
}

/// Bytes of what steers a policy: the encoder, films, and what makes adapters' coefficients.
fn steering_bytes(options: &PolicyOptions, spec: &ModelSpec) -> Result<usize, TrainError> {
    let Some(steering) = &options.steering else { return Ok(0) };
    let lora = options.lora.as_ref().map(|lora| lora.mixture_elements(spec, steering.width));
    Ok(4 * (steering.elements(spec) + lora.transpose()?.unwrap_or(0)))
}

/// How many sets of gradients are kept beside that of a batch: of the dimensions that become one, or are looked at.
fn apart(prepared: &Prepared, training: &schedule::Training) -> usize {
    let front = training.data.train.front().filter(|_| training.place.training.conflict_aversion().is_some());
    let probed = gradients::probed(&prepared.plan, &training.place, &prepared.phases).len();
    front.map_or(0, |front| front.dimensions.len()).max(probed)
}

/// What is in memory of the model in the round of this number.
fn trained<'a>(options: &'a PolicyOptions, stored: &'a Stored, round: usize, host: bool) -> Training<'a> {
    let (storage, lora) = (options.load.storage.unwrap_or(Storage::F32), options.lora.as_ref());
    let frozen_ranks = match lora {
        Some(lora) if options.stack => lora.rank * (round.saturating_sub(1) + usize::from(options.start.is_some())),
        _ => 0,
    };
    let (blocks, stored, fused) = (options.load.blocks, Some(stored), host && storage == Storage::F32);
    Training { storage, blocks, stored, lora, frozen_ranks, fused }
}

/// Whether a phase recomputes what the blocks of its largest micro-batch keep.
fn recomputes(
    model: &Training,
    spec: &ModelSpec,
    batch: Batch,
    (chosen, kept): (Recompute, usize),
) -> Result<bool, TrainError> {
    let dense = Training { lora: None, ..model.clone() }.activations(spec, batch, false)?;
    Ok(chosen.settled(|| dense > kept) == tape::Recompute::Blocks)
}

impl PhaseMemory {
    /// What the blocks keep the way the phase runs.
    pub fn activations(&self) -> usize {
        if self.recomputes { self.activations_recomputed } else { self.activations_kept }
    }
}

/// How many of so many tokens the steps see together, and the step that sees most.
fn touched_rows(rows: &[Group], order: &Visits, steps: u64, vocabulary: usize) -> [usize; 2] {
    let (mut seen_in, mut ever, mut most) = (vec![0; vocabulary], 0, 0);
    for step in 1..=steps.min(order.steps_per_epoch() as u64) {
        let mut touched = 0;
        let batch = order.batch(step as usize - 1);
        let tokens = |row: &usize| rows[*row].prompt.iter().chain(rows[*row].answers.iter().copied().flatten());
        for &token in batch.iter().flat_map(tokens) {
            let last = std::mem::replace(&mut seen_in[token as usize], step);
            ever += usize::from(last == 0);
            touched += usize::from(last != step);
        }
        most = most.max(touched);
    }
    [ever, most]
}

/// Gradients of the part of the model that has most: a block, the embedding but for what is `untouched` of it, or the
/// head.
fn largest_part(spec: &ModelSpec, untouched: usize) -> usize {
    let shapes = parameter_shapes(spec);
    let elements = |prefix: &str| {
        let own = shapes.iter().filter(|(path, _)| path.starts_with(prefix));
        4 * own.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
    };
    let tables = elements("embed_tokens.") - untouched + elements("layer_inputs.");
    elements("layers.0.").max(tables).max(elements("lm_head."))
}

/// The most of each that the micro-batches of a phase have which run together, and how many those are at most.
fn largest_batch(prepared: &Prepared, settings: &TrainingPlan, rows: &[Group], order: &Visits) -> (Batch, usize) {
    let (device, spec) = (&prepared.device, &prepared.model);
    let budget = match settings.update_in_backward {
        true => usize::MAX,
        false => settings.micro_batch_tokens(device),
    };
    // Micro-batches of a small model run side by side, each with gradients of its own.
    let alone = settings.update_in_backward || !side_by_side(device, spec);
    let threads = if alone { 1 } else { rayon::current_num_threads() };
    let (mut largest, mut at_once) = (Batch::default(), 1);
    for step in 0..settings.steps.min(order.steps_per_epoch() as u64) {
        let batch = order.batch(step as usize);
        let lengths: Vec<usize> = batch.iter().map(|&row| rows[row].tokens()).collect();
        for together in micro_batches(&lengths, budget).chunks(threads) {
            at_once = at_once.max(together.len());
            let members = together.concat();
            let prompt = |member: &usize| rows[batch[*member]].prompt.len();
            let tokens = members.iter().map(|&member| lengths[member]).sum::<usize>();
            let longest = members.iter().map(|&member| lengths[member]).max().unwrap_or(0);
            largest.tokens = largest.tokens.max(tokens);
            largest.rows = largest.rows.max(tokens - members.iter().map(prompt).sum::<usize>());
            if !on_cpu(device) {
                largest.scores = largest.scores.max(members.len() * longest * longest);
            }
        }
    }
    (largest, at_once)
}
