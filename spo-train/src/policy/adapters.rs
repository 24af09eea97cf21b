//! `[lora]` as `spo-model` takes it.

use crate::TrainError;
use crate::config::spec::{Dtype, LoraCondition, LoraRounds, LoraSet, LoraTargets, QuantisedBase};
use crate::config::{LoraPlan, RunPlan, RunSpec, SteeringPlan};
use crate::policy::{PolicyOptions, RewardHead};
use burn::tensor::Device;
use spo_model::decoder::blocks::BlockBits;
use spo_model::device::{MatmulStrategy, check_dtype, describe, multiply_by, on_cpu};
use spo_model::load::{Kept, LoadOptions, Storage};
use spo_model::lora::front::FRONT_CONFIG;
use spo_model::lora::{Condition, FrontSpec, LoraSpec, SavedModules, Targets};
use spo_model::{ModelError, ModelSpec};

/// The adapters that a plan asks for, checked against the model's shape.
///
/// # Errors
/// A target or a module that the model does not have.
pub fn lora_spec(run: &RunPlan, plan: &LoraPlan, model: &ModelSpec) -> Result<LoraSpec, ModelError> {
    let spec = LoraSpec {
        rank: plan.rank,
        alpha: plan.alpha,
        rslora: plan.rslora,
        dora: plan.dora,
        dropout: plan.dropout,
        targets: match &plan.targets {
            LoraTargets::Set(LoraSet::AllLinear) => Targets::AllLinear,
            LoraTargets::List(names) => Targets::Names(names.clone()),
            LoraTargets::Pattern(pattern) => Targets::Pattern(pattern.clone()),
        },
        saved: SavedModules::new(&plan.modules_to_save, model)?,
        front: plan.shared_rank.map(|shared_rank| FrontSpec {
            condition: plan.components.map_or_else(|| Condition::Weights(run.front().to_vec()), Condition::Contexts),
            shared_rank,
        }),
    };
    spec.check(model)?;
    Ok(spec)
}

/// Checks `[lora]` against the model's shape, before anything is loaded.
///
/// # Errors
/// A name that the model does not have, at its place in the run file; DoRA with `rounds = "stack"`; a starting adapter
/// that is not there; a base that is to stay in blocks and has none, or is not on the CPU.
pub fn check(spec: &RunSpec, plan: &RunPlan, model: &ModelSpec, device: &Device) -> Result<(), TrainError> {
    let Some(lora) = &plan.lora else { return Ok(()) };
    if lora.quantised_base == QuantisedBase::AsStored {
        check_stored(spec, plan, device)?;
    }
    if lora.dora && lora.rounds == LoraRounds::Stack {
        let message = "\"stack\" adds adapters up, and those of DoRA do not add up";
        let hint = "set `rounds = \"continue\"`, or `dora = false`";
        return Err(spec.refused("lora.rounds", message.into(), Some(hint.into())).into());
    }
    if lora.project > 0 && lora.rounds != LoraRounds::Stack {
        let message = "only a fresh adapter can stay out of what earlier ones moved";
        let hint = "set `rounds = \"stack\"`, or `project = 0`";
        return Err(spec.refused("lora.project", message.into(), Some(hint.into())).into());
    }
    let mut arms = plan.rounds.iter().flat_map(|round| &round.arms);
    if lora.project > 0 && arms.any(|arm| arm.training.optimizer.is_zeroth_order()) {
        let message = "an optimizer that goes by losses moves in directions of its own";
        return Err(spec.refused("lora.project", message.into(), Some("use `adamw`, or `project = 0`".into())).into());
    }
    let file = if lora.condition == LoraCondition::None { "adapter_config.json" } else { FRONT_CONFIG };
    if let Some(start) = lora.start.as_ref().filter(|start| !start.join(file).is_file()) {
        let message = format!("{} holds no {file}", start.display());
        let hint = match lora.condition {
            LoraCondition::None => "name a directory that PEFT or a run of spo has saved an adapter in",
            LoraCondition::Weights | LoraCondition::Contexts => "name a policy of a run with `condition = \"weights\"`",
        };
        return Err(spec.refused("lora.start", message, Some(hint.into())).into());
    }
    match lora_spec(plan, lora, model) {
        Err(ModelError::Adapter { file, reason }) => Err(spec.refused(&file, reason, None).into()),
        other => Ok(other.map(|_| ())?),
    }
}

