//! An optimiser whose steps stay out of some directions.

use super::{FromGradients, Method, Optimizer};
use crate::step::gradients::Gradients;
use crate::step::row_sparse::RowSparse;
use burn::tensor::Tensor;
use spo_model::CausalLm;
use spo_model::lora::Complement;
use std::collections::BTreeMap;

/// Another optimiser's steps, of which the part along the directions of a [`Complement`] is taken out of the weights
/// afterwards: whatever the optimiser makes of a gradient, the adapters stay outside.
#[derive(Debug)]
pub struct Projected {
    inner: Box<dyn Optimizer>,
    outside: Complement,
}

impl Projected {
    /// `inner`, which takes gradients, outside of these directions.
    pub fn new(inner: Box<dyn Optimizer>, outside: Complement) -> Self {
        Self { inner, outside }
    }

    fn gradients(&mut self) -> &mut dyn FromGradients {
        match self.inner.method() {
            Method::Gradients(inner) => inner,
            Method::Losses(_) => unreachable!("it is made of an optimiser that takes gradients"),
        }
    }
}

impl FromGradients for Projected {
    fn begin_step(&mut self) {
        self.gradients().begin_step();
    }

    fn update(&mut self, model: CausalLm, gradients: &mut Gradients, learning_rate: f64, scale: f64) -> CausalLm {
        let model = self.gradients().update(model, gradients, learning_rate, scale);
        self.outside.apply(model)
    }
}

impl Optimizer for Projected {
    fn method(&mut self) -> Method<'_> {
        Method::Gradients(self)
    }

    fn trains(&self, path: &str) -> bool {
        self.inner.trains(path)
    }

    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_> {
        self.inner.state()
    }

    fn restore(&mut self, steps: u64, state: BTreeMap<String, Tensor<1>>) -> Result<(), String> {
        self.inner.restore(steps, state)
    }
}
