//! SubZero (Yu et al. 2024, arXiv 2410.08989): directions in a random subspace of each matrix, of low rank.

use super::ZerothOrder;
use super::frames::{Frames, near_square};
use super::random::{Key, Role, stored};
use crate::step::gradients::Trainable;
use crate::step::optimizer::{FromLosses, Method, Optimizer};
use crate::step::row_sparse::RowSparse;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;
use spo_model::CausalLm;
use spo_model::lora::{LoraAdapter, is_adapter, projections};
use spo_model::parameters::{for_each, replace};
use std::collections::BTreeMap;

/// Settings of [`SubZero`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubZeroConfig {
    /// Those of all.
    pub common: ZerothOrder,
    /// Columns of the frames; of a matrix with a shorter side, that side.
    pub rank: usize,
    /// Steps of a window, at least 1: then fresh frames are drawn.
    pub refresh: u64,
}

/// SGD in frames `U`, `V` that stay for a window of steps: a matrix is `W + U C Vᵀ`, and a step moves the core `C`,
/// `[rank, rank]`, alone.
///
/// `W` is not touched until the window ends. While all weights are trained, `U C Vᵀ` is a branch beside `W`, as an adapter
/// is, so a probe takes no memory to speak of; trained are the matrices of the blocks. Of `[lora]` adapters, which are
/// small, a probe is a copy; each factor is seen as the matrix that is closest to a square, as in the paper.
/// Vectors, embeddings and the head stay as they are.
#[derive(Debug)]
pub struct SubZero {
    config: SubZeroConfig,
    step: u64,
    /// Whether a window has gone into the weights.
    folded: bool,
    /// The window that `matrices` are of.
    window: Option<u64>,
    matrices: BTreeMap<String, Matrix>,
    cores: BTreeMap<String, Core>,
}

/// A trained matrix's frames on its device, f32.
#[derive(Debug)]
struct Matrix {
    rank: usize,
    scale: f64,
    /// `U`, `[rows, rank]`
    left: Tensor<2>,
    /// `Vᵀ`, `[rank, columns]`
    right: Tensor<2>,
}

/// What a window has come to: `[rank · rank]`, row by row.
#[derive(Debug, Clone)]
struct Core {
    sum: Vec<f32>,
    /// Of earlier estimates.
    momentum: Vec<f32>,
}

impl Matrix {
    fn new(frames: Frames, device: &Device) -> Self {
        let (rank, scale) = (frames.rank, frames.scale());
        let tensor = |values: Vec<f32>| {
            let length = values.len() / rank;
            Tensor::<2>::from_data(TensorData::new(values, [rank, length]), (device, DType::F32))
        };
        Self { rank, scale, left: tensor(frames.left).transpose(), right: tensor(frames.right) }
    }

    /// `U C`, `[rows, rank]`
    fn moved(&self, core: Vec<f32>) -> Tensor<2> {
        let core = TensorData::new(core, [self.rank; 2]);
        self.left.clone().matmul(Tensor::from_data(core, (&self.left.device(), DType::F32)))
    }

    /// `U C Vᵀ`, `[rows, columns]`
    fn product(&self, core: Vec<f32>) -> Tensor<2> {
        self.moved(core).matmul(self.right.clone())
    }
}

impl SubZero {
    /// An optimiser before its first step.
    pub fn new(config: SubZeroConfig) -> Self {
        let (matrices, cores) = (BTreeMap::new(), BTreeMap::new());
        Self { config, step: 0, folded: false, window: None, matrices, cores }
    }

    /// Draws the frames of this step's window, unless they are there.
    fn draw(&mut self, model: &CausalLm) {
        let window = self.step / self.config.refresh;
        if self.window == Some(window) {
            return;
        }
        let SubZeroConfig { common: ZerothOrder { seed, trainable, .. }, rank, .. } = self.config;
        let device = model.device();
        let frames = |(path, dims): (String, [usize; 2])| {
            let frames = Frames::new(dims, rank, seed, &path, window);
            (path, Matrix::new(frames, &device))
        };
        self.matrices =
            matrices(model, trainable).into_par_iter().map(frames).collect::<Vec<_>>().into_iter().collect();
        self.window = Some(window);
        for (path, matrix) in &self.matrices {
            let zeros = || vec![0.0; matrix.rank * matrix.rank];
            self.cores.entry(path.clone()).or_insert_with(|| Core { sum: zeros(), momentum: zeros() });
        }
    }

