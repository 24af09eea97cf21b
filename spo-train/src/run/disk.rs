//! Disk that a run takes.

use crate::TrainError;
use crate::config::spec::{Best, Dtype};
use crate::persist::durable::files;
use crate::policy::adapters::lora_spec;
use crate::policy::logps::RECORD;
use crate::run::place::places;
use crate::run::prepare::Prepared;
use serde::Serialize;
use spo_model::ModelSpec;

/// Bytes in the run directory, each part at its largest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// Policies of all phases: weights, or adapters.
    pub policies: u64,
    /// The exported model.
    pub model: u64,
    /// Checkpoints inside a round, one that is being written included.
    pub checkpoints: u64,
    /// Log-probs of frozen policies.
    pub log_probs: u64,
}

/// Number of values, and bytes of one on disk.
struct Sizes {
    parameters: u64,
    trained: u64,
    bytes: u64,
}

impl Disk {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.policies + self.model + self.checkpoints + self.log_probs
    }

    /// Bytes that a run may still write: weights and checkpoints, less what its directory holds.
    pub(crate) fn still_needed(prepared: &Prepared) -> Result<u64, TrainError> {
        let plan = &prepared.plan;
        let held = if plan.out.is_dir() { files(&plan.out)? } else { vec![] };
        let held = held.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
        Ok(Self::of(prepared, places(plan).len(), 0)?.total().saturating_sub(held))
    }

    /// Of a run of so many phases whose frozen policies score `answers` answers in all.
    ///
    /// # Errors
    /// Options that the model refuses.
    pub fn of(prepared: &Prepared, phases: usize, answers: usize) -> Result<Self, TrainError> {
        let (plan, sizes) = (&prepared.plan, Sizes::of(prepared)?);
        let policy = sizes.bytes * if plan.lora.is_some() { sizes.trained } else { sizes.parameters };
        let checkpoint = sizes.trained * (sizes.bytes + sizes.optimiser_bytes());
        // The best of each phase is kept beside its last one.
        let kept = if plan.checkpoints.keep_best == Best::None { 1 } else { 2 };
        Ok(Self {
            policies: kept * phases as u64 * policy,
            model: sizes.parameters * sizes.bytes,
            checkpoints: checkpoint * (plan.checkpoints.keep_last as u64 + 1),
            log_probs: (RECORD * answers) as u64,
        })
    }
}

impl Sizes {
    fn of(prepared: &Prepared) -> Result<Self, TrainError> {
        let (plan, model) = (&prepared.plan, &prepared.model);
        let parameters = model.parameters() as u64;
        let trained = match &plan.lora {
            None => parameters,
            Some(lora) => {
                let spec = lora_spec(plan, lora, model)?;
                let core = spec.front.as_ref().map_or(0, |front| front.core_elements(spec.rank));
                let width = |path: String| (spec.total_rank() * width(model, &path) + core) as u64;
                spec.targets.select(model)?.into_iter().map(width).sum()
            }
        };
        let bytes = match plan.model.dtype {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        };
        Ok(Self { parameters, trained, bytes })
    }

    /// Of one trained value.
    fn optimiser_bytes(&self) -> u64 {
        if self.bytes == 2 { 12 } else { 8 }
    }
}

/// Inputs and outputs of a projection: values per rank of its adapter.
fn width(model: &ModelSpec, path: &str) -> usize {
    let (h, i) = (model.hidden_size, model.intermediate_size);
    let (q, kv) = (model.heads * model.head_dim, model.kv_heads * model.head_dim);
    match path.rsplit('.').next().unwrap_or(path) {
        "q_proj" | "o_proj" => h + q,
        "k_proj" | "v_proj" => h + kv,
        "qkv_proj" => h + q + 2 * kv,
        "gate_up_proj" => h + 2 * i,
        _ => h + i,
    }
}
