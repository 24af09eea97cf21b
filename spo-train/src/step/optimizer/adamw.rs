//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in the field's form: decay decoupled and on
//! matrices only, ε outside the root of the bias-corrected second moment.

use super::{FromGradients, Method, Optimizer, Owners};
use crate::step::gradients::Gradients;
use crate::step::row_sparse::{RowSparse, TableRows};
use burn::module::Module;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;
use spo_kernels::adamw::AdamW as Step;
use spo_kernels::cpu::Values;
use spo_model::CausalLm;
use spo_model::parameters::replace;
use std::collections::BTreeMap;

/// Rows of a table that one thread updates at a time.
const ROWS_AT_ONCE: usize = 32;

/// Settings of [`AdamW`]; the defaults are the field's (PyTorch's, but for its weight decay of 0.01).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay rates of the first and the second moment, each in [0, 1); default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// Addend to the denominator, above 0; default 1e-8.
    pub epsilon: f64,
    /// Decoupled decay of matrices: a step takes this times the learning rate from each weight; default 0.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Settings, and moments of every trained parameter, f32 (f64 for f64 parameters). Of an embedding table in host memory
/// only the rows that ever had a gradient: the moments of the others are zero.
///
/// # Shapes
/// Weights, gradients and moments are flat, `[elements]` of their parameter.
#[derive(Debug, Default)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: BTreeMap<String, Moments>,
    owners: Option<Owners>,
}

#[derive(Debug)]
struct Moments {
    first: RowSparse,
    second: RowSparse,
    /// The weights before rounding, where they are stored in 16 bits.
    master: Option<RowSparse>,
}

impl AdamW {
    /// An optimiser before its first step.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Updates every parameter that has a gradient. `scale` multiplies the gradients first: the
    /// [clip factor](super::clip_factor), or 1.
    pub fn step<M: Module>(&mut self, model: M, mut gradients: Gradients, learning_rate: f64, scale: f64) -> M {
        self.begin_step();
        self.update(model, &mut gradients, learning_rate, scale)
    }

    /// Begins a step whose gradients come in several parts, each given to [`update`](Self::update).
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Updates every parameter that has a gradient and is not another process's, and takes the gradient out.
    pub fn update<M: Module>(&mut self, model: M, gradients: &mut Gradients, learning_rate: f64, scale: f64) -> M {
        let owners = self.owners.as_ref();
        let is_own = |path: &str| owners.is_none_or(|owners| owners.is_own(path));
        replace(model, "", |parameter| match gradients.remove(&parameter.path).filter(|_| is_own(&parameter.path)) {
            Some(gradient) => {
                let decayed = parameter.shape.len() > 1;
                let update = Update::new(self.step, &self.config, learning_rate, scale, decayed);
                let moments = self.moments.remove(&parameter.path);
                let (weight, moments) = update.apply(parameter.value, gradient, moments);
                self.moments.insert(parameter.path, moments);
                weight
            }
            None => parameter.value,
        })
    }
}

impl FromGradients for AdamW {
    fn begin_step(&mut self) {
        Self::begin_step(self);
    }

    fn update(&mut self, model: CausalLm, gradients: &mut Gradients, learning_rate: f64, scale: f64) -> CausalLm {
        Self::update(self, model, gradients, learning_rate, scale)
    }
}

