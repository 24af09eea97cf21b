//! Reward models whose score head stands in an adapter's files: those of runs that train adapters.

use super::{RewardModel, SCORE, is_reward_model};
use crate::family::Registry;
use crate::load::{LoadOptions, ModelFiles, Storage};
use crate::lora::load_adapter;
use crate::{ModelError, device};
use burn::tensor::Device;
use std::path::Path;

impl RewardModel {
    /// The model in `dir` as a reward run starts from it, in f32: with its score head, or with a fresh one on a language model.
    ///
    /// # Errors
    /// As [`Registry::open`] and [`Registry::open_reward`].
    pub fn base(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let options = LoadOptions { storage: Some(Storage::F32), blocks: None };
        device::check_dtype(device, Storage::F32)?;
        if is_reward_model(dir)? {
            return Registry::builtin().open_reward(dir, options, device);
        }
        let pooling = ModelFiles::from_path(dir)?.with_ends()?.pooling()?;
        let model = Registry::builtin().open(dir, options, device)?.with_score_head(0, pooling).without_lm_head();
        Ok(Self { model, label: 0, normalisation: None, writes: false })
    }

    /// With the adapter in `dir` on it, and the score head from its files.
    ///
    /// # Errors
    /// As [`load_adapter`]; its files hold no score head.
    pub fn adapted(self, dir: &Path) -> Result<Self, ModelError> {
        let (model, spec) = load_adapter(self.model, dir)?;
        if !spec.saved.contains(SCORE) {
            let reason = "the adapter's files hold no score head: it is a policy's, not a reward model's".into();
            return Err(ModelError::Reward { dir: dir.into(), reason });
        }
        Ok(Self { model, ..self })
    }
}