    /// The direction of an estimate of this step in a matrix's core.
    fn direction(&self, path: &str, matrix: &Matrix, estimate: usize) -> Vec<f32> {
        let key = Key::new(self.config.common.seed, path, Role::Direction, self.step, estimate);
        let scale = matrix.scale as f32;
        key.normals(matrix.rank * matrix.rank).into_iter().map(|value| value * scale).collect()
    }

    /// The core of a matrix, moved so far along an estimate's direction.
    fn core(&self, path: &str, matrix: &Matrix, along: Option<(usize, f64)>) -> Vec<f32> {
        let sum = self.cores[path].sum.clone();
        let Some((estimate, by)) = along else { return sum };
        let direction = self.direction(path, matrix, estimate);
        sum.into_iter().zip(direction).map(|(sum, value)| sum + by as f32 * value).collect()
    }

    /// The model with its cores beside the weights.
    fn beside(&self, mut model: CausalLm, along: Option<(usize, f64)>) -> CausalLm {
        if self.config.common.trainable != Trainable::All {
            return replace(model, "", |parameter| match self.matrices.get(&parameter.path) {
                Some(matrix) => {
                    let (dtype, product) =
                        (parameter.value.dtype(), matrix.product(self.core(&parameter.path, matrix, along)));
                    (parameter.value.cast(DType::F32) + product.flatten(0, 1)).cast(dtype)
                }
                None => parameter.value,
            });
        }
        let dtype = model.dtype();
        for (path, linear) in projections(&mut model) {
            if let Some(matrix) = self.matrices.get(&path) {
                let left = matrix.moved(self.core(&path, matrix, along)).cast(dtype);
                linear.lora = Some(LoraAdapter::new(matrix.right.clone().cast(dtype), left, 1.0));
            }
        }
        model
    }

    /// The model with its cores in the weights.
    fn fold(&mut self, model: CausalLm) -> CausalLm {
        let suffix = suffix(self.config.common.trainable);
        let model = replace(model, "", |parameter| {
            let Some(path) = parameter.path.strip_suffix(suffix) else { return parameter.value };
            let Some(matrix) = self.matrices.get(path) else { return parameter.value };
            let (dtype, device) = (parameter.value.dtype(), parameter.value.device());
            let key = Key::new(self.config.common.seed, path, Role::Rounding, self.step, 0);
            let product = matrix.product(self.core(path, matrix, None)).flatten(0, 1);
            stored(parameter.value.cast(DType::F32) + product, dtype, key, &device)
        });
        self.folded = true;
        for core in self.cores.values_mut() {
            core.sum.fill(0.0);
        }
        model
    }

    /// Moves the cores by a step; the squared length of the estimate.
    fn step_cores(&mut self, slopes: &[f64], learning_rate: f64) -> f64 {
        let mut squares = 0.0;
        let mut cores = std::mem::take(&mut self.cores);
        for (path, matrix) in &self.matrices {
            let core = cores.get_mut(path).expect("every matrix has one");
            let mut estimate = vec![0.0; core.sum.len()];
            for (index, slope) in slopes.iter().enumerate() {
                let direction = self.direction(path, matrix, index);
                estimate.iter_mut().zip(direction).for_each(|(sum, value)| *sum += slope * f64::from(value));
            }
            squares += estimate.iter().map(|value| value * value).sum::<f64>();
            for ((sum, momentum), value) in core.sum.iter_mut().zip(&mut core.momentum).zip(estimate) {
                *momentum = (self.config.common.momentum * f64::from(*momentum) + value) as f32;
                *sum -= (learning_rate * f64::from(*momentum)) as f32;
            }
        }
        self.cores = cores;
        squares
    }
}

