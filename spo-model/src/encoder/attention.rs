//! From a user's labelled pairs to z.

use crate::decoder::Linear;
use crate::parameters::replace;
use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Added to the attention's scores of what is not there.
const ABSENT: f32 = -1e9;

/// Labelled pairs as the encoder takes them, in sets of one user each.
#[derive(Debug, Clone)]
pub struct Contexts {
    /// Chosen beside rejected embedding of each pair, set after set, `[pairs, inputs]`.
    pub pairs: Tensor<2>,
    /// Pairs of each set.
    pub sets: Vec<usize>,
}

impl Contexts {
    /// Sets of pairs, each the numbers of its chosen and its rejected embedding; `inputs` is the length of both together.
    ///
    /// A pair is taken around its own middle and at length 1 per number: what all embeddings have in common is many times
    /// what tells two answers apart, and drives every unit behind it to 0 within a few steps.
    ///
    /// # Panics
    /// A pair has another length.
    pub fn new(sets: &[Vec<[&[f32]; 2]>], inputs: usize, device: &Device) -> Self {
        let values: Vec<f32> = sets.iter().flatten().flat_map(|pair| centred(*pair)).collect();
        let lengths: Vec<usize> = sets.iter().map(Vec::len).collect();
        let shape = [lengths.iter().sum(), inputs];
        Self { pairs: Tensor::from_data(TensorData::new(values, shape), device), sets: lengths }
    }

    /// Where each place of the sets, padded to the longest, is in `pairs`; and 1 where there is a pair, else 0.
    fn places(&self, longest: usize) -> (Vec<i32>, Vec<f32>) {
        let (mut places, mut there, mut first) = (vec![], vec![], 0);
        for &length in &self.sets {
            places.extend((0..longest).map(|place| if place < length { (first + place) as i32 } else { 0 }));
            there.extend((0..longest).map(|place| if place < length { 1.0f32 } else { 0.0 }));
            first += length;
        }
        (places, there)
    }
}

/// Chosen and rejected embedding around their middle, of a root mean square of 1.
fn centred([chosen, rejected]: [&[f32]; 2]) -> Vec<f32> {
    let half: Vec<f32> = chosen.iter().zip(rejected).map(|(chosen, rejected)| (chosen - rejected) / 2.0).collect();
    let square = half.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / half.len() as f64;
    let scale = (square + 1e-12).sqrt().recip() as f32;
    let part = |sign: f32| half.iter().map(move |value| sign * value * scale);
    part(1.0).chain(part(-1.0)).collect()
}

/// Shape of an [`Encoder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderShape {
    /// Numbers of a pair.
    pub inputs: usize,
    /// Numbers of z.
    pub width: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Whether a pair goes through two layers with a ReLU between them, and not one.
    pub deep: bool,
}

/// Attention over a user's pairs, their sum, and two layers on it.
#[derive(Module, Debug)]
pub struct Encoder {
    /// On a pair, `[width, inputs]`.
    pub pair: Linear,
    /// On that, where a pair goes through two layers, `[width, width]`.
    pub deeper: Option<Linear>,
    /// The attention's projections, `[width, width]` each.
    pub query: Linear,
    /// See [`query`](Self::query).
    pub key: Linear,
    /// See [`query`](Self::query).
    pub value: Linear,
    /// See [`query`](Self::query).
    pub output: Linear,
    /// On the sum, `[width, width]`.
    pub hidden: Linear,
    /// On that behind a ReLU, `[width, width]`: z.
    pub last: Linear,
    #[module(skip)]
    heads: usize,
}

