//! What a plan says, in the types of [`step`](crate::step).

use super::TrainingPlan;
use crate::config::spec::{Recompute, Schedule};
use crate::step::optimizer::{AdamW, AdamWConfig, Optimizer};
use crate::step::schedule::{Decay, LearningRate};
use crate::step::tape;

impl TrainingPlan {
    /// The optimiser before its first step.
    pub fn optimizer(&self) -> Box<dyn Optimizer> {
        Box::new(AdamW::new(self.adamw()))
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
