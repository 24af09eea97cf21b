//! The rows of one step: their gradients, micro-batch by micro-batch and shard by shard; each process that shares the
//! step computes those of its own shards.

use crate::TrainError;
use crate::phase::Phase;
use crate::phase::loss_scale::loss_scales;
use crate::phase::shards::{Shards, not_shared};
use crate::step::dropout::with_dropout;
use crate::step::gradients::Gradients;
use crate::step::tape::{LogpGradients, Scored, TapeOptions, differentiate_in_parts, differentiate_scored, observe};
use crate::task::{Ahead, FrontRows, StepAhead, StepRows, StepTally, Task};
use burn::tensor::{DType, Device};
use rayon::prelude::*;
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch};
use spo_kernels::cpu::on_a_worker;
use spo_kernels::memory::card;
use spo_model::device::on_cpu;
use spo_model::load::Storage;
use spo_model::memory::{Batch, Training};
use spo_model::{CausalLm, ModelSpec};
use spo_team::{Team, TeamError, tree};
use std::ops::Range;

/// Activations that `recompute = "auto"` keeps in memory before it starts to recompute, bytes: a third of a card's memory
/// where it tells how much it has, else 2 GiB.
pub fn kept_activations(device: &Device) -> usize {
    card(device).and_then(|card| card.total).map_or(2 << 30, |bytes| (bytes / 3) as usize)
}

/// Models up to this size run several micro-batches at once on the CPU: their matrices are too
/// small to keep all cores busy, and their gradients small enough to hold one set per thread.
const SIDE_BY_SIDE_PARAMETERS: usize = 8_000_000;

/// Why a step came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// A value that must be finite, and is not.
    NotFinite(&'static str, f64),
    /// Anything else.
    Error(TrainError),
}

impl From<TeamError> for Fault {
    fn from(error: TeamError) -> Self {
        Self::Error(error.into())
    }
}

impl From<TrainError> for Fault {
    fn from(error: TrainError) -> Self {
        Self::Error(error)
    }
}

/// Refuses a value that is not finite.
pub(super) fn finite(quantity: &'static str, found: f64) -> Result<f64, Fault> {
    if found.is_finite() { Ok(found) } else { Err(Fault::NotFinite(quantity, found)) }
}

/// The rows of one step in their micro-batches.
pub(super) struct StepBatch<'a> {
    phase: &'a Phase<'a>,
    task: &'a dyn Task,
    rows: &'a [usize],
    groups: Vec<Group<'a>>,
    shards: Shards,
    /// Steps done before this one.
    done: u64,
    /// Most tokens of a micro-batch, where there may be several.
    token_budget: usize,
    head: HeadOptions,
    /// Whether other rows are computed together than in the batch that it is of.
    repacked: bool,
    /// The dimension that has all the weight, and the number of dimensions, where it is not the task that says their weights.
    alone: Option<(usize, usize)>,
}

impl<'a> StepBatch<'a> {
    /// The rows of the step that comes after `done` steps. One that is updated in the backward pass is a single
    /// micro-batch.
    pub fn new(phase: &'a Phase, task: &'a dyn Task, rows: &'a [usize], done: u64, device: &Device) -> Self {
        let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let token_budget = phase.training.micro_batch_tokens(device);
        let together = if phase.training.update_in_backward { usize::MAX } else { token_budget };
        let shards = Shards::new(&lengths, phase.shards, together);
        let head = HeadOptions { chunk_rows: phase.training.head_chunk_rows, ..Default::default() };
        Self { phase, task, rows, groups, shards, done, token_budget, head, repacked: false, alone: None }
    }

    /// With all the weight on one dimension of several.
    #[must_use]
    pub fn alone(self, alone: Option<(usize, usize)>) -> Self {
        Self { alone, ..self }
    }

    /// The rows of one dimension, which has all the weight. What their sums are divided by stays that of the whole batch.
    pub fn of_dimension(&self, front: &FrontRows, dimension: usize) -> Self {
        let own: Vec<usize> =
            (0..self.rows.len()).filter(|&place| front.of_row[self.rows[place]] == dimension).collect();
        let lengths: Vec<usize> = own.iter().map(|&place| self.groups[place].tokens()).collect();
        let mut shards = Shards::new(&lengths, self.phase.shards, self.token_budget);
        shards.micro_batches.iter_mut().flatten().for_each(|member| *member = own[*member]);
        let alone = Some((dimension, front.dimensions.len()));
        Self { groups: self.groups.clone(), shards, head: self.head.clone(), alone, ..*self }
    }

