//! A task on the pairs of several users: each pair's policy or reward model is steered by other pairs of its user.

use super::contexts::{ContextPool, Labels};
use super::{Ahead, StepAhead, StepRows, StepTally, Task};
use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use spo_data::{Group, PackedBatch, Units};
use spo_model::CausalLm;
use spo_model::lora::mix;
use std::collections::{BTreeSet, HashSet};

/// The pairs of all users; the reference knows no user, so its log-probs are those of any other task.
pub(crate) struct SteeredTask<'a> {
    pub own: Box<dyn Task + 'a>,
    pub pool: ContextPool,
    /// Most contexts of a user.
    pub most: usize,
    pub seed: u64,
}

impl SteeredTask<'_> {
    /// The pairs that stand for a user in a step: 0 to `most`, none of which has a prompt that the step's batch has.
    fn contexts(&self, user: usize, prompts: &HashSet<usize>, done: u64) -> Vec<usize> {
        let key = mix(self.seed ^ mix(done ^ mix(user as u64)));
        self.pool.draw(user, (mix(!key) % (self.most as u64 + 1)) as usize, prompts, key)
    }
}

impl Task for SteeredTask<'_> {
    fn len(&self) -> usize {
        self.own.len()
    }

    fn units(&self) -> Units {
        self.own.units()
    }

    fn group(&self, row: usize) -> Group<'_> {
        self.own.group(row)
    }

    fn answers(&self, row: usize) -> Vec<&[u32]> {
        self.own.answers(row)
    }

    fn gives_rewards(&self) -> bool {
        self.own.gives_rewards()
    }

    fn pack(&self, model: &CausalLm, rows: &[usize], groups: &[Group]) -> PackedBatch {
        self.own.pack(model, rows, groups)
    }

    fn id(&self, row: usize) -> &str {
        self.own.id(row)
    }

    fn look_ahead(&self, step: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        self.own.look_ahead(step)
    }

    fn margin_offset(&self, rows: &[usize]) -> Result<Option<Vec<f64>>, TrainError> {
        self.own.margin_offset(rows)
    }

    fn condition(&self, model: &CausalLm, step: &StepRows, batch: &PackedBatch) -> Option<CausalLm> {
        let prompts: HashSet<usize> = step.all.iter().map(|row| self.pool.prompt(*row)).collect();
        let user = |row: &usize| self.pool.users.of[*row];
        let users: Vec<usize> = step.rows.iter().map(user).collect::<BTreeSet<_>>().into_iter().collect();
        let sets: Vec<Vec<usize>> = users.iter().map(|user| self.contexts(*user, &prompts, step.done)).collect();
        let set = |row: &usize| users.binary_search(&user(row)).expect("its user is one of them") as i32;
        let rows = batch.groups.iter().zip(step.rows);
        let rows: Vec<i32> = rows.flat_map(|(group, row)| std::iter::repeat_n(set(row), group.tokens())).collect();
        let contexts = self.pool.contexts(&sets, Labels::Own, 0, &model.device());
        Some(model.clone().steered_by(&contexts, Some(&rows)))
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        self.own.logp_gradients(rows, batch, scored, step)
    }
}
