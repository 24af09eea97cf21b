//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in one pass over weights and moments.

use super::Buffer;
use super::buffer::expect;
use super::launch::{UNITS, grid, lanes};
use cubecl::prelude::*;

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor on the weight: 1 − learning rate · decay.
    pub keep: f64,
    /// Learning rate with the first moment's bias correction.
    pub rate: f64,
    /// √ of the second moment's bias correction.
    pub correction: f64,
}

/// What of a parameter lies on the device, each f32 and of one length.
#[derive(Debug, Clone)]
pub struct State {
    /// Weights before rounding.
    pub weight: Buffer,
    /// First moments.
    pub first: Buffer,
    /// Second moments.
    pub second: Buffer,
}

/// [`Step`] in f32, as kernels use it.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    inverse: f32,
    epsilon: f32,
    keep: f32,
    rate: f32,
}

impl Step {
    fn factors(self) -> FactorsLaunch {
        let [beta1, rest1, beta2, rest2] =
            [self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2].map(|x| x as f32);
        let [inverse, epsilon, keep, rate] =
            [1.0 / self.correction, self.epsilon, self.keep, self.rate].map(|x| x as f32);
        FactorsLaunch::new(beta1, rest1, beta2, rest2, inverse, epsilon, keep, rate)
    }
}

/// Steps vector `at` and returns its weights.
#[cube]
fn step_vector<N: Size>(
    weight: &mut [Vector<f32, N>],
    first: &mut [Vector<f32, N>],
    second: &mut [Vector<f32, N>],
    gradient: Vector<f32, N>,
    factors: &Factors,
    at: usize,
) -> Vector<f32, N> {
    let m = first[at] * Vector::new(factors.beta1) + gradient * Vector::new(factors.rest1);
    let v = second[at] * Vector::new(factors.beta2) + gradient * gradient * Vector::new(factors.rest2);
    let denominator = v.sqrt() * Vector::new(factors.inverse) + Vector::new(factors.epsilon);
    let w = weight[at] * Vector::new(factors.keep) - m / denominator * Vector::new(factors.rate);
    first[at] = m;
    second[at] = v;
    weight[at] = w;
    w
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn adamw<N: Size>(
    weight: &mut [Vector<f32, N>],
    first: &mut [Vector<f32, N>],
    second: &mut [Vector<f32, N>],
    gradient: &[Vector<f32, N>],
    scale: &[f32],
    factors: &Factors,
) {
    let at = ABSOLUTE_POS as usize;
    if at < weight.len() {
        step_vector::<N>(weight, first, second, gradient[at] * Vector::new(scale[0]), factors, at);
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn adamw_and_store<E: Float, N: Size>(
    weight: &mut [Vector<f32, N>],
    first: &mut [Vector<f32, N>],
    second: &mut [Vector<f32, N>],
    gradient: &[Vector<f32, N>],
    scale: &[f32],
    stored: &mut [Vector<E, N>],
    factors: &Factors,
) {
    let at = ABSOLUTE_POS as usize;
    if at < weight.len() {
        let gradient = gradient[at] * Vector::new(scale[0]);
        stored[at] = Vector::cast_from(step_vector::<N>(weight, first, second, gradient, factors, at));
    }
}

impl State {
    fn layout(&self, gradient: &Buffer, scale: &Buffer) -> (usize, CubeCount) {
        let len = self.weight.len;
        expect([(&self.first, "first"), (&self.second, "second"), (gradient, "gradient")], len);
        scale.expect("scale", 1);
        let lanes = lanes(len);
        (lanes, grid((len / lanes).div_ceil(UNITS)))
    }
}

/// Steps weights and moments in place. `gradient` is f32; `scale` `[1]`, f32, multiplies it first: the clip factor,
/// which so need not be read by the host.
pub fn step(client: &Client, step: Step, state: State, gradient: Buffer, scale: Buffer) {
    let (lanes, count) = state.layout(&gradient, &scale);
    let State { weight, first, second } = state;
    let [weight, first, second, gradient] = [weight, first, second, gradient].map(|buffer| buffer.argument(lanes));
    let (scale, factors) = (scale.argument(1), step.factors());
    launch!(client, adamw[count, UNITS](lanes, weight, first, second, gradient, scale, factors));
}

/// [`step`] that also writes the weights, rounded, to `stored`.
pub fn step_and_store<E: Float>(
    client: &Client,
    step: Step,
    state: State,
    gradient: Buffer,
    scale: Buffer,
    stored: Buffer,
) {
    stored.expect("stored", state.weight.len);
    let (lanes, count) = state.layout(&gradient, &scale);
    let State { weight, first, second } = state;
    let [weight, first, second, gradient, stored] =
        [weight, first, second, gradient, stored].map(|buffer| buffer.argument(lanes));
    let (scale, factors) = (scale.argument(1), step.factors());
    launch!(client, adamw_and_store::<E>[count, UNITS](lanes, weight, first, second, gradient, scale, stored, factors));
}
