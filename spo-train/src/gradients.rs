//! Gradients by parameter name, accumulated over the micro-batches of a window.

use burn::tensor::{DType, Tensor};
use spo_core::cpu::{Values, rows};
use spo_model::lora::{SavedModules, is_adapter};
use std::collections::BTreeMap;

/// Which parameters training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trainable {
    /// All of them.
    All,
    /// The adapters; the base stays as it is.
    Adapters,
    /// The adapters, and these modules in full.
    AdaptersAnd(SavedModules),
}

impl Trainable {
    /// Whether the parameter at this module path is trained.
    pub fn contains(self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Adapters => is_adapter(path),
            Self::AdaptersAnd(saved) => is_adapter(path) || saved.contains(path),
        }
    }
}

/// Sums of gradients, flat `[elements]`, at least f32, in the order of their names.
#[derive(Debug, Default)]
pub struct Gradients {
    sums: BTreeMap<String, Tensor<1>>,
}

impl Gradients {
    /// Adds a gradient of any shape to its parameter's sum.
    pub fn add<const D: usize>(&mut self, path: &str, gradient: Tensor<D>) {
        let elements = gradient.shape().num_elements();
        let gradient = gradient.reshape([elements]);
        let gradient = if gradient.dtype() == DType::F64 { gradient } else { gradient.cast(DType::F32) };
        let sum = match self.sums.remove(path) {
            Some(sum) => add(sum, gradient),
            None => gradient,
        };
        self.sums.insert(path.into(), sum);
    }

    /// Adds another set of sums.
    pub fn merge(&mut self, other: Self) {
        for (path, sum) in other.sums {
            self.add(&path, sum);
        }
    }

    /// The sum for a parameter.
    pub fn get(&self, path: &str) -> Option<&Tensor<1>> {
        self.sums.get(path)
    }

    /// Takes the sum for a parameter out.
    pub fn remove(&mut self, path: &str) -> Option<Tensor<1>> {
        self.sums.remove(path)
    }

    /// Parameter names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sums.keys().map(String::as_str)
    }

    /// Global L2 norm; on a GPU one read from the device.
    pub fn norm(&self) -> f64 {
        let on_host = self.sums.values().map(|sum| Some(rows::sum_of_squares(&Values::of(sum)?)));
        if let Some(squares) = on_host.sum::<Option<f64>>() {
            return squares.sqrt();
        }
        let squares: Vec<Tensor<1>> = self.sums.values().map(|sum| sum.clone().square().sum()).collect();
        Tensor::cat(squares, 0).into_data().iter::<f64>().sum::<f64>().sqrt()
    }
}

/// `sum + gradient`, in the memory of the sum where it is on the host.
fn add(sum: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
    if !Values::fit(&sum) || !Values::fit(&gradient) {
        return sum + gradient;
    }
    let fit = "just asked";
    let (mut sum, gradient) = (Values::take(sum).expect(fit), Values::take(gradient).expect(fit));
    rows::add(sum.make_mut(), &gradient);
    sum.into_tensor()
}
