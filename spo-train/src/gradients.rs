//! Gradients by parameter name, accumulated over the micro-batches of a window.

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
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

    /// Adds rows to rows of a table's sum: row `i` of `rows` `[tokens, hidden]` to row `ids[i]` of `[vocab, hidden]`.
    pub fn add_rows(&mut self, path: &str, table: [usize; 2], ids: Tensor<1, Int>, rows: Tensor<2>) {
        if !Values::fit(&rows) {
            let zeros = Tensor::<2>::zeros(table, (&rows.device(), rows.dtype()));
            return self.add(path, zeros.select_assign(0, ids, rows, IndexingUpdateOp::Add));
        }
        let sum = self.sums.remove(path).unwrap_or_else(|| Tensor::zeros([table[0] * table[1]], &rows.device()));
        let fit = "sums have the type and the device of their gradients";
        let (mut sum, rows) = (Values::take(sum).expect(fit), Values::take(rows).expect(fit));
        let width = table[1];
        let into = sum.make_mut();
        for (id, row) in ids.into_data().iter::<i64>().zip(rows.chunks_exact(width)) {
            let at = id as usize * width;
            into[at..at + width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        self.sums.insert(path.into(), sum.into_tensor());
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