impl Optimizer for AdamW {
    fn method(&mut self) -> Method<'_> {
        Method::Gradients(self)
    }

    fn trains(&self, path: &str) -> bool {
        self.moments.contains_key(path)
    }

    fn share(&mut self, owners: Owners) {
        self.owners = Some(owners);
    }

    fn owners(&self) -> Option<&Owners> {
        self.owners.as_ref()
    }

    /// `first.PATH`, `second.PATH`, and `master.PATH` where weights are stored in 16 bits.
    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_> {
        Box::new(self.moments.iter().flat_map(|(path, moments)| {
            let Moments { first, second, master } = moments;
            let parts = [("first", Some(first)), ("second", Some(second)), ("master", master.as_ref())];
            parts.into_iter().filter_map(move |(part, values)| Some((format!("{part}.{path}"), values?.clone())))
        }))
    }

    fn restore(&mut self, steps: u64, mut state: BTreeMap<String, Tensor<1>>) -> Result<(), String> {
        let paths: Vec<String> =
            state.keys().filter_map(|name| name.strip_prefix("first.")).map(String::from).collect();
        let mut moments = BTreeMap::new();
        for path in paths {
            let mut take = |part: &str| state.remove(&format!("{part}.{path}")).map(RowSparse::Whole);
            let (Some(first), Some(second)) = (take("first"), take("second")) else {
                return Err(format!("second.{path} is missing"));
            };
            let master = take("master");
            moments.insert(path, Moments { first, second, master });
        }
        match state.keys().next() {
            Some(name) => Err(format!("{name} is not part of AdamW's state")),
            None => {
                (self.step, self.moments) = (steps, moments);
                Ok(())
            }
        }
    }
}

/// One step of one parameter.
#[derive(Debug, Clone, Copy)]
struct Update(Step);

impl Update {
    fn new(step: u64, config: &AdamWConfig, learning_rate: f64, scale: f64, decayed: bool) -> Self {
        let [beta1, beta2] = config.betas;
        let decay = if decayed { config.weight_decay } else { 0.0 };
        Self(Step {
            beta1,
            beta2,
            epsilon: config.epsilon,
            scale,
            keep: 1.0 - learning_rate * decay,
            rate: learning_rate / (1.0 - beta1.powi(step as i32)),
            correction: (1.0 - beta2.powi(step as i32)).sqrt(),
        })
    }

    fn apply(self, weight: Tensor<1>, gradient: RowSparse, moments: Option<Moments>) -> (Tensor<1>, Moments) {
        match gradient {
            RowSparse::Rows(rows) if Values::fit(&weight) => self.apply_to_rows(weight, rows, moments),
            gradient => self.apply_to_all(weight, gradient.into_whole(), moments),
        }
    }

    fn apply_to_all(self, weight: Tensor<1>, gradient: Tensor<1>, moments: Option<Moments>) -> (Tensor<1>, Moments) {
        let (first, second, master) = match moments {
            Some(Moments { first, second, master }) => {
                (first.into_whole(), second.into_whole(), master.map(RowSparse::into_whole))
            }
            None => (gradient.zeros_like(), gradient.zeros_like(), None),
        };
        let stored = weight.dtype();
        let wide = master.unwrap_or_else(|| weight.cast(first.dtype()));
        let [wide, first, second] = self.0.step([wide, first, second], gradient);
        let master = matches!(stored, DType::F16 | DType::BF16).then(|| RowSparse::Whole(wide.clone()));
        (wide.cast(stored), Moments { first: RowSparse::Whole(first), second: RowSparse::Whole(second), master })
    }

    /// The same bits for f32 weights in host memory, of whose table only some rows ever had a gradient: a row without
    /// moments is only decayed.
    fn apply_to_rows(self, weight: Tensor<1>, gradient: TableRows, moments: Option<Moments>) -> (Tensor<1>, Moments) {
        let table = gradient.table();
        let [mut first, mut second] = match moments {
            Some(moments) => [moments.first.into_rows(table), moments.second.into_rows(table)],
            None => [TableRows::new(table), TableRows::new(table)],
        };
        let touched: Vec<usize> = gradient.indices().chain(first.indices()).chain(second.indices()).collect();
        for row in touched {
            first.row_mut(row);
            second.row_mut(row);
        }
        let mut weight = Values::take(weight).expect("the caller asked whether they fit");
        self.pass_over_rows(weight.make_mut(), [&mut first, &mut second], &gradient);
        let moments = Moments { first: RowSparse::Rows(first), second: RowSparse::Rows(second), master: None };
        (weight.into_tensor(), moments)
    }

