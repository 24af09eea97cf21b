//! RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467) and layer norm (Ba et al. 2016, arXiv 1607.06450) over rows, also
//! of a sum with a residual.

use super::buffer::expect;
use super::launch::{UNITS, grid, lanes, units};
use super::sums::sum_columns;
use super::{Buffer, cube};
use cubecl::prelude::*;

/// What a norm computes of `x̂ = (x − mean) / √(variance + ε)`, where an RMS norm takes the mean for zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `round(x̂) · w`: an RMS norm that rounds to the type of storage before it multiplies.
    Rms,
    /// `x̂ · (w + offset)`: an RMS norm that multiplies before it rounds, with offset 1 Gemma's.
    RmsOffset,
    /// `x̂ · w + b`, with means.
    Layer,
}

/// A norm and its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// What it computes.
    pub kind: Kind,
    /// ε
    pub epsilon: f32,
    /// What [`Kind::RmsOffset`] adds to the weight.
    pub offset: f32,
}

/// Weights of a norm, each `[width]`.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Factors.
    pub weight: Buffer,
    /// Summands, of layer norms.
    pub bias: Option<Buffer>,
}

/// Rows that one cube adds up for the gradient of the weight.
const CHUNK: usize = 64;
/// Columns that it takes at a time, each with `UNITS / COLUMNS` units.
const COLUMNS: usize = 32;

/// The weight as a factor of `x̂`.
#[cube]
fn factor<N: Size>(weight: Vector<f32, N>, offset: f32, #[comptime] kind: Kind) -> Vector<f32, N> {
    if comptime!(kind == Kind::RmsOffset) { weight + Vector::new(offset) } else { weight }
}

/// Mean and `1 / √(variance + ε)` of the row of `width` vectors at `start`, for all units of its cube.
#[cube]
fn statistics_of<E: Float, N: Size>(
    x: &[Vector<E, N>],
    start: usize,
    width: usize,
    epsilon: f32,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) -> (f32, f32) {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let channels = f32::cast_from((width * N::value()) as u32);
    let mut mean = 0.0f32;
    if comptime!(kind == Kind::Layer) {
        let mut total = Vector::<f32, N>::new(0.0f32);
        let mut column = UNIT_POS as usize;
        while column < width {
            total += Vector::cast_from(x[start + column]);
            column += units;
        }
        mean = cube::sum(total.vector_sum(), &mut shared, units) / channels;
    }
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut column = UNIT_POS as usize;
    while column < width {
        let centred = Vector::<f32, N>::cast_from(x[start + column]) - Vector::new(mean);
        squares += centred * centred;
        column += units;
    }
    let variance = cube::sum(squares.vector_sum(), &mut shared, units) / channels;
    (mean, 1.0f32 / f32::sqrt(variance + epsilon))
}