    /// Tokens of all rows, shared prompts counted once.
    pub fn tokens(&self) -> u64 {
        self.groups.iter().map(|group| group.tokens() as u64).sum()
    }

    /// Those of a process's own shards.
    pub fn own_tokens(&self, team: &Team) -> Result<u64, TeamError> {
        let own = self.shards.of_all(self.own(team)?).iter().flatten();
        Ok(own.map(|&member| self.groups[member].tokens() as u64).sum())
    }

    /// Tokens of the largest micro-batch.
    pub fn most_tokens(&self) -> usize {
        let tokens = |members: &Vec<usize>| members.iter().map(|&member| self.groups[member].tokens()).sum();
        self.shards.micro_batches.iter().map(tokens).max().unwrap_or(0)
    }

    /// The gradients of the batch's mean loss, and its sums; the team computes them together.
    ///
    /// Those of a shard are added one after the other, the shards' in a balanced tree, whichever processes have them.
    pub fn gradients(&self, model: &CausalLm, team: &Team) -> Result<(Gradients, StepTally), Fault> {
        let start = self.start(model, team)?;
        let (mut gradients, mut tallies) = (Gradients::default(), vec![]);
        for scale in loss_scales(model.dtype(), self.rows.len()) {
            tallies.clear();
            gradients = self.scaled_gradients(model, (&start, scale), team, &mut tallies)?;
            if scale == 1.0 || gradients.norm().is_finite() {
                gradients = if scale == 1.0 { gradients } else { gradients.scaled(1.0 / scale) };
                break;
            }
        }
        Ok((gradients, StepTally::of_all(start, tallies, team)?))
    }

    /// The gradients of the loss times a factor.
    fn scaled_gradients(
        &self,
        model: &CausalLm,
        start: (&StepTally, f64),
        team: &Team,
        tallies: &mut Vec<StepTally>,
    ) -> Result<Gradients, Fault> {
        let mut sums = tree::Tree::default();
        let add = |mut a: Gradients, b| {
            a.merge(b);
            a
        };
        for shard in self.own(team)? {
            sums.push(self.shard_gradients(model, start, shard, tallies)?, add);
        }
        let mut gradients = sums.finish(add).unwrap_or_default();
        gradients.sum_over(team, &model.device())?;
        Ok(gradients)
    }

    /// The shards that are a process's own.
    fn own(&self, team: &Team) -> Result<Range<usize>, TeamError> {
        tree::share(self.phase.shards, team.rank(), team.size())
            .ok_or_else(|| not_shared(self.phase.shards, team.size()))
    }

    /// The gradients of a shard, of the loss times a factor; the sums of each of its micro-batches go to `tallies`.
    ///
    /// Micro-batches of a small model on the CPU run side by side, a few at a time; their gradients
    /// are added in their own order, so the sum does not depend on the number of threads.
    fn shard_gradients(
        &self,
        model: &CausalLm,
        start: (&StepTally, f64),
        shard: usize,
        tallies: &mut Vec<StepTally>,
    ) -> Result<Gradients, Fault> {
        let (mut gradients, micro_batches) = (Gradients::default(), self.shards.of(shard));
        if !side_by_side(&model.device(), model.spec()) {
            return on_a_worker(&model.device(), || {
                for members in micro_batches {
                    tallies.push(self.differentiate(model, members, start, &mut gradients)?);
                }
                Ok(gradients)
            });
        }
        let run = |members: &Vec<usize>| {
            let mut own = Gradients::default();
            self.differentiate(model, members, start, &mut own).map(|sums| (own, sums))
        };
        for wave in micro_batches.chunks(rayon::current_num_threads()) {
            for (own, sums) in wave.par_iter().map(run).collect::<Result<Vec<_>, _>>()? {
                gradients.merge(own);
                tallies.push(sums);
            }
        }
        Ok(gradients)
    }

    /// The same of one micro-batch, a part of the model at a time: `part_done` takes the gradients of a part and may
    /// change it. Before the first part the sums are checked.
    pub fn gradients_in_parts(
        &self,
        model: CausalLm,
        part_done: impl FnMut(CausalLm, &mut Gradients) -> Result<CausalLm, Fault>,
    ) -> Result<(CausalLm, StepTally), Fault> {
        let mut tally = self.start(&model, &Team::solo())?;
        let (rows, batch) = self.pack(&model, &self.shards.micro_batches[0]);
        let (options, dtype) = (self.tape_options(&model, &batch), model.dtype());
        let logp_gradients = |scored: &Scored| {
            let gradients = self.logp_gradients(&rows, &batch, scored, &mut tally)?;
            self.check(&tally, dtype)?;
            Ok::<_, Fault>(gradients)
        };
        let mut gradients = Gradients::default();
        let model = differentiate_in_parts(model, &batch, &options, &mut gradients, logp_gradients, part_done)?;
        Ok((model, tally))
    }

