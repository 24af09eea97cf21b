//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in the field's form: decay decoupled and on
//! matrices only, ε outside the root of the bias-corrected second moment.

use crate::config::TrainingPlan;
use crate::gradients::Gradients;
use burn::module::Module;
use burn::tensor::{DType, Tensor};
use spo_core::cpu::{Values, rows};
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
        self.begin_step();
        self.update(model, &mut gradients, training, learning_rate, scale)
    }

    /// Begins a step whose gradients come in several parts, each given to [`update`](Self::update).
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Updates every parameter that has a gradient, and takes it out.
    pub fn update<M: Module>(
        &mut self,
        model: M,
        gradients: &mut Gradients,
        training: &TrainingPlan,
        learning_rate: f64,
        scale: f64,
    ) -> M {
        replace(model, "", |parameter| match gradients.remove(&parameter.path) {
            Some(gradient) => {
                let decayed = parameter.shape.len() > 1;
                let update = Update::new(self.step, training, learning_rate, scale, decayed);
                let moments = self.moments.remove(&parameter.path);
                let (weight, moments) = update.apply(parameter.value, gradient, moments);
                self.moments.insert(parameter.path, moments);
                weight
            }
            None => parameter.value,
        })
    }
}

impl AdamW {
    /// Whether a parameter has been updated.
    pub fn trains(&self, path: &str) -> bool {
        self.moments.contains_key(path)
    }

    /// Everything but the number of steps, flat tensors by name: `first.PATH`, `second.PATH`, and
    /// `master.PATH` where weights are stored in 16 bits.
    pub fn state(&self) -> Vec<(String, Tensor<1>)> {
        let named = self.moments.iter().flat_map(|(path, moments)| {
            let master = moments.master.clone().map(|master| (format!("master.{path}"), master));
            let both = [(format!("first.{path}"), &moments.first), (format!("second.{path}"), &moments.second)];
            both.map(|(name, value)| (name, value.clone())).into_iter().chain(master)
        });
        named.collect()
    }

    /// The optimiser after this many steps, from its [`state`](Self::state).
    pub fn restore(step: u64, mut state: BTreeMap<String, Tensor<1>>) -> Self {
        let paths: Vec<String> =
            state.keys().filter_map(|name| name.strip_prefix("first.")).map(String::from).collect();
        let moments = paths.into_iter().filter_map(|path| {
            let first = state.remove(&format!("first.{path}"))?;
            let second = state.remove(&format!("second.{path}"))?;
            let master = state.remove(&format!("master.{path}"));
            Some((path, Moments { first, second, master }))
        });
        Self { moments: moments.collect(), step }
    }
}

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy)]
struct Update {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// Factor on the gradient.
    scale: f64,
    /// Factor on the weight: 1 − learning rate · decay.
    keep: f64,
    /// Learning rate with the first moment's bias correction.
    rate: f64,
    /// √ of the second moment's bias correction.
    correction: f64,
}

impl Update {
    fn new(step: u64, training: &TrainingPlan, learning_rate: f64, scale: f64, decayed: bool) -> Self {
        let [beta1, beta2] = training.adam_betas;
        let decay = if decayed { training.weight_decay } else { 0.0 };
        Self {
            beta1,
            beta2,
            epsilon: training.adam_eps,
            scale,
            keep: 1.0 - learning_rate * decay,
            rate: learning_rate / (1.0 - beta1.powi(step as i32)),
            correction: (1.0 - beta2.powi(step as i32)).sqrt(),
        }
    }

    fn apply(self, weight: Tensor<1>, gradient: Tensor<1>, moments: Option<Moments>) -> (Tensor<1>, Moments) {
        let (first, second, master) = match moments {
            Some(moments) => (moments.first, moments.second, moments.master),
            None => (gradient.zeros_like(), gradient.zeros_like(), None),
        };
        let stored = weight.dtype();
        let wide = master.unwrap_or_else(|| weight.cast(first.dtype()));
        let state = [wide, first, second];
        let [wide, first, second] = match Values::fit(&gradient) && state.iter().all(Values::fit) {
            true => self.on_host(state, gradient),
            false => self.on_device(state, gradient),
        };
        let master = matches!(stored, DType::F16 | DType::BF16).then(|| wide.clone());
        (wide.cast(stored), Moments { first, second, master })
    }

    /// Weight and moments after the step, in burn's operations.
    fn on_device(self, [weight, first, second]: [Tensor<1>; 3], gradient: Tensor<1>) -> [Tensor<1>; 3] {
        let gradient = gradient * self.scale;
        let first = first * self.beta1 + gradient.clone() * (1.0 - self.beta1);
        let second = second * self.beta2 + gradient.square() * (1.0 - self.beta2);
        let weight = if self.keep == 1.0 { weight } else { weight * self.keep };
        let denominator = second.clone().sqrt() / self.correction + self.epsilon;
        [weight - first.clone() / denominator * self.rate, first, second]
    }

    /// The same in one pass over the memory of all three.
    fn on_host(self, state: [Tensor<1>; 3], gradient: Tensor<1>) -> [Tensor<1>; 3] {
        let values = |tensor| Values::take(tensor).expect("the caller asked whether they fit");
        let (mut state, gradient) = (state.map(values), values(gradient));
        rows::update_three(state.each_mut().map(Values::make_mut), &gradient, |[weight, first, second], gradient| {
            pulp::Arch::new().dispatch(|| self.pass(weight, first, second, gradient));
        });
        state.map(Values::into_tensor)
    }

    #[inline(always)]
    fn pass(self, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        let [beta1, beta2, scale, keep, rate] =
            [self.beta1, self.beta2, self.scale, self.keep, self.rate].map(|x| x as f32);
        let [rest1, rest2, inverse, epsilon] =
            [1.0 - self.beta1, 1.0 - self.beta2, 1.0 / self.correction, self.epsilon].map(|x| x as f32);
        let state = weight.iter_mut().zip(first).zip(second);
        for (((weight, first), second), gradient) in state.zip(gradient) {
            let gradient = gradient * scale;
            *first = *first * beta1 + gradient * rest1;
            *second = *second * beta2 + gradient * gradient * rest2;
            *weight = *weight * keep - *first / (second.sqrt() * inverse + epsilon) * rate;
        }
    }
}

/// The factor that brings a gradient of this norm within `max_norm` (0: no limit), as
/// `torch.nn.utils.clip_grad_norm_` computes it.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