/// Writes the norm of the row at `start`, and its statistics.
#[cube]
fn norm_row<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    statistics: &mut [f32],
    row: usize,
    width: usize,
    epsilon: f32,
    offset: f32,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) {
    let start = row * width;
    let (mean, scale) = statistics_of::<E, N>(x, start, width, epsilon, kind, units);
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut unit = (Vector::<f32, N>::cast_from(x[start + column]) - Vector::new(mean)) * Vector::new(scale);
        if comptime!(kind == Kind::Rms) {
            unit = Vector::cast_from(Vector::<E, N>::cast_from(unit));
        }
        let mut out = unit * factor(Vector::cast_from(weight[column]), offset, kind);
        if comptime!(kind == Kind::Layer) {
            out += Vector::cast_from(bias[column]);
        }
        y[start + column] = Vector::cast_from(out);
        column += units;
    }
    if UNIT_POS == 0 {
        statistics[row * 2] = mean;
        statistics[row * 2 + 1] = scale;
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn row_statistics<E: Float, N: Size>(
    x: &[Vector<E, N>],
    statistics: &mut [f32],
    rows: usize,
    width: usize,
    epsilon: f32,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        let (mean, scale) = statistics_of::<E, N>(x, row * width, width, epsilon, kind, units);
        if UNIT_POS == 0 {
            statistics[row * 2] = mean;
            statistics[row * 2 + 1] = scale;
        }
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn norm_rows<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    statistics: &mut [f32],
    rows: usize,
    width: usize,
    epsilon: f32,
    offset: f32,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        norm_row::<E, N>(x, weight, bias, y, statistics, row, width, epsilon, offset, kind, units);
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn norm_of_sum<E: Float, N: Size>(
    x: &mut [Vector<E, N>],
    residual: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    statistics: &mut [f32],
    rows: usize,
    width: usize,
    epsilon: f32,
    offset: f32,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        // A unit reads again only what it wrote itself.
        let mut column = UNIT_POS as usize;
        while column < width {
            let at = row * width + column;
            let sum = Vector::<f32, N>::cast_from(x[at]) + Vector::<f32, N>::cast_from(residual[at]);
            x[at] = Vector::cast_from(sum);
            column += units;
        }
        norm_row::<E, N>(&*x, weight, bias, y, statistics, row, width, epsilon, offset, kind, units);
    }
}

/// With `g = d_y · factor`: `d_x = s (g − mean(g) − x̂ mean(g x̂))`, without `mean(g)` for an RMS norm.
#[cube(launch_unchecked, create_dummy_kernel)]
fn norm_backward<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    d_y: &[Vector<E, N>],
    statistics: &[f32],
    d_x: &mut [Vector<E, N>],
    rows: usize,
    width: usize,
    offset: f32,
    #[comptime] add: bool,
    #[comptime] kind: Kind,
    #[comptime] units: usize,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        let start = row * width;
        let (mean, scale) = (statistics[row * 2], statistics[row * 2 + 1]);
        let mut products = Vector::<f32, N>::new(0.0f32);
        let mut total = Vector::<f32, N>::new(0.0f32);
        let mut column = UNIT_POS as usize;
        while column < width {
            let g = Vector::<f32, N>::cast_from(d_y[start + column])
                * factor(Vector::cast_from(weight[column]), offset, kind);
            products += g * (Vector::<f32, N>::cast_from(x[start + column]) - Vector::new(mean));
            total += g;
            column += units;
        }
        let mut shared = Shared::<[f32]>::new_slice(units);
        let channels = f32::cast_from((width * N::value()) as u32);
        let along = cube::sum(products.vector_sum(), &mut shared, units) * scale / channels;
        let mut level = 0.0f32;
        if comptime!(kind == Kind::Layer) {
            level = cube::sum(total.vector_sum(), &mut shared, units) / channels;
        }
        let mut column = UNIT_POS as usize;
        while column < width {
            let at = start + column;
            let g = Vector::<f32, N>::cast_from(d_y[at]) * factor(Vector::cast_from(weight[column]), offset, kind);
            let unit = (Vector::<f32, N>::cast_from(x[at]) - Vector::new(mean)) * Vector::new(scale);
            let mut out = (g - Vector::new(level) - unit * Vector::new(along)) * Vector::new(scale);
            if comptime!(add) {
                out += Vector::cast_from(d_x[at]);
            }
            d_x[at] = Vector::cast_from(out);
            column += units;
        }
    }
}