/// A base that is to stay in blocks must have some, and on a card codes.
fn check_stored(spec: &RunSpec, plan: &RunPlan, device: &Device) -> Result<(), TrainError> {
    let refused = |message: String, hint: &str| -> Result<(), TrainError> {
        Err(spec.refused("lora.quantised-base", message, Some(hint.to_owned())).into())
    };
    let (stored, path) = (plan.families.stored_blocks(&plan.model.path)?, plan.model.path.display());
    if stored.is_empty() {
        let message = format!("{path} stores no projection in blocks or 16-bit floats");
        return refused(message, "\"8-bit\" and \"4-bit\" quantise the weights anew");
    }
    if !on_cpu(device) && stored.values().all(|blocks| blocks.on_card.is_none()) {
        let message =
            format!("{path} stores its projections in 16-bit floats, which are numbers on {}", describe(device));
        return refused(
            message,
            "set `model.dtype` to the file's own type, or quantise anew with \"8-bit\" or \"4-bit\"",
        );
    }
    Ok(())
}

/// Number format of the weights of a run.
fn storage(plan: &RunPlan) -> Storage {
    match plan.model.dtype {
        Dtype::F32 => Storage::F32,
        Dtype::Bf16 => Storage::Bf16,
        Dtype::F16 => Storage::F16,
    }
}

/// Makes this process multiply as the run says.
///
/// # Errors
/// [`ModelError::Matmul`] where the device does not.
pub fn multiply(plan: &RunPlan, device: &Device) -> Result<(), ModelError> {
    let strategy = MatmulStrategy::named(&plan.model.matmul).unwrap_or(MatmulStrategy::Auto);
    multiply_by(device, strategy, storage(plan)).map(drop)
}

/// What the policies of a run have in common.
///
/// # Errors
/// As [`lora_spec`].
pub fn policy_options(plan: &RunPlan, model: &ModelSpec, device: &Device) -> Result<PolicyOptions, ModelError> {
    let storage = storage(plan);
    check_dtype(device, storage)?;
    let blocks = plan.lora.as_ref().and_then(|lora| match lora.quantised_base {
        QuantisedBase::None => None,
        QuantisedBase::Eight => Some(Kept::Quantised(BlockBits::Eight)),
        QuantisedBase::Four => Some(Kept::Quantised(BlockBits::Four)),
        QuantisedBase::AsStored => Some(Kept::AsStored),
    });
    Ok(PolicyOptions {
        base: plan.model.path.clone(),
        families: plan.families.clone(),
        load: LoadOptions { storage: Some(storage), blocks },
        lora: plan.lora.as_ref().map(|lora| lora_spec(plan, lora, model)).transpose()?.map(|lora| {
            match plan.gives_rewards() {
                true => LoraSpec { saved: lora.saved.with_score_head(), ..lora },
                false => lora,
            }
        }),
        steering: plan.steering.as_ref().map(SteeringPlan::spec),
        reward: plan.gives_rewards().then_some(RewardHead { critique_tokens: plan.critique_tokens() }),
        start: plan.lora.as_ref().and_then(|lora| lora.start.clone()),
        stack: plan.lora.as_ref().is_some_and(|lora| lora.rounds == LoraRounds::Stack),
        seed: plan.seed,
        text: plan.text.clone(),
        meta_prompts: plan.meta_prompts(),
        device: device.clone(),
    })
}
