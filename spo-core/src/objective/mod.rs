//! Preference objectives: what each needs, its loss, and the registry that names them all.
//!
//! A new objective is one file with a struct of its hyper-parameters, an [`Objective`] implementation and an
//! [`Entry`], plus one line in [`registry`].

mod entry;
mod needs;
mod options;
mod spec;

pub mod dpo;
pub mod spo;

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::{CoreError, PairLogps};

pub use entry::{Build, Entry, build, entry, registry};
pub use needs::Needs;
pub use options::OptionDoc;
pub use spec::ObjectiveSpec;

/// What an objective makes of a window of pairs; every tensor is `[pairs]`.
#[derive(Debug, Clone)]
pub struct PairLosses {
    /// Loss of each pair; the window's loss is their mean.
    pub per_pair: Tensor<1>,
    /// Implicit reward of the chosen answer.
    pub chosen_reward: Tensor<1>,
    /// Implicit reward of the rejected answer.
    pub rejected_reward: Tensor<1>,
    /// `c` of SPO: the margin that earlier dimensions already give or ask back.
    pub carry: Option<Tensor<1>>,
}

/// A loss on pairs of sequence log-probabilities, differentiable by the tape of its inputs.
pub trait Objective: Send + Sync + Debug {
    /// Its name in the registry.
    fn name(&self) -> &'static str;

    /// The inputs it looks at besides the policy's log-probabilities.
    fn needs(&self) -> Needs;

    /// Losses and rewards of a window.
    ///
    /// # Errors
    /// [`CoreError::MissingInput`] when the window lacks what [`needs`](Self::needs) names.
    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError>;

    /// The loss that the window must have while the policy still equals the reference, `[1]`, where that is known:
    /// an identity that holds at step 0 of a round.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn step_zero(&self, logps: &PairLogps) -> Result<Option<Tensor<1>>, CoreError> {
        let _ = logps;
        Ok(None)
    }

    /// Checks that hyper-parameters fit together; ranges of single ones are checked before.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`].
    fn validate(&self) -> Result<(), CoreError> {
        Ok(())
    }
}

/// Log-ratios of policy and reference, `[pairs]`.
pub(crate) struct Ratios {
    /// `log π(y_w)/π_ref(y_w)`.
    pub chosen: Tensor<1>,
    /// `log π(y_l)/π_ref(y_l)`.
    pub rejected: Tensor<1>,
}

impl Ratios {
    pub fn new(objective: &'static str, logps: &PairLogps) -> Result<Self, CoreError> {
        let reference = needs::present(
            objective,
            "reference log-probabilities",
            logps.reference.as_ref(),
        )?;
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
        PairLosses {
            per_pair,
            chosen_reward: self.chosen.detach() * beta,
            rejected_reward: self.rejected.detach() * beta,
            carry: None,
        }
    }
}