/// Path and sides of the matrices that are trained.
fn matrices(model: &CausalLm, trainable: Trainable) -> Vec<(String, [usize; 2])> {
    if trainable == Trainable::All {
        return projections(&mut model.clone()).into_iter().map(|(path, linear)| (path, linear.dims())).collect();
    }
    let mut found = vec![];
    for_each(model, "", |parameter| {
        if is_adapter(&parameter.path) && parameter.shape.len() == 2 {
            found.push((parameter.path, near_square(parameter.shape.iter().product())));
        }
    });
    found
}

/// What the name of a parameter has after the name of its matrix.
fn suffix(trainable: Trainable) -> &'static str {
    if trainable == Trainable::All { ".weight" } else { "" }
}

impl FromLosses for SubZero {
    fn probe(&mut self, model: &CausalLm, losses: &[f64]) -> Option<CausalLm> {
        let side = self.config.common.side(losses.len())?;
        self.draw(model);
        Some(self.beside(model.clone(), Some(side)))
    }

    fn update(&mut self, model: CausalLm, losses: &[f64], learning_rate: f64) -> (CausalLm, f64) {
        let slopes = self.config.common.slopes(losses);
        let norm = self.step_cores(&slopes, learning_rate).sqrt();
        self.step += 1;
        if !self.step.is_multiple_of(self.config.refresh) {
            return (model, norm);
        }
        let model = self.fold(model);
        // Its coordinates are those of frames that are gone.
        self.cores.clear();
        (model, norm)
    }
}

impl Optimizer for SubZero {
    fn method(&mut self) -> Method<'_> {
        Method::Losses(self)
    }

    fn trains(&self, path: &str) -> bool {
        let trainable = self.config.common.trainable;
        let matrix = path.strip_suffix(suffix(trainable)).is_some_and(|path| self.matrices.contains_key(path));
        // Before the first step since it was restored nobody has asked for the matrices.
        self.folded && trainable.contains(path) && (matrix || self.window.is_none())
    }

    /// `core.PATH` and, with a momentum, `momentum.PATH`; nothing between two windows.
    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_> {
        let tensor = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [values.len()]);
            RowSparse::Whole(Tensor::from_data(data, (&spo_model::device::cpu(), DType::F32)))
        };
        Box::new(self.cores.iter().flat_map(move |(path, core)| {
            let momentum = (self.config.common.momentum > 0.0).then_some(("momentum", &core.momentum));
            let parts = [Some(("core", &core.sum)), momentum].into_iter().flatten();
            parts.map(move |(part, values)| (format!("{part}.{path}"), tensor(values)))
        }))
    }

    fn restore(&mut self, steps: u64, mut state: BTreeMap<String, Tensor<1>>) -> Result<(), String> {
        let values = |tensor: Tensor<1>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let paths: Vec<String> = state.keys().filter_map(|name| name.strip_prefix("core.")).map(String::from).collect();
        let mut cores = BTreeMap::new();
        for path in paths {
            let sum = state.remove(&format!("core.{path}")).map(values).ok_or("a core is missing")?;
            if sum.len() > self.config.rank * self.config.rank {
                return Err(format!("core.{path} is of another rank"));
            }
            let momentum = match (state.remove(&format!("momentum.{path}")), self.config.common.momentum > 0.0) {
                (Some(momentum), true) => values(momentum),
                (None, false) => vec![0.0; sum.len()],
                (Some(_), false) => return Err(format!("momentum.{path} is there, but zo-momentum is 0")),
                (None, true) => return Err(format!("momentum.{path} is missing")),
            };
            cores.insert(path, Core { sum, momentum });
        }
        if let Some(name) = state.keys().next() {
            return Err(format!("{name} is not part of SubZero's state"));
        }
        (self.step, self.cores, self.window) = (steps, cores, None);
        self.folded = steps >= self.config.refresh;
        Ok(())
    }

    fn policy(&mut self, model: &CausalLm) -> CausalLm {
        if self.cores.is_empty() {
            return model.clone();
        }
        self.draw(model);
        self.beside(model.clone(), None)
    }

    fn settle(&mut self, model: CausalLm) -> CausalLm {
        if self.cores.is_empty() {
            return model;
        }
        self.draw(&model);
        self.fold(model)
    }
}
