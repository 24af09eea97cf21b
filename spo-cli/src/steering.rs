//! `--steer`: a policy for many users as it is for one of them.

use std::path::PathBuf;

use clap::Args;
use spo_model::CausalLm;
use spo_model::steering::SavedZ;

use crate::error::CliError;
use crate::places::Place;

/// The user that a policy answers for.
#[derive(Debug, Args)]
pub(crate) struct SteerArguments {
    /// A user's vector, which `spo steer` made for this policy of a few labelled pairs; without it the policy answers for a
    /// user of whom nothing is known
    #[arg(long, value_name = "FILE", requires = "model")]
    pub steer: Option<PathBuf>,
}

impl SteerArguments {
    /// The model of this place, steered.
    ///
    /// # Errors
    /// The file is not one of `spo steer`, or was made for another policy.
    pub fn on(&self, model: CausalLm, place: &Place) -> Result<CausalLm, CliError> {
        steered(self.steer.as_deref(), model, place)
    }
}

/// The model of a place as it is for the user of a file, if one is named.
///
/// # Errors
/// The file is not one of `spo steer`, or was made for another policy.
pub(crate) fn steered(file: Option<&std::path::Path>, model: CausalLm, place: &Place) -> Result<CausalLm, CliError> {
    let Some(file) = file else { return Ok(model) };
    let dir = place.adapter.as_ref().unwrap_or(&place.model);
    Ok(SavedZ::read(file)?.steer(model, dir, file)?)
}