impl Encoder {
    /// A fresh one, f32, with values as PyTorch's `Linear` and `MultiheadAttention` draw them.
    ///
    /// # Panics
    /// The heads do not divide the width.
    pub fn new(shape: &EncoderShape, seed: u64, device: &Device) -> Self {
        let EncoderShape { inputs, width, heads, deep } = *shape;
        assert!(heads > 0 && width.is_multiple_of(heads), "{heads} heads do not divide a width of {width}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let pair = linear(width, inputs, &mut rng, device);
        let deeper = deep.then(|| linear(width, width, &mut rng, device));
        // Xavier's bound for the three projections as one matrix, biases at 0.
        let [query, key, value] =
            std::array::from_fn(|_| bounded(width, width, (6.0 / (4 * width) as f32).sqrt(), 0.0, &mut rng, device));
        let output = bounded(width, width, (width as f32).sqrt().recip(), 0.0, &mut rng, device);
        let [hidden, last] = std::array::from_fn(|_| linear(width, width, &mut rng, device));
        Self { pair, deeper, query, key, value, output, hidden, last, heads }
    }

    /// With its numbers in this type.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        replace(self, "", |parameter| parameter.value.cast(dtype))
    }

    /// Numbers of z.
    pub fn width(&self) -> usize {
        self.last.dims()[0]
    }

    /// Numbers of a pair.
    pub fn inputs(&self) -> usize {
        self.pair.dims()[1]
    }

    /// One set without a pair.
    pub fn no_contexts(&self) -> Contexts {
        let weight = self.last.dense();
        Contexts { pairs: Tensor::zeros([0, self.inputs()], (&weight.device().inner(), weight.dtype())), sets: vec![0] }
    }

    /// z of each set, `[sets, width]`.
    pub fn forward(&self, contexts: &Contexts) -> Tensor<2> {
        let longest = contexts.sets.iter().copied().max().unwrap_or(0);
        let (sets, width, weight) = (contexts.sets.len(), self.width(), self.last.dense());
        let summed = match longest {
            0 => Tensor::zeros([sets, width], (&weight.device(), weight.dtype())),
            _ => self.attend(contexts, longest),
        };
        self.last.forward(activation::relu(self.hidden.forward(summed)))
    }

    /// The sum over each set's pairs of what attention makes of them, `[sets, width]`.
    fn attend(&self, contexts: &Contexts, longest: usize) -> Tensor<2> {
        let (sets, width, heads) = (contexts.sets.len(), self.width(), self.heads);
        let (device, dtype) = (contexts.pairs.device(), self.last.dense().dtype());
        let (places, there) = contexts.places(longest);
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [sets * longest]), &device);
        let there = Tensor::<2>::from_data(TensorData::new(there, [sets, longest]), &device).cast(dtype);

        let mut c = self.pair.forward(contexts.pairs.clone().cast(dtype));
        if let Some(deeper) = &self.deeper {
            c = deeper.forward(activation::relu(c));
        }
        let c = c.select(0, places);
        let split = |linear: &Linear| -> Tensor<4> {
            linear.forward(c.clone()).reshape([sets, longest, heads, width / heads]).swap_dims(1, 2)
        };
        let [q, k, v] = [&self.query, &self.key, &self.value].map(split);
        let scores = q.matmul(k.swap_dims(2, 3)) * ((width / heads) as f64).sqrt().recip();
        let absent = (there.clone() * -1.0 + 1.0) * ABSENT;
        let scores = scores + absent.reshape([sets, 1, 1, longest]);
        let attended = activation::softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([sets * longest, width]);
        let attended: Tensor<3> = self.output.forward(attended).reshape([sets, longest, width]);
        (attended * there.unsqueeze_dim::<3>(2)).sum_dim(1).squeeze_dim(1)
    }
}

/// A layer with weights and biases from U(−1/√in, 1/√in).
pub(crate) fn linear(outputs: usize, inputs: usize, rng: &mut ChaCha8Rng, device: &Device) -> Linear {
    let bound = (inputs as f32).sqrt().recip();
    bounded(outputs, inputs, bound, bound, rng, device)
}

fn bounded(outputs: usize, inputs: usize, weight: f32, bias: f32, rng: &mut ChaCha8Rng, device: &Device) -> Linear {
    let mut draw = |count: usize, bound: f32| -> Vec<f32> {
        (0..count).map(|_| if bound > 0.0 { rng.random_range(-bound..bound) } else { 0.0 }).collect()
    };
    let weight = TensorData::new(draw(outputs * inputs, weight), [outputs, inputs]);
    let bias = TensorData::new(draw(outputs, bias), [outputs]);
    Linear::new(Tensor::from_data(weight, device), Some(Tensor::from_data(bias, device)))
}
