//! What a plan says, in the types of [`step`](crate::step).

use super::TrainingPlan;
use crate::config::spec::{OptimizerName, Recompute, Schedule};
use crate::step::gradients::Trainable;
use crate::step::optimizer::{AdamW, AdamWConfig, Mezo, Optimizer, SubZero, SubZeroConfig, ZerothOrder};
use crate::step::schedule::{Decay, LearningRate};
use crate::step::tape;
use burn::tensor::Device;
use spo_kernels::memory::{CardMemory, card};
use spo_model::lora::mix;

impl TrainingPlan {
    /// Token budget of a micro-batch on a device.
    pub fn micro_batch_tokens(&self, device: &Device) -> usize {
        match self.tokens_per_micro_batch {
            0 => match card(device) {
                None => 512,
                // 512 tokens for each 4 GiB: 16,384 on the largest cards.
                Some(CardMemory { total: Some(bytes), .. }) => ((bytes >> 32) as usize * 512).clamp(2048, 16_384),
                Some(_) => 4096,
            },
            given => given,
        }
    }

    /// The optimiser before its first step. `seed` is that of the run and `round` the phase's number in it: the directions
    /// of a zeroth-order optimiser follow from both.
    pub fn optimizer(&self, trainable: Trainable, seed: u64, round: u64) -> Box<dyn Optimizer> {
        let Some(settings) = self.zeroth_order.filter(|_| self.optimizer.is_zeroth_order()) else {
            return Box::new(AdamW::new(self.adamw()));
        };
        let common = ZerothOrder {
            epsilon: settings.zo_eps,
            estimates: settings.zo_estimates,
            momentum: settings.zo_momentum,
            seed: seed ^ mix(round),
            trainable,
        };
        match (self.optimizer, settings.zo_rank, settings.zo_refresh) {
            (OptimizerName::Subzero, Some(rank), Some(refresh)) => {
                Box::new(SubZero::new(SubZeroConfig { common, rank, refresh }))
            }
            _ => Box::new(Mezo::new(common)),
        }
    }

    /// Settings of AdamW.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig { betas: self.adam_betas, epsilon: self.adam_eps, weight_decay: self.weight_decay }
    }

    /// The learning rate of every step.
    pub fn learning_rates(&self) -> LearningRate {
        let decay = match self.schedule {
            Schedule::Constant => Decay::Constant,
            Schedule::Linear => Decay::Linear,
            Schedule::Cosine => Decay::Cosine,
        };
        LearningRate {
            peak: self.learning_rate,
            warmup_steps: self.warmup_steps,
            decay,
            steps: self.steps,
            floor: self.final_learning_rate_ratio,
        }
    }
}

impl Recompute {
    /// What is done; [`Auto`](Self::Auto) asks whether the activations of a micro-batch are `large`.
    pub fn settled(self, large: impl FnOnce() -> bool) -> tape::Recompute {
        match self {
            Self::Auto if large() => tape::Recompute::Blocks,
            Self::Auto | Self::None => tape::Recompute::None,
            Self::Blocks => tape::Recompute::Blocks,
            Self::EverySecond => tape::Recompute::EverySecond,
            Self::EveryFourth => tape::Recompute::EveryFourth,
        }
    }
}