    /// Steps the rows that have moments, and decays the others.
    fn pass_over_rows(self, weight: &mut [f32], [first, second]: [&mut TableRows; 2], gradient: &TableRows) {
        let [_, width] = gradient.table();
        let mut states = first.iter_mut().zip(second.iter_mut()).peekable();
        let with_state = |(row, weight)| {
            let state = states.next_if(|((touched, _), _)| *touched == row);
            (row, weight, state.map(|((_, first), (_, second))| (first, second)))
        };
        let rows = weight.chunks_exact_mut(width).enumerate().map(with_state);
        let rows: Vec<_> = rows.filter(|(_, _, state)| state.is_some() || self.0.keep != 1.0).collect();
        let zeros = vec![0.0; width];
        rows.into_par_iter().with_min_len(ROWS_AT_ONCE).for_each(|(row, weight, state)| match state {
            Some((first, second)) => {
                let gradient = gradient.get(row).unwrap_or(&zeros);
                self.0.pass([weight, first, second], gradient);
            }
            None => weight.iter_mut().for_each(|weight| *weight *= self.0.keep as f32),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, TensorData};
    use spo_model::device;

    /// Rows and their gradients, of a table of 90 rows of 3: some come again, some never.
    fn gradient(step: u64) -> RowSparse {
        let ids: Vec<i32> = (0..40).map(|i| (i * (step as i32 + 3) + i * i) % 60).collect();
        let mut rows = TableRows::new([90, 3]);
        let values: Vec<f32> = (0..120).map(|i| ((i as f32) * 0.7 + step as f32).sin() * 1e-2).collect();
        rows.add_at(&ids, &values);
        RowSparse::Rows(rows)
    }

    fn update(step: u64, decay: f64) -> Update {
        Update(Step {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            scale: 0.7,
            keep: 1.0 - 1e-3 * decay,
            rate: 1e-3 / (1.0 - 0.9f64.powi(step as i32)),
            correction: (1.0 - 0.999f64.powi(step as i32)).sqrt(),
        })
    }

    fn data(values: Tensor<1>) -> TensorData {
        values.into_data()
    }

    #[test]
    fn rows_are_stepped_as_the_whole_table_is() {
        let start = Tensor::<1>::random([270], Distribution::Normal(0.0, 1.0), &device::cpu());
        for decay in [0.0, 0.1] {
            let (mut of_rows, mut of_all) = ((start.clone(), None), (start.clone(), None));
            for step in 1..=6 {
                let update = update(step, decay);
                let (weight, moments) = update.apply(of_rows.0, gradient(step), of_rows.1);
                let (expected, whole) = update.apply_to_all(of_all.0, gradient(step).into_whole(), of_all.1);
                assert_eq!(data(weight.clone()), data(expected.clone()), "step {step}, decay {decay}");
                let both = [(&moments.first, &whole.first), (&moments.second, &whole.second)];
                for (found, expected) in both {
                    assert!(matches!(found, RowSparse::Rows(_)));
                    assert_eq!(data(found.clone().into_whole()), data(expected.clone().into_whole()));
                }
                // Every second time the moments come from a checkpoint.
                let whole_again = |values: RowSparse| match step % 2 {
                    0 => RowSparse::Whole(values.into_whole()),
                    _ => values,
                };
                let Moments { first, second, master } = moments;
                of_rows = (weight, Some(Moments { first: whole_again(first), second: whole_again(second), master }));
                of_all = (expected, Some(whole));
            }
            let (after, before) = (data(of_rows.0), data(start.clone()));
            let mut untouched = after.iter::<f32>().zip(before.iter::<f32>()).skip(180);
            assert!(untouched.all(|(after, before)| (after == before) == (decay == 0.0)));
        }
    }
}
