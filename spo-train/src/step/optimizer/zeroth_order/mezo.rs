//! MeZO (Malladi et al. 2023, arXiv 2305.17333).

use super::ZerothOrder;
use super::random::{Key, Role, stored};
use crate::step::optimizer::{FromLosses, Method, Optimizer};
use crate::step::row_sparse::RowSparse;
use burn::tensor::{DType, Tensor, TensorData};
use spo_model::CausalLm;
use spo_model::parameters::{Parameter, replace};
use std::collections::BTreeMap;

/// SGD along Gaussian directions: `w ← w − rate · (L(w + εz) − L(w − εz)) / 2ε · z`.
///
/// A probe is a copy of the trained weights, moved once from where they are. (Moving them in place and back, as the
/// authors' program does, leaves a random walk of roundings behind: in 16 bits it outweighs the training.)
///
/// # Shapes
/// Weights, directions and momenta are flat, `[elements]` of their parameter.
#[derive(Debug)]
pub struct Mezo {
    config: ZerothOrder,
    step: u64,
    /// Sums of earlier estimates, f32; only where there is a momentum.
    momenta: BTreeMap<String, Tensor<1>>,
}

impl Mezo {
    /// An optimiser before its first step.
    pub fn new(config: ZerothOrder) -> Self {
        Self { config, step: 0, momenta: BTreeMap::new() }
    }

    /// The direction of an estimate of this step, of a parameter, f32.
    fn direction(&self, parameter: &Parameter, estimate: usize) -> Tensor<1> {
        let key = Key::new(self.config.seed, &parameter.path, Role::Direction, self.step, estimate);
        let elements = parameter.value.dims()[0];
        Tensor::from_data(TensorData::new(key.normals(elements), [elements]), (&parameter.value.device(), DType::F32))
    }

    /// The parameter moved by `along`, in at least f32.
    fn moved(parameter: &Parameter, along: Tensor<1>) -> Tensor<1> {
        match parameter.value.dtype() {
            DType::F64 => parameter.value.clone() + along.cast(DType::F64),
            _ => parameter.value.clone().cast(DType::F32) + along,
        }
    }

    /// The estimate of a parameter's gradient, with the sum of those before.
    fn estimate(&mut self, parameter: &Parameter, slopes: &[f64]) -> (Tensor<1>, f64) {
        let along = slopes.iter().enumerate().map(|(index, slope)| self.direction(parameter, index) * *slope);
        let estimate = along.reduce(|sum, next| sum + next).expect("at least one estimate");
        let squares = estimate.clone().square().sum().into_scalar::<f32>();
        let momentum = self.config.momentum;
        if momentum == 0.0 {
            return (estimate, f64::from(squares));
        }
        let sum = match self.momenta.remove(&parameter.path) {
            Some(sum) => sum * momentum + estimate,
            None => estimate,
        };
        self.momenta.insert(parameter.path.clone(), sum.clone());
        (sum, f64::from(squares))
    }
}

impl FromLosses for Mezo {
    fn probe(&mut self, model: &CausalLm, losses: &[f64]) -> Option<CausalLm> {
        let (estimate, by) = self.config.side(losses.len())?;
        Some(replace(model.clone(), "", |parameter| match self.config.trainable.contains(&parameter.path) {
            true => Self::moved(&parameter, self.direction(&parameter, estimate) * by).cast(parameter.value.dtype()),
            false => parameter.value,
        }))
    }

    fn update(&mut self, model: CausalLm, losses: &[f64], learning_rate: f64) -> (CausalLm, f64) {
        let (slopes, mut squares) = (self.config.slopes(losses), 0.0);
        let model = replace(model, "", |parameter| {
            if !self.config.trainable.contains(&parameter.path) {
                return parameter.value;
            }
            let (sum, own) = self.estimate(&parameter, &slopes);
            squares += own;
            let key = Key::new(self.config.seed, &parameter.path, Role::Rounding, self.step, 0);
            let (dtype, device) = (parameter.value.dtype(), parameter.value.device());
            stored(Self::moved(&parameter, sum * -learning_rate), dtype, key, &device)
        });
        self.step += 1;
        (model, squares.sqrt())
    }
}

impl Optimizer for Mezo {
    fn method(&mut self) -> Method<'_> {
        Method::Losses(self)
    }

    fn trains(&self, path: &str) -> bool {
        self.step > 0 && self.config.trainable.contains(path)
    }

    /// `momentum.PATH`.
    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_> {
        let named = |(path, sum): (&String, &Tensor<1>)| (format!("momentum.{path}"), RowSparse::Whole(sum.clone()));
        Box::new(self.momenta.iter().map(named))
    }

    fn restore(&mut self, steps: u64, state: BTreeMap<String, Tensor<1>>) -> Result<(), String> {
        let named = state.into_iter().map(|(name, sum)| match name.strip_prefix("momentum.") {
            Some(path) => Ok((path.to_owned(), sum)),
            None => Err(format!("{name} is not part of MeZO's state")),
        });
        (self.step, self.momenta) = (steps, named.collect::<Result<_, _>>()?);
        Ok(())
    }
}
