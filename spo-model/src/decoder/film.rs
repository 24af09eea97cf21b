//! What z does to a block's output, and whose z each token goes by.

use super::linear::Linear;
use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// The z of several users, and which of them each token of a batch goes by.
#[derive(Module, Debug)]
pub struct TokenZ {
    /// `[sets, width]`
    pub z: Tensor<2>,
    /// The set of each token, `[tokens]`; `None`: all go by the first.
    pub rows: Option<Tensor<1, Int>>,
}

impl TokenZ {
    /// One z of zeros for all tokens.
    pub fn zero(width: usize, device: &Device, dtype: DType) -> Self {
        Self { z: Tensor::zeros([1, width], (device, dtype)), rows: None }
    }

    /// Numbers of each set, `[sets, n]`, as those of each token, `[tokens, n]`; `[1, n]` where there is one set for all.
    pub fn of_tokens(&self, of_sets: Tensor<2>) -> Tensor<2> {
        match &self.rows {
            Some(rows) => of_sets.select(0, rows.clone()),
            None => of_sets,
        }
    }

    /// For these of the tokens alone.
    #[must_use]
    pub fn of_rows(&self, rows: &Tensor<1, Int>) -> Self {
        Self { rows: self.rows.clone().map(|all| all.select(0, rows.clone())), ..self.clone() }
    }

    /// As [`of_rows`](Self::of_rows), for tokens that are known on the host.
    #[must_use]
    pub fn on_rows(&self, tokens: &[usize]) -> Self {
        let Some(all) = &self.rows else { return self.clone() };
        let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
        let shape = [tokens.len()];
        self.of_rows(&Tensor::from_data(TensorData::new(tokens, shape), &all.device()))
    }
}

/// `h ← γ(z) ⊙ h + b(z)`, both linear in z (FiLM, arXiv 1709.07871).
#[derive(Module, Debug)]
pub struct Film {
    /// γ, `[hidden, width]`, with its bias.
    pub gain: Linear,
    /// b, `[hidden, width]`, with its bias.
    pub shift: Linear,
    /// What it goes by.
    pub by: TokenZ,
}

impl Film {
    /// One that changes nothing, whatever z.
    pub fn identity(width: usize, hidden: usize, device: &Device, dtype: DType) -> Self {
        let weight = || Tensor::zeros([hidden, width], (device, dtype));
        let gain = Linear::new(weight(), Some(Tensor::ones([hidden], (device, dtype))));
        let shift = Linear::new(weight(), Some(Tensor::zeros([hidden], (device, dtype))));
        Self { gain, shift, by: TokenZ::zero(width, device, dtype) }
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, h: Tensor<2>) -> Tensor<2> {
        let [gain, shift] = self.factors().map(|factor| self.by.of_tokens(factor.cast(h.dtype())));
        h * gain + shift
    }

    /// γ and b of each set, `[sets, hidden]`.
    pub fn factors(&self) -> [Tensor<2>; 2] {
        [&self.gain, &self.shift].map(|linear| linear.forward(self.by.z.clone()))
    }
}
