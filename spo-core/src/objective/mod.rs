//! Preference objectives: what each needs, its loss, and the registry that names them all.
//!
//! A new objective is one file with a struct of its hyper-parameters, an [`Objective`] implementation and an
//! [`Entry`], plus one line in `registry.rs`; outside of this crate, instead of that line, [`Registry::add`].

mod degrees;
mod entry;
pub mod list;
pub mod modifier;
mod needs;
pub mod options;
mod registry;
pub mod reward;
mod spec;
pub mod unpaired;

mod alpha_po;
mod aot;
mod apo;
mod bco;
mod bfpo;
mod bradley_terry;
mod cdpo;
mod chi_po;
mod cpo;
mod discopop;
pub mod dpo;
mod dpo_shift;
mod dpop;
mod exo;
mod hinge;
mod ipo;
mod kto;
mod mm_dpo;
mod modpo;
mod mrpo;
mod nca;
mod opo;
mod orpo;
mod plackett_luce;
mod r_dpo;
mod robust;
mod safe_dpo;
mod score;
mod selm;
mod sft;
mod sigmoid_norm;
mod simpo;
pub mod spo;
mod sppo_hard;
mod tdpo;
mod weighted_sum;

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::{CoreError, PairLogps, Sides};

pub use degrees::{DegreeAnswers, DegreeLoss, Degrees, cross_entropy, logistic};
pub use entry::{Build, Entry, Made, Make, list, pair, reward, unpaired};
pub use list::{ListGradient, ListLogps, ListLosses, ListNumbers, ListObjective, differentiate_lists};
pub use needs::{Needs, present};
pub use options::OptionDoc;
pub use registry::{Registry, build, build_list, build_reward, build_unpaired, entry, registry};
pub use reward::{
    Critique, RewardGradient, RewardNumbers, RewardObjective, RewardPairs, RewardTensors, differentiate_rewards,
};
pub use spec::ObjectiveSpec;
pub use unpaired::{
    AnswerGradient, AnswerLogps, AnswerLosses, AnswerNumbers, UnpairedObjective, differentiate_answers,
};

/// What an objective makes of a batch of pairs; every tensor is `[pairs]`.
#[derive(Debug, Clone)]
pub struct PairLosses {
    /// Loss of each pair; the batch's loss is their mean.
    pub per_pair: Tensor<1>,
    /// Implicit reward of the chosen answer.
    pub chosen_reward: Tensor<1>,
    /// Implicit reward of the rejected answer.
    pub rejected_reward: Tensor<1>,
    /// `c` of SPO: the margin that earlier dimensions already give or ask back.
    pub margin_offset: Option<Tensor<1>>,
}

/// A loss on pairs of sequence log-probabilities, differentiable by the tape of its inputs.
pub trait Objective: Send + Sync + Debug {
    /// Its name in the registry.
    fn name(&self) -> &'static str;

    /// The inputs it looks at besides the policy's log-probabilities.
    fn needs(&self) -> Needs;

    /// Losses and rewards of a batch.
    ///
    /// # Errors
    /// [`CoreError::MissingInput`] when the batch lacks what [`needs`](Self::needs) names.
    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError>;

    /// The loss that the batch must have while the policy still equals the reference, `[1]`, where that is known:
    /// an identity that holds at step 0 of a round.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        let _ = logps;
        Ok(None)
    }

    /// Most tokens of the answer that the reference writes to each prompt before a round, at temperature 1, where
    /// [`needs`](Self::needs) asks for one.
    fn sampled_tokens(&self) -> Option<usize> {
        None
    }

    /// Names of the earlier policies that are mixed with the reference, where [`needs`](Self::needs) asks for a
    /// mixture; all of them if empty.
    fn mixed_policies(&self) -> &[String] {
        &[]
    }

    /// The loss on preference degrees beside this one, where there is one.
    fn degrees(&self) -> Option<Degrees> {
        None
    }

    /// The same objective with other `λ` of one round, `round` counted from 0 among the policies' rounds, this one the last;
    /// `None` where the loss holds no earlier rounds, or `lambda` is not one number for each round before.
    fn with_lambda(&self, round: usize, lambda: &[f64]) -> Option<Box<dyn Objective>> {
        let _ = (round, lambda);
        None
    }

    /// Checks that hyper-parameters fit together; ranges of single ones are checked before.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`].
    fn validate(&self) -> Result<(), CoreError> {
        Ok(())
    }
}

/// Length-normalised policy log-probabilities, `[pairs]`; an empty answer counts one token.
///
/// # Errors
/// [`CoreError::MissingInput`] without answer lengths.
pub fn normalised(objective: &'static str, logps: &PairLogps) -> Result<Sides<Tensor<1>>, CoreError> {
    let lengths = needs::present(objective, "answer lengths", logps.lengths.as_ref())?;
    Ok(Sides {
        chosen: logps.policy_chosen.clone() / lengths.chosen.clone().clamp_min(1.0),
        rejected: logps.policy_rejected.clone() / lengths.rejected.clone().clamp_min(1.0),
    })
}

/// Losses with the rewards `beta · value` of each side (constants for the tape).
pub fn with_rewards(per_pair: Tensor<1>, values: Sides<Tensor<1>>, beta: f64) -> PairLosses {
    PairLosses {
        per_pair,
        chosen_reward: values.chosen.detach() * beta,
        rejected_reward: values.rejected.detach() * beta,
        margin_offset: None,
    }
}

/// Log-ratios of policy and reference, `[pairs]`.
#[derive(Debug, Clone)]
pub struct Ratios {
    /// `log π(y_w)/π_ref(y_w)`.
    pub chosen: Tensor<1>,
    /// `log π(y_l)/π_ref(y_l)`.
    pub rejected: Tensor<1>,
}

impl Ratios {
    /// The log-ratios of a batch; `objective` is who asks.
    ///
    /// # Errors
    /// [`CoreError::MissingInput`] without log-probabilities of the reference.
    pub fn new(objective: &'static str, logps: &PairLogps) -> Result<Self, CoreError> {
        let reference = needs::present(objective, "reference log-probabilities", logps.reference.as_ref())?;
        Ok(Self {
            chosen: logps.policy_chosen.clone() - reference.chosen.clone(),
            rejected: logps.policy_rejected.clone() - reference.rejected.clone(),
        })
    }

    /// Chosen minus rejected.
    pub fn delta(&self) -> Tensor<1> {
        self.chosen.clone() - self.rejected.clone()
    }

    /// These losses with the rewards `beta · log-ratio` (constants for the tape).
    pub fn losses(self, per_pair: Tensor<1>, beta: f64) -> PairLosses {
        with_rewards(per_pair, Sides { chosen: self.chosen, rejected: self.rejected }, beta)
    }
}
