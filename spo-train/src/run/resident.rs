//! The one policy in memory.

use crate::TrainError;
use crate::policy::Policies;
use spo_model::CausalLm;

/// The policies of a run, of which at most one is in memory.
#[derive(Debug)]
pub(super) struct Resident {
    /// All of them, on disk.
    pub policies: Policies,
    model: Option<(String, CausalLm)>,
}

impl Resident {
    pub fn new(policies: Policies) -> Self {
        Self { policies, model: None }
    }

    /// A policy, brought into memory where it is not there. Another one is dropped before.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn get(&mut self, name: &str) -> Result<&CausalLm, TrainError> {
        let model = self.take(name)?;
        Ok(&self.model.insert((name.into(), model)).1)
    }

    /// Takes a policy out of memory.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn take(&mut self, name: &str) -> Result<CausalLm, TrainError> {
        match self.model.take() {
            Some((loaded, model)) if loaded == name => Ok(model),
            other => {
                drop(other);
                self.policies.load(name)
            }
        }
    }

    /// The policy that is in memory from now on.
    pub fn put(&mut self, name: &str, model: CausalLm) {
        self.model = Some((name.into(), model));
    }
}