    /// The sums of the batch at a model, without a backward pass and without dropout, and the log-probs of each
    /// micro-batch's tokens of this process; none where the loss is of answers that the model writes.
    pub fn loss(&self, model: &CausalLm, team: &Team) -> Result<(StepTally, Vec<Vec<f32>>), Fault> {
        let step = StepRows { all: self.rows, rows: self.rows, done: self.done };
        if let Some(tally) = self.task.written(model, &step, self.repacked, team)? {
            return Ok((tally, vec![]));
        }
        self.pass(model, team, |_, rows, batch, scored, sums| {
            self.logp_gradients(rows, batch, scored, sums)?;
            Ok(scored.logps.to_vec())
        })
    }

    /// The sums half-way between the log-probs `first` of another model and those of this one, and the difference of the
    /// losses along the tangent there: `Σ ∂L/∂logp · (first − own)`. It has no part in the curvature of the loss.
    pub fn between(&self, model: &CausalLm, first: &[Vec<f32>], team: &Team) -> Result<(StepTally, f64), Fault> {
        let (tally, differences) = self.pass(model, team, |index, rows, batch, scored, sums| {
            let both = || first[index].iter().zip(scored.logps);
            let middle: Vec<f32> = both().map(|(first, own)| (first + own) / 2.0).collect();
            let gradient = self.logp_gradients(rows, batch, &Scored { logps: &middle, ..*scored }, sums)?;
            let along = both().zip(&gradient.logps);
            Ok(along.map(|((first, own), slope)| f64::from(*slope) * f64::from(first - own)).sum::<f64>())
        })?;
        let bytes: Vec<u8> = differences.iter().flat_map(|difference: &f64| difference.to_le_bytes()).collect();
        let all = team.gather(&bytes)?.concat();
        Ok((tally, all.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).sum()))
    }

    /// Runs every micro-batch of this process through a model and hands its number among them, rows, tokens and log-probs to
    /// `f`, with the sums of the batch before it.
    fn pass<T: Send>(
        &self,
        model: &CausalLm,
        team: &Team,
        f: impl Fn(usize, &[usize], &PackedBatch, &Scored, &mut StepTally) -> Result<T, Fault> + Sync,
    ) -> Result<(StepTally, Vec<T>), Fault> {
        let start = StepTally { step_zero: None, ..self.start(model, team)? };
        let run = |(index, members): (usize, &Vec<usize>)| {
            let ((rows, batch), mut sums) = (self.pack(model, members), start.clone());
            let found = observe(model, &batch, &self.head, |scored| f(index, &rows, &batch, scored, &mut sums))?;
            Ok::<_, Fault>((sums, found))
        };
        let at_once = if side_by_side(&model.device(), model.spec()) { rayon::current_num_threads() } else { 1 };
        let (mut tallies, mut all) = (vec![], vec![]);
        for (wave, members) in self.shards.of_all(self.own(team)?).chunks(at_once).enumerate() {
            let numbered =
                members.par_iter().enumerate().map(|(index, members)| run((wave * at_once + index, members)));
            for (sums, found) in numbered.collect::<Result<Vec<_>, _>>()? {
                tallies.push(sums);
                all.push(found);
            }
        }
        Ok((StepTally::of_all(start, tallies, team)?, all))
    }

    /// The same rows in other micro-batches: what differs in their loss is rounding.
    pub fn repacked(&self) -> Self {
        let lengths: Vec<usize> = self.groups.iter().map(Group::tokens).collect();
        let mut shards = Shards::new(&lengths, self.phase.shards, self.token_budget / 2);
        shards.micro_batches.iter_mut().for_each(|members| members.reverse());
        Self { groups: self.groups.clone(), shards, head: self.head.clone(), repacked: true, ..*self }
    }

    /// Steps done before this one.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// What a batch's sums must be, before the model is changed.
    pub fn check(&self, tally: &StepTally, dtype: DType) -> Result<(), Fault> {
        let found = finite("the loss", tally.mean_loss())?;
        // Before the first step the policy is the reference, so the loss is known: `ln 2` for DPO, `mean softplus(c)`
        // for SPO.
        let Some(expected) = tally.step_zero.map(|sum| sum / tally.weight) else { return Ok(()) };
        let allowed = if dtype == DType::F32 { 1e-3 } else { 5e-2 };
        match (found - expected).abs() > allowed * expected.abs().max(1.0) {
            true => Err(TrainError::StepZero { phase: self.phase.name.into(), found, expected }.into()),
            false => Ok(()),
        }
    }

    /// Sums without any row.
    fn start(&self, model: &CausalLm, team: &Team) -> Result<StepTally, Fault> {
        let (rows, batches, head) = (self.rows, self.shards.micro_batches.as_slice(), &self.head);
        let ahead = StepAhead { model, rows, batches, token_budget: self.token_budget, head, team };
        let one_of = |(own, all): (usize, usize)| (0..all).map(|of| f64::from(u8::from(of == own))).collect();
        Ok(StepTally {
            weight: self.task.weight(&self.groups),
            step_zero: (self.done == 0 && !model.has_dropout()).then_some(0.0),
            ahead: match self.alone {
                Some(alone) => Some(Ahead::Weights(one_of(alone))),
                None => self.task.look_ahead(&ahead)?,
            },
            ..Default::default()
        })
    }

    /// The rows of a micro-batch, packed.
    fn pack(&self, model: &CausalLm, members: &[usize]) -> (Vec<usize>, PackedBatch) {
        let groups: Vec<Group> = members.iter().map(|&member| self.groups[member].clone()).collect();
        let rows: Vec<usize> = members.iter().map(|&member| self.rows[member]).collect();
        let batch = self.task.pack(model, &rows, &groups);
        (rows, batch)
    }

    /// Adds the gradients of a micro-batch; its sums begin at `start`.
    fn differentiate(
        &self,
        model: &CausalLm,
        members: &[usize],
        (start, scale): (&StepTally, f64),
        gradients: &mut Gradients,
    ) -> Result<StepTally, Fault> {
        let ((rows, batch), mut tally) = (self.pack(model, members), start.clone());
        let options = self.tape_options(model, &batch).scaled(scale);
        let dropped = with_dropout(model, &batch, members, [self.phase.seed, self.phase.round, self.done]);
        let model = dropped.as_ref().unwrap_or(model);
        let step = StepRows { all: self.rows, rows: &rows, done: self.done };
        let conditioned = self.task.condition(model, &step, &batch);
        differentiate_scored(conditioned.as_ref().unwrap_or(model), &batch, &options, gradients, |scored| {
            Ok::<_, Fault>(self.logp_gradients(&rows, &batch, scored, &mut tally)?.scaled(scale))
        })?;
        Ok(tally)
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        tally: &mut StepTally,
    ) -> Result<LogpGradients, Fault> {
        for logp in scored.logps {
            finite("a token log-prob", f64::from(*logp))?;
        }
        for value in scored.values {
            finite("a reward", f64::from(*value))?;
        }
        Ok(self.task.logp_gradients(rows, batch, scored, tally)?)
    }

    fn tape_options(&self, model: &CausalLm, batch: &PackedBatch) -> TapeOptions {
        let large = || activation_bytes(model, batch) > kept_activations(&model.device());
        let recompute = self.phase.training.recompute.settled(large);
        // Of the batch's mean: a micro-batch counts by its tokens.
        let share = batch.tokens() as f64 / self.tokens().max(1) as f64;
        let router_loss = self.phase.training.router_loss * share;
        TapeOptions { recompute, trainable: self.phase.trainable, head: self.head.clone(), router_loss }
    }
}

/// Whether micro-batches of a model of this spec run side by side.
pub(crate) fn side_by_side(device: &Device, spec: &ModelSpec) -> bool {
    on_cpu(device) && spec.parameters() <= SIDE_BY_SIDE_PARAMETERS
}

/// What the tapes of all blocks hold for one micro-batch.
fn activation_bytes(model: &CausalLm, batch: &PackedBatch) -> usize {
    let host = on_cpu(&model.device());
    let storage = Storage::of_dtype(model.dtype()).unwrap_or(Storage::F32);
    let training = Training {
        storage,
        blocks: None,
        stored: None,
        lora: None,
        frozen_ranks: 0,
        fused: host && storage == Storage::F32,
    };
    let scores = if host { 0 } else { batch.groups.len() * batch.longest_group().pow(2) };
    let batch = Batch { tokens: batch.tokens(), rows: batch.targets.len(), scores };
    training.activations(model.spec(), batch, false).expect("without adapters there are no targets")
}
