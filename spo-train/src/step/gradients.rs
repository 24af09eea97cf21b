//! Gradients by parameter name, accumulated over the micro-batches of a batch.

use crate::step::row_sparse::{RowSparse, TableRows};
use burn::tensor::{DType, Tensor};
use spo_kernels::cpu::Values;
use spo_kernels::embedding;
use spo_kernels::squares::sum_of_squares;
use spo_model::lora::{SavedModules, is_adapter};
use spo_model::parameters::is_constant;
use spo_model::steering::is_steering;
use std::collections::BTreeMap;

/// Which parameters training changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trainable {
    /// All of them.
    #[default]
    All,
    /// The adapters; the base stays as it is.
    Adapters,
    /// The adapters, and these modules in full.
    AdaptersAnd(SavedModules),
    /// The same and what steers the model.
    AdaptersAndSteering(SavedModules),
}

impl Trainable {
    /// With the score head, which is trained in full.
    #[must_use]
    pub fn with_score_head(self) -> Self {
        match self {
            Self::All => self,
            Self::Adapters => Self::AdaptersAnd(SavedModules::default().with_score_head()),
            Self::AdaptersAnd(saved) => Self::AdaptersAnd(saved.with_score_head()),
            Self::AdaptersAndSteering(saved) => Self::AdaptersAndSteering(saved.with_score_head()),
        }
    }

    /// Whether the parameter at this module path is trained.
    pub fn contains(self, path: &str) -> bool {
        match self {
            Self::All => !is_constant(path),
            Self::Adapters => is_adapter(path),
            Self::AdaptersAnd(saved) => is_adapter(path) || saved.contains(path),
            Self::AdaptersAndSteering(saved) => is_adapter(path) || saved.contains(path) || is_steering(path),
        }
    }
}

/// Sums of gradients, at least f32, in the order of their names.
///
/// # Shapes
/// Each is flat, `[elements]` of its parameter.
#[derive(Debug, Default)]
pub struct Gradients {
    pub(super) sums: BTreeMap<String, RowSparse>,
}

impl Gradients {
    /// Adds a gradient of any shape to its parameter's sum.
    pub fn add<const D: usize>(&mut self, path: &str, gradient: Tensor<D>) {
        let elements = gradient.shape().num_elements();
        let gradient = gradient.reshape([elements]);
        let sum = match self.sums.remove(path) {
            Some(sum) => sum.plus(RowSparse::Whole(gradient)),
            None if gradient.dtype() == DType::F64 => RowSparse::Whole(gradient),
            None => RowSparse::Whole(gradient.cast(DType::F32)),
        };
        self.sums.insert(path.into(), sum);
    }

    /// Adds rows to rows of a table's sum: row `i` of `rows` to row `ids[i]`. On the CPU the other rows take no memory,
    /// unless the table has other gradients too.
    ///
    /// # Shapes
    /// - `table`: the table's own, `[vocab, hidden]`
    /// - `ids`: `[tokens]`
    /// - `rows`: `[tokens, hidden]`
    pub fn add_rows(&mut self, path: &str, table: [usize; 2], ids: &[i32], rows: Tensor<2>) {
        if let Some(values) = Values::of(&rows) {
            let mut sums = TableRows::new(table);
            sums.add_at(ids, &values);
            return self.add_sum(path.into(), RowSparse::Rows(sums));
        }
        let wide = if rows.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let zeros = || Tensor::zeros([table[0] * table[1]], (&rows.device(), wide));
        let sum = self.sums.remove(path).map_or_else(zeros, RowSparse::into_whole);
        self.sums.insert(path.into(), RowSparse::Whole(embedding::add_rows(sum, ids, rows)));
    }

    fn add_sum(&mut self, path: String, gradient: RowSparse) {
        let sum = match self.sums.remove(&path) {
            Some(sum) => sum.plus(gradient),
            None => gradient,
        };
        self.sums.insert(path, sum);
    }

    /// Adds another set of sums.
    pub fn merge(&mut self, other: Self) {
        for (path, sum) in other.sums {
            self.add_sum(path, sum);
        }
    }

    /// The inner product with other gradients of the same parameters.
    pub fn dot(&self, other: &Self) -> f64 {
        let products = self.sums.iter().filter_map(|(path, sum)| Some(sum.dot(other.sums.get(path)?)));
        products.sum()
    }

    /// All of them times a factor.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { sums: self.sums.into_iter().map(|(path, sum)| (path, sum.scaled(factor))).collect() }
    }

    /// The sum for a parameter, `[elements]`.
    pub fn get(&self, path: &str) -> Option<Tensor<1>> {
        self.sums.get(path).cloned().map(RowSparse::into_whole)
    }

    /// Takes the sum for a parameter out.
    pub fn remove(&mut self, path: &str) -> Option<RowSparse> {
        self.sums.remove(path)
    }

    /// Parameter names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sums.keys().map(String::as_str)
    }

    /// Global L2 norm; on a GPU one read from the device.
    pub fn norm(&self) -> f64 {
        if let Some(squares) = self.sums.values().map(RowSparse::squares_on_host).sum::<Option<f64>>() {
            return squares.sqrt();
        }
        let sums: Vec<Tensor<1>> = self.sums.values().map(|sum| sum.clone().into_whole()).collect();
        sum_of_squares(&sums).sqrt()
    }
}
