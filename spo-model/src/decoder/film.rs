//! What z does to a block's output.

use super::linear::Linear;
use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};

/// `h ← γ(z) ⊙ h + b(z)`, both linear in z (FiLM, arXiv 1709.07871).
#[derive(Module, Debug)]
pub struct Film {
    /// γ, `[hidden, width]`, with its bias.
    pub gain: Linear,
    /// b, `[hidden, width]`, with its bias.
    pub shift: Linear,
    /// `[sets, width]`
    pub z: Tensor<2>,
    /// Which z each token goes by, `[tokens]`; `None`: all by the first.
    pub rows: Option<Tensor<1, Int>>,
}

impl Film {
    /// One that changes nothing, whatever z.
    pub fn identity(width: usize, hidden: usize, device: &Device, dtype: DType) -> Self {
        let weight = || Tensor::zeros([hidden, width], (device, dtype));
        let gain = Linear::new(weight(), Some(Tensor::ones([hidden], (device, dtype))));
        let shift = Linear::new(weight(), Some(Tensor::zeros([hidden], (device, dtype))));
        Self { gain, shift, z: Tensor::zeros([1, width], (device, dtype)), rows: None }
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, h: Tensor<2>) -> Tensor<2> {
        let [gain, shift] = self.factors().map(|factor| {
            let factor = factor.cast(h.dtype());
            match &self.rows {
                Some(rows) => factor.select(0, rows.clone()),
                None => factor,
            }
        });
        h * gain + shift
    }

    /// γ and b of each set, `[sets, hidden]`.
    pub fn factors(&self) -> [Tensor<2>; 2] {
        [&self.gain, &self.shift].map(|linear| linear.forward(self.z.clone()))
    }

    /// For these of the tokens alone.
    #[must_use]
    pub fn of_rows(&self, rows: &Tensor<1, Int>) -> Self {
        Self { rows: self.rows.clone().map(|all| all.select(0, rows.clone())), ..self.clone() }
    }
}
