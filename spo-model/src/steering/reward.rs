//! NP-BTL: a reward model of the same encoder, `r(y, z) = MLP [g(e(y)); z]`, trained by Bradley–Terry.

use super::{Contexts, Encoder, EncoderShape};
use crate::decoder::Linear;
use crate::encoder::linear;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Gives an embedding a number, for the user whose contexts made z.
#[derive(Module, Debug)]
pub struct NpReward {
    /// From contexts to z.
    pub encoder: Encoder,
    /// On an embedding, `[width, inputs / 2]`.
    pub own: Linear,
    /// On that behind a ReLU, `[width, width]`.
    pub own_deeper: Linear,
    /// On both together, `[width, 2 · width]`.
    pub joint: Linear,
    /// On that behind a ReLU, `[1, width]`: the reward.
    pub reward: Linear,
}

impl NpReward {
    /// A fresh one on an encoder of this shape.
    pub fn new(shape: &EncoderShape, seed: u64, device: &Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut layer = |outputs, inputs| linear(outputs, inputs, &mut rng, device);
        let (width, inputs) = (shape.width, shape.inputs / 2);
        let (own, own_deeper) = (layer(width, inputs), layer(width, width));
        let (joint, reward) = (layer(width, 2 * width), layer(1, width));
        Self { encoder: Encoder::new(shape, seed, device), own, own_deeper, joint, reward }
    }

    /// The reward of each embedding `[rows, inputs / 2]` for the set of contexts that `of` names, `[rows]`.
    pub fn forward(&self, embeddings: Tensor<2>, contexts: &Contexts, of: &[i32]) -> Tensor<1> {
        let device = embeddings.device();
        let of = Tensor::<1, Int>::from_data(TensorData::new(of.to_vec(), [of.len()]), &device);
        let z = self.encoder.forward(contexts).select(0, of);
        let own = self.own_deeper.forward(activation::relu(self.own.forward(embeddings.cast(z.dtype()))));
        let joint = self.joint.forward(Tensor::cat(vec![own, z], 1));
        self.reward.forward(activation::relu(joint)).squeeze_dim(1)
    }
}
