//! Reward models: a decoder with a score head, which gives a number for a text instead of log-probabilities.
//!
//! ```
//! use spo_data::Group;
//! use spo_model::reward::Pooling;
//! use spo_model::{CausalLm, ModelSpec, device};
//!
//! let spec = ModelSpec::from_json(r#"{
//!     "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
//!     "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true
//! }"#)?;
//! let model = CausalLm::random(&spec, 7, &device::cpu()).with_score_head(7, Pooling::BeforePads(0));
//! let pair = [Group { prompt: &[1, 5, 6], answers: vec![&[7, 8, 2], &[9, 2]] }];
//! let rewards = model.rewards(&pair, 0, 512, &mut |_| ());
//! assert_eq!(rewards[0].len(), 2);
//! # Ok::<(), spo_model::ModelError>(())
//! ```

mod adapted;
mod checkpoint;
mod critique;
mod saved;

pub use crate::score_head::{Critic, Pooling, SCORE, SCORE_BIAS, ScoreHead};
pub use checkpoint::is_reward_model;
pub(crate) use checkpoint::refuse_reward_model;
pub use critique::{Critiqued, REQUEST};

use crate::decoder::PackedInputs;
use crate::load::{LoadOptions, RandomSource, Storage, WeightSource};
use crate::{CausalLm, ModelError, family};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use spo_data::{Group, PackedBatch, micro_batches};
use std::path::Path;

impl CausalLm {
    /// With a fresh score head of one label, from N(0, 0.02) as transformers initialises it, in the model's type.
    #[must_use]
    pub fn with_score_head(mut self, seed: u64, pooling: Pooling) -> Self {
        let shape = [1, self.spec().hidden_size];
        let weight = RandomSource::new(seed, &self.device()).tensor(SCORE, shape);
        let weight: Tensor<2> = weight.expect("a random source has every tensor");
        self.score = Some(ScoreHead {
            weight: Param::from_tensor(weight.cast(self.dtype())),
            bias: None,
            pooling,
            critic: None,
        });
        self
    }

    /// With a head of this many scores whose weights are zero, in the model's type: it says the same of every text, whose last
    /// token it reads.
    #[must_use]
    pub fn with_zero_head(mut self, labels: usize) -> Self {
        let weight = Tensor::<2>::zeros([labels, self.spec().hidden_size], (&self.device(), self.dtype()));
        self.score =
            Some(ScoreHead { weight: Param::from_tensor(weight), bias: None, pooling: Pooling::Last, critic: None });
        self
    }

    /// Rewards of groups of answers, in packed batches of at most `token_budget` tokens: for each group, for each of its
    /// answers, the score of this label after the prompt. A prompt is computed once for all of its answers. `progress` is
    /// called with the groups done.
    ///
    /// # Panics
    /// The model has no score head, or no such label.
    pub fn rewards(
        &self,
        groups: &[Group],
        label: usize,
        token_budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Vec<Vec<f64>> {
        let head = self.score.as_ref().expect("a model without a score head gives no rewards");
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let (mut rewards, mut done) = (vec![vec![]; groups.len()], 0);
        for members in micro_batches(&lengths, token_budget) {
            let batch = self.packed_for_rewards(&members.iter().map(|&i| groups[i].clone()).collect::<Vec<_>>());
            let inputs = PackedInputs::new(&batch, self.spec(), &self.device());
            let scores = head.forward(self.hidden(&inputs)).narrow(1, label, 1).into_data();
            let mut scores = scores.iter::<f64>();
            for &member in &members {
                rewards[member] = scores.by_ref().take(groups[member].answers.len()).collect();
            }
            done += members.len();
            progress(done);
        }
        rewards
    }

    /// A batch whose only rows are the tokens that the score head reads, one per answer.
    ///
    /// # Panics
    /// The model has no score head.
    pub fn packed_for_rewards(&self, groups: &[Group]) -> PackedBatch {
        let pooling = self.score.as_ref().expect("a model without a score head gives no rewards").pooling;
        let row = |group: &Group, answer: &&[u32]| pooling.row(group.prompt, answer, answer.len());
        let rows = groups.iter().flat_map(|group| group.answers.iter().map(move |answer| row(group, answer)));
        PackedBatch::with_values(groups, &rows.collect::<Vec<_>>())
    }
}

/// Mean and standard deviation that rewards are normalised by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// What is taken off.
    pub mean: f64,
    /// What the rest is divided by.
    pub std: f64,
}

/// A checkpoint that scores texts.
#[derive(Debug, Clone)]
pub struct RewardModel {
    /// The decoder with its score head.
    pub model: CausalLm,
    /// Which of the head's scores is the reward.
    pub label: usize,
    /// How rewards are normalised, where the checkpoint says so (OpenRLHF's `mean` and `std`).
    pub normalisation: Option<Normalisation>,
    /// Whether it also has a head for tokens, with which it could write.
    pub writes: bool,
}

impl RewardModel {
    /// Loads a reward model: `…ForSequenceClassification` of a known family with `score.weight`; one of OpenRLHF, whose
    /// configuration names the head (`value_head_prefix`); or a causal language model with `value_head.safetensors`
    /// (LLaMA-Factory, older TRL). Where the head has several labels, `label` says which is the reward.
    ///
    /// # Errors
    /// As [`CausalLm::open`]; a directory without a score head, an encoder, several labels and none chosen.
    pub fn open(
        dir: &Path,
        storage: Option<Storage>,
        label: Option<usize>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let options = LoadOptions { storage, blocks: None };
        family::Registry::builtin().open_reward(dir, options, device)?.with_label(dir, label)
    }

    fn with_label(mut self, dir: &Path, label: Option<usize>) -> Result<Self, ModelError> {
        let labels = self.model.score.as_ref().map_or(0, ScoreHead::labels);
        self.label = match label {
            Some(label) if label < labels => label,
            None if labels == 1 => 0,
            other => {
                let reason = match other {
                    Some(label) => format!("there is no label {label}: its head has {labels}, counted from 0"),
                    None => format!("its head has {labels} labels: say which is the reward, 0 to {}", labels - 1),
                };
                return Err(ModelError::Reward { dir: dir.into(), reason });
            }
        };
        Ok(self)
    }

    /// Makes it write a critique before it scores, as it was trained to.
    ///
    /// # Errors
    /// It has no head for tokens; `dir` is its directory.
    pub fn set_critic(&mut self, dir: &Path, critic: Critic) -> Result<(), ModelError> {
        if !self.writes {
            let reason = "it has no head for tokens, and cannot write critiques".into();
            return Err(ModelError::Reward { dir: dir.into(), reason });
        }
        if let Some(head) = &mut self.model.score {
            head.critic = Some(critic);
        }
        Ok(())
    }

    /// The reward of each answer after its prompt, read behind a critique where the head has a critic; as
    /// [`CausalLm::rewards`], normalised.
    pub fn score(&self, groups: &[Group], token_budget: usize, progress: &mut dyn FnMut(usize)) -> Vec<Vec<f64>> {
        let critic = self.model.score.as_ref().and_then(|head| head.critic.as_ref());
        let mut rewards = match critic {
            Some(critic) => self.model.rewards_after_critique(groups, self.label, critic, token_budget, progress),
            None => self.model.rewards(groups, self.label, token_budget, progress),
        };
        if let Some(Normalisation { mean, std }) = self.normalisation {
            rewards.iter_mut().flatten().for_each(|reward| *reward = (*reward - mean) / std);
        }
        rewards
    }
}
