//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in the field's form: decay decoupled and on
//! matrices only, ε outside the root of the bias-corrected second moment.

use crate::config::TrainingPlan;
use crate::gradients::Gradients;
use burn::module::Module;
use burn::tensor::{DType, Tensor};
use spo_model::parameters::replace;
use std::collections::BTreeMap;

/// Moments of every trained parameter, flat `[elements]`, f32 (f64 for f64 parameters).
#[derive(Debug, Default)]
pub struct AdamW {
    step: u64,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
    /// The weights before rounding, where they are stored in 16 bits.
    master: Option<Tensor<1>>,
}

impl AdamW {
    /// Updates every parameter that has a gradient. `scale` multiplies the gradients first: the
    /// clip factor.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        mut gradients: Gradients,
        training: &TrainingPlan,
        learning_rate: f64,
        scale: f64,
    ) -> M {
        self.step += 1;
        let [beta1, beta2] = training.adam_betas;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = 1.0 - beta2.powi(self.step as i32);
        replace(model, "", |parameter| {
            let gradient = gradients.remove(&parameter.path)? * scale;
            let stored = parameter.value.dtype();
            let (first, second, master) = match self.moments.remove(&parameter.path) {
                Some(moments) => (
                    moments.first * beta1 + gradient.clone() * (1.0 - beta1),
                    moments.second * beta2 + gradient.square() * (1.0 - beta2),
                    moments.master,
                ),
                None => (gradient.clone() * (1.0 - beta1), gradient.square() * (1.0 - beta2), None),
            };
            let decay = if parameter.shape.len() > 1 { training.weight_decay } else { 0.0 };
            let weight = master.unwrap_or(parameter.value.cast(first.dtype()));
            let weight = if decay == 0.0 { weight } else { weight * (1.0 - learning_rate * decay) };
            let denominator = second.clone().sqrt() / correction2.sqrt() + training.adam_eps;
            let weight = weight - first.clone() / denominator * (learning_rate / correction1);
            let rounded = weight.clone().cast(stored);
            let master = matches!(stored, DType::F16 | DType::BF16).then_some(weight);
            self.moments.insert(parameter.path, Moments { first, second, master });
            Some(rounded)
        })
    }
}

/// The factor that brings a gradient of this norm within `max_norm` (0: no limit), as
/// `torch.nn.utils.clip_grad_norm_` computes it.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