/// Sums of `d_y x̂` (and of `d_y`, where `bias`) over the rows of a chunk, for some columns: `[chunks, width]` each.
#[cube(launch_unchecked, create_dummy_kernel)]
fn weight_gradient<E: Float>(
    x: &[E],
    d_y: &[E],
    statistics: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] bias: bool,
) {
    let lines = comptime!(UNITS / COLUMNS);
    let (line, within) = (UNIT_POS as usize / COLUMNS, UNIT_POS as usize % COLUMNS);
    let (column, chunk) = (CUBE_POS_X as usize * COLUMNS + within, CUBE_POS_Y as usize);
    let mut of_weight = 0.0f32;
    let mut of_bias = 0.0f32;
    if column < width {
        for step in 0..comptime!(CHUNK / lines) {
            let row = chunk * CHUNK + step * lines + line;
            if row < rows {
                let d = f32::cast_from(d_y[row * width + column]);
                let (mean, scale) = (statistics[row * 2], statistics[row * 2 + 1]);
                of_weight += d * (f32::cast_from(x[row * width + column]) - mean) * scale;
                of_bias += d;
            }
        }
    }
    let mut weights = Shared::<[f32]>::new_slice(UNITS);
    let mut biases = Shared::<[f32]>::new_slice(UNITS);
    weights[UNIT_POS as usize] = of_weight;
    biases[UNIT_POS as usize] = of_bias;
    sync_cube();
    if line == 0 && column < width {
        for other in 1..lines {
            of_weight += weights[other * COLUMNS + within];
            of_bias += biases[other * COLUMNS + within];
        }
        d_weight[chunk * width + column] = of_weight;
        if comptime!(bias) {
            d_bias[chunk * width + column] = of_bias;
        }
    }
}

/// How kernels see rows of `width` values: vectors of so many, units of a cube, and cubes.
fn layout(rows: usize, width: usize) -> (usize, usize, CubeCount) {
    let lanes = lanes(width);
    (lanes, units(width / lanes), grid(rows))
}

impl Weights {
    /// The weight, and the summands; an RMS norm has none, and its kernel reads none.
    fn buffers(self, kind: Kind, width: usize) -> [Buffer; 2] {
        self.weight.expect("weight", width);
        let bias = match (kind, self.bias) {
            (_, Some(bias)) => bias,
            (Kind::Layer, None) => panic!("a layer norm has a bias"),
            (_, None) => self.weight.clone(),
        };
        bias.expect("bias", width);
        [self.weight, bias]
    }
}

/// Mean and `1 / √(variance + ε)` of the rows of `x` `[rows, width]`, to `statistics` `[rows, 2]`, f32.
pub fn statistics<E: Float>(client: &Client, norm: Norm, width: usize, x: Buffer, statistics: Buffer) {
    let (rows, Norm { kind, epsilon, .. }) = (statistics.len / 2, norm);
    x.expect("x", rows * width);
    let (lanes, units, count) = layout(rows, width);
    let (x, statistics, width) = (x.argument(lanes), statistics.argument(1), width / lanes);
    launch!(client, row_statistics::<E>[count, units](lanes, x, statistics, rows, width, epsilon, kind, units));
}

/// `y = norm(x)`, both `[rows, width]`; `statistics` as [`statistics`](fn@statistics) has them.
///
/// # Panics
/// If a layer norm has no bias.
pub fn forward<E: Float>(
    client: &Client,
    norm: Norm,
    width: usize,
    x: Buffer,
    weights: Weights,
    y: Buffer,
    statistics: Buffer,
) {
    let (rows, Norm { kind, epsilon, offset }) = (statistics.len / 2, norm);
    expect([(&x, "x"), (&y, "y")], rows * width);
    let (lanes, units, count) = layout(rows, width);
    let [weight, bias] = weights.buffers(kind, width).map(|buffer| buffer.argument(lanes));
    let [x, y] = [x, y].map(|buffer| buffer.argument(lanes));
    let (statistics, width) = (statistics.argument(1), width / lanes);
    launch!(client, norm_rows::<E>[count, units](
        lanes, x, weight, bias, y, statistics, rows, width, epsilon, offset, kind, units
    ));
}

/// `x ← x + residual`, `y = norm(x)`; otherwise as [`forward`].
///
/// # Panics
/// If a layer norm has no bias.
#[allow(clippy::too_many_arguments)]
pub fn forward_of_sum<E: Float>(
    client: &Client,
    norm: Norm,
    width: usize,
    x: Buffer,
    residual: Buffer,
    weights: Weights,
    y: Buffer,
    statistics: Buffer,
) {
    let (rows, Norm { kind, epsilon, offset }) = (statistics.len / 2, norm);
    expect([(&x, "x"), (&residual, "residual"), (&y, "y")], rows * width);
    let (lanes, units, count) = layout(rows, width);
    let [weight, bias] = weights.buffers(kind, width).map(|buffer| buffer.argument(lanes));
    let [x, residual, y] = [x, residual, y].map(|buffer| buffer.argument(lanes));
    let (statistics, width) = (statistics.argument(1), width / lanes);
    launch!(client, norm_of_sum::<E>[count, units](
        lanes, x, residual, weight, bias, y, statistics, rows, width, epsilon, offset, kind, units
    ));
}

/// Where [`backward`] puts the gradient of the input.
#[derive(Debug, Clone)]
pub enum InputGradient {
    /// Overwrites.
    Store(Buffer),
    /// Adds to the gradient that is there: that of the residual stream.
    Add(Buffer),
}

/// The gradient of the input of a norm for a gradient `d_y` of its output, all `[rows, width]`; `statistics` those of `x`.
#[allow(clippy::too_many_arguments)]
pub fn backward<E: Float>(
    client: &Client,
    norm: Norm,
    width: usize,
    x: Buffer,
    weight: Buffer,
    d_y: Buffer,
    statistics: Buffer,
    d_x: InputGradient,
) {
    let (d_x, add) = match d_x {
        InputGradient::Store(d_x) => (d_x, false),
        InputGradient::Add(d_x) => (d_x, true),
    };
    let (rows, Norm { kind, offset, .. }) = (statistics.len / 2, norm);
    expect([(&x, "x"), (&d_y, "d_y"), (&d_x, "d_x")], rows * width);
    weight.expect("weight", width);
    let (lanes, units, count) = layout(rows, width);
    let [x, weight, d_y, d_x] = [x, weight, d_y, d_x].map(|buffer| buffer.argument(lanes));
    let (statistics, width) = (statistics.argument(1), width / lanes);
    launch!(client, norm_backward::<E>[count, units](
        lanes, x, weight, d_y, statistics, d_x, rows, width, offset, add, kind, units
    ));
}

/// The gradient of the weight, in f32 `[width]`, and that of the bias where one is given; other shapes as [`backward`].
pub fn backward_of_weights<E: Float>(
    client: &Client,
    width: usize,
    x: Buffer,
    d_y: Buffer,
    statistics: Buffer,
    d_weight: Buffer,
    d_bias: Option<Buffer>,
) {
    let rows = statistics.len / 2;
    expect([(&x, "x"), (&d_y, "d_y")], rows * width);
    let parts = [(); 2].map(|()| Buffer::empty::<f32>(client, rows.div_ceil(CHUNK) * width));
    weight_gradients::<E>(client, [rows, width], [x, d_y, statistics], parts.each_ref(), d_bias.is_some());
    let [of_weight, of_bias] = parts;
    sum_columns(client, width, of_weight, d_weight);
    if let Some(d_bias) = d_bias {
        sum_columns(client, width, of_bias, d_bias);
    }
}

fn weight_gradients<E: Float>(
    client: &Client,
    [rows, width]: [usize; 2],
    inputs: [Buffer; 3],
    parts: [&Buffer; 2],
    bias: bool,
) {
    let count = CubeCount::Static(width.div_ceil(COLUMNS) as u32, rows.div_ceil(CHUNK) as u32, 1);
    let [x, d_y, statistics] = inputs.map(|buffer| buffer.argument(1));
    let [d_weight, d_bias] = parts.map(|buffer| buffer.clone().argument(1));
    launch!(client, weight_gradient::<E>[count, UNITS](x, d_y, statistics, d_weight, d_bias, rows, width, bias));
}
